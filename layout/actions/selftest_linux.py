"""The selftest on Linux: jails of a tiny base in a sandbox, attacked by what each engine starts in them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from layout.actions import manage, prepare_linux, running, selftest_jails
from layout.actions.context import Context
from layout.actions.kinds.design import SessionOptions
from layout.actions.selftest import Found
from layout.actions.selftest_jails import Case
from layout.actions.telling import Progress
from layout.core.attacks import ENGINE, SESSION, TRAPS, NotTried, Place, as_seen, judge, strict
from layout.core.errors import LayoutError, printable
from layout.host import interpreter, played
from layout.host.attacks.frame import RESULT
from layout.host.linux import sandbox, targets, traps
from layout.host.linux.engines import direct
from layout.host.run import which

SECONDS = 180.0
"""For everything; it takes a few of them."""
_ANSWER = 40.0
"""Seconds for the attacks of one jail."""
_One = dict[str, Any] | None
_Raw = dict[str, dict[str, Any]]
_TERMINAL = "terminal"
"""It needs a session that has one."""
_UNIT = NotTried(
    "unit",
    "such a jail belongs to the systemd that is process 1 of this host, and a sandbox has none; "
    "layout verify tries one that runs",
)


def run(tell: Progress) -> Found:
    """Make the sandbox and attack in it. Raises LayoutError."""
    tell("building a sandbox", 0, 0)
    answer = sandbox.run(_work, SECONDS, user_namespace=os.geteuid() != 0)
    return msgspec.json.decode(answer, type=Found)


def _work() -> bytes:
    python = interpreter.build(targets.BASE)
    targets.prepare(python)
    traps.prepare()
    installed = {name: module for name, module in prepare_linux.ENGINES.items() if which(module.PROGRAM)}
    with targets.outside(python) as (aim, token):
        context, cases = selftest_jails.make(aim, tuple(installed))
        with targets.left_in_base():
            places = [] if installed else [_no_engine()]
            for case in cases:
                engines = [one for one in case.engines or (direct.NAME,) if one in {*installed, direct.NAME}]
                places += _engines(context, case, engines, token)
            with traps.planted("weak", aim):
                places += _sessions(context, cases, token)
    return msgspec.json.encode(Found(tuple(places), tuple(_not_tried(cases))))


def _not_tried(cases: list[Case]) -> Iterable[NotTried]:
    for name, module in prepare_linux.ENGINES.items():
        if which(module.PROGRAM) is None:
            yield NotTried(name, f"{module.PROGRAM} is not installed ({module.PACKAGE})")
    if all(case.engines for case in cases):
        yield NotTried(direct.NAME, f"no attacker is known for a machine such as this, {os.uname().machine}")
    yield _UNIT


def _no_engine() -> Place:
    """Where no engine is installed nothing was attacked, and that is no pass."""
    packages = " or ".join(module.PACKAGE for module in prepare_linux.ENGINES.values())
    results = tuple(judge(attack, None, None, "") for attack in ENGINE)
    return Place("no engine", f"not run: install {packages}", results)


def _engines(context: Context, case: Case, engines: list[str], token: str) -> list[Place]:
    """Attack one jail under each of these engines. The controls come last: they leave files of root in t."""
    raw = [_engine(context, case, engine) for engine in engines]
    controls = targets.controls(case.attacks, case.target)
    places = []
    for engine, (note, found, left) in zip(engines, raw, strict=True):
        results = [judge(one, found.get(one.id), controls.get(one.id), token) for one in case.attacks]
        results += [judge(one, *left, token) for one in case.afterwards]
        places.append(Place(f"{engine}, {case.plan.jail.name}", note, tuple(results)))
    return places


def _engine(context: Context, case: Case, engine: str) -> tuple[str, _Raw, tuple[_One, _One]]:
    """Return a note, what the jail reports, and what a user of the host made of what it left."""
    try:
        found, weaker = _attacked(context, case, engine)
    except LayoutError as error:
        return str(error), {}, (None, None)
    _null_seen(found, "the jail's own node only")
    return weaker or case.note, found, targets.host_user(case.target)


def _attacked(context: Context, case: Case, engine: str) -> tuple[dict[str, dict[str, Any]], str]:
    """Start the jail, whose service is the attacker, and return what it reports. Raises LayoutError."""
    plan = case.plan
    name = plan.jail.name
    begin = len(_log(context, name))
    standing = running.start(context, plan, lambda _: None, engine if case.engines else None)
    try:
        deadline = time.monotonic() + _ANSWER
        while time.monotonic() < deadline:
            for line in _log(context, name)[begin:].splitlines(keepends=True):
                if line.startswith(RESULT) and line.endswith("\n"):
                    found: dict[str, dict[str, Any]] = json.loads(line[len(RESULT) :])
                    weaker = standing.grade != case.grade
                    return found, f"grade {standing.grade}: {'; '.join(standing.notes)}" if weaker else ""
            time.sleep(0.02)
    finally:
        running.stop(context, plan, lambda _: None)
    last = _log(context, name)[begin:].splitlines()[-1:]
    raise LayoutError(name, f"no answer within {_ANSWER:g} s: {' '.join(last)}", "what the attacks came to")


def _log(context: Context, name: str) -> str:
    with context.open() as root, contextlib.suppress(FileNotFoundError):
        return root.read(f".layout/log/{name}.log").decode("utf-8", "replace")
    return ""


def _sessions(context: Context, cases: list[Case], token: str) -> Iterable[Place]:
    """Let an administrator work in sessions, with everything planted in t, and a program that wants out."""
    plan, target = next((case.plan, case.target) for case in cases if case.plan.jail.name == "weak")
    aim = target.aim
    alone = [one for one in TRAPS if one.id != _TERMINAL]
    writable = target._replace(trees=tuple(tree._replace(read_only=False) for tree in target.trees))
    controls = {
        **targets.controls(SESSION, target),
        **targets.controls(alone, writable),
        _TERMINAL: traps.control(aim),
    }
    words = targets.command(aim, [one.id for one in (*alone, *SESSION)], stay=False)
    typing = targets.command(aim, [_TERMINAL], stay=False)
    for sealed in (False, True):
        text = played.output_of(
            f"{targets.WORK}/output",
            functools.partial(manage.manage, context, plan, words, SessionOptions(sealed=sealed)),
        )
        found = _answers(text)
        _null_seen(found, "the session's own node only")
        _seen(found, "left-behind", targets.left_over(), "it ended with the session")
        said, typed = traps.on_terminal(
            functools.partial(manage.manage, context, plan, typing, SessionOptions(sealed=sealed))
        )
        found |= _answers(said)
        _seen(found, _TERMINAL, typed, "the session's own terminal only")
        results = [
            judge(
                strict(one) if sealed and one in TRAPS else one,
                found.get(one.id),
                controls.get(one.id),
                token,
            )
            for one in (*TRAPS, *SESSION)
        ]
        note = "" if found else printable(text.strip()[-200:])
        yield Place("manage --sealed" if sealed else "manage", note, tuple(results))


def _answers(text: str) -> dict[str, dict[str, Any]]:
    """Return what a command in a session reported; nothing when it did not come so far."""
    lines = [line[len(RESULT) :] for line in text.splitlines() if line.startswith(RESULT)]
    found: dict[str, dict[str, Any]] = json.loads(lines[-1]) if lines else {}
    return found


def _null_seen(found: _Raw, otherwise: str) -> None:
    """Have what the host sees of its /dev/null in the place of what the attacker believes."""
    changed = targets.host_device_changed()
    for name in ("device-mode", "standard-input"):
        _seen(found, name, name in changed, otherwise)


def _seen(found: _Raw, name: str, worked: bool, otherwise: str) -> None:
    if name in found:
        found[name] = as_seen(found[name], worked, otherwise)
