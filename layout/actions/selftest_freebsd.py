"""The selftest on FreeBSD: one jail of a tiny base on a tmpfs, and sessions in it, attacked from within."""

from __future__ import annotations

import functools
import os
import re
import shlex
import socket
from collections.abc import Mapping
from typing import Any

from layout.actions import manage, mounting
from layout.actions.context import Choice, Context
from layout.actions.init import init
from layout.actions.kinds.design import SessionOptions
from layout.actions.selftest import Found
from layout.actions.telling import Progress
from layout.core import jailconf
from layout.core.attacks import NotTried, Place, Result, as_seen, judge, strict
from layout.core.attacks_freebsd import JAIL, SESSION, TRAPS, patch_level
from layout.core.errors import LayoutError
from layout.core.model import Boot, JailPlan
from layout.host import played, privilege
from layout.host.attacks import frame, programs
from layout.host.attacks.frame import Aim
from layout.host.freebsd import arena, attacks, devfs, jails, passing, release, session, traps, typist

_NETWORK = ("ip4=inherit", "ip6=inherit")
"""As the profile `default` has it."""
_TERMINAL, _LEFT = "terminal", "left-behind"
"""What cannot be seen from within."""
_READY = "layout-selftest-ready"
_TYPED = "layout-selftest-typed="
_BEGIN, _END = 60.0, 30.0
"""Seconds for a session to come up, and to go."""
_GONE, _THERE = 10.0, 0.2
"""Seconds that a process has to be gone in, and after which one is still there."""
_NO_SHELL = "not run: this host has no /rescue/sh to put into the base"
_NOT_TRIED = (
    NotTried(
        "thin, osless, full",
        "jail(8) keeps them by the same parameters as the jail that is attacked; layout verify tries yours",
    ),
)
_Raw = dict[str, dict[str, Any]]


def run(tell: Progress) -> Found:
    """Make it, attack, and take it away. Raises LayoutError."""
    privilege.require_root()
    tell("making a jail to attack", 0, 0)
    with arena.made() as top:
        name = f"selftest-{os.getpid()}"  # the management jail is called after it
        shell = arena.base(f"{top}/base")
        typing = traps.prepare(f"{top}/base")
        context = Context.find(f"{top}/jails", None)
        init(
            context,
            [name],
            Choice(profile="default", base=f"{top}/base", boot=Boot.NONE),
            mount=True,
            tell=lambda *_: None,
        )
        (plan,) = context.jails([name])
        root = context.site.root
        try:
            with arena.outside(top, root, shell) as (aim, token):
                tell("attacking it", 0, 0)
                controls = arena.controls(JAIL, aim, top, root)
                places = [_jail(context, plan, aim, token, controls)]
                tell("working in it as an administrator", 0, 0)
                known = {**controls, **_controls(aim, top, f"{top}/base{typing}" if typing else "")}
                with traps.planted(f"{root}/t/{name}", aim):
                    places += [
                        _session(context, plan, aim, token, known, typing, sealed=sealed)
                        for sealed in (False, True)
                    ]
        finally:
            with context.locked():
                mounting.umount(context.site, [plan])
            mounting.release_root(context.site)
    return Found(tuple(places), _NOT_TRIED)


def _jail(context: Context, plan: JailPlan, aim: Aim, token: str, controls: Mapping[str, Any]) -> Place:
    """Attack from a jail with the parameters of the profile."""
    root = f"{context.site.root}/j/{plan.jail.name}"
    devfs.require(plan.jail.settings.jail.devfs_ruleset, f"{root}/dev")
    parameters = [*jailconf.policy(plan, context.site), *_NETWORK]
    with passing.jail(f"layout-{plan.jail.name}", root, parameters) as jid:
        found = arena.attacked(JAIL, aim, jid)
    results = [judge(one, found.get(one.id), controls.get(one.id), token) for one in JAIL]
    return Place("jail(8)", "", (*results, patch_level(release.kernel())))


