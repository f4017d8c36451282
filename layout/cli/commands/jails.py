"""Commands of running jails: start, stop, restart, status, exec."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from layout.cli.app import Globals, Names, NewNames, app, globals_of, need_root
from layout.cli.output import columns, plural
from layout.core.errors import LayoutError

if TYPE_CHECKING:
    from layout.actions.context import Context
    from layout.core.model import JailPlan
    from layout.core.running import Running

T = TypeVar("T")


class Engine(StrEnum):
    """What may keep a jail."""

    AUTO = "auto"
    BWRAP = "bwrap"
    NSPAWN = "nspawn"
    UNIT = "unit"


WithEngine = Annotated[
    Engine | None, typer.Option("--engine", help="Linux: what keeps it, if not what its profile says.")
]


@app.command()
def start(ctx: typer.Context, names: NewNames, engine: WithEngine = None) -> None:
    """Start the services of jails; wait until each is ready."""
    from layout.actions import running

    ran: set[str] = set()

    def work(context: Context, plan: JailPlan, tell: Callable[[str], None]) -> Running:
        if running.running(context, plan) is not None:
            ran.add(plan.jail.name)
        return running.start(context, plan, tell, engine)

    _start(ctx, names, work, ran)


@app.command()
def restart(ctx: typer.Context, names: NewNames, engine: WithEngine = None) -> None:
    """Stop the services of jails, if they run, and start them."""
    from layout.actions import running

    _start(ctx, names, lambda c, plan, tell: running.restart(c, plan, tell, engine), set())


def _start(
    ctx: typer.Context,
    names: list[str],
    work: Callable[[Context, JailPlan, Callable[[str], None]], Running],
    ran: set[str],
) -> None:
    """Start jails, say how each stands and probe it; `ran` gets the names of those that `work` let alone."""
    from layout.actions.probing import Probed, probe_named
    from layout.cli import report

    found = globals_of(ctx)
    probed = Probed()

    def started(context: Context, plan: JailPlan, tell: Callable[[str], None]) -> Running:
        state = work(context, plan, tell)
        probed.add(probe_named(context, [plan.jail.name]))
        return state

    def say(found: Globals, name: str, state: Running) -> None:
        if not found.output.json:
            who = f"process {state.pid}" if state.pid else f"jail {state.jid}"
            again = "already " if name in ran else ""
            found.output.result(f"{name}: {again}running, {who}, {state.engine}, {state.grade}")
        for note in state.notes:
            found.output.note(f"{name}: {note}")

    done = _each(found, names, started, say)
    if found.output.json:
        document = {"probes": probed.count, "findings": probed.findings}
        found.output.document({"ok": probed.ok, "running": done, **document})
    else:
        report.print_probed(found.output, probed)
    raise typer.Exit(0 if probed.ok else 1)


@app.command()
def stop(ctx: typer.Context, names: NewNames) -> None:
    """Stop the services of jails, each by its own signal. Nothing of them is left."""
    from layout.actions import running

    found = globals_of(ctx)
    done = _each(found, names, running.stop, _say_stopped, running.dependents_first, standing=True)
    if found.output.json:
        found.output.document({"ok": True, "stopped": [name for name, ran in done.items() if ran]})


def _say_stopped(found: Globals, name: str, ran: bool) -> None:
    if not ran:
        found.output.note(f"{name}: not running")
    elif not found.output.json:
        found.output.result(f"{name}: stopped")


def _each(
    found: Globals,
    names: list[str],
    work: Callable[[Context, JailPlan, Callable[[str], None]], T],
    say: Callable[[Globals, str, T], None],
    order: Callable[[list[JailPlan]], list[JailPlan]] = list,
    standing: bool = False,
) -> dict[str, T]:
    """Work on jails one after the other; one that fails does not keep the others from their turn."""
    need_root(found, userns=False)
    context = found.context()
    done: dict[str, T] = {}
    failed: list[LayoutError] = []
    for plan in order(context.standing(names) if standing else context.jails(names)):
        try:
            done[plan.jail.name] = result = work(context, plan, found.output.note)
        except LayoutError as error:
            failed.append(error)
            if len(names) > 1:
                found.output.error(error)
        else:
            say(found, plan.jail.name, result)
    if len(failed) == 1 and len(names) == 1:
        raise failed[0]
    if failed:
        what = ", ".join(error.path for error in failed)
        raise LayoutError("layout", f"{plural(len(failed), 'jail')} that failed: {what}", "all to succeed")
    return done


@app.command()
def status(ctx: typer.Context, names: Names = None) -> None:
    """Print each jail's profile, service, mounts and open session."""
    from layout.actions.status import status as action

    found = globals_of(ctx)
    context = found.context()
    rows = action(context, context.standing(names or []))
    failed = 1 if any(row.problem for row in rows) else 0
    if found.output.json:
        found.output.document({"jails": {row.name: row for row in rows}})
        raise typer.Exit(failed)
    lines: list[tuple[str, ...]] = [
        ("NAME", "PROFILE", "PRESET", "MANAGE", "MOUNTS", "STATE", "ENGINE", "GRADE", "PID", "UP", "SESSION")
    ]
    for row in rows:
        state = row.running
        word = "stopped" if row.known else "unknown"
        shown = (word, "-", "-", "-", "-") if state is None else _shown(state)
        mounts = f"{row.mounted} of {row.planned}"
        lines.append((row.name, row.profile, row.preset, row.manage, mounts, *shown, row.session or "-"))
    for line in columns(lines):
        found.output.result(line)
    for row in rows:
        for note in row.running.notes if row.running else ():
            found.output.detail(f"{row.name}: {note}")
        if row.problem:
            found.output.note(f"{row.name}: {row.problem.removeprefix(f'{row.name}: ')}")
    raise typer.Exit(failed)


def _shown(state: Running) -> tuple[str, ...]:
    number = state.pid if state.pid is not None else state.jid
    return ("running", state.engine, state.grade, str(number or "-"), _age(state.uptime))


def _age(seconds: int | None) -> str:
    """Return a time as people say it: 42 s, 3 min, 5 h, 12 d."""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


@app.command(name="exec")
def execute(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The jail.", show_default=False)],
    command: Annotated[
        list[str] | None, typer.Argument(help="-- CMD...: run this instead of a shell.", show_default=False)
    ] = None,
) -> None:
    """Run a command in a running jail, with its rights and no more."""
    from layout.actions import running

    found = globals_of(ctx)
    need_root(found, userns=False)
    context = found.context()
    (plan,) = context.jails([name])
    raise typer.Exit(running.execute(context, plan, tuple(command or ())))
