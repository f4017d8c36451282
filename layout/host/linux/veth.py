"""The link of a jail with a network of its own: veth(4), one end on the host, the other in the jail."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from layout.core.errors import LayoutError
from layout.host import run
from layout.host.linux import addresses, syscalls

INSIDE = "eth0"
"""The jail's end."""
_PACKAGE = "iproute2"
_FIRST = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


@dataclass(frozen=True, slots=True)
class Link:
    """A link as it is to be."""

    name: str
    """The host's end."""
    gateways: tuple[str, ...]
    """The host's addresses on it, with the prefixes of its networks."""
    addresses: tuple[str, ...]
    """The jail's own, with prefixes."""


def separate() -> None:
    """Give this process an empty network of its own, with every port for whoever runs in it. Raises OSError.

    The network belongs to the host's root: root of the jail changes nothing in it.
    """
    syscalls.unshare(syscalls.CLONE_NEWNET)
    fd = os.open(_FIRST, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def exists(name: str) -> bool:
    """Say whether the host has an interface of this name. Raises LayoutError."""
    run.require("ip", _PACKAGE)
    return any(one.get("ifname") == name for one in _links())


def holder(address: str) -> str | None:
    """Return the host's interface that has an address, or None. Raises LayoutError."""
    wanted = ipaddress.ip_address(address)
    for one in _links():
        if wanted in {found.ip for found in addresses.of_link(one)}:
            return str(one.get("ifname"))
    return None


def connect(link: Link, pid: int) -> None:
    """Make the link between the host and the network that process `pid` is in, and see that it is so.

    Raises LayoutError; what was made then is there still, for `remove`.
    """
    run.run("ip", "link", "add", link.name, "type", "veth", "peer", "name", INSIDE, "netns", str(pid))
    # Neighbours need no look whether somebody else has the address: nobody else is on this link.
    run.run("ip", "-batch", "-", input=_script(link.name, link.gateways))
    ways = [str(ipaddress.ip_interface(word).ip) for word in link.gateways]
    routes = "".join(f"route add default via {way} dev {INSIDE}\n" for way in ways)
    inside = f"link set lo up\n{_script(INSIDE, link.addresses)}{routes}"
    _within(pid, "ip", "-batch", "-", input=inside)
    here, there = _links(), _links(pid)
    _require(here, link.name, link.gateways, "the host's end of the jail's link")
    _require(there, INSIDE, link.addresses, "the jail's end of its link")
    if len(there) != 2:  # the other is its loopback
        raise LayoutError(link.name, f"{len(there)} interfaces in the jail", "its loopback and its link")


def differences(link: Link, pid: int) -> Iterator[tuple[str, str, str]]:
    """Yield path, found and expected where an end of the link has not its addresses with their prefixes.

    `pid` is a process in the jail's network. Raises LayoutError.
    """
    for name, wanted, links in (
        (link.name, link.gateways, _links()),
        (f"{INSIDE} in the jail", link.addresses, _links(pid)),
    ):
        have = {
            one
            for found in links
            if found.get("ifname") == name.split()[0]
            for one in addresses.of_link(found)
        }
        for one in map(ipaddress.ip_interface, wanted):
            if one not in have:
                other = [f"prefix /{is_.network.prefixlen}" for is_ in have if is_.ip == one.ip]
                yield f"{name}: {one.ip}", ", ".join(sorted(other)) or "no such address", str(one)


def remove(name: str) -> None:
    """Remove a link; one that is gone already, with its jail, is no error. Raises LayoutError."""
    if not exists(name):
        return
    # The kernel may be at it, since the network ends with the last process in it.
    done = run.run("ip", "link", "del", name, ok=range(256))
    if exists(name):
        raise LayoutError(name, f"still there: {done.stderr.strip()}", "no such interface")


def _script(name: str, wanted: Sequence[str]) -> str:
    lines = [f"link set {name} up\n"]
    for word in wanted:
        more = " nodad" if ipaddress.ip_interface(word).version == 6 else ""
        lines.append(f"address add {word} dev {name}{more}\n")
    return "".join(lines)


def _within(pid: int, *words: str, input: str | None = None) -> str:
    """Run a program of the host in the network of a process."""
    return run.run("nsenter", f"--net=/proc/{pid}/ns/net", "--", *words, input=input).stdout


def _links(pid: int | None = None) -> list[dict[str, object]]:
    words = ("ip", "-json", "address", "show")
    text = run.run(*words).stdout if pid is None else _within(pid, *words)
    found = json.loads(text or "[]")
    # ip shows an interface that vanished meanwhile as {}.
    return [one for one in found if one]


def _require(links: list[dict[str, object]], name: str, wanted: Sequence[str], what: str) -> None:
    for one in links:
        if one.get("ifname") == name:
            flags = one.get("flags")
            if not isinstance(flags, list) or "UP" not in flags:
                raise LayoutError(name, f"flags {flags}", f"{what}, up")
            lacking = {ipaddress.ip_interface(word) for word in wanted} - addresses.of_link(one)
            if lacking:
                raise LayoutError(name, f"no address {', '.join(map(str, sorted(lacking, key=str)))}", what)
            return
    raise LayoutError(name, "no such interface", what)
