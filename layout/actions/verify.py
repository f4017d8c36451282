"""Prove that ro is ro and rw is rw: the live system against the plan. Only looks, changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from layout.actions.context import Context
from layout.actions.telling import Progress
from layout.actions.verifying import registry
from layout.actions.verifying.scene import Check, JailScene, S, Scene, When, unseen
from layout.core import findings
from layout.core.compare import Live
from layout.core.errors import LayoutError
from layout.core.findings import Finding, Report, error, named
from layout.core.model import JailPlan
from layout.core.names import check_name
from layout.host import privilege, records, table

_HELD = 50
"""Jails whose directories are held open at once: the usual limit of a process is 1024 descriptors."""


def verify(
    context: Context, plans: Sequence[JailPlan], *, quick: bool, tell: Progress, probe: bool = False
) -> Report:
    """Verify these jails; with `probe` also make the checks that really try.

    Raises LayoutError when ROOT cannot be looked at: not looked is not passed.
    """
    return _verified(context, plans, {}, _wanted(quick=quick, probe=probe), tell)


def verify_named(
    context: Context, names: Iterable[str], *, quick: bool, tell: Progress, probe: bool = False
) -> Report:
    """Verify jails by name, all of them when none is named.

    What keeps a jail or ROOT from being looked at is a finding too. Raises LayoutError for a name without a
    jail.
    """
    wanted = [check_name(name) for name in dict.fromkeys(names)]
    try:
        plans, broken = _plans(context, wanted)
        return _verified(context, plans, broken, _wanted(quick=quick, probe=probe), tell)
    except (OSError, LayoutError) as problem:
        if isinstance(problem, _NoSuchJail):
            raise
        return findings.report([unseen(context.site.root, problem)], {}, 1)


def _wanted(*, quick: bool, probe: bool) -> frozenset[When]:
    """Return which checks are made."""
    also = {When.FULL: not quick, When.PROBE: probe}
    return frozenset({When.ALWAYS, *(when for when, is_wanted in also.items() if is_wanted)})


class _NoSuchJail(LayoutError):
    pass


def _plans(context: Context, wanted: Sequence[str]) -> tuple[list[JailPlan], dict[str, Finding]]:
    """Return the plans of jails, and a finding for each that has no plan."""
    plans = []
    broken: dict[str, Finding] = {}
    with context.open() as root, context.state(root) as state:
        known = dict.fromkeys(records.jail_names(root))
        for name in wanted or known:
            if name not in known:
                words = ", ".join(known) or "none yet"
                raise _NoSuchJail(name, "no such jail", f"one of: {words}", f"layout init {name}")
            code, path = "S5-record", state.show(f"jails/{name}.toml")
            try:
                record = records.jail(state, name)
                if record is None:
                    broken[name] = error(code, path, "nothing", "the jail's record")
                elif record.name != name:
                    broken[name] = error(code, path, f"the record of {record.name}", f"that of {name}")
                elif record.state != "ready":
                    hint = f"layout recover, or layout destroy {name}"
                    broken[name] = error("S5-destroying", path, "half destroyed", "a whole jail", hint)
                else:
                    code = "S5-profile"
                    plans.append(context.plan_jail(context.recorded(record)))
            except (OSError, LayoutError) as problem:
                if isinstance(problem, LayoutError):
                    broken[name] = error(code, problem.path, problem.found, problem.expected, problem.hint)
                else:
                    broken[name] = unseen(path, problem)
    return plans, broken


def _verified(
    context: Context,
    plans: Sequence[JailPlan],
    broken: dict[str, Finding],
    wanted: frozenset[When],
    tell: Progress,
) -> Report:
    """Make every wanted check. Raises LayoutError, OSError when ROOT itself cannot be looked at."""
    live = Live(table.read())
    jails = {name: [finding] for name, finding in broken.items()}
    with context.open() as root, context.state(root) as state:
        if not privilege.is_root():  # else each file of a trial that --userns made is an error, for its owner
            expected = "root: nobody else sees all of it, or can enter a jail"
            raise LayoutError(context.site.root, f"user {os.geteuid()}", expected, privilege.AS_ROOT)
        scene = Scene(context, plans, root, state, live, quick=When.FULL not in wanted, tell=tell)
        checks = [check for check in registry.JAIL if check.when in wanted]
        with scene.observer:
            for index, plan in enumerate(plans):
                tell(f"looking at {plan.jail.name}", index, len(plans))
                if index % _HELD == 0:
                    scene.observer.forget()
                one = JailScene(scene, plan)
                found = _made([check for check in checks if one.is_here or not check.here], one, one.top)
                jails[plan.jail.name] = [named(finding, plan.jail.name) for finding in found]
            host = list(_made([c for c in registry.HOST if c.when in wanted], scene, context.site.root))
    return findings.report(host, dict(sorted(jails.items())), scene.checks, scene.probes)


def _made(checks: Sequence[Check[S]], scene: S, path: str) -> Iterator[Finding]:
    """Make checks. What one of them cannot look at is a finding, and the others are made all the same."""
    told: set[Finding] = set()
    for check in checks:
        try:
            yield from check.look(scene)
        except (OSError, LayoutError) as problem:
            finding = unseen(path, problem)
            if finding not in told:  # several checks may need the same answer
                told.add(finding)
                yield finding
