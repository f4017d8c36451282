"""How jails stand on Linux, from the records of their runs: what commands ask that start and stop nothing."""

from __future__ import annotations

from layout.actions import running_unit
from layout.actions.context import Context
from layout.core.model import JailPlan
from layout.core.running import Running, RunRecord
from layout.host import records
from layout.host.beneath import Dir
from layout.host.linux import procs


def running(context: Context, plan: JailPlan) -> Running | None:
    """Return how the jail stands; see layout.actions.running."""
    try:
        with context.open() as root, root.open(".layout") as state:
            return standing(context, state, plan)[1]
    except FileNotFoundError:
        return None


def read(state: Dir, name: str) -> RunRecord | None:
    """Return the record of a jail's last run. Raises LayoutError for a damaged one."""
    try:
        return records.read(state, f"run/{name}.toml", RunRecord)
    except FileNotFoundError:
        return None


def standing(context: Context, state: Dir, plan: JailPlan) -> tuple[RunRecord | None, Running | None]:
    """Return the record of a jail's last run, and how the jail stands: by itself, or by a unit at boot."""
    record = read(state, plan.jail.name)
    found = look(context, record, plan) if record is not None else None
    if found is None and (booted := running_unit.installed(plan)) is not None:
        return booted, running_unit.look(booted)
    return record, found


def look(context: Context, record: RunRecord, plan: JailPlan) -> Running | None:
    """Return how a jail stands, from its engine's process."""
    if record.unit:
        return running_unit.look(record)
    known = record.process
    if known is None or not procs.lives(known):
        return None
    return Running(
        record.engine,
        record.grade,
        pid=daemon(record.engine, known.pid) or known.pid,
        since=procs.since(known),
        uptime=procs.uptime(known),
        log=f"{context.site.root}/.layout/log/{plan.jail.name}.log",
        notes=record.notes,
    )


def daemon(engine: str, pid: int) -> int | None:
    """Return the process that runs the service: the engine's own where it has become that."""
    from layout.host.linux.engines import direct

    return pid if engine == direct.NAME else procs.daemon_of(pid)
