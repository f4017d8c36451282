"""A jail's table of nft(8): applied in one step, read back, removed."""

from __future__ import annotations

import json

from layout.core.errors import LayoutError
from layout.core.nftables import FAMILY, Listed, parse
from layout.host import run

_PACKAGE = "nftables"
_FORWARD = {4: "/proc/sys/net/ipv4/ip_forward", 6: "/proc/sys/net/ipv6/conf/all/forwarding"}


def tables() -> set[str]:
    """Return the names of the tables of this family. Raises LayoutError."""
    run.require("nft", _PACKAGE)
    text = run.run("nft", "-j", "list", "tables").stdout
    found = json.loads(text)["nftables"]
    return {one["table"]["name"] for one in found if one.get("table", {}).get("family") == FAMILY}


def listed(name: str) -> Listed | None:
    """Return a table as the kernel has it, None when it has none. Raises LayoutError."""
    if name not in tables():
        return None
    return parse(run.run("nft", "-j", "list", "table", FAMILY, name).stdout, name)


def check(text: str) -> None:
    """Let nft look at a text, and change nothing. Raises LayoutError."""
    run.require("nft", _PACKAGE)
    run.run("nft", "-c", "-f", "-", input=text)


def apply(text: str) -> None:
    """Give the kernel a table; all of it or nothing. Raises LayoutError."""
    run.run("nft", "-f", "-", input=text)


def remove(name: str) -> None:
    """Remove a table; none is no error. Raises LayoutError."""
    if name in tables():
        run.run("nft", "delete", "table", FAMILY, name)
        if name in tables():
            raise LayoutError(f"{FAMILY} {name}", "still there", "no such table")


def forwards(version: int) -> bool:
    """Say whether the host passes on what is for others; without IPv6 it does not. Raises OSError."""
    try:
        with open(_FORWARD[version], encoding="ascii") as file:
            return file.read().strip() == "1"
    except FileNotFoundError:
        return False
