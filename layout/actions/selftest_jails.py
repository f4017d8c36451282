"""The jails that the selftest attacks on Linux: designs and grades, each with the attacker as its service."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from layout.actions.context import Choice, Context
from layout.actions.init import init
from layout.actions.kinds import thin
from layout.core.attacks import ENGINE, HOST, HOST_OF_THIN, OSLESS, THIN, Attack
from layout.core.model import JailPlan
from layout.host.attacks import files, programs
from layout.host.attacks.frame import Aim
from layout.host.linux import targets
from layout.host.linux.targets import IN_BASE, IN_T, Target, Tree

_CAPABILITIES = ("net_bind_service", "setuid", "setgid", "chown", "dac_override")
_LAUNCHER = f"{targets.WORK}/launcher"
_SHOWN = f"{targets.WORK}/shown"
"""The directory of the host that the thin jail writes to."""
_USER = 1979
"""Who the OS-less jail's program is: a number that nobody has."""
_PROFILE = """
kind = "{kind}"
description = "the selftest"
[linux.service]
command = {command}
capabilities = {capabilities}
stop_timeout = 1
{more}
"""
_THIN = f"""
[linux.thin]
root = "mroot"
files = ["{targets.HOME}"]
modules = ["{targets.HOME}/*/python*/lib-dynload/*"]
[[linux.mounts]]
source = "{_SHOWN}"
target = "{IN_T[1:]}"
writable = true
"""
_OSLESS = f"""
[linux.osless]
program = "{_LAUNCHER}"
path = "bin/attacker"
directories = ["dev", "etc", "proc"]
uid = {_USER}
gid = {_USER}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One jail, and what is tried in it."""

    plan: JailPlan
    target: Target
    engines: tuple[str, ...]
    """Those that can keep it; none: layout itself does."""
    grade: str
    """What it has to be."""
    note: str
    attacks: tuple[Attack, ...]
    afterwards: tuple[Attack, ...]
    """What an ordinary user of the host tries then."""


def make(aim: Aim, engines: tuple[str, ...]) -> tuple[Context, list[Case]]:
    """Make a layout with all of them; `engines` are those for a shared root. Raises LayoutError."""
    launcher = programs.launcher()
    shared = {
        "full": ((), "root of the jail is an ordinary number of the host"),
        "weak": (_CAPABILITIES, "root of the jail is root of the host, with five capabilities"),
    }
    for name, (capabilities, _) in shared.items():
        _profile(name, "shared", _words(aim, ENGINE), capabilities)
    in_thin = aim._replace(s=IN_BASE, mount_of_s="", mount_of_t=IN_T)
    files.directories(_SHOWN)
    _profile("thin", "thin", _words(in_thin, THIN), more=_THIN)
    in_osless = aim._replace(s=IN_BASE, t="/log", mount_of_s="", mount_of_t="/log")
    names = [*shared, "thin"]
    if launcher:
        names.append("osless")
        targets.write_program(_LAUNCHER, launcher)
        _profile("osless", "osless", ("/bin/attacker", *_words(in_osless, OSLESS)), more=_OSLESS)
    os.umask(0o022)
    context = Context.find(targets.ROOT, None)
    init(context, names, Choice(base=targets.BASE), mount=False, tell=lambda *_: None)
    plans = {plan.jail.name: plan for plan in context.jails([])}
    cases = [
        Case(
            plans[name],
            Target(name, aim, _trees(plans[name]), f"{targets.ROOT}/t/{name}{IN_T}"),
            engines,
            name,
            note,
            ENGINE,
            HOST,
        )
        for name, (_, note) in shared.items()
    ]
    with context.open() as root, root.open(".layout") as state:
        living = thin.provide(context, state, plans["thin"])
    note = "its root is one program with its files; it writes to one directory of the host"
    cases.append(
        Case(
            plans["thin"],
            Target("thin", in_thin, _trees(living), _SHOWN),
            ("bwrap",),
            "full",
            note,
            THIN,
            HOST_OF_THIN,
        )
    )
    if launcher:
        targets.lay_beside(f"{targets.ROOT}/s/osless")
        note = "a static program as an ordinary user; only to attack with, an interpreter lies beside it"
        cases.append(
            Case(
                plans["osless"],
                Target("osless", in_osless, _trees(plans["osless"]), f"{targets.ROOT}/t/osless"),
                (),
                "full",
                note,
                OSLESS,
                HOST,
            )
        )
    return context, cases


def _words(aim: Aim, attacks: tuple[Attack, ...]) -> tuple[str, ...]:
    return targets.command(aim, [one.id for one in attacks], stay=True)


def _profile(
    name: str, kind: str, words: tuple[str, ...], capabilities: tuple[str, ...] = (), more: str = ""
) -> None:
    text = _PROFILE.format(
        kind=kind, command=json.dumps(words), capabilities=json.dumps(capabilities), more=more
    )
    targets.write(f"{targets.ROOT}/etc/profiles/{name}.toml", text)


def _trees(plan: JailPlan) -> tuple[Tree, ...]:
    top = len(plan.tables.jail[0].target)
    return tuple(Tree(one.source, one.target[top:], "ro" in one.options) for one in plan.tables.jail)
