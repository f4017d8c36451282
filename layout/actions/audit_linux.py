"""Privileges of a jail on Linux: those of the running process, else what its profile would give it."""

from __future__ import annotations

from layout.actions.kinds import design_of
from layout.actions.telling import Noting
from layout.core import audit
from layout.core.audit import Capability, Privileges, Reachable
from layout.core.devices import NODES
from layout.core.model import JailPlan, Platform
from layout.core.redirect import routes
from layout.core.running import Running
from layout.core.service import Settings
from layout.host.site import running_platform


def privileges(plan: JailPlan, running: Running | None, noting: Noting) -> Privileges:
    """Return them; what cannot be looked at is noted."""
    settings = plan.jail.settings
    if running is None or running.pid is None or running_platform() is not Platform.LINUX:
        return _planned(plan)
    from layout.host.linux import knobs

    pid = running.pid
    network = [*_network(settings)]
    devices: tuple[Reachable, ...] = ()
    confinement = [f"engine {running.engine}, grade {running.grade}", *running.notes]
    capabilities: tuple[str, ...] = ()
    with noting(f"process {pid}"):
        found = knobs.powers(pid)
        if found is not None:
            capabilities = found.capabilities
            confinement.append("no_new_privs" if found.no_new_privileges else "without no_new_privs")
            if found.filtered:
                confinement.append("a filter of system calls")
            confinement.append(
                f"a user namespace: root is user {found.root_is} of the host"
                if found.root_is
                else "no user namespace: root is root of the host, with these capabilities only"
            )
        devices = tuple(
            Reachable(f"/dev/{name}", f"{what}, mode {mode:04o}", works=True)
            for name, what, mode in knobs.devices(pid)
        )
        network += [f"listens on {one}" for one in knobs.listening(pid)]
    return Privileges(tuple(map(audit.capability, capabilities)), tuple(confinement), tuple(network), devices)


def _planned(plan: JailPlan) -> Privileges:
    design, settings = design_of(plan.jail.kind), plan.jail.settings
    service = settings.service
    confinement: tuple[str, ...] = ("when it runs: no_new_privs, namespaces of its own",)
    if design.is_of_host:
        return _unit(plan, _network(settings))
    if design.is_world:
        confinement = ("when it runs: namespaces of its own; no_new_privs under bwrap only",)
    devices = tuple(
        Reachable(f"/dev/{name}", f"character {major}:{minor}, when it runs", works=True)
        for name, major, minor in NODES
        if design.has_devices
    )
    ports = tuple(f"will listen on {port}" for port in service.ports)
    capabilities = tuple(map(audit.capability, service.all_capabilities))
    return Privileges(capabilities, confinement, (*_network(settings), *ports), devices)


def _unit(plan: JailPlan, network: tuple[str, ...]) -> Privileges:
    """Return what a service that does not run will have: its unit's, less what the drop-in takes."""
    shown = f"layout render dropin {plan.jail.name}"
    own = Capability("those of its unit", f"less what the drop-in takes: {shown}")
    return Privileges((own,), (f"when it runs: what the drop-in takes ({shown})",), network, ())


def _network(settings: Settings) -> tuple[str, ...]:
    network = settings.network
    if network.is_none:
        return ("none but a loopback of its own",)
    if network.own_words:
        found = [f"addresses {', '.join(network.own_words)}"]
        if network.gateway:
            found[0] += ", in a network of its own"
            applied = "" if network.apply else ", once its rules are loaded"
            found += [f"reached through {route}{applied}" for route in routes(settings)]
            if network.apply:
                found.append(f"connects to the outside: {'yes' if network.nat else 'no'}; to the host: no")
        return tuple(found)
    return ("the host's: it connects to whatever the host can",)