def _controls(aim: Aim, top: str, typing: str) -> _Raw:
    """Spring every trap where that has to work."""
    if not aim.interpreter:
        return {}
    found = traps.controls([one for one in TRAPS if one.id not in {_TERMINAL, _LEFT}], aim, top)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found[_LEFT] = frame.attempt(attacks.left_behind(theirs.fileno()), aim)
        theirs.close()
        found[_LEFT] = _left(found[_LEFT], ours, _THERE)
    if typing:
        with played.at_terminal(lambda: programs.run(typing, [typing])) as terminal:
            terminal.heard(_END)
            found[_TERMINAL] = frame.outcome(worked=terminal.was_typed())
    return found


def _session(
    context: Context,
    plan: JailPlan,
    aim: Aim,
    token: str,
    controls: Mapping[str, Any],
    typing: str,
    *,
    sealed: bool,
) -> Place:
    """Let an administrator work in a session, and a program there that wants out."""
    name = "manage --sealed" if sealed else "manage"
    found: _Raw = {}
    note = "" if aim.interpreter else _NO_SHELL
    if aim.interpreter:
        try:
            found = _worked(context, plan, aim, typing, sealed=sealed)
        except LayoutError as error:
            note = str(error)
    wanted = (*TRAPS, *SESSION)
    results: list[Result] = [
        judge(strict(one) if sealed else one, found.get(one.id), controls.get(one.id), token)
        for one in wanted
    ]
    return Place(name, note, tuple(results))


def _worked(context: Context, plan: JailPlan, aim: Aim, typing: str, *, sealed: bool) -> _Raw:
    """Open a session, attack in it, close it; return what came of each. Raises LayoutError.

    The session has a shell and no more: a child that attaches to its jail, with its environment, does what
    the administrator's tools would do.
    """
    type_it = f"{typing}; echo {_TYPED}$?" if typing else ":"
    words = ("/bin/sh", "-c", f"export -p; echo {_READY}; read answer; {type_it}")
    work = functools.partial(manage.manage, context, plan, words, SessionOptions(sealed=sealed))
    inside = [one for one in (*TRAPS, *SESSION) if one.id != _TERMINAL]
    ours, theirs = socket.socketpair()
    with ours, theirs, played.at_terminal(work) as terminal:
        said = terminal.heard(_BEGIN, until=_READY)
        prison = jails.find(session.jail_name(plan.jail.name))
        if _READY not in said.splitlines() or prison is None:
            found = f"no shell: {' '.join(said.split())[-200:]}"
            raise LayoutError(f"session in {plan.jail.name}", found, "a session to attack in")
        exploits = {**attacks.EXPLOITS, _LEFT: attacks.left_behind(theirs.fileno())}
        raw = arena.attacked(inside, aim, prison.jid, exploits, _variables(said))
        theirs.close()
        terminal.say("\n")
        said = terminal.heard(_END)
        if _LEFT in raw:
            raw[_LEFT] = _left(raw[_LEFT], ours, _GONE)
        raw[_TERMINAL] = _typed(said, typed=terminal.was_typed())
    return raw


def _variables(said: str) -> dict[str, str]:
    """Return the environment of a session, as its shell prints it."""
    pairs = (line.removeprefix("export ").partition("=") for line in said.splitlines() if "=" in line)
    return {name: "".join(shlex.split(value)) for name, _, value in pairs if name.isidentifier()}


def _left(raw: Mapping[str, Any], ours: socket.socket, seconds: float) -> dict[str, Any]:
    if not raw["untried"] and not traps.began(ours):
        return {**raw, "untried": True, "said": "it did not begin"}
    return as_seen(raw, traps.stays(ours, seconds), "it ended with the session")


def _typed(said: str, *, typed: bool) -> dict[str, Any]:
    match = re.search(f"^{_TYPED}([0-9]+)$", said, re.MULTILINE)
    status = int(match[1]) if match else 127
    if status in {126, 127}:
        return frame.outcome(untried=True, said="nothing here can type")
    if status:
        return frame.outcome(errnos=(typist.error(status),))
    return as_seen(
        frame.outcome(worked=True, said="ioctl(2) with TIOCSTI"), typed, "the session's own terminal only"
    )
