"""The full jail: its world is checked and made like an entry, and from then on looked at from outside."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, assert_never

from layout.actions.kinds.design import Design, SessionOptions
from layout.actions.telling import Tell
from layout.core import packetfilter
from layout.core.compare import Live, is_below, views
from layout.core.errors import LayoutError, UsageError
from layout.core.findings import Finding, error, warning
from layout.core.kinds.full import listens_everywhere
from layout.core.model import Boot, Platform
from layout.core.redirect import routes
from layout.host import hostfiles, locks, table
from layout.host.site import running_platform

if TYPE_CHECKING:
    from layout.actions.context import Context
    from layout.actions.manage import Managed
    from layout.actions.prepare_linux import Decided, Own
    from layout.core.model import JailPlan
    from layout.core.running import Running
    from layout.host.beneath import Dir
    from layout.host.records import JailRecord

_SSHD = "/etc/ssh/sshd_config"
_SSH = 22


class FullDesign(Design):
    """A complete world of its own."""

    shares_root = False
    by_hand = (
        "it is started by layout",
        "without layout it starts by what layout render jail.conf prints",
    )
    is_world = True
    unrecorded = True  # the rules of pf

    # -- trees ------------------------------------------------------------------------------------

    def check(self, context: Context, plan: JailPlan) -> None:
        """Make sure that a world that is still to be made can be."""
        from layout.actions.kinds.world import check_source

        root = context.site.root
        try:
            with context.open() as top:
                if top.lstat(f"t/{plan.jail.name}") is not None:
                    return
        except (LayoutError, FileNotFoundError):  # no ROOT yet, or nothing in it
            pass
        check_source(plan.jail, root)

    def findings(self, context: Context, root: Dir, plan: JailPlan, *, quick: bool) -> Iterable[Finding]:
        """Return what this design gives up, and what is not as planned of world, addresses and redirects."""
        yield _given_up(context, plan)
        if plan.jail.platform is not running_platform():
            return
        yield from _elsewhere(context, plan)
        yield from _host_sshd(plan)
        running = self.running(context, plan)
        if running is not None:
            match plan.jail.platform:
                case Platform.LINUX:
                    yield from _network_of_linux(context, root, plan)
                case Platform.FREEBSD:
                    yield from _network_of_freebsd(plan)
                case _:
                    assert_never(plan.jail.platform)

    def forget(self, context: Context, root: Dir, state: Dir, record: JailRecord) -> int:
        """Take the rules of a jail of FreeBSD out of pf."""
        return int(_flush(record.platform, record.name))

    def artefacts(self, context: Context, plan: JailPlan) -> dict[str, Callable[[], str]]:
        """On Linux a unit that starts the jail as `layout start` does, network and rules included."""
        if plan.jail.platform is not Platform.LINUX:
            return {}
        from layout.actions import units_linux

        return {"unit": lambda: units_linux.start_unit(context, plan)}

    def rows(self, context: Context, plan: JailPlan) -> list[tuple[str, str]]:
        """Return what it was made from, where it is, and what leads there."""
        network = plan.jail.settings.network
        own = ", ".join(network.own_addresses) or "the host's network"
        if network.is_none:
            own = "none"
        where = network.interface or ("a network of its own" if network.gateway else "")
        found = [
            (f"t/{plan.jail.name}", f"a world of its own, made from {plan.jail.source}"),
            ("addresses", f"{own}  {where}".rstrip()),
        ]
        if network.nat:
            found.append(("nat", f"out by {network.external or 'any interface'}"))
        found += [("redirect", str(route)) for route in routes(plan.jail.settings)]
        return found

    # -- sessions -----------------------------------------------------------------------------------

    def manage(
        self, context: Context, plan: JailPlan, command: tuple[str, ...], options: SessionOptions
    ) -> Managed:
        """Run a confined session in the world while it is stopped: what runs there is the world's own."""
        from layout.actions import mounting, running
        from layout.actions.manage import Managed, refuse_chroot, stdout_to_stderr

        name = plan.jail.name
        mounting.require_platform(context.site)
        for option, given in (("--sealed", options.sealed), ("--base-ro", options.base_ro)):
            if given:
                raise UsageError(option, f"{name}, kind full", "a jail with a shared root", "leave it out")
        refuse_chroot(plan.jail.platform, options)
        notes: list[str] = []
        with (
            context.open() as root,
            root.open(".layout") as state,
            locks.held(state, f"manage-{name}.lock", f"to be the only manage session of {name}"),
        ):
            found = running.running(context, plan)
            if found is not None:
                hint = f"layout exec {name}, or layout stop {name} first"
                raise LayoutError(name, "running", "a stopped jail for a session in its world", hint)
            with stdout_to_stderr() if options.to_stderr else contextlib.nullcontext():
                match plan.jail.platform:
                    case Platform.LINUX:
                        from layout.actions import manage_linux

                        status = manage_linux.run_world(context.site, plan, command)
                    case Platform.FREEBSD:
                        from layout.actions import manage_freebsd

                        status = manage_freebsd.run_world(
                            context.site, state, plan, command, chroot=options.chroot, notes=notes
                        )
                    case _:
                        assert_never(plan.jail.platform)
        notes.append(f"{name}: not looked for changes: its world is its own, and changes by itself")
        return Managed(status, [], notes, compared=False)

    # -- the service --------------------------------------------------------------------------------

    def decided(
        self, context: Context, root: Dir, plan: JailPlan, engine: str | None, own: Own | None
    ) -> Decided:
        """With the accounts and programs of its world, and setuid ones that work."""
        from layout.actions import prepare_linux

        return prepare_linux.decide(context, root, plan, engine, own or self.own(plan))

    def own(self, plan: JailPlan) -> Own:
        """Return those of its world."""
        from layout.actions.prepare_linux import Own

        return Own.world(plan.jail.name)

    def start(self, context: Context, plan: JailPlan, tell: Tell, engine: str | None) -> Running:
        """Start it, and say what of the host is in the way."""
        for finding in _host_sshd(plan):
            tell(f"{finding.path}: {finding.found}; {finding.hint}")
        return super().start(context, plan, tell, engine)

    def leftovers(self, context: Context, plan: JailPlan) -> bool:
        """Take away what a crash left of a service; say whether there was something."""
        if plan.jail.platform is Platform.FREEBSD and self.running(context, plan) is None:
            return _flush(plan.jail.platform, plan.jail.name)
        return super().leftovers(context, plan)


