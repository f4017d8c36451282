"""The routine deploy of a jail with one program."""

from __future__ import annotations

from typing import Annotated

import typer

from layout.cli.app import app, globals_of, need_root


@app.command()
def update(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The jail, of kind osless.", show_default=False)],
    file: Annotated[str, typer.Argument(help="A file of the host: the new program.", show_default=False)],
    path: Annotated[
        str,
        typer.Argument(help="What it replaces instead, as the jail sees it: etc/x.conf.", show_default=False),
    ] = "",
) -> None:
    """Replace the program of an OS-less jail and start it again. Go back if it does not come up."""
    from layout.actions.kinds import osless_update
    from layout.host import hostfiles

    found = globals_of(ctx)
    need_root(found, userns=False)
    context = found.context()
    (plan,) = context.jails([name])
    done = osless_update.update(context, plan, hostfiles.absolute(file), path, found.output.note)
    if found.output.json:
        found.output.document(
            {"ok": True, "path": done.path, "changed": done.changed, "running": done.running}
        )
        return
    words = "replaced" if done.changed else "is that file already"
    state = f"running, process {done.running.pid}" if done.running is not None else "not running"
    found.output.result(f"{name}: {done.path} {words}; {state}")
