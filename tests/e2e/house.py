"""What the tests of real daemons share: the three jails, and how the box stands around them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("ldap", "bind", "heimdal")
ADDRESSES = {"ldap": "127.0.3.89", "bind": "127.0.3.53", "heimdal": "127.0.3.88"}
DAEMONS = ("slapd", "named", "kdc", "bwrap", "systemd-nspawn")


@dataclass(frozen=True, slots=True)
class Jails:
    """ROOT with the three jails, and layout as an administrator runs it."""

    root: Path
    cli: Callable[..., Any]

    def run(self, *words: object, **more: Any) -> Any:
        return self.cli("--root", self.root, *map(str, words), **more)

    def ok(self, *words: object, **more: Any) -> str:
        """Run layout, which must succeed; return what it said on stdout."""
        done = self.run(*words, **more)
        assert done.code == 0, f"layout {' '.join(map(str, words))}: {done.code}\n{done.err}\n{done.out}"
        return done.out

    def json(self, *words: object) -> Any:
        return json.loads(self.ok("--json", *words))

    def verified(self) -> None:
        """Everything is as planned, with nothing to warn of."""
        report = self.json("verify")
        assert report["counts"]["errors"] == 0, report
        assert set(report["jails"]) == set(NAMES)

    def mounts(self) -> list[str]:
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        return sorted(
            path
            for path in (line.split()[4] for line in table)
            if path == str(self.root) or path.startswith(f"{self.root}/")
        )


def processes(*names: str) -> list[str]:
    """Return what runs in the box under one of these names."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "comm").read_text().strip()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if name in names and state != "Z":
                found.append(f"{name} {entry.name}")
    return found


def addresses() -> set[str]:
    """Return the IPv4 addresses of the loopback interface."""
    out = subprocess.run(
        ["ip", "-4", "-o", "addr", "show", "dev", "lo"], capture_output=True, text=True, check=True
    ).stdout
    return {line.split()[3].partition("/")[0] for line in out.splitlines()}
