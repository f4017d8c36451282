"""`layout advise`: which design suits a program."""

from __future__ import annotations

from typing import Annotated

import typer

from layout.cli.app import app, globals_of
from layout.cli.output import columns


@app.command()
def advise(
    ctx: typer.Context,
    program: Annotated[str, typer.Argument(help="Its absolute path.", show_default=False)],
) -> None:
    """Look at a program and propose a profile, without running it. The profile on stdout, why on stderr."""
    from layout.actions.advise import propose

    globals_ = globals_of(ctx)
    output = globals_.output
    found = propose(program)
    if output.json:
        output.document(found)
        return
    rows = [
        (f"{'*' if one.kind is found.kind else ' '} {one.kind}", "suits" if one.suits else "no", one.why)
        for one in found.reasons
    ]
    for line in columns(rows):
        output.note(line)
    for note in found.notes:
        output.note(f"  {note}")
    etc = globals_.context().site.etc
    output.raw(found.profile)
    output.note(f"to use it: look through it, save it as {etc}/profiles/NAME.toml, then layout init NAME")
