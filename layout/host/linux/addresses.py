"""Addresses of a jail: added to an interface of the host at start, removed at stop; ip-address(8)."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from layout.core.errors import LayoutError
from layout.host import run

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface
_PACKAGE = "iproute2"


def missing(interface: str, wanted: Iterable[str]) -> tuple[str, ...]:
    """Return those of the addresses that the interface does not have yet, as 'INTERFACE ADDRESS/PREFIX'.

    Raises LayoutError when there is no such interface.
    """
    parsed = [ipaddress.ip_interface(word) for word in wanted]
    if not interface or not parsed:
        return ()
    have = _have(interface)
    return tuple(f"{interface} {one}" for one in parsed if one.ip not in {other.ip for other in have})


def changed(pairs: Sequence[str], wanted: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield path, found and expected for those of the added `pairs` whose prefix is not the wanted one.

    One that was there before any start has the prefix that the host gave it. Raises LayoutError.
    """
    planned = {one.ip: one for one in map(ipaddress.ip_interface, wanted)}
    for interface, address in (pair.split(" ") for pair in pairs):
        mine = ipaddress.ip_interface(address).ip
        for one in sorted(_have(interface), key=str):
            if one.ip == mine and mine in planned and one != planned[mine]:
                yield f"{interface} {mine}", f"prefix /{one.network.prefixlen}", str(planned[mine])


def _have(interface: str) -> set[Address]:
    run.require("ip", _PACKAGE)
    done = run.run("ip", "-json", "address", "show", ok=(0, 1))
    for link in json.loads(done.stdout or "[]"):
        if link.get("ifname") == interface:
            return of_link(link)
    raise LayoutError(interface, "no such interface", "the interface of the profile's addresses", "ip link")


def of_link(link: Mapping[str, object]) -> set[Address]:
    """Return the addresses of one link of `ip -json address show`, each with its prefix."""
    infos = link.get("addr_info")
    known = [one for one in infos if "local" in one] if isinstance(infos, list) else []
    return {ipaddress.ip_interface(f"{one['local']}/{one['prefixlen']}") for one in known}


def add(pairs: Sequence[str]) -> None:
    """Add addresses and see that they are there. Raises LayoutError."""
    for interface, address in (pair.split(" ") for pair in pairs):
        found = ipaddress.ip_interface(address)
        # Without a look whether another host has it: the service could not bind it meanwhile.
        more = ("nodad",) if found.version == 6 else ()
        run.run("ip", "address", "add", address, "dev", interface, *more)
        if found not in _have(interface):
            raise LayoutError(f"{interface}: {address}", "no such address", "the address that was just added")


def remove(pairs: Sequence[str]) -> None:
    """Remove addresses, whatever prefix they have now; one that is gone is no error. Raises LayoutError."""
    for interface, address in (pair.split(" ") for pair in pairs):
        for one in _have(interface):
            if one.ip == ipaddress.ip_interface(address).ip:
                run.run("ip", "address", "del", str(one), "dev", interface)
