"""The commands: arguments to calls, results to output."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from layout.actions.context import Choice, Context
from layout.cli.output import Output, columns, plural
from layout.core.errors import UsageError
from layout.core.model import Manage, Platform, Preset

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run many services on one host, each in a jail whose root it cannot change.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
profiles = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at profiles.")
app.add_typer(profiles, name="profile")


class Globals(msgspec.Struct):
    """The options that every command has."""

    root: str | None = None
    config: str | None = None
    output: Output = None  # type: ignore[assignment]

    def context(self, platform: Platform | None = None) -> Context:
        """Find the site."""
        return Context.find(self.root, self.config, platform)


Names = Annotated[list[str] | None, typer.Argument(help="Jails; all when none is named.", show_default=False)]
NewNames = Annotated[list[str], typer.Argument(help="Names of jails.", show_default=False)]
Profile = Annotated[
    str | None, typer.Option("--profile", help="Profile, if not the one named like the jail.")
]
Base = Annotated[
    str | None, typer.Option("--base", help="Source of mroot: a directory, an archive, or 'host'.")
]
ForPlatform = Annotated[Platform | None, typer.Option("--platform", help="Whose mounts to spell.")]
WithPreset = Annotated[Preset | None, typer.Option("--preset", help="Mount options.")]
WithManage = Annotated[
    Manage | None,
    typer.Option("--manage", help="When the writable half is mounted: in a session, or always."),
]
NoMount = Annotated[bool, typer.Option("--no-mount", help="Build the trees and tables only.")]


@app.callback()
def main(
    ctx: typer.Context,
    root: Annotated[
        str | None,
        typer.Option("--root", envvar="LAYOUT_ROOT", help="ROOT; configuration is in ROOT/etc then."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", envvar="LAYOUT_CONFIG", help="Configuration file.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", envvar="LAYOUT_JSON", help="One JSON document on stdout.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", envvar="LAYOUT_VERBOSE", help="Say more.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", envvar="LAYOUT_QUIET", help="Results and errors only.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Global options; they may stand before or after the command."""
    if version:
        from layout import __version__

        typer.echo(f"layout {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(UsageError.exit_code)
    ctx.obj = Globals(root, config, Output(json=json, quiet=quiet, verbose=verbose))


def _globals(ctx: typer.Context) -> Globals:
    found = ctx.obj
    assert isinstance(found, Globals)
    return found


@app.command()
def init(
    ctx: typer.Context,
    names: NewNames,
    profile: Profile = None,
    base: Base = None,
    platform: ForPlatform = None,
    preset: WithPreset = None,
    manage: WithManage = None,
    no_mount: NoMount = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print the plan and change nothing.")
    ] = False,
    userns: Annotated[
        bool,
        typer.Option("--userns", help="As an ordinary user: in a user namespace, for the time of this run."),
    ] = False,
) -> None:
    """Make what is missing, idempotently, then mount and verify."""
    from layout.actions import init as action
    from layout.cli import report

    found = _globals(ctx)
    choice = Choice(profile, platform, preset, manage, base)
    if dry_run:
        _print_plan(found, names, choice, mount=not no_mount)
        return
    _need_root(found, userns)
    context = found.context(platform)
    outcome = action.init(context, names, choice, mount=not no_mount, tell=found.output.tell)
    output = found.output
    ok = outcome.report is None or outcome.report.ok
    if output.json:
        output.document(
            {"ok": ok, "changes": outcome.changes, "mounted": outcome.mounted, "verify": outcome.report}
        )
    else:
        report.print_init(output, context, outcome)
    raise typer.Exit(0 if ok else 1)


def _need_root(found: Globals, userns: bool) -> None:
    """Be root, of the host or (asked for, or already) of a user namespace. Raises LayoutError."""
    from layout.host import privilege

    if userns and not privilege.is_root():
        privilege.enter_user_namespace()
        found.output.note("in a user namespace: files belong to you, and the mounts end with this run")
    privilege.require_root()


def _print_plan(found: Globals, names: list[str], choice: Choice, *, mount: bool) -> None:
    from layout.actions import init as action

    context = found.context(choice.platform)
    steps = action.describe(action.survey(context, names, choice, mount=mount))
    if found.output.json:
        found.output.document({"changes": len(steps), "steps": steps})
        return
    for line in columns([(step.action, step.path, step.reason) for step in steps]):
        found.output.result(line)
    found.output.note(f"{plural(len(steps), 'change')} to make")


