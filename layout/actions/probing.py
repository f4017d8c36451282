"""Active probes: from within a jail, really try what must not work and what must."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from layout.actions.kinds import design_of
from layout.core import jailconf, probing, tinyprogram
from layout.core.compare import Live
from layout.core.errors import LayoutError, reason_of
from layout.core.findings import Finding, error, named, shortened
from layout.core.model import Platform
from layout.core.mountinfo import MountPoint
from layout.core.probing import Attempt, Expected
from layout.host import inside, table
from layout.host.site import running_platform

if TYPE_CHECKING:
    from layout.actions.context import Context
    from layout.core.model import JailPlan


_NO_NETWORK = ("ip4=disable", "ip6=disable")


class Probed(msgspec.Struct):
    """What came of the probes at the end of another command."""

    count: int = 0
    """How much was tried."""
    findings: dict[str, list[Finding]] = {}
    """By jail; only those that have any."""

    @property
    def ok(self) -> bool:
        """Nothing gave way, and all could be tried."""
        return not any(one.severity == "error" for found in self.findings.values() for one in found)

    def add(self, other: Probed) -> None:
        """Take up what came of other probes."""
        self.count += other.count
        self.findings |= other.findings


def probe_named(context: Context, names: Iterable[str]) -> Probed:
    """Probe these jails, those of them that are mounted. What keeps one from being probed is a finding."""
    done = Probed()
    live = None
    for name in names:
        try:
            live = live or Live(table.read())
            (plan,) = context.jails([name])
            found, count = probe(context, plan, live)
        except (OSError, LayoutError) as problem:
            found, count = [_unprobed(name, problem)], 0
        done.count += count
        if found:
            done.findings[name] = shortened(found)
    return done


def probe(
    context: Context, plan: JailPlan, live: Live, special: Sequence[str] = ()
) -> tuple[list[Finding], int]:
    """Probe one jail, running or not; return findings, and how much was tried.

    `special` are FIFOs and sockets that were found in its read-only trees, as the jail names them. A jail
    that is not mounted, or is of another platform, is not probed: that has a finding of its own.
    """
    plan = design_of(plan.jail.kind).shown(context, plan)
    top = plan.tables.jail[0].target if plan.tables.jail else ""
    if not top or plan.jail.platform is not running_platform():
        return [], 0
    try:
        found = _attempts(context, plan, live, special)
    except (OSError, LayoutError) as problem:
        return [named(_unprobed(top, problem), plan.jail.name)], 0
    if found is None:
        return [], 0
    expected, attempts = found
    return [named(finding, plan.jail.name) for finding in probing.judge(expected, attempts)], len(attempts)


def _unprobed(path: str, problem: OSError | LayoutError) -> Finding:
    if isinstance(problem, LayoutError):
        where, why = f"{path}: {problem.path}", problem.found
    else:
        where, why = path, reason_of(problem)
    hint = "what has not been tried has not been proven: layout verify NAME as root"
    return error("A0-unprobed", where, why, "to try it", hint)


def _attempts(
    context: Context, plan: JailPlan, live: Live, special: Sequence[str]
) -> tuple[Expected, Sequence[Attempt]] | None:
    """Try it; None when there is nothing to try it in."""
    if running_platform() is Platform.LINUX:
        return _on_linux(context, plan, live, special)
    return _on_freebsd(context, plan, live, special)


def _on_linux(
    context: Context, plan: JailPlan, live: Live, special: Sequence[str]
) -> tuple[Expected, Sequence[Attempt]] | None:
    from layout.actions import running_linux
    from layout.host.linux import probe as host

    name, top = plan.jail.name, plan.tables.jail[0].target
    lives, pid, apart = running_linux.inside(context, plan)
    if not lives:
        if not live.at(top):
            return None
        expected = _expect(plan, below(live, top))
        return expected, host.stopped(_task(expected, special), top, expected.capabilities)
    if pid is None:
        raise LayoutError(name, "no process in the jail", "one to follow into it", f"layout restart {name}")
    expected = msgspec.structs.replace(_expect(plan, host.mounts_of(pid)), apart=apart)
    attempts = host.running(_task(expected, special), name, pid, expected.capabilities)
    held, looked = host.held_outside(pid, running_linux.log_of(context, plan))
    return expected, [*attempts, *(held or [Attempt("A6", "descriptor", "processes", "/")] * looked)]


def _on_freebsd(
    context: Context, plan: JailPlan, live: Live, special: Sequence[str]
) -> tuple[Expected, Sequence[Attempt]] | None:
    from layout.host.freebsd import jails
    from layout.host.freebsd import probe as host

    name, top = plan.jail.name, plan.tables.jail[0].target
    if not live.at(top):
        return None
    expected = _expect(plan, below(live, top))
    task = _task(expected, special)
    listed = jails.listed()
    for found in listed:
        if found.name == name and found.path == top:
            return expected, host.attached(task, found.jid)
    host.clear(name, listed)
    with host.throw_away(name, top, [*jailconf.policy(plan, context.site), *_NO_NETWORK]) as jid:
        return expected, host.attached(task, jid)


def below(live: Live, top: str) -> list[MountPoint]:
    """Return the mounts at and below a jail's root, as the jail names them."""
    return [
        point._replace(target=probing.inside(point.target, top))
        for target in live.below(top)
        for point in live.at(target)
    ]


def _expect(plan: JailPlan, live: Sequence[MountPoint]) -> Expected:
    expected = probing.expect(plan, live)
    assert expected is not None, plan.jail.name
    return expected


def _task(expected: Expected, special: Sequence[str]) -> inside.Task:
    system = os.uname()
    return inside.Task(
        expected.places,
        expected.writable,
        expected.readable,
        expected.programs,
        [(path, _around(expected, path)) for path in special],
        tinyprogram.program(system.sysname, system.machine),
    )


def _around(expected: Expected, path: str) -> str:
    found = [place.path for place in expected.places if path.startswith(f"{place.path.rstrip('/')}/")]
    return max(found, key=len, default="/")
