"""Commands of running jails."""

from __future__ import annotations

import typer

from layout.cli.app import Names, app, globals_of
from layout.cli.output import columns


@app.command()
def status(ctx: typer.Context, names: Names = None) -> None:
    """Print each jail's profile, preset, mounts and open session."""
    from layout.actions.status import status as action

    found = globals_of(ctx)
    context = found.context()
    rows = action(context, context.jails(names or []))
    if found.output.json:
        found.output.document({"jails": {row.name: row for row in rows}})
        return
    lines = [("NAME", "PROFILE", "PRESET", "MANAGE", "MOUNTS", "SESSION")]
    lines += [
        (r.name, r.profile, r.preset, r.manage, f"{r.mounted} of {r.planned}", r.session or "-") for r in rows
    ]
    for line in columns(lines):
        found.output.result(line)
