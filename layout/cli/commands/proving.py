"""What is true on this host: the attacks of the selftest, and what root in a jail can still do."""

from __future__ import annotations

import typer

from layout.cli.app import app, globals_of


@app.command()
def selftest(ctx: typer.Context) -> None:
    """Attack jails made for it, on this kernel, in a throw-away root: tried, blocked, residue."""
    from layout.actions import selftest as action
    from layout.cli import proof

    output = globals_of(ctx).output
    found = action.selftest(output.tell)
    if output.json:
        output.document(found)
    else:
        proof.print_selftest(output, found)
    raise typer.Exit(0 if found.ok else 1)
