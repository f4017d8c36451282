"""Redirects and NAT for Linux: the table of nft(8) that a jail has, as text and as nft tells what is there.

Every rule is made of pairs, what nft(8) takes and what `nft -j list table` says of it
(libnftables-json(5)), so that the rules of the kernel can be compared with the plan one by one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from layout.core.errors import LayoutError
from layout.core.model import Jail, Site
from layout.core.redirect import routes

FAMILY = "inet"
_LONGEST = 15
"""Characters of the name of an interface (IFNAMSIZ - 1)."""


class Atom(NamedTuple):
    """One expression of a rule."""

    text: str
    json: Mapping[str, Any]


class Chain(NamedTuple):
    """A base chain: where in the way of a packet its rules are."""

    name: str
    type: str
    hook: str
    priority: int


Rule = tuple[Atom, ...]

CHAINS = (
    Chain("prerouting", "nat", "prerouting", -100),
    Chain("output", "nat", "output", -100),
    Chain("postrouting", "nat", "postrouting", 100),
    Chain("forward", "filter", "forward", 0),
    Chain("input", "filter", "input", 0),
)


def table_name(name: str) -> str:
    """Return the name of a jail's table."""
    return f"layout-{name}"


def link_name(site: Site, name: str) -> str:
    """Return the name of the host's end of a jail's link: the jail's, or what is left of it and a digest."""
    plain = f"ly-{name}"
    if len(plain) <= _LONGEST and not site.trial:
        return plain
    # Two trials may have jails of the same name.
    more = hashlib.sha256(f"{site.root}\0{name}".encode()).hexdigest()[:6]
    return f"{plain[: _LONGEST - 7]}-{more}"


def _match(text: str, left: Mapping[str, Any], right: object, op: str = "==") -> Atom:
    return Atom(text, {"match": {"op": op, "left": left, "right": right}})


def _meta(key: str, name: str, *, differs: bool = False) -> Atom:
    sign = "!= " if differs else ""
    return _match(f'{key} {sign}"{name}"', {"meta": {"key": key}}, name, "!=" if differs else "==")


def _payload(protocol: str, field: str, value: str | int) -> Atom:
    return _match(f"{protocol} {field} {value}", {"payload": {"protocol": protocol, "field": field}}, value)


def _address(field: str, address: str) -> Atom:
    return _payload("ip6" if ":" in address else "ip", field, address)


def _family(version: int) -> Atom:
    name = "ipv6" if version == 6 else "ipv4"
    return _match(f"meta nfproto {name}", {"meta": {"key": "nfproto"}}, name)


_LOCAL = _match("fib daddr type local", {"fib": {"result": "type", "flags": ["daddr"]}}, "local")
_NOT_LOOP = {
    4: _match(
        "ip daddr != 127.0.0.0/8",
        {"payload": {"protocol": "ip", "field": "daddr"}},
        {"prefix": {"addr": "127.0.0.0", "len": 8}},
        "!=",
    ),
    6: _match("ip6 daddr != ::1", {"payload": {"protocol": "ip6", "field": "daddr"}}, "::1", "!="),
}
_KNOWN = _match("ct state established,related", {"ct": {"key": "state"}}, ["established", "related"], "in")
_REDIRECTED = _match("ct status dnat", {"ct": {"key": "status"}}, "dnat", "in")
_NEIGHBOURS = _match(
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }",
    {"payload": {"protocol": "icmpv6", "field": "type"}},
    {"set": ["nd-neighbor-solicit", "nd-neighbor-advert"]},
)
_ACCEPT = Atom("accept", {"accept": None})
_DROP = Atom("drop", {"drop": None})
_MASQUERADE = Atom("masquerade", {"masquerade": None})


def _dnat(address: str, port: int) -> Atom:
    family = "ip6" if ":" in address else "ip"
    end = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return Atom(f"dnat {family} to {end}", {"dnat": {"family": family, "addr": address, "port": port}})


