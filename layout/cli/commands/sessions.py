"""The administrator's session in a writable view."""

from __future__ import annotations

from typing import Annotated

import typer

from layout.cli.app import app, globals_of, need_root


@app.command()
def manage(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The jail.", show_default=False)],
    command: Annotated[
        list[str] | None, typer.Argument(help="-- CMD...: run this instead of a shell.", show_default=False)
    ] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Without the jail's own /var and /tmp.")] = False,
    base_ro: Annotated[bool, typer.Option("--base-ro", help="With the shared base read-only.")] = False,
    chroot: Annotated[bool, typer.Option("--chroot", help="FreeBSD: plain chroot(8), not confined.")] = False,
) -> None:
    """Open a shell in a jail's writable chroot; say what changed."""
    from layout.actions import manage as action
    from layout.cli import report

    found = globals_of(ctx)
    need_root(found, userns=False)
    context = found.context()
    (plan,) = context.jails([name])
    outcome = action.manage(
        context,
        plan,
        tuple(command or ()),
        sealed=sealed,
        base_ro=base_ro,
        chroot=chroot,
        to_stderr=found.output.json,
    )
    report.print_changes(found.output, name, outcome)
    raise typer.Exit(outcome.status)
