"""Jails with a service in them: start, stop and how they stand, on the platform that this is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layout.core.errors import LayoutError, UsageError
from layout.core.model import Platform
from layout.host.site import running_platform

if TYPE_CHECKING:
    from layout.actions.context import Context
    from layout.core.model import JailPlan
    from layout.core.running import Running

Tell = Callable[[str], None]
"""Takes a remark for the administrator."""


def _here() -> Any:
    """Return the module of this platform; only that one is loaded."""
    if running_platform() is Platform.LINUX:
        from layout.actions import running_linux

        return running_linux
    from layout.actions import running_freebsd

    return running_freebsd


def start(context: Context, plan: JailPlan, tell: Tell, engine: str | None = None) -> Running:
    """Start the service of a jail and wait until it is ready; one that runs already is left alone.

    `engine` (Linux) takes the place of the profile's. Raises LayoutError; nothing of it runs then.
    """
    if running_platform() is Platform.LINUX:
        from layout.actions import running_linux

        return running_linux.start(context, plan, tell, engine)
    if engine not in {None, "auto"}:
        raise UsageError("--engine", str(engine), "Linux: on FreeBSD it is always jail(8)")
    result: Running = _here().start(context, plan, tell)
    return result


def stop(context: Context, plan: JailPlan, tell: Tell) -> bool:
    """End the service, first by its own signal; say whether there was one. Raises LayoutError."""
    result: bool = _here().stop(context, plan, tell)
    return result


def restart(context: Context, plan: JailPlan, tell: Tell, engine: str | None = None) -> Running:
    """Stop it, if it runs, and start it. Raises LayoutError."""
    if running_platform() is Platform.LINUX:
        stop(context, plan, tell)
        return start(context, plan, tell, engine)
    result: Running = _here().restart(context, plan, tell)
    return result


def running(context: Context, plan: JailPlan) -> Running | None:
    """Return how the jail stands as the system says, or None when nothing runs. Raises LayoutError."""
    result: Running | None = _here().running(context, plan)
    return result


def execute(context: Context, plan: JailPlan, argv: tuple[str, ...]) -> int:
    """Run a command in the running jail, with no more rights than it has; return its exit status.

    Raises LayoutError when it is not running.
    """
    result: int = _here().execute(context, plan, argv)
    return result


def drift(context: Context, plan: JailPlan) -> list[tuple[str, str, str]]:
    """Return path, what is found and what is expected where a running service has more than it should."""
    if running_platform() is not Platform.LINUX:  # jail(8) is asked by layout.actions.booting_freebsd
        return []
    from layout.actions import running_linux

    return running_linux.drift(context, plan)


def leftovers(context: Context, plan: JailPlan) -> bool:
    """Take away what a crash left of a service that does not run; say whether there was something.

    The caller holds the lock of ROOT. Raises LayoutError.
    """
    if running_platform() is not Platform.LINUX:  # jail(8) keeps no records of ours
        return False
    from layout.actions import running_linux

    return running_linux.leftovers(context, plan)


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