@app.command()
def plan(
    ctx: typer.Context,
    names: NewNames,
    profile: Profile = None,
    base: Base = None,
    platform: ForPlatform = None,
    preset: WithPreset = None,
    manage: WithManage = None,
    no_mount: NoMount = False,
    script: Annotated[
        bool, typer.Option("--script", help="As a POSIX sh script that does it by hand.")
    ] = False,
) -> None:
    """Print what init would do, one line a step, with its reason."""
    found = _globals(ctx)
    choice = Choice(profile, platform, preset, manage, base)
    context = found.context(platform)
    # Tables for another platform can be planned anywhere; they just cannot be mounted here.
    from layout.host.site import running_platform

    mount = not no_mount and context.site.platform is running_platform()
    if not script:
        _print_plan(found, names, choice, mount=mount)
        return
    from layout.actions.script import script_of

    found.output.raw(script_of(context, names, choice, mount=not no_mount))


@app.command()
def mount(
    ctx: typer.Context,
    names: Names = None,
    manage: Annotated[bool, typer.Option("--manage", help="The writable halves too.")] = False,
) -> None:
    """Mount jails by their tables, all of a jail's mounts or none."""
    from layout.actions import mounting

    _mounts(ctx, names, "mounted", lambda c, plans: mounting.mount(c.site, plans, manage=manage))


@app.command()
def umount(
    ctx: typer.Context,
    names: Names = None,
    manage: Annotated[bool, typer.Option("--manage", help="Only the writable halves.")] = False,
) -> None:
    """Unmount jails, deepest mount first; never lazily, never by force."""
    from layout.actions import mounting

    _mounts(ctx, names, "unmounted", lambda c, plans: mounting.umount(c.site, plans, manage_only=manage))
    mounting.release_root(_globals(ctx).context().site)


def _mounts(
    ctx: typer.Context, names: list[str] | None, word: str, work: Callable[[Context, Any], list[str]]
) -> None:
    found = _globals(ctx)
    _need_root(found, userns=False)
    context = found.context()
    plans = context.jails(names or [])
    with context.locked():
        done = work(context, plans)
    if found.output.json:
        found.output.document({"ok": True, word: done})
        return
    for target in done:
        found.output.detail(f"{word} {target}")
    found.output.result(f"{plural(len(done), 'mount')} {word}, {plural(len(plans), 'jail')}")


@app.command()
def verify(
    ctx: typer.Context,
    names: Names = None,
    quick: Annotated[bool, typer.Option("--quick", help="Mounts, links, modes and records only.")] = False,
) -> None:
    """Prove that ro is ro and rw is rw, for every jail."""
    from layout.actions.verify import verify_named
    from layout.cli import report

    found = _globals(ctx)
    result = verify_named(found.context(), names or [], quick=quick, tell=found.output.tell)
    if found.output.json:
        found.output.document(result)
    else:
        report.print_report(found.output, result)
    raise typer.Exit(0 if result.ok else 1)


@app.command()
def manage(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The jail.", show_default=False)],
    command: Annotated[
        list[str] | None, typer.Argument(help="-- CMD...: run this instead of a shell.", show_default=False)
    ] = None,
    sealed: Annotated[bool, typer.Option("--sealed", help="Without the jail's own /var and /tmp.")] = False,
    base_ro: Annotated[bool, typer.Option("--base-ro", help="With the shared base read-only.")] = False,
) -> None:
    """Open a shell in a jail's writable chroot; say what changed."""
    from layout.actions import manage as action
    from layout.cli import report

    found = _globals(ctx)
    _need_root(found, userns=False)
    context = found.context()
    (plan,) = context.jails([name])
    outcome = action.manage(
        context, plan, tuple(command or ()), sealed=sealed, base_ro=base_ro, to_stderr=found.output.json
    )
    report.print_changes(found.output, name, outcome)
    raise typer.Exit(outcome.status)


@app.command()
def status(ctx: typer.Context, names: Names = None) -> None:
    """Print each jail's profile, preset, mounts and open session."""
    from layout.actions.status import status as action

    found = _globals(ctx)
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


