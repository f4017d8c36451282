"""`layout status`: what each jail is and how it stands."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from layout.actions import mounting
from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.actions.running import running
from layout.core.compare import Live
from layout.core.model import JailPlan
from layout.core.running import Running
from layout.host import locks, table
from layout.host.site import running_platform


class Row(msgspec.Struct, frozen=True):
    """One jail."""

    name: str
    kind: str
    profile: str
    preset: str
    manage: str
    platform: str
    mounted: int
    """Planned mounts that are there."""
    planned: int
    session: str | None
    """Who holds an open manage session."""
    running: Running | None
    """The service, as the system says; null when none runs."""
    problem: str = ""
    """Why its profile cannot be read; the rest is what its record and its mount tables say."""
    known: bool = True
    """Whether it could be looked at what runs: not without the profile of a service of the host."""


def status(context: Context, plans: Sequence[JailPlan]) -> list[Row]:
    """Return one row for each jail. Raises LayoutError."""
    live = Live(table.read())
    with context.open() as root, root.open(".layout") as state:
        rows = []
        for plan in plans:
            planned = [mount.target for tree in mounting.wanted(plan) for mount in tree]
            jail = plan.jail
            problem = context.problems.get(jail.name)
            known = problem is None or not design_of(jail.kind).is_of_host
            found = running(context, plan) if known and jail.platform is running_platform() else None
            if found is not None and problem is not None:  # what is planned is not known
                found = msgspec.structs.replace(found, notes=())
            rows.append(
                Row(
                    jail.name,
                    jail.kind,
                    jail.profile,
                    jail.preset,
                    jail.manage,
                    jail.platform,
                    sum(bool(live.at(target)) for target in planned),
                    len(planned),
                    locks.holder(state, f"manage-{jail.name}.lock"),
                    found,
                    str(problem or ""),
                    known,
                )
            )
        return rows
