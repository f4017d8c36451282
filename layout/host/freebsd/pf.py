"""What pf(4) has in a jail's anchor; pfctl(8)."""

from __future__ import annotations

import re
import socket

from layout.host.run import CommandError, run

_PORT = re.compile(r"port (?:= )?([A-Za-z0-9-]+)")


def translations(anchor: str) -> list[str] | None:
    """Return the nat and rdr rules of an anchor as pf.conf(5) would say them; None without pf or anchor.

    Raises LayoutError when there is no pfctl.
    """
    try:
        text = run("pfctl", "-a", anchor, "-s", "nat").stdout
    except CommandError:
        return None
    return [_plain(line) for line in text.splitlines() if line.startswith(("nat ", "rdr "))]


def attached(kind: str, pattern: str) -> bool:
    """Say whether the main ruleset has an anchor of this kind, such as rdr-anchor. Raises LayoutError."""
    try:
        text = run("pfctl", "-s", "rules" if kind == "anchor" else "nat").stdout
    except CommandError:
        return False
    return any(line.startswith(f'{kind} "{pattern}"') for line in text.splitlines())


def is_enabled() -> bool:
    """Say whether pf(4) filters at all. Raises LayoutError."""
    try:
        text = run("pfctl", "-s", "info").stdout
    except CommandError:
        return False
    return text.startswith("Status: Enabled")


def flush(anchor: str) -> None:
    """Take all rules out of an anchor. Raises LayoutError."""
    run("pfctl", "-q", "-a", anchor, "-F", "all")


def _plain(line: str) -> str:
    """Ports as numbers, and without words that pfctl adds to say what is so anyway."""
    return _PORT.sub(_number, line).removesuffix(" round-robin")


def _number(found: re.Match[str]) -> str:
    word = found[1]
    if not word.isdigit():
        try:
            word = str(socket.getservbyname(word))
        except OSError:
            return found[0]
    return f"port {word}"