def _given_up(context: Context, plan: JailPlan) -> Finding:
    found = "a world that its root can change: all of it is writable, programs and setuid files in it work"
    hint = "that is what kind full gives up; kind shared keeps it: docs/designs.md"
    path = f"{context.site.root}/j/{plan.jail.name}"
    return warning("S2-world", path, found, "a root that cannot be changed", hint)


def _elsewhere(context: Context, plan: JailPlan) -> Iterator[Finding]:
    """Find the world anywhere but in its place and in that of a session."""
    name, root = plan.jail.name, context.site.root
    live = Live(table.read())
    tree = f"{root}/t/{name}"
    place = live.place(tree)
    own = (f"{root}/j/{name}", f"{root}/manage/{name}")
    if place is None:
        return
    for mount, path in views({place: tree}, {}, live.mounts):
        if not any(is_below(mount.target, one) for one in own):
            hint = f"its root's own work can be reached there: umount {mount.target}"
            yield error("S1-world", mount.target, f"a view of {path}", "its world mounted once", hint)


def _host_sshd(plan: JailPlan) -> Iterator[Finding]:
    """Find an sshd of the host on every address: it keeps the jail's own from the jail's."""
    network = plan.jail.settings.network
    if not network.own_addresses or network.gateway:
        return
    hint = f"ListenAddress of the host's own addresses in {_SSHD}, then restart the host's sshd"
    expected = "the host's sshd on the host's own addresses only"
    if running_platform() is Platform.LINUX:
        from layout.host.linux import ports

        for one in ports.listeners("tcp"):
            if one.port == _SSH and ipaddress.ip_address(one.address).is_unspecified:
                owner = ports.owner(one.inode)
                if owner is None or owner[1] == "sshd":
                    found = f"the host's sshd listening on {one.address}, every address"
                    yield warning("S2-sshd", _SSHD, found, expected, hint)
                    return
        return
    from layout.host.freebsd import listeners

    if listeners.on_every_address("sshd", _SSH):
        found = "the host's sshd listens on every address, the jail's too"
        yield warning("S2-sshd", _SSHD, found, expected, hint)
    elif _is_on("sshd_enable") and listens_everywhere(hostfiles.read_text(_SSHD) or ""):
        found = "no ListenAddress: once it starts, the host's sshd listens on every address, the jail's too"
        yield warning("S2-sshd", _SSHD, found, expected, hint)


