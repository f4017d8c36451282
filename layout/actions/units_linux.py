"""Units and .nspawn files of jails: what they need to know of the host and of each jail's own accounts."""

from __future__ import annotations

import sys

from layout.actions import prepare_linux
from layout.actions.context import Context
from layout.core import units
from layout.core.errors import UsageError
from layout.core.model import JailPlan
from layout.host import run
from layout.host.linux.process import CAPABILITIES


def unit(context: Context, plan: JailPlan) -> str:
    """Return the text of a jail's unit. Raises LayoutError, UsageError."""
    return units.render_unit(plan, _host(context, plan))


def nspawn(context: Context, plan: JailPlan) -> str:
    """Return the text of a jail's .nspawn file. Raises LayoutError, UsageError."""
    host = _host(context, plan)
    shift, _ = prepare_linux.user_namespace(context, plan, plan.jail.settings.service.capabilities)
    return units.render_nspawn(plan, host, user_namespace=bool(shift))


def start_unit(context: Context, plan: JailPlan) -> str:
    """Return the unit that starts and stops a jail by layout."""
    return units.render_start_unit(plan.jail, context.site.root, command(context))


def command(context: Context) -> tuple[str, ...]:
    """Return the command `layout` with its global options, the program by its absolute path."""
    program = run.which("layout")
    layout = (program,) if program is not None else (sys.executable, "-m", "layout")
    return (*layout, *context.options)


def _host(context: Context, plan: JailPlan) -> units.Host:
    service = plan.jail.settings.service
    if not service.command:
        hint = f"set linux.service.command in a profile of your own: layout profile show {plan.jail.profile}"
        raise UsageError(f"profile {plan.jail.profile}", "no service.command", "the daemon of the jail", hint)
    with context.open() as root:
        own = prepare_linux.Own.shared(plan.jail.name)
        words, kept = prepare_linux.as_user(root, own, service)
        directories = prepare_linux.directories(root, own.etc, service)
    return units.Host(
        root=context.site.root,
        layout=command(context),
        command=words,
        kept=kept,
        directories=directories,
        capabilities=tuple(CAPABILITIES),
    )
