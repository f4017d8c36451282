"""What reaches a jail, and what it may reach: ports of the host that lead to it, and its way out."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from layout.core.errors import UsageError

if TYPE_CHECKING:
    from layout.core.service import Network, Settings


class Redirect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A port of the host that leads to the jail."""

    port: int
    """The port of the host."""
    to: int = 0
    """The port of the jail; 0 is the same."""
    proto: Literal["tcp", "udp"] = "tcp"
    """Which of the two."""
    address: str = ""
    """The address of the host that it counts for; empty: every one of `network.external`, or of the host."""


class Route(NamedTuple):
    """A redirect with both of its ends decided."""

    proto: str
    address: str
    """Of the host; empty when it counts for all of them."""
    port: int
    to_address: str
    to_port: int

    @property
    def version(self) -> int:
        """The version of IP, 4 or 6."""
        return ipaddress.ip_address(self.to_address).version

    def meets(self, other: Route) -> bool:
        """Say whether both are for the same packets."""
        same = (self.proto, self.port, self.version) == (other.proto, other.port, other.version)
        return same and (self.address == other.address or "" in {self.address, other.address})

    def __str__(self) -> str:
        return f"{_end(self.address or '*', self.port)}/{self.proto} -> {_end(self.to_address, self.to_port)}"


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def gateways(network: Network) -> tuple[str, ...]:
    """Return the host's addresses on the jail's link, each with the prefix of the jail's network there."""
    nets = [ipaddress.ip_interface(word).network for word in network.own_words]
    return tuple(
        f"{address}/{next(net.prefixlen for net in nets if ipaddress.ip_address(address) in net)}"
        for address in network.gateway
    )


def routes(settings: Settings) -> tuple[Route, ...]:
    """Return the redirects of a profile, each to the jail's first address of its version.

    Raises UsageError when the jail has no such address: check_redirects has said so before.
    """
    own = settings.network.own_addresses
    found = []
    for one in settings.redirect:
        version = ipaddress.ip_address(one.address).version if one.address else 0
        target = next((a for a in own if version in {0, ipaddress.ip_address(a).version}), None)
        if target is None:
            raise UsageError(
                f"redirect of port {one.port}",
                "no address of the jail that it can lead to",
                f"an address of the jail's own in network.ip{version or 4}",
            )
        found.append(Route(one.proto, one.address, one.port, target, one.to or one.port))
    return tuple(found)


def check_redirects(settings: Settings, where: str) -> None:
    """Make sure that redirects and the way out make sense. Raises UsageError that names the key."""
    taken: dict[tuple[str, int], list[str]] = {}
    for one in settings.redirect:
        key = f"{where}.redirect"
        for name, value, low in (("port", one.port, 1), ("to", one.to, 0)):
            if not low <= value <= 65535:
                raise UsageError(f"{key}.{name}", str(value), f"a number from {low} to 65535")
        if one.address:
            _check_address(one.address, f"{key}.address")
        others = taken.setdefault((one.proto, one.port), [])
        if one.address in others or (others and "" in {one.address, *others}):
            raise UsageError(key, f"port {one.port}/{one.proto} twice", "each port of the host once")
        others.append(one.address)
    network = settings.network
    if network.gateway:
        _check_gateway(network, f"{where}.network")
    own = network.own_addresses
    for key, wanted in (("redirect", settings.redirect), ("network.nat", network.nat)):
        if wanted and not own:
            hint = "network.ip4 = ['10.79.0.2/30'], for example"
            raise UsageError(f"{where}.{key}", "a jail without an address of its own", "one", hint)
    if network.apply and not (settings.redirect or network.nat):
        raise UsageError(f"{where}.network.apply", "true, with nothing to apply", "a redirect, or nat = true")
    routes(settings)


def check_outside(settings: Settings, where: str) -> None:
    """On FreeBSD each rule of pf(4) and ipnat(5) names an interface. Raises UsageError."""
    if (settings.redirect or settings.network.nat) and not settings.network.external:
        hint = "external = 'em0', for example"
        raise UsageError(f"{where}.network.external", "nothing", "the host's interface to the outside", hint)


def _check_address(text: str, where: str) -> None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(where, repr(text), "an address of the host") from None
    if found.is_unspecified:
        raise UsageError(where, repr(text), "an address of the host", "leave the key out for all of them")


def _check_gateway(network: Network, where: str) -> None:
    """Each address of the jail has to be in one network with an address of the host, and the other way."""
    key = f"{where}.gateway"
    for address in network.gateway:
        _check_address(address, key)
    ways = [ipaddress.ip_address(address) for address in network.gateway]
    if len({way.version for way in ways}) != len(ways):
        raise UsageError(key, ", ".join(network.gateway), "one for each version of IP at most")
    mine = [ipaddress.ip_interface(word) for word in network.own_words]
    alone = [str(way) for way in ways if not any(way in one.network for one in mine)]
    alone += [str(one) for one in mine if not any(way in one.network and way != one.ip for way in ways)]
    if alone:
        hint = "ip4 = ['10.79.0.2/30'] with gateway = ['10.79.0.1'], for example"
        raise UsageError(key, f"{alone[0]} alone in its network", "both ends of a link in each network", hint)
    if network.interface:
        raise UsageError(
            f"{where}.interface",
            f"{network.interface!r} beside a gateway",
            "one of them",
            "the addresses are on the jail's own link then",
        )
