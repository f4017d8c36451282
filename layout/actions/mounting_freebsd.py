"""Mounts of jails on FreeBSD: line by line, as mount(8) does it, with the table read before and after."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence

from layout.actions import hostfstab
from layout.actions.kinds import design_of
from layout.core.compare import Live
from layout.core.errors import LayoutError, some
from layout.core.findings import Finding, error
from layout.core.model import JailPlan, Mount, Site
from layout.core.mountlist import Line, mount_points
from layout.host.freebsd import devfs, holders, jails, mounts, table

_RULESET = "ruleset="
_PATIENCE = 8
"""Tries, a twentieth of a second apart, for a mount that is busy though nobody is known to hold it."""
_NAMED = 6
"""Devices that a finding names."""


def check(site: Site, plans: Sequence[JailPlan], live: Live, new: Sequence[Mount]) -> None:
    """Make sure that nothing outside the mount table is in the way of new mounts. Raises LayoutError.

    That is a line of the host's fstab, outside of layout's block, with one of the mount points: mount(8)
    would make it a second time, or leave ours out. A devfs whose ruleset is not loaded. And mounts inside a
    source: a nullfs shows the empty directories below them (mount_nullfs(8)).
    """
    if not new:
        return
    hostfstab.refuse_others(site, plans)
    for mount in new:
        inside = [path for path in live.below(mount.source) if path != mount.source]
        if mount.fstype == "nullfs" and inside:
            found = f"a mount inside {mount.source}, which a nullfs of it does not show"
            hint = "umount it, or move what it holds into the directory, or give all of it one dataset"
            raise LayoutError(inside[0], found, "a directory without mounts", hint)
        ruleset = _ruleset(mount)
        if ruleset is not None:
            devfs.require(ruleset, mount.target)


def _ruleset(mount: Mount) -> int | None:
    if mount.fstype != "devfs":
        return None
    words = [word.removeprefix(_RULESET) for word in mount.options if word.startswith(_RULESET)]
    if not words:
        return None
    if not words[-1].isdigit():
        raise LayoutError(mount.target, f"ruleset={words[-1]}", "the number of a ruleset", "see devfs(8)")
    return int(words[-1]) or None


def attach(site: Site, live: Live, todo: Sequence[Sequence[tuple[Mount, ...]]]) -> list[list[str]]:
    """Attach the parts of each jail, all of a jail's or none; return the new mount points of each.

    Raises LayoutError. The jails before the one that failed stay mounted.
    """
    del site, live
    made = []
    for parts in todo:
        done: list[str] = []
        try:
            for mount in (mount for part in parts for mount in part):
                done.append(mount.target)
                try:
                    mounts.attach(mount)
                except BaseException:
                    # Interrupted, mount(8) may have made it all the same; another one there is not ours.
                    if not mounts.is_made(mount):
                        done.pop()
                    raise
        except BaseException:
            undo(done)
            raise
        made.append(done)
    return made


def undo(targets: Sequence[str]) -> None:
    """Take new mounts away again. One that somebody uses already stays, and the next run finds it."""
    for target in reversed(targets):
        with contextlib.suppress(OSError, LayoutError):
            mounts.detach(target, table.lines())


def with_nodes(tree: Sequence[Mount], live: Live) -> list[Mount]:
    """Return the tree as it is: device nodes are devfs' own, never mounts."""
    del live
    return list(tree)


def of_running(site: Site, plan: JailPlan) -> tuple[Mount, ...]:
    """Return what jail(8) mounts for a jail while it runs (mount.devfs). Raises LayoutError."""
    prison = jails.find(plan.jail.name)
    if prison is None or prison.path != f"{site.root}/j/{plan.jail.name}":
        return ()
    return _devfs(site, plan)


def leftovers(site: Site, plan: JailPlan, live: Live) -> tuple[Mount, ...]:
    """Return what is left of a jail that ended without jail(8). Raises LayoutError when it still runs."""
    name = plan.jail.name
    prison = jails.find(name)
    if prison is not None and prison.path == f"{site.root}/j/{name}":
        found, hint = f"a mount in use by jail {name} (jid {prison.jid})", f"layout stop {name}"
        raise LayoutError(prison.path, found, "a mount nobody uses", hint)
    return tuple(mount for mount in _devfs(site, plan) if live.at(mount.target))


