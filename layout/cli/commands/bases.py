"""`layout base`: where mroot comes from, what it should be, and whether it still is."""

from __future__ import annotations

from typing import Annotated

import typer

from layout.cli.app import app, globals_of, need_root
from layout.cli.output import columns, plural

bases = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build, list and verify bases.")
app.add_typer(bases, name="base")


@bases.command("list")
def base_list(ctx: typer.Context) -> None:
    """Print the base of ROOT and where it came from."""
    from layout.actions import bases as action

    found = globals_of(ctx)
    base = action.base_of(found.context())
    if found.output.json:
        found.output.document({"mroot": base})
        return
    if base is None:
        found.output.note("no base yet: layout init NAME makes it")
        return
    record = base.record
    rows = [("BASE", "PLATFORM", "CREATED", "ENTRIES", "MB", "MANIFEST", "SOURCE")]
    rows.append(
        (
            "mroot",
            record.platform,
            record.created,
            str(record.entries),
            f"{record.bytes / 1e6:.1f}",
            "yes" if base.manifest else "no",
            record.source,
        )
    )
    for line in columns(rows):
        found.output.result(line)


@bases.command("verify")
def base_verify(
    ctx: typer.Context,
    update: Annotated[
        bool, typer.Option("--update", help="Accept what is there now: write the manifests anew.")
    ] = False,
) -> None:
    """Compare every file of mroot and skel with the manifest made with the base."""
    from layout.actions import bases as action
    from layout.cli import report

    found = globals_of(ctx)
    output = found.output
    need_root(found, userns=False)
    context = found.context()
    if not update:
        done = action.verify_base(context, output.tell)
        if output.json:
            output.document(done.report)
        else:
            report.print_report(output, done.report)
        raise typer.Exit(0 if done.report.ok else 1)
    with context.locked():
        done = action.verify_base(context, output.tell, update=True)
    accepted = done.report.host.findings
    if output.json:
        output.document({"ok": True, "accepted": accepted, "written": done.written})
        return
    for finding in accepted:
        output.result(f"accepted {finding.code} {finding.path}: {finding.found}")
    output.note(f"{plural(len(done.written), 'manifest')} written")
