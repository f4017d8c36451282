"""A jail kept by the host's systemd: the rendered unit, installed for this boot, started and asked."""

from __future__ import annotations

import time

from layout.actions import prepare_linux, units_linux
from layout.actions.context import Context
from layout.core.errors import LayoutError
from layout.core.model import JailPlan
from layout.core.running import Running, RunRecord
from layout.core.units import unit_name
from layout.host.linux import procs, readiness, systemd

_STEP = 0.1
"""Seconds between two questions to systemd."""
_SETTLE = 0.5
NOTE = "uid 0 of the jail is uid 0 of the host, without its capabilities (a unit maps no range of users)"


def launch(context: Context, plan: JailPlan) -> None:
    """Install and start the unit; wait until the service is ready. Raises LayoutError."""
    unit = unit_name(plan.jail.name)
    systemd.install(unit, units_linux.unit(context, plan))
    try:
        systemd.start(unit)
    except LayoutError as error:
        raise _failed(plan, error.found) from None
    ready = plan.jail.settings.service.ready
    begin = time.monotonic()
    asked = bool(ready.tcp or ready.socket or ready.command)
    while True:
        pid = systemd.main_process(unit)
        if pid is None:
            raise _failed(plan, "a service that ended at once")
        passed = time.monotonic() - begin
        left = ready.timeout - passed

        def inside(argv: tuple[str, ...], pid: int = pid, left: float = left) -> int:
            return prepare_linux.run_inside(plan, pid, argv, left)

        problem = readiness.problem(ready, pid, inside) if asked else None
        if problem is None and (asked or passed >= _SETTLE):
            return
        if left <= 0:
            raise _failed(plan, f"a service that is not ready after {ready.timeout} s: {problem}")
        time.sleep(_STEP)


def look(record: RunRecord) -> Running | None:
    """Return how the unit stands, as systemd says. Raises LayoutError."""
    pid = systemd.main_process(record.unit)
    known = procs.identify(pid) if pid is not None else None
    if known is None:
        return None
    return Running(
        "unit",
        record.grade,
        pid=known.pid,
        since=procs.since(known),
        uptime=procs.uptime(known),
        log=f"journalctl -u {record.unit}",
        notes=record.notes,
    )


def end(record: RunRecord) -> None:
    """Stop the unit and take it away. Raises LayoutError."""
    systemd.stop(record.unit)
    systemd.remove(record.unit)


def _failed(plan: JailPlan, found: str) -> LayoutError:
    unit = unit_name(plan.jail.name)
    lines = systemd.last_words(unit)
    words = f"; its last words: {' | '.join(lines)}" if lines else ""
    return LayoutError(plan.jail.name, f"{found}{words}", "a service that goes on", f"journalctl -u {unit}")