def _devfs(site: Site, plan: JailPlan) -> tuple[Mount, ...]:
    target = f"{site.root}/j/{plan.jail.name}/dev"
    if not design_of(plan.jail.kind).has_devices or any(mount.target == target for mount in plan.tables.jail):
        return ()
    ruleset = f"{_RULESET}{plan.jail.settings.jail.devfs_ruleset}"
    return (Mount("devfs", target, "devfs", ("rw", ruleset)),)


def unmount_tree(site: Site, tree: Sequence[Mount], live: Live) -> list[str]:
    """Unmount a tree, deepest first; return the mount points. Raises LayoutError; it is whole again then."""
    del site
    planned = {mount.target: mount for mount in tree}
    lines = table.lines()
    # The newest first: what another mount hides can go only after it.
    todo = [line for line in reversed(lines) if line.node in planned]
    for line in todo:
        if line.fstype != planned[line.node].fstype:
            found = f"a mount of {line.special} ({line.fstype}), which another one hides"
            expected = f"only mounts of {planned[line.node].source}"
            raise LayoutError(line.node, found, expected, "unmount it yourself first")
    gone: list[str] = []
    for line in todo:
        try:
            lines = _detach_patiently(line, lines)
        except FileNotFoundError:
            continue  # somebody else was faster
        except mounts.Busy:
            who = holders.describe(holders.of(line.node)) or "somebody: see fstat -f"
            _restore(tree, live)
            raise LayoutError(
                line.node,
                f"a mount in use by {who}",
                "a mount nobody uses",
                "stop it, then try again; nothing was forced",
            ) from None
        except BaseException:
            _restore(tree, live)
            raise
        gone.append(line.node)
    return gone


def _detach_patiently(line: Line, lines: Sequence[Line]) -> list[Line]:
    """Unmount; what is only just being looked at (stat(2), a file that is closed again) is waited for."""
    for _ in range(_PATIENCE):
        try:
            return mounts.detach_line(line, lines)
        except mounts.Busy:
            if holders.of(line.node):
                raise
        time.sleep(0.05)
        lines = table.lines()
    return mounts.detach_line(line, lines)


def _restore(tree: Sequence[Mount], before: Live) -> None:
    """Mount again what is gone: a jail without its t would be neither here nor there."""
    now = Live(mount_points(table.lines()))
    for mount in tree:
        if before.at(mount.target) and not now.at(mount.target):
            mounts.attach(mount)


def private_root(site: Site) -> None:
    """Nothing to do: a mount is in one place only here."""
    del site


def release_root(site: Site) -> None:
    """Leave ROOT as it is: nothing propagates here, so nothing was done to it."""
    del site


def device_findings(mount: Mount) -> list[Finding]:
    """Return a finding when a mounted devfs shows devices that its ruleset hides, or lacks /dev/null."""
    ruleset = _ruleset(mount)
    if ruleset is None:
        return []
    hint = "service devfs restart, then layout umount NAME and layout mount NAME"
    try:
        rules = devfs.require(ruleset, mount.target)
        nodes = devfs.nodes(mount.target)
    except LayoutError as problem:
        return [error("S2-devfs", problem.path, problem.found, problem.expected, hint)]
    except OSError as problem:
        reason = os.strerror(problem.errno or 0)
        return [error("S8-unseen", mount.target, reason.lower(), "to look at it")]
    extra = [node for node in nodes if not devfs.is_shown(node, rules)]
    if extra:
        found = f"devices that ruleset {ruleset} hides: {some(extra, _NAMED)}"
        return [error("S2-devfs", mount.target, found, f"only what ruleset {ruleset} shows", hint)]
    if "null" not in nodes:
        return [error("S2-devfs", mount.target, "no null", "the devices every program expects", hint)]
    return []
