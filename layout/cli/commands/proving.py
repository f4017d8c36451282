"""What is true on this host: the attacks of the selftest, and what root in a jail can still do."""

from __future__ import annotations

import typer

from layout.cli.app import Names, app, globals_of, need_root


@app.command()
def audit(ctx: typer.Context, names: Names = None) -> None:
    """Say what root of a jail can still write, execute and reach."""
    from layout.actions import audit as action
    from layout.cli import proof

    found = globals_of(ctx)
    need_root(found, userns=False)
    context = found.context()
    jails = {plan.jail.name: action.audit_jail(context, plan) for plan in context.jails(names or [])}
    if found.output.json:
        found.output.document({"ok": not any(one.unseen for one in jails.values()), "jails": jails})
    else:
        for name, one in jails.items():
            proof.print_audit(found.output, name, one)
    raise typer.Exit(1 if any(one.unseen for one in jails.values()) else 0)


@app.command()
def selftest(ctx: typer.Context) -> None:
    """Attack jails made for it, in a throw-away root. Real attacks, on this kernel."""
    from layout.actions import selftest as action
    from layout.cli import proof

    output = globals_of(ctx).output
    found = action.selftest(output.tell)
    if output.json:
        output.document(found)
    else:
        proof.print_selftest(output, found)
    raise typer.Exit(0 if found.ok else 1)