def ruleset(jail: Jail, link: str) -> dict[str, tuple[Rule, ...]]:
    """Return the rules of a jail by chain; `link` is the host's end of its link. Raises UsageError.

    What comes to the jail is what a redirect leads there, what it gets are answers; what it may begin itself
    is the way out, when the profile gives it one, and never a connection to the host.
    """
    network = jail.settings.network
    incoming: list[Rule] = []
    local: list[Rule] = []
    for route in routes(jail.settings):
        port = _payload(route.proto, "dport", route.port)
        target = _dnat(route.to_address, route.to_port)
        to_us = (_address("daddr", route.address),) if route.address else (_LOCAL,)
        outside = (
            (_meta("iifname", network.external),)
            if network.external
            else (_meta("iifname", link, differs=True),)
        )
        # The family is said where no address says it: nft leaves it out where one does.
        family = () if route.address else (_family(route.version),)
        incoming.append((*outside, *family, *to_us, port, target))
        # The host itself: what is for its loopback stays there, for it could not come back from the jail.
        local.append((*to_us, _NOT_LOOP[route.version], port, target))
    out = (_meta("oifname", network.external),) if network.external else ()
    way_out: list[Rule] = []
    if network.nat:
        way_out = [(_address("saddr", address), *out, _MASQUERADE) for address in network.own_addresses]
    from_jail, to_jail = _meta("iifname", link), _meta("oifname", link)
    forward: list[Rule] = [
        (to_jail, _KNOWN, _ACCEPT),
        (to_jail, _REDIRECTED, _ACCEPT),
        (to_jail, _DROP),
        (from_jail, _KNOWN, _ACCEPT),
    ]
    forward += [(from_jail, *out, _ACCEPT)] if network.nat else []
    forward.append((from_jail, _DROP))
    return {
        "prerouting": tuple(incoming),
        "output": tuple(local),
        "postrouting": tuple(way_out),
        "forward": tuple(forward),
        "input": ((from_jail, _KNOWN, _ACCEPT), (from_jail, _NEIGHBOURS, _ACCEPT), (from_jail, _DROP)),
    }


def render(jail: Jail, link: str) -> str:
    """Return the table as text for `nft -f`: an older one is replaced in one step. Raises UsageError."""
    name = f"{FAMILY} {table_name(jail.name)}"
    rules = ruleset(jail, link)
    lines = [
        f"# {jail.name}: nft(8), generated by layout; edit the profile, not this file",
        # So that the deletion finds a table in any case.
        f"table {name} {{}}",
        f"delete table {name}",
        f"table {name} {{",
    ]
    for chain in CHAINS:
        lines.append(f"\tchain {chain.name} {{")
        lines.append(f"\t\ttype {chain.type} hook {chain.hook} priority {chain.priority}; policy accept;")
        lines += [f"\t\t{' '.join(atom.text for atom in rule)}" for rule in rules[chain.name]]
        lines.append("\t}")
    lines.append("}")
    return "".join(f"{line}\n" for line in lines)


# --- what the kernel has -----------------------------------------------------------------------------------


class Listed(NamedTuple):
    """A table as `nft -j list table` tells it."""

    chains: tuple[Chain, ...]
    rules: Mapping[str, tuple[str, ...]]
    """Each rule in a canonical form, by chain, in order."""


def parse(text: str, name: str) -> Listed:
    """Read what `nft -j list table inet NAME` printed. Raises LayoutError for what is no such document."""
    chains: list[Chain] = []
    rules: dict[str, list[str]] = {}
    try:
        for one in json.loads(text)["nftables"]:
            if "chain" in one:
                chain = one["chain"]
                # One that is no base chain has neither hook nor priority.
                chains.append(
                    Chain(chain["name"], chain.get("type", ""), chain.get("hook", ""), chain.get("prio", 0))
                )
            if "rule" in one:
                rule = one["rule"]
                rules.setdefault(rule["chain"], []).append(_canonical(rule["expr"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise LayoutError(
            f"nft -j list table {FAMILY} {name}", f"a reply without {problem}", "libnftables-json(5)"
        ) from None
    return Listed(tuple(chains), {chain: tuple(found) for chain, found in rules.items()})


def _canonical(expressions: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps([_plain(one) for one in expressions], sort_keys=True)


def _plain(value: object) -> object:
    """Versions of nft differ in how they say 'one of these': as a list, as a set, with == or with in."""
    match value:
        case {"set": list() as members}:
            return _plain(members)
        case dict():
            return {key: "==" if key == "op" and one == "in" else _plain(one) for key, one in value.items()}
        case list():
            plain = [_plain(one) for one in value]
            return sorted(plain, key=repr) if all(isinstance(one, str) for one in plain) else plain
        case _:
            return value


def differences(jail: Jail, link: str, listed: Listed) -> list[tuple[str, str, str]]:
    """Return how the kernel's table differs from the plan: chain, what was found, what was expected."""
    found: list[tuple[str, str, str]] = []
    planned = ruleset(jail, link)
    for chain in listed.chains:
        if chain not in CHAINS:
            found.append((chain.name, f"a chain {tuple(chain)}", "none that is not planned"))
    for chain in CHAINS:
        if chain not in listed.chains:
            found.append((chain.name, "no such chain", f"a chain {tuple(chain)}"))
            continue
        wanted = {_canonical([atom.json for atom in rule]): rule for rule in planned[chain.name]}
        live = listed.rules.get(chain.name, ())
        for text, rule in wanted.items():
            if text not in live:
                found.append((chain.name, "no such rule", " ".join(atom.text for atom in rule)))
        for text in live:
            if text not in wanted:
                found.append((chain.name, f"a rule {text}", "none that is not planned"))
        if set(live) == set(wanted) and live != tuple(wanted):
            found.append((chain.name, "the rules in another order", "the order of the plan"))
    return found