@app.command()
def destroy(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="The jail.", show_default=False)]
) -> None:
    """Remove one jail. Refuses while anything is mounted or running below it."""
    from layout.actions.destroy import destroy as action

    found = _globals(ctx)
    _need_root(found, userns=False)
    context = found.context()
    with context.locked():
        count = action(context, name)
    if found.output.json:
        found.output.document({"ok": True, "destroyed": name, "entries": count})
    else:
        found.output.result(
            f"{name}: destroyed, {plural(count, 'entry') if count == 1 else f'{count} entries'} removed"
        )


@app.command()
def recover(ctx: typer.Context) -> None:
    """Finish or undo what a crash interrupted."""
    from layout.actions.recover import recover as action

    found = _globals(ctx)
    _need_root(found, userns=False)
    context = found.context()
    with context.locked():
        done = action(context)
    if found.output.json:
        found.output.document({"ok": True, "recovered": done})
        return
    for line in done:
        found.output.result(line)
    found.output.note(f"{plural(len(done), 'thing')} to recover from" if done else "nothing to recover from")


@app.command()
def show(ctx: typer.Context, names: Names = None) -> None:
    """Draw the trees with what can be written marked."""
    from layout.cli import picture

    found = _globals(ctx)
    context = found.context()
    picture.show(found.output, context, context.jails(names or []))


@app.command()
def fstab(
    ctx: typer.Context,
    names: Names = None,
    platform: ForPlatform = None,
    preset: WithPreset = None,
    manage: WithManage = None,
    install: Annotated[bool, typer.Option("--install", help="Put the table into the host's fstab.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out again.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even when the block was edited by hand.")] = False,
    file: Annotated[str | None, typer.Option("--file", help="This file instead of the host's fstab.")] = None,
) -> None:
    """Print the mount table, or keep it in the host's fstab."""
    from layout.actions import hostfstab

    found = _globals(ctx)
    context = found.context(platform)
    if install and remove:
        raise UsageError("layout fstab", "--install and --remove", "one of them")
    if remove:
        changed = hostfstab.remove(file or context.site.host_fstab, force=force)
    else:
        plans = context.described(names or [], Choice(None, platform, preset, manage))
        text = hostfstab.table(plans)
        if not install:
            if found.output.json:
                found.output.document({"fstab": text})
            else:
                found.output.raw(text)
            return
        changed = hostfstab.install(file or context.site.host_fstab, text, force=force)
    if found.output.json:
        found.output.document({"ok": True, "changed": changed, "file": file or context.site.host_fstab})
    else:
        found.output.result(
            f"{file or context.site.host_fstab}: {'changed' if changed else 'as it should be'}"
        )


class Kind(StrEnum):
    """What can be rendered."""

    FSTAB = "fstab"


@app.command()
def render(
    ctx: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="Which artefact.", show_default=False)],
    names: Names = None,
    platform: ForPlatform = None,
    preset: WithPreset = None,
    manage: WithManage = None,
) -> None:
    """Print a generated artefact."""
    match kind:
        case Kind.FSTAB:
            fstab(ctx, names, platform, preset, manage)
        case _:
            raise AssertionError(kind)


@profiles.command("list")
def profile_list(ctx: typer.Context) -> None:
    """List profiles, the site's and the shipped ones."""
    from layout.host import shipped

    found = _globals(ctx)
    context = found.context()
    names = shipped.profile_names(context.site)
    rows = [(name, context.profile(name).kind, context.profile(name).description) for name in names]
    if found.output.json:
        found.output.document(
            {"profiles": {name: {"kind": kind, "description": text} for name, kind, text in rows}}
        )
        return
    for line in columns(rows):
        found.output.result(line)


@profiles.command("show")
def profile_show(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="The profile.", show_default=False)]
) -> None:
    """Print a profile's file."""
    from layout.host import hostfiles, shipped

    found = _globals(ctx)
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
    from layout.host import shipped

    found = _globals(ctx)
    for path in files:
        shipped.load_profile(path)
    if found.output.json:
        found.output.document({"ok": True, "files": files})
        return
    for path in files:
        found.output.result(f"{path}: ok")


@profiles.command("schema")
def profile_schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of profiles, for editors."""
    import msgspec

    from layout.core.profile import Profile as Structure

    _globals(ctx).output.document(msgspec.json.schema(Structure))