def _is_on(variable: str) -> bool:
    """Say whether the host's rc.conf(5) switches something on, as checkyesno of rc.subr(8) reads it."""
    from layout.host.freebsd import rcconf

    return rcconf.values([variable]).get(variable, "").lower() in {"yes", "true", "on", "1"}


def _network_of_linux(context: Context, root: Dir, plan: JailPlan) -> Iterator[Finding]:
    """Compare link, addresses and applied rules of a running jail with its plan."""
    from layout.actions import network_linux

    for code, path, found, expected in network_linux.drift(context, root, plan):
        yield error(code, path, found, expected, f"layout restart {plan.jail.name}")


def _network_of_freebsd(plan: JailPlan) -> Iterator[Finding]:
    """Compare the addresses of a running jail, and its rules, with its plan."""
    from layout.host.freebsd import jails

    jail, network = plan.jail, plan.jail.settings.network
    hint = f"layout restart {jail.name}"
    for key, words in (("ip4.addr", network.ip4), ("ip6.addr", network.ip6)):
        wanted = {word.partition("/")[0] for word in words if word not in {"inherit", "disable"}}
        is_ = jails.parameters(jail.name, [key]).get(key, "") if wanted else ""
        now = {word for word in is_.replace(",", " ").split() if word != "-"}
        if wanted - now:
            yield error("S2-address", f"jail {jail.name}", f"{key} {is_ or 'none'}", ", ".join(wanted), hint)
    if network.apply:
        yield from _rules_of_freebsd(plan)


def _rules_of_freebsd(plan: JailPlan) -> Iterator[Finding]:
    """Compare the rules that pf has of a jail with its plan; find that they have no effect."""
    from layout.host.freebsd import pf

    hint = f"layout restart {plan.jail.name}"
    if not pf.is_enabled():
        expected = "pf enabled, for the rules of its profile"
        yield error(
            "S2-rules", "pf", "disabled, or not there", expected, "sysrc pf_enable=YES; service pf start"
        )
    elif plan.jail.boot is not Boot.NONE and not _is_on("pf_enable"):
        lost = "not on: pf is here now and not after the next boot, when the jail would not start"
        yield warning("S2-rules", "rc.conf: pf_enable", lost, "YES", "sysrc pf_enable=YES")
    anchor = packetfilter.anchor(plan.jail.name)
    planned = packetfilter.rules(plan)
    found = pf.translations(anchor)
    if found is None:
        yield error("S2-rules", f"pf anchor {anchor}", "none", "the rules of its profile", hint)
        return
    for rule in planned:
        if rule not in found:
            yield error("S2-rules", f"pf anchor {anchor}", "no such rule", rule, hint)
    for rule in found:
        if rule not in planned:
            yield error("S2-rules", f"pf anchor {anchor}", rule, "no rule that is not planned", hint)
    for kind in ("nat-anchor", "rdr-anchor"):
        if not pf.attached(kind, "layout/*"):
            yield error(
                "S2-rules",
                "/etc/pf.conf",
                f'no {kind} "layout/*"',
                "the points that the rules are attached to",
                "layout render pf.conf NAME says what belongs there; then service pf reload",
            )


def _flush(platform: Platform, name: str) -> bool:
    """Take a jail's rules out of pf, if there are any. Raises LayoutError."""
    if platform is not Platform.FREEBSD or running_platform() is not Platform.FREEBSD:
        return False
    from layout.host import run
    from layout.host.freebsd import pf

    anchor = packetfilter.anchor(name)
    if run.which("pfctl") is None or not pf.translations(anchor):
        return False
    pf.flush(anchor)
    return True
