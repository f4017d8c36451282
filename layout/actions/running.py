"""Jails with a service in them: start, stop and how they stand, each kind in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layout.actions.kinds import design_of
from layout.actions.telling import Tell
from layout.core.errors import LayoutError

if TYPE_CHECKING:
    from layout.actions.context import Context
    from layout.core.model import JailPlan
    from layout.core.running import Running


def start(context: Context, plan: JailPlan, tell: Tell, engine: str | None = None) -> Running:
    """Start the service of a jail and wait until it is ready; one that runs already is left alone.

    `engine` (Linux) takes the place of the profile's. Raises LayoutError; nothing of it runs then.
    """
    return design_of(plan.jail.kind).start(context, plan, tell, engine)


def stop(context: Context, plan: JailPlan, tell: Tell) -> bool:
    """End the service, first by its own signal; say whether there was one. Raises LayoutError."""
    problem = context.problems.get(plan.jail.name)
    if problem is not None:
        if design_of(plan.jail.kind).is_of_host:
            raise problem
        tell(f"{plan.jail.name}: without its profile: {problem}")
    return design_of(plan.jail.kind).stop(context, plan, tell)


def restart(context: Context, plan: JailPlan, tell: Tell, engine: str | None = None) -> Running:
    """Stop it, if it runs, and start it. Raises LayoutError."""
    return design_of(plan.jail.kind).restart(context, plan, tell, engine)


def running(context: Context, plan: JailPlan) -> Running | None:
    """Return how the jail stands as the system says, or None when nothing runs. Raises LayoutError."""
    return design_of(plan.jail.kind).running(context, plan)


def execute(context: Context, plan: JailPlan, argv: tuple[str, ...]) -> int:
    """Run a command in the running jail, with no more rights than it has; return its exit status.

    Raises LayoutError when it is not running.
    """
    return design_of(plan.jail.kind).execute(context, plan, argv)


def drift(context: Context, plan: JailPlan) -> list[tuple[str, str, str]]:
    """Return path, what is found and what is expected where a running service has more than it should."""
    return design_of(plan.jail.kind).drift(context, plan)


def leftovers(context: Context, plan: JailPlan) -> bool:
    """Take away what a crash left of a service that does not run; say whether there was something.

    The caller holds the lock of ROOT. Raises LayoutError.
    """
    return design_of(plan.jail.kind).leftovers(context, plan)


def require_stopped(context: Context, plan: JailPlan, what: str) -> None:
    """Make sure that no service runs in a jail. Raises LayoutError."""
    found = running(context, plan)
    if found is not None:
        who = f"running, process {found.pid}" if found.pid else "running"
        raise LayoutError(plan.jail.name, who, what, f"layout stop {plan.jail.name}")


def dependents_first(plans: list[JailPlan]) -> list[JailPlan]:
    """Order jails so that each stops before those that it depends on (jail.depend); a loop is cut."""
    ordered: list[JailPlan] = []
    seen: set[str] = set()

    def visit(plan: JailPlan) -> None:
        if plan.jail.name in seen:
            return
        seen.add(plan.jail.name)
        for other in plans:
            if plan.jail.name in other.jail.settings.jail.depend:
                visit(other)
        ordered.append(plan)

    for plan in plans:
        visit(plan)
    return ordered
