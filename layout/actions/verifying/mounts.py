"""Checks of one jail's mounts: planned against live, by table and by inode."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator

from layout.actions import mounting
from layout.actions.verifying.scene import JailScene, unseen
from layout.core import compare
from layout.core.compare import is_below
from layout.core.errors import LayoutError
from layout.core.findings import Finding, error, warning
from layout.core.model import Manage, Mount, Preset
from layout.host.beneath import Dir
from layout.host.site import running_platform


def _wanted(scene: JailScene) -> Iterator[tuple[Mount, ...]]:
    """Return what can be looked at: on FreeBSD an open session covers a t that is always mounted."""
    plan, live = scene.plan, scene.scene.live
    for tree in mounting.wanted(plan):
        if scene.session is None:
            yield tree
        else:
            yield tuple(mount for mount in tree if not mounting.is_under_session(plan, mount, live))


def _trees(scene: JailScene) -> Iterator[tuple[Mount, ...]]:
    yield from _wanted(scene)
    if scene.mounts_of_running:
        yield scene.mounts_of_running


def platform(scene: JailScene) -> Iterator[Finding]:
    """S1: the jail is one for this platform."""
    if not scene.is_here:
        found, expected = f"a jail for {scene.jail.platform}", f"one for {running_platform()}"
        yield warning("S1-platform", scene.top, found, expected, "its mounts cannot be looked at here")


def present(scene: JailScene) -> Iterator[Finding]:
    """S1: every planned mount is there."""
    for tree in _trees(scene):
        scene.scene.checks += len(tree)
        yield from compare.missing(tree, scene.scene.live)


def single(scene: JailScene) -> Iterator[Finding]:
    """S1: there is one mount on each point."""
    return _each(scene, compare.stacked)


def sources(scene: JailScene) -> Iterator[Finding]:
    """S1: each shows what it is planned to show, by the table and by device and inode."""
    for tree in _wanted(scene):
        wrong = {found.path: found for found in _of_tree(scene, tree, compare.wrong_source)}
        yield from wrong.values()
        yield from _by_inode(scene, tree, wrong.keys())
    yield from _of_tree(scene, scene.mounts_of_running, compare.wrong_source)


def options(scene: JailScene) -> Iterator[Finding]:
    """S2: each has the options that make it safe."""
    return _each(scene, compare.wrong_options)


def policy(scene: JailScene) -> Iterator[Finding]:
    """S2: the template asks for the options that make a shared root safe."""
    jail, site = scene.jail, scene.scene.site
    if scene.design.shares_root:
        yield from compare.lacking(scene.plan.tables.jail, jail, site.root)


def propagation(scene: JailScene) -> Iterator[Finding]:
    """S2: each is private."""
    return _each(scene, compare.propagated)


def _each(scene: JailScene, judge: compare.Judge) -> Iterator[Finding]:
    for tree in _trees(scene):
        yield from _of_tree(scene, tree, judge)


def _of_tree(scene: JailScene, tree: tuple[Mount, ...], judge: compare.Judge) -> Iterator[Finding]:
    live = scene.scene.live
    for mount in tree:
        if found := live.at(mount.target):
            yield from judge(mount, found, live)


def devices(scene: JailScene) -> Iterator[Finding]:
    """S2: a devfs shows what its ruleset shows, and nothing else."""
    for tree in _trees(scene):
        for mount in tree:
            if scene.scene.live.at(mount.target):
                yield from mounting.device_findings(mount)


def writable_exec(scene: JailScene) -> Iterator[Finding]:
    """S2: what can be written cannot be executed."""
    if scene.design.is_world:
        return iter(())  # its own finding says so
    opted_out = scene.jail.exec or scene.jail.preset is Preset.CLASSIC
    return iter(
        compare.writable_and_executable(scene.plan.tables.jail, scene.scene.live, opted_out=opted_out)
    )


def suid(scene: JailScene) -> Iterator[Finding]:
    """S2: setuid files do not work, unless that was asked for."""
    jail = scene.jail
    if not scene.design.shares_root:
        return  # what such a design gives up is for its own findings to say
    if jail.suid:
        hint = "take suid = true out of the profile"
        yield warning("S2-suid", scene.top, f"suid = true in profile {jail.profile}", "nosuid", hint)
    elif jail.preset is Preset.CLASSIC:
        hint = "use the preset hardened"
        found = "setuid files that work, by preset classic"
        yield warning("S2-suid", scene.top, found, "nosuid", hint)


def unplanned(scene: JailScene) -> Iterator[Finding]:
    """S1: there is no other mount in the jail or in its view."""
    live = scene.scene.live
    yield from compare.unplanned((*scene.plan.tables.jail, *scene.mounts_of_running), live, scene.top)
    if scene.jail.manage is Manage.BOOT:
        planned = mounting.with_nodes(scene.plan.tables.manage, live)
        for found in compare.unplanned(planned, live, scene.view):
            if scene.session is None or not is_below(found.path, scene.view):
                yield found


def backing(scene: JailScene) -> Iterator[Finding]:
    """S4: a t on a file system of its own is nosuid there: the second wall, behind the mode of ROOT."""
    root, live = scene.scene.site.root, scene.scene.live
    for path in (f"{root}/t/{scene.name}", f"{root}/t"):
        if found := live.at(path):
            if "nosuid" not in found[-1].options:
                hint = f"mount it nosuid (zfs set setuid=off): mount -o remount,nosuid {path}"
                yield warning("S4-backing", path, "a file system of its own without nosuid", "nosuid", hint)
            return


def view(scene: JailScene) -> Iterator[Finding]:
    """S3: the writable view is mounted during a session only.

    On FreeBSD the whole host sees the mounts of an open one.
    """
    below = scene.scene.live.below(scene.view)
    if scene.jail.manage is not Manage.BOOT and below and scene.session is None:
        hint = "layout umount --manage NAME; a session of layout manage needs no mount that others see"
        yield error("S3-view", below[0], "the writable view, mounted", "none between sessions", hint)


def _by_inode(scene: JailScene, tree: tuple[Mount, ...], told: Container[str]) -> Iterator[Finding]:
    """Compare device and inode of source and target: the mount shows what it is planned to show."""
    live, root = scene.scene.live, scene.scene.site.root
    if not live.at(tree[0].target):
        return
    try:
        # Held open by nobody: somebody may want to unmount it.
        with scene.scene.observer.open(tree[0].target[len(root) + 1 :]) as top:
            for mount in tree:
                ours = compare.is_view(mount) and mount.source.startswith(f"{root}/")
                if ours and live.at(mount.target) and mount.target not in told:
                    yield from _same(scene, mount, top)
    except (OSError, LayoutError) as problem:
        yield unseen(tree[0].target, problem)


def _same(scene: JailScene, mount: Mount, top: Dir) -> Iterator[Finding]:
    scene.scene.checks += 1
    parent, _, name = mount.source[len(scene.scene.site.root) + 1 :].rpartition("/")
    directory = scene.scene.observer.directory(parent)
    source = directory.lstat(name) if directory is not None else None
    inside = mount.target[len(top.path) + 1 :]
    target = top.lstat(inside) if inside else os.fstat(top.fd)
    if source is None or target is None:
        yield error("S8-unseen", mount.source, "nothing", "to look at it", "layout init NAME")
    elif source.st_ino != target.st_ino or (
        # A nullfs has a device number of its own (mount_nullfs(8)); the table has told what it shows.
        source.st_dev != target.st_dev and mount.fstype != "nullfs"
    ):
        found = f"inode {target.st_ino} of device {target.st_dev}"
        wanted = f"inode {source.st_ino} of device {source.st_dev}, which is {mount.source}"
        hint = "layout umount NAME, then layout mount NAME"
        yield error("S1-source", mount.target, found, wanted, hint)
