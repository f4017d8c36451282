"""`layout completion`: what a shell needs to complete the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from layout.cli.app import app, globals_of, load
from layout.cli.completion import Shell


@app.command()
def completion(
    ctx: typer.Context,
    shell: Annotated[Shell, typer.Argument(help="Whose completion.", show_default=False)],
) -> None:
    """Print the completion of the command line for a shell."""
    from layout.cli.completion import describe, script

    found = globals_of(ctx)
    load("")
    text = script(shell, *describe(typer.main.get_command(app)))
    if found.output.json:
        found.output.document({"text": text})
    else:
        found.output.raw(text)
