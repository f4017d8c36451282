"""A jail kept by the host's systemd: the rendered unit, installed for this boot, started and asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layout.core.errors import LayoutError
from layout.core.model import JailPlan
from layout.core.running import Running, RunRecord
from layout.core.units import CLOSING, unit_name
from layout.host import records
from layout.host.linux import procs, systemd

if TYPE_CHECKING:
    from layout.actions.context import Context

_STEP = 0.1
"""Seconds between two questions to systemd."""
_SETTLE = 0.5
"""Seconds that a service without a ready check has to stay there."""
NOTE = "uid 0 of the jail is uid 0 of the host, without its capabilities (a unit maps no range of users)"


def launch(context: Context, plan: JailPlan) -> None:
    """Install and start the unit, or start an administrator's; wait until it is ready. Raises LayoutError."""
    from layout.actions import prepare_linux, units_linux
    from layout.actions.coming_up import until_ready
    from layout.host.linux import readiness

    unit = unit_name(plan.jail.name)
    if systemd.is_installed(unit):
        systemd.reload()
        root = systemd.properties(unit, ("RootDirectory",)).get("RootDirectory")
        if root != plan.tables.jail[0].target:
            hint = f"layout render unit {plan.jail.name} makes the one of this jail"
            place = f"{systemd.INSTALLED}/{unit}"
            raise LayoutError(place, f"a unit of {root or 'no root'}", plan.tables.jail[0].target, hint)
    else:
        systemd.install(unit, units_linux.unit(context, plan))
    try:
        systemd.start(unit)
    except LayoutError as error:
        raise _failed(plan, error.found) from None
    ready = plan.jail.settings.service.ready

    def works(left: float) -> str | None:
        pid = systemd.main_process(unit)
        if pid is None:
            raise _failed(plan, "a service that ended at once")
        return readiness.problem(ready, pid, lambda argv: prepare_linux.run_inside(plan, pid, argv, left))

    why = until_ready(ready, works, _STEP, _SETTLE)
    if why:
        raise _failed(plan, f"a service that is not ready after {ready.timeout} s: {why}")


def look(record: RunRecord) -> Running | None:
    """Return how the unit stands, as systemd says. Raises LayoutError."""
    pid = systemd.main_process(record.unit)
    known = procs.identify(pid) if pid is not None else None
    if known is None:
        return None
    known_settings = systemd.properties(record.unit, CLOSING)
    lacking = [name for name in CLOSING if name not in known_settings]
    return Running(
        "unit",
        record.grade,
        pid=known.pid,
        since=procs.since(known),
        uptime=procs.uptime(known),
        log=f"journalctl -u {record.unit}",
        notes=(NOTE, *([f"this systemd does not know {', '.join(lacking)}"] if lacking else [])),
    )


def installed(plan: JailPlan) -> RunRecord | None:
    """Return what stands for a run that systemd began, at boot perhaps, by a unit that is installed for good.

    None when there is none, or it does not run. Raises LayoutError.
    """
    unit = unit_name(plan.jail.name)
    if not systemd.is_installed(unit) or systemd.main_process(unit) is None:
        return None
    if systemd.properties(unit, ("RootDirectory",)).get("RootDirectory") != plan.tables.jail[0].target:
        return None
    return RunRecord("unit", "weak", records.now(), mounted=False, unit=unit)


def end(record: RunRecord) -> None:
    """Stop the unit and take it away. Raises LayoutError."""
    systemd.stop(record.unit)
    systemd.remove(record.unit)


def _failed(plan: JailPlan, found: str) -> LayoutError:
    unit = unit_name(plan.jail.name)
    lines = systemd.last_words(unit)
    words = f"; its last words: {' | '.join(lines)}" if lines else ""
    return LayoutError(plan.jail.name, f"{found}{words}", "a service that goes on", f"journalctl -u {unit}")
