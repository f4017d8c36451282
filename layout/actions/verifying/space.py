"""Checks of room: what layout has to write, it can, and a jail cannot take it all."""

from __future__ import annotations

import os
from collections.abc import Iterator

from layout.actions.verifying.scene import JailScene, Scene
from layout.core import size
from layout.core.findings import Finding, error, warning
from layout.core.profile import Config


def _lacking(found: os.statvfs_result, config: Config) -> tuple[str, str] | None:
    """Return what is there and what is wanted when a file system has too little room; None when it has."""
    floor = size.parse(config.min_space) or 0
    free = found.f_bavail * found.f_frsize
    if free < floor:
        return f"{size.show(free)} free", f"at least {config.min_space} (min_space)"
    # A file system that makes inodes as it needs them says 0.
    if found.f_files and found.f_favail < config.min_inodes:
        return f"{found.f_favail} inodes free", f"at least {config.min_inodes} (min_inodes)"
    return None


def room(scene: Scene) -> Iterator[Finding]:
    """S10: there is room for what layout writes: records, tables, the halves of new jails."""
    scene.checks += 1
    lacking = _lacking(os.fstatvfs(scene.root.fd), scene.context.config)
    if lacking:
        hint = "free some, or set min_space and min_inodes in layout.toml"
        yield error("S10-space", scene.site.root, *lacking, hint)


def room_of_t(scene: JailScene) -> Iterator[Finding]:
    """S10: a t with a limit of its own is not full."""
    limits = _limits(scene)
    if limits is not None and limits[0]:
        lacking = _lacking(limits[1], scene.scene.context.config)
        if lacking:
            path = f"{scene.scene.site.root}/t/{scene.name}"
            hint = "see what fills it: its services fail when they cannot write"
            yield warning("S10-space", path, *lacking, hint)


def quota(scene: JailScene) -> Iterator[Finding]:
    """S10: a jail cannot fill the disk of the host, where the site asks for that."""
    if not scene.scene.context.config.require_quota:
        return
    limits = _limits(scene)
    if limits is not None and not limits[0]:
        path = f"{scene.scene.site.root}/t/{scene.name}"
        hint = (
            "a file system or dataset of its own with a limit, or a project quota; or require_quota = false"
        )
        yield error("S10-quota", path, "no limit", "a limit of its own (require_quota)", hint)


def _limits(scene: JailScene) -> tuple[bool, os.statvfs_result] | None:
    """Say whether a t has a limit of its own, and return how it stands; None when there is no t.

    It is another file system with other room, or a project quota (xfs(5), ext4(5)) makes its file system
    look smaller there. Datasets of one pool without a quota all have the room of the pool.
    """
    scene.scene.checks += 1
    ours = os.fstatvfs(scene.scene.root.fd)
    device = os.fstat(scene.scene.root.fd).st_dev
    try:
        with scene.scene.root.open(f"t/{scene.name}") as top:
            theirs = os.fstatvfs(top.fd)
            if os.fstat(top.fd).st_dev == device:
                return (theirs.f_blocks, theirs.f_files) != (ours.f_blocks, ours.f_files), theirs
    except FileNotFoundError:
        return None
    # Compared loosely: somebody may write between the two looks.
    room, pool = theirs.f_bavail * theirs.f_frsize, ours.f_bavail * ours.f_frsize
    return abs(room - pool) > pool >> 10, theirs
