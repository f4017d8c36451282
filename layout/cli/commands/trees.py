"""Commands that make, prove, show and remove the trees of jails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from layout.actions.context import Choice
from layout.cli.app import (
    Base,
    ForPlatform,
    Globals,
    Names,
    NewNames,
    NoMount,
    Profile,
    WithBoot,
    WithManage,
    WithPreset,
    app,
    globals_of,
    need_root,
)
from layout.cli.output import columns, plural

if TYPE_CHECKING:
    from layout.core.model import JailPlan


@app.command()
def init(
    ctx: typer.Context,
    names: NewNames,
    profile: Profile = None,
    base: Base = None,
    platform: ForPlatform = None,
    preset: WithPreset = None,
    manage: WithManage = None,
    boot: WithBoot = None,
    no_mount: NoMount = False,
    example: Annotated[
        bool,
        typer.Option("--example", help="Write the profile's example configuration too, where there is none."),
    ] = False,
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

    found = globals_of(ctx)
    choice = Choice(profile, platform, preset, manage, base, boot)
    if dry_run:
        _print_plan(found, names, choice, mount=not no_mount, example=example)
        return
    need_root(found, userns)
    context = found.context(platform)
    outcome = action.init(context, names, choice, mount=not no_mount, example=example, tell=found.output.tell)
    output = found.output
    ok = outcome.report is None or outcome.report.ok
    if output.json:
        output.document(
            {
                "ok": ok,
                "changes": outcome.changes,
                "mounted": outcome.mounted,
                "missing": outcome.missing,
                "verify": outcome.report,
            }
        )
    else:
        _say_remarks(found, outcome.plans)
        report.print_init(output, outcome)
    raise typer.Exit(0 if ok else 1)


def _say_remarks(found: Globals, plans: Sequence[JailPlan]) -> None:
    from layout.actions.kinds import design_of

    for one in plans:
        for remark in design_of(one.jail.kind).remarks(one):
            found.output.note(f"{one.jail.name}: {remark}")


def _print_plan(
    found: Globals, names: list[str], choice: Choice, *, mount: bool, example: bool = False
) -> None:
    from layout.actions import init as action

    context = found.context(choice.platform)
    survey = action.survey(context, names, choice, mount=mount)
    steps = action.describe(context, survey)
    if example:
        from layout.actions.example import pending

        steps += pending(context, survey.plan.jails)
    if found.output.json:
        found.output.document({"changes": len(steps), "steps": steps})
        return
    for line in columns([(step.action, step.path, step.reason) for step in steps]):
        found.output.result(line)
    _say_remarks(found, survey.plan.jails)
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
    boot: WithBoot = None,
    no_mount: NoMount = False,
    script: Annotated[
        bool, typer.Option("--script", help="As a POSIX sh script that does it by hand.")
    ] = False,
) -> None:
    """Print what init would do, one line a step, with its reason."""
    found = globals_of(ctx)
    choice = Choice(profile, platform, preset, manage, base, boot)
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
def verify(
    ctx: typer.Context,
    names: Names = None,
    quick: Annotated[bool, typer.Option("--quick", help="Mounts, links, modes and records only.")] = False,
    probe: Annotated[
        bool | None,
        typer.Option(
            "--probe/--no-probe",
            help="Really try, from within each jail; by default unless --quick.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Compare the base's files with their manifest as well.")
    ] = False,
) -> None:
    """Prove that ro is ro and rw is rw, for every jail."""
    from layout.actions.verify import verify_named
    from layout.cli import report

    found = globals_of(ctx)
    context = found.context()
    probes = not quick if probe is None else probe
    result = verify_named(context, names or [], quick=quick, tell=found.output.tell, probe=probes)
    if base:
        from layout.actions.bases import verify_base

        result = result.joined(verify_base(context, found.output.tell).report)
    if found.output.json:
        found.output.document(result)
    else:
        report.print_report(found.output, result)
    raise typer.Exit(0 if result.ok else 1)


@app.command()
def destroy(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="The jail.", show_default=False)]
) -> None:
    """Remove one jail. Refuses while anything is mounted or running below it."""
    from layout.actions.destroy import destroy as action
    from layout.actions.destroy import remaining

    found = globals_of(ctx)
    need_root(found, userns=False)
    context = found.context()
    with context.locked():
        count = action(context, name)
    if left := remaining(context, name):
        found.output.note(left)
    if found.output.json:
        found.output.document({"ok": True, "destroyed": name, "entries": count})
    else:
        found.output.result(
            f"{name}: destroyed, {plural(count, 'entry') if count == 1 else f'{count} entries'} removed"
        )


@app.command()
def recover(ctx: typer.Context) -> None:
    """Finish or undo what a crash interrupted."""
    from layout.actions import mounting
    from layout.actions.recover import recover as action

    found = globals_of(ctx)
    need_root(found, userns=False)
    context = found.context()
    with context.locked():
        done = action(context)
    mounting.release_root(context.site)
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

    found = globals_of(ctx)
    context = found.context()
    picture.show(found.output, context, context.jails(names or []))
