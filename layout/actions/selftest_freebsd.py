"""The selftest on FreeBSD: one jail of a tiny base on a tmpfs, attacked by a child that attaches to it."""

from __future__ import annotations

from layout.actions import mounting
from layout.actions.context import Choice, Context
from layout.actions.init import init
from layout.actions.selftest import Found, Tell
from layout.core import jailconf
from layout.core.attacks import SESSION, TRAPS, Place, judge
from layout.core.attacks_freebsd import JAIL, patch_level
from layout.core.model import Boot, JailPlan, Site
from layout.host import privilege
from layout.host.freebsd import arena, devfs, release

_NAME = "attacked"
_OF_POLICY = ("enforce_statfs", "devfs_ruleset", "children.max", "securelevel", "host.hostname")


def run(tell: Tell) -> Found:
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
        devfs.require(plan.jail.settings.jail.devfs_ruleset, f"{root}/j/{_NAME}/dev")
        try:
            with arena.outside(top, root, shell) as (place, token):
                controls = arena.controls(JAIL, place, top, root)
                with arena.jail(f"{root}/j/{_NAME}", _policy(plan, context.site)) as jid:
                    found = arena.attacked(JAIL, place, jid)
        finally:
            with context.locked():
                mounting.umount(context.site, [plan])
            mounting.release_root(context.site)
    results = [judge(one, found.get(one.id), controls.get(one.id), token) for one in JAIL]
    results.append(patch_level(release.kernel()))
    note = "not run: what is planted for administrators is tried on Linux"
    sessions = tuple(judge(one, None, None, "") for one in (*TRAPS, *SESSION))
    return Found((Place("jail(8)", "", tuple(results)), Place("manage", note, sessions)))


def _policy(plan: JailPlan, site: Site) -> list[str]:
    """Return the parameters of the jail's file that say what it may, as words of jail(8)."""
    found = []
    for name, value in jailconf.parameters(plan, site):
        if name in _OF_POLICY:
            found.append(f"{name}={value}")
        elif name.startswith("allow."):
            kind, _, word = name.rpartition(".")
            found.append(name if value else f"{kind}.no{word}")
    return [*found, "ip4=inherit", "ip6=inherit"]
