"""`layout profile`: look at profiles, check them, print their schema."""

from __future__ import annotations

from typing import Annotated

import typer

from layout.cli.app import app, globals_of
from layout.cli.output import columns
from layout.core.errors import LayoutError

profiles = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at profiles.")
app.add_typer(profiles, name="profile")


@profiles.command("list")
def profile_list(ctx: typer.Context) -> None:
    """List profiles, the site's and the shipped ones."""
    from layout.host import shipped

    found = globals_of(ctx)
    context = found.context()
    names = shipped.profile_names(context.site)
    rows = []
    failed: list[LayoutError] = []
    for name in names:
        try:
            rows.append((name, context.profile(name).kind, context.profile(name).description))
        except LayoutError as problem:
            failed.append(problem)
    for one in failed[:-1]:
        found.output.error(one)
    if found.output.json:
        found.output.document(
            {"profiles": {name: {"kind": kind, "description": text} for name, kind, text in rows}}
        )
    else:
        for line in columns(rows):
            found.output.result(line)
    if failed:
        raise failed[-1]


@profiles.command("show")
def profile_show(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="The profile.", show_default=False)]
) -> None:
    """Print a profile's file."""
    from layout.host import hostfiles, shipped

    found = globals_of(ctx)
    context = found.context()
    profile = context.profile(name)
    if found.output.json:
        found.output.document(profile)
        return
    path = shipped.profile_path(context.site, name) or ""
    found.output.note(f"# {path}")
    found.output.raw(hostfiles.read_text(path) or "")


@profiles.command("check")
def profile_check(
    ctx: typer.Context, files: Annotated[list[str], typer.Argument(help="Files.", show_default=False)]
) -> None:
    """Check profile files."""
    from layout.actions.kinds import design_of
    from layout.host import shipped

    found = globals_of(ctx)
    loaded = {path: shipped.load_profile(path) for path in files}
    if found.output.json:
        found.output.document({"ok": True, "files": files})
        return
    for path, profile in loaded.items():
        found.output.result(f"{path}: ok")
        for line, more in design_of(profile.kind).explained(profile):
            found.output.note(f"  {line}")
            for one in more:
                found.output.note(f"    {one}")


@profiles.command("schema")
def profile_schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of profiles, for editors."""
    import msgspec

    from layout.core.profile import Profile as Structure

    globals_of(ctx).output.document(msgspec.json.schema(Structure))
