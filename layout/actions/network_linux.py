"""The network of a jail that has one of its own on Linux: its link, and the rules that lead to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from layout.actions.context import Context
from layout.core import nftables
from layout.core.errors import LayoutError
from layout.core.model import JailPlan
from layout.core.redirect import gateways, routes
from layout.core.running import RunRecord
from layout.host import records
from layout.host.beneath import Dir
from layout.host.linux import addresses, nft, ports, veth


@dataclass(frozen=True, slots=True)
class Connection:
    """What `start` makes of a jail's network, decided before anything is done."""

    link: veth.Link | None = None
    """None: the jail has the host's network, or none."""
    table: str = ""
    """Name of the table that is applied; empty when none is."""
    text: str = ""


def decide(context: Context, plan: JailPlan) -> Connection:
    """Decide how a jail is connected. Raises LayoutError for what stands in the way: nothing is done then."""
    jail, network = plan.jail, plan.jail.settings.network
    if network.apply and not network.gateway:
        raise LayoutError(
            f"{jail.name}: network.apply",
            "no network.gateway",
            "a network of the jail's own to apply rules to",
        )
    if not network.gateway:
        return Connection()
    name = nftables.link_name(context.site, jail.name)
    if veth.exists(name):
        hint = f"nobody has a record of it: ip link del {name}"
        raise LayoutError(name, "an interface that is there already", "none of that name yet", hint)
    for address in network.gateway:
        holder = veth.holder(address)
        if holder is not None:
            hint = "give each jail a network of its own, such as 10.79.1.0/30"
            raise LayoutError(address, f"an address of {holder}", "an address that nobody has", hint)
    link = veth.Link(name, gateways(network), network.own_words)
    if not network.apply:
        return Connection(link)
    table = nftables.table_name(jail.name)
    if nft.listed(table) is not None:
        hint = f"nobody has a record of it: nft delete table {nftables.FAMILY} {table}"
        raise LayoutError(f"table {table}", "there already", "none of that name yet", hint)
    text = nftables.render(jail, name)
    nft.check(text)
    _require_forwarding(plan)
    _refuse_hidden(plan)
    _refuse_others(context, plan)
    return Connection(link, table, text)


def _require_forwarding(plan: JailPlan) -> None:
    """Make sure that the host passes packets on; only its administrator says so. Raises LayoutError."""
    for version in sorted(
        {ipaddress.ip_address(one).version for one in plan.jail.settings.network.own_addresses}
    ):
        if not nft.forwards(version):
            key = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
            found = f"{key} = 0: nothing that is for a jail gets there"
            raise LayoutError(f"{plan.jail.name}: network.apply", found, "1", f"sysctl {key}=1")


def _refuse_hidden(plan: JailPlan) -> None:
    """Refuse a redirect of a port that a daemon of the host listens on: it would take it away, sshd's too."""
    for route in routes(plan.jail.settings):
        found = ports.in_the_way(route.proto, route.port, route.address or None)
        if found is None and not route.address:
            found = next((one for one in ports.listeners(route.proto) if one.port == route.port), None)
        if found is not None and not ipaddress.ip_address(found.address).is_loopback:
            raise LayoutError(
                f"{plan.jail.name}: redirect {route}",
                f"{ports.holder(found.inode)} of the host listening on {found.address}",
                "a port that nobody of the host has",
                "redirect another port, or let that daemon listen elsewhere",
            )


def _refuse_others(context: Context, plan: JailPlan) -> None:
    """Of two rules for one port the kernel takes one, and the other jail is not reached any more."""
    mine = routes(plan.jail.settings)
    if not mine:
        return
    with context.open() as root, root.open(".layout") as state:
        for name in records.jail_names(root):
            if name == plan.jail.name or state.lstat(f"run/{name}.toml") is None:
                continue
            record = records.read(state, f"run/{name}.toml", RunRecord)
            other = records.jail(state, name)
            if record is None or not record.table or other is None:
                continue
            for theirs in routes(context.recorded(other).settings):
                for route in mine:
                    if route.meets(theirs):
                        raise LayoutError(
                            f"{plan.jail.name}: redirect {route}",
                            f"the redirect {theirs} of {name}, which runs",
                            "a port that no other jail has",
                            "redirect another port",
                        )


def connect(plan: JailPlan, wanted: Connection, pid: int) -> None:
    """Make the link to the network of process `pid`, and apply the rules, which come first.

    Raises LayoutError, also when the kernel has other rules afterwards than the planned ones.
    """
    if wanted.table and wanted.link is not None:
        nft.apply(wanted.text)
        listed = nft.listed(wanted.table)
        if listed is None:
            raise LayoutError(f"table {wanted.table}", "none", "the table that was just applied")
        for chain, found, expected in nftables.differences(plan.jail, wanted.link.name, listed):
            raise LayoutError(f"table {wanted.table}, chain {chain}", found, expected)
    if wanted.link is not None:
        veth.connect(wanted.link, pid)


def drift(context: Context, root: Dir, plan: JailPlan) -> Iterator[tuple[str, str, str, str]]:
    """Yield code, path, what is found and expected where the network of a running jail is not as planned.

    Raises LayoutError.
    """
    name, network = plan.jail.name, plan.jail.settings.network
    with root.open(".layout") as state:
        record = records.read(state, f"run/{name}.toml", RunRecord)
    if record is None:
        return
    link = nftables.link_name(context.site, name)
    if network.gateway:
        for address in network.gateway:
            holder = veth.holder(address)
            if holder != link:
                yield "S2-address", f"{link}: {address}", holder or "nobody with this address", link
        if record.process is not None and veth.exists(link):
            planned = veth.Link(link, gateways(network), network.own_words)
            for path, found, expected in veth.differences(planned, record.process.pid):
                yield "S2-address", path, found, expected
    else:
        for one in addresses.missing(network.interface, network.own_words):
            yield "S2-address", one, "no such address", "an address of the jail"
        for path, found, expected in addresses.changed(record.addresses, network.own_words):
            yield "S2-address", path, found, expected
    if network.apply != bool(record.table):
        found = f"rules {'applied' if record.table else 'not applied'}"
        yield "S2-rules", name, found, f"network.apply = {str(network.apply).lower()}"
    if record.table:
        try:
            _require_forwarding(plan)
        except LayoutError as problem:
            yield "S2-rules", problem.path, problem.found, problem.hint
        path = f"table {record.table}"
        listed = nft.listed(record.table)
        if listed is None:
            yield "S2-rules", path, "no such table", "the rules that were applied"
            return
        for chain, found, expected in nftables.differences(plan.jail, link, listed):
            yield "S2-rules", f"{path}, chain {chain}", found, expected


def take_away(record: RunRecord) -> None:
    """Remove what `connect` made; what is gone already is no error. Raises LayoutError."""
    if record.table:
        nft.remove(record.table)
    if record.link:
        veth.remove(record.link)
