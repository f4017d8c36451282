"""Privileges of a jail on FreeBSD: the parameters of the running jail, else those of its file."""

from __future__ import annotations

import os
import stat

from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.actions.telling import Noting
from layout.core import audit, jailconf
from layout.core.audit import Privileges, Reachable
from layout.core.model import JailPlan, Platform
from layout.core.running import Running
from layout.host.beneath.directory import kind_of
from layout.host.site import running_platform

_ASKED = ("enforce_statfs", "devfs_ruleset", "children.max", "securelevel", "host.hostname")
_AT_MOST = 64
"""Nodes of a /dev that are named."""


def privileges(context: Context, plan: JailPlan, running: Running | None, noting: Noting) -> Privileges:
    """Return them; what cannot be looked at is noted."""
    name = plan.jail.name
    planned = {}
    with noting(f"the file of {name}"):
        planned = {key: _text(value) for key, value in jailconf.parameters(plan, context.site)}
    values = planned
    confinement = ["by its file; it does not run"]
    if running is not None and running_platform() is Platform.FREEBSD:
        from layout.host.freebsd import jails

        wanted = [*_ASKED, *(f"allow.{one}" for one in sorted(jailconf.ALLOW))]
        with noting(f"jail {name}"):
            prison = design_of(plan.jail.kind).prison(plan)
            values = jails.parameters(prison, wanted)
            confinement = [f"jail {prison}, jid {running.jid}"]
    confinement += [f"{key}={values[key]}" for key in _ASKED if key in values]
    allowed = [key for key, value in values.items() if key.startswith("allow.") and value in {"true", "1"}]
    network = [f"{key}={values.get(key) or planned.get(key)}" for key in ("ip4", "ip6") if planned.get(key)]
    network += [f"{key} {planned[key]}" for key in ("ip4.addr", "ip6.addr") if planned.get(key)]
    network += [f"{port}" for port in plan.jail.settings.service.ports]
    return Privileges(
        tuple(map(audit.allowed, allowed)),
        tuple(confinement),
        tuple(network),
        _devices(context, name, noting),
    )


def _text(value: jailconf.Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else ",".join(value)


def _devices(context: Context, name: str, noting: Noting) -> tuple[Reachable, ...]:
    """Return the nodes that the jail's devfs shows now."""
    found = []
    if running_platform() is not Platform.FREEBSD:
        return ()
    with noting(f"{context.site.root}/j/{name}/dev"), context.open() as root:
        try:
            dev = root.open(f"j/{name}/dev")
        except FileNotFoundError:
            return ()
        with dev:
            for one in sorted(dev.some(_AT_MOST)):
                status = dev.lstat(one)
                if (
                    status is not None
                    and not stat.S_ISDIR(status.st_mode)
                    and not stat.S_ISLNK(status.st_mode)
                ):
                    numbers = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
                    what = f"{kind_of(status.st_mode)} {numbers}, mode {stat.S_IMODE(status.st_mode):04o}"
                    found.append(Reachable(f"/dev/{one}", what, works=True))
    return tuple(found)
