"""Addresses of a jail: added to an interface of the host at start, removed at stop; ip-address(8)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Sequence

from layout.core.errors import LayoutError
from layout.host import run

_PACKAGE = "iproute2"


def missing(interface: str, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return those of the addresses that the interface does not have yet, as 'INTERFACE ADDRESS/PREFIX'.

    Raises LayoutError when there is no such interface.
    """
    parsed = [ipaddress.ip_interface(word) for word in wanted]
    if not interface or not parsed:
        return ()
    have = _have(interface)
    return tuple(f"{interface} {one}" for one in parsed if one.ip not in have)


def _have(interface: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    run.require("ip", _PACKAGE)
    done = run.run("ip", "-json", "address", "show", ok=(0, 1))
    for link in json.loads(done.stdout or "[]"):
        if link.get("ifname") == interface:
            return {ipaddress.ip_address(one["local"]) for one in link["addr_info"] if "local" in one}
    raise LayoutError(interface, "no such interface", "the interface of the profile's addresses", "ip link")


def add(pairs: Sequence[str]) -> None:
    """Add addresses and see that they are there. Raises LayoutError."""
    for interface, address in (pair.split(" ") for pair in pairs):
        found = ipaddress.ip_interface(address)
        # Without a look whether another host has it: the service could not bind it meanwhile.
        more = ("nodad",) if found.version == 6 else ()
        run.run("ip", "address", "add", address, "dev", interface, *more)
        if found.ip not in _have(interface):
            raise LayoutError(f"{interface}: {address}", "no such address", "the address that was just added")


def remove(pairs: Sequence[str]) -> None:
    """Remove addresses; one that is gone already is no error. Raises LayoutError."""
    for interface, address in (pair.split(" ") for pair in pairs):
        if ipaddress.ip_interface(address).ip in _have(interface):
            run.run("ip", "address", "del", address, "dev", interface)
