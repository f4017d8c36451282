"""The selftest on FreeBSD: one jail of a tiny base on a tmpfs, attacked by a child that attaches to it."""

from __future__ import annotations

import os

from layout.actions import mounting
from layout.actions.context import Choice, Context
from layout.actions.init import init
from layout.actions.selftest import Found
from layout.actions.telling import Progress
from layout.core import jailconf
from layout.core.attacks import SESSION, TRAPS, Place, judge
from layout.core.attacks_freebsd import JAIL, patch_level
from layout.core.model import Boot
from layout.host import privilege
from layout.host.freebsd import arena, devfs, passing, release

_NAME = "attacked"
_NETWORK = ("ip4=inherit", "ip6=inherit")
"""As the profile `default` has it."""


def run(tell: Progress) -> Found:
    """Make it, attack, and take it away. Raises LayoutError."""
    privilege.require_root()
    tell("making a jail to attack", 0, 0)
    with arena.made() as top:
        shell = arena.base(f"{top}/base")
        context = Context.find(f"{top}/jails", None)
        init(
            context,
            [_NAME],
            Choice(profile="default", base=f"{top}/base", boot=Boot.NONE),
            mount=True,
            tell=lambda *_: None,
        )
        (plan,) = context.jails([_NAME])
        root = context.site.root
        policy = jailconf.policy(plan, context.site)
        jail = f"layout-selftest-{os.getpid()}"
        devfs.require(plan.jail.settings.jail.devfs_ruleset, f"{root}/j/{_NAME}/dev")
        try:
            with arena.outside(top, root, shell) as (place, token):
                controls = arena.controls(JAIL, place, top, root)
                with passing.jail(jail, f"{root}/j/{_NAME}", [*policy, *_NETWORK]) as jid:
                    found = arena.attacked(JAIL, place, jid)
        finally:
            with context.locked():
                mounting.umount(context.site, [plan])
            mounting.release_root(context.site)
    results = [judge(one, found.get(one.id), controls.get(one.id), token) for one in JAIL]
    results.append(patch_level(release.kernel()))
    note = "not run: what is planted for administrators is tried on Linux"
    sessions = tuple(judge(one, None, None, "") for one in (*TRAPS, *SESSION))
    return Found((Place("jail(8)", "", tuple(results)), Place("manage", note, sessions)), ())
