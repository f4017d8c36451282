"""The administrator's session in a writable view."""

from __future__ import annotations

from typing import Annotated

import typer

from layout.cli.app import app, globals_of, need_root
from layout.core.errors import UsageError


@app.command()
def manage(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The jail.", show_default=False)] = None,
    command: Annotated[
        list[str] | None, typer.Argument(help="-- CMD...: run this instead of a shell.", show_default=False)
    ] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Without the jail's own /var and /tmp.")] = False,
    base_ro: Annotated[bool, typer.Option("--base-ro", help="With the shared base read-only.")] = False,
    chroot: Annotated[bool, typer.Option("--chroot", help="FreeBSD: plain chroot(8), not confined.")] = False,
    base: Annotated[
        bool, typer.Option("--base", help="In the base itself, for packages; then merge it into the jails.")
    ] = False,
) -> None:
    """Open a shell in a jail's writable chroot; say what changed."""
    from layout.actions import manage as action
    from layout.actions.kinds.design import SessionOptions
    from layout.cli import report

    found = globals_of(ctx)
    need_root(found, userns=False)
    context = found.context()
    if base:
        from layout.actions.manage_base import manage_base

        if sealed or base_ro or chroot:
            raise UsageError("manage --base", "another option of a jail's session", "--base alone")
        # Without a NAME the first word after -- is where the name would be.
        words = tuple([name] if name is not None else []) + tuple(command or ())
        done = manage_base(context, words, found.output.tell, to_stderr=found.output.json)
        report.print_base_session(found.output, done)
        raise typer.Exit(done.exit_code)
    if name is None:
        raise UsageError("manage", "no jail", "the name of one, or --base", "layout manage NAME")
    (plan,) = context.jails([name])
    options = SessionOptions(sealed, base_ro, chroot, to_stderr=found.output.json)
    outcome = action.manage(context, plan, tuple(command or ()), options)
    report.print_changes(found.output, name, outcome)
    raise typer.Exit(outcome.status)
