"""The selftest on Linux: jails of a tiny base in a sandbox, attacked by what each engine starts in them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from layout.actions import manage, prepare_linux, running
from layout.actions.context import Choice, Context
from layout.actions.init import init
from layout.actions.kinds.design import SessionOptions
from layout.actions.selftest import Found
from layout.actions.telling import Progress
from layout.core.attacks import ENGINE, HOST, SESSION, TRAPS, Place, Result, judge, strict
from layout.core.errors import LayoutError, printable
from layout.core.model import JailPlan
from layout.host import interpreter
from layout.host.attacks.frame import RESULT
from layout.host.attacks.frame import Place as Aim
from layout.host.linux import sandbox, targets, traps
from layout.host.run import which

SECONDS = 180.0
"""For everything; it takes a few of them."""
_ANSWER = 40.0
"""Seconds for the attacks of one jail."""
_GRADES = {
    "full": "root of the jail is an ordinary number of the host",
    "weak": "root of the jail is root of the host, with five capabilities",
}
_TERMINAL = "terminal"
"""It needs a session that has one."""
_CAPABILITIES = '["net_bind_service", "setuid", "setgid", "chown", "dac_override"]'


def run(tell: Progress) -> Found:
    """Make the sandbox and attack in it. Raises LayoutError."""
    tell("building a sandbox", 0, 0)
    answer = sandbox.run(_work, SECONDS, user_namespace=os.geteuid() != 0)
    return msgspec.json.decode(answer, type=Found)


def _work() -> bytes:
    python = interpreter.build(targets.BASE)
    targets.prepare(python)
    traps.prepare()
    with targets.outside(python) as (aim, token):
        context = _jails(aim)
        with targets.left_in_base():
            controls = targets.controls(ENGINE, aim, "weak")
            places = list(_without_engine())
            places += [
                place for plan in context.jails([]) for place in _engines(context, plan, aim, token, controls)
            ]
            with traps.planted("weak"):
                places += _sessions(context, aim, token, controls)
    note = "not run: it is the systemd of the whole host that keeps such a jail, not a sandbox's"
    return msgspec.json.encode(Found((*places, Place("unit, weak", note, ()))))


def _jails(aim: Aim) -> Context:
    """Make a layout with one jail of each grade."""
    words = targets.command(aim.python, "frame", aim, [one.id for one in ENGINE], "stay")
    for grade in _GRADES:
        capabilities = _CAPABILITIES if grade == "weak" else "[]"
        text = (
            f'kind = "shared"\ndescription = "the selftest"\n[linux.service]\n'
            f"command = {json.dumps(words)}\ncapabilities = {capabilities}\nstop_timeout = 1\n"
        )
        targets.write(f"{targets.ROOT}/etc/profiles/{grade}.toml", text)
    os.umask(0o022)
    context = Context.find(targets.ROOT, None)
    init(context, list(_GRADES), Choice(base=targets.BASE), mount=False, tell=lambda *_: None)
    return context


def _without_engine() -> Iterable[Place]:
    """Where no engine is installed nothing was attacked, and that is no pass."""
    modules = prepare_linux.ENGINES.values()
    if not any(which(module.PROGRAM) for module in modules):
        packages = " or ".join(module.PACKAGE for module in modules)
        results = tuple(judge(attack, None, None, "") for attack in ENGINE)
        yield Place("no engine", f"not run: install {packages}", results)


def _engines(
    context: Context, plan: JailPlan, aim: Aim, token: str, controls: Mapping[str, Mapping[str, Any]]
) -> Iterable[Place]:
    """Attack one jail under every engine that there is."""
    grade = plan.jail.name
    for engine, module in prepare_linux.ENGINES.items():
        name = f"{engine}, {grade}"
        if which(module.PROGRAM) is None:
            yield Place(name, f"not run: {module.PROGRAM} is not installed ({module.PACKAGE})", ())
            continue
        try:
            found, note = _attacked(context, plan, engine)
        except LayoutError as error:
            found, note = {}, str(error)
        _seen(found, "device-mode", targets.host_device_changed(), "the jail's own node only")
        results = [judge(attack, found.get(attack.id), controls.get(attack.id), token) for attack in ENGINE]
        results += _host_user(grade, aim, token) if found else [judge(one, None, None, "") for one in HOST]
        yield Place(name, note or _GRADES[grade], tuple(results))


def _attacked(context: Context, plan: JailPlan, engine: str) -> tuple[dict[str, dict[str, Any]], str]:
    """Start the jail, whose service is the attacker, and return what it reports. Raises LayoutError."""
    name = plan.jail.name
    begin = len(_log(context, name))
    standing = running.start(context, plan, lambda _: None, engine)
    try:
        deadline = time.monotonic() + _ANSWER
        while time.monotonic() < deadline:
            for line in _log(context, name)[begin:].splitlines(keepends=True):
                if line.startswith(RESULT) and line.endswith("\n"):
                    found: dict[str, dict[str, Any]] = json.loads(line[len(RESULT) :])
                    weaker = standing.grade != name
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


def _host_user(grade: str, aim: Aim, token: str) -> list[Result]:
    found, control = targets.host_user(grade, aim)
    return [judge(attack, found, control, token) for attack in HOST]


def _sessions(
    context: Context, aim: Aim, token: str, controls: Mapping[str, Mapping[str, Any]]
) -> Iterable[Place]:
    """Let an administrator work in sessions, with everything planted in t, and a program that wants out."""
    (plan,) = context.jails(["weak"])
    alone = [one for one in TRAPS if one.id != _TERMINAL]
    known = {
        **controls,
        **targets.controls(alone, aim, "weak", read_only=False),
        _TERMINAL: traps.control(aim),
    }
    wanted = [*alone, *SESSION]
    words = targets.command(aim.python, "frame", aim, [one.id for one in wanted], "")
    typing = targets.command(aim.python, "frame", aim, [_TERMINAL], "")
    for sealed in (False, True):
        text = targets.output_of(
            functools.partial(manage.manage, context, plan, words, SessionOptions(sealed=sealed))
        )
        found = _answers(text)
        _seen(found, "device-mode", targets.host_device_changed(), "the session's own node only")
        _seen(found, "left-behind", targets.left_over(), "it ended with the session")
        said, typed = traps.on_terminal(
            functools.partial(manage.manage, context, plan, typing, SessionOptions(sealed=sealed))
        )
        found |= _answers(said)
        _seen(found, _TERMINAL, typed, "the session's own terminal only")
        results = [
            judge(strict(one) if sealed else one, found.get(one.id), known.get(one.id), token)
            for one in (*TRAPS, *SESSION)
        ]
        note = "" if found else printable(text.strip()[-200:])
        yield Place("manage --sealed" if sealed else "manage", note, tuple(results))


def _answers(text: str) -> dict[str, dict[str, Any]]:
    """Return what a command in a session reported; nothing when it did not come so far."""
    lines = [line[len(RESULT) :] for line in text.splitlines() if line.startswith(RESULT)]
    found: dict[str, dict[str, Any]] = json.loads(lines[-1]) if lines else {}
    return found


def _seen(found: dict[str, dict[str, Any]], name: str, worked: bool, otherwise: str) -> None:
    """Put what the host sees in the place of what the attacker believes."""
    raw = found.get(name)
    if raw is not None and not raw["untried"]:
        said = otherwise if raw["worked"] and not worked else raw["said"]
        found[name] = {**raw, "worked": worked, "said": said}
