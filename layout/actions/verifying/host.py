"""Checks of what all jails share: parents of ROOT, the base's record, strays, views elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from layout.actions import booting_freebsd, hostfstab
from layout.actions.verifying.scene import Scene, unseen
from layout.core import compare
from layout.core.errors import LayoutError
from layout.core.findings import Finding, error, warning
from layout.core.model import Platform
from layout.core.mountinfo import MountPoint
from layout.host.records import BASE_RECORD, COMMIT
from layout.host.site import check_parents, loose_configuration, running_platform

_TOPS = ("j", "s", "t", "manage")
"""Where each jail has a directory."""


def parents(scene: Scene) -> Iterator[Finding]:
    """S4: nobody but root can replace ROOT."""
    scene.checks += 1
    try:
        check_parents(scene.site.root)
    except LayoutError as problem:
        yield error("S4-parent", problem.path, problem.found, problem.expected, problem.hint)


def configuration(scene: Scene) -> Iterator[Finding]:
    """S4: nobody but root can change what layout is told: a profile may show a jail any directory."""
    scene.checks += 1
    for path, found in loose_configuration(scene.site.etc):
        name = shlex.quote(path)  # in a directory that others can write to, it is theirs
        hint = f"chown root {name}; chmod go-w {name}"
        yield error("S4-config", path, found, "root's, and closed to others", hint)


def base_record(scene: Scene) -> Iterator[Finding]:
    """S5: what is known of the base can be read."""
    scene.checks += 1
    path = scene.state.show(BASE_RECORD)
    problem = scene.base_problem
    if problem is not None:
        found = problem.found if isinstance(problem, LayoutError) else str(problem)
        yield error("S5-base", path, found, "the base's record", "restore it from a backup")
    elif scene.base is None and scene.shares_base:
        yield error("S5-base", path, "no record", "the base's record", "layout init NAME")


def interrupted(scene: Scene) -> Iterator[Finding]:
    """S5: no run was cut short."""
    if scene.state.lstat(COMMIT) is not None:
        path = scene.state.show(COMMIT)
        yield error("S5-interrupted", path, "an interrupted init", "none", "layout recover")
    for path, name in _there(scene):
        if name.startswith(".new-"):
            found, expected = "what an interrupted init left", "nothing"
            yield error("S5-interrupted", path, found, expected, "layout recover")


def stray_directories(scene: Scene) -> Iterator[Finding]:
    """S5: every directory in the place of a jail belongs to one."""
    known = {*scene.names, "mroot"}
    for path, name in _there(scene):
        is_stray = name not in known or (name == "mroot" and path != f"{scene.site.root}/j/mroot")
        if is_stray and not name.startswith(".new-"):
            hint = "restore its record from a backup, or look at it and remove it"
            yield error("S5-stray", path, "no jail's", "only jails with a record", hint)


def _there(scene: Scene) -> Iterator[tuple[str, str]]:
    for top in _TOPS:
        scene.checks += 1
        try:
            with scene.root.open(top) as directory:
                names = directory.names()
        except (OSError, LayoutError):
            continue  # reported by its entry
        for name in names:
            yield f"{scene.site.root}/{top}/{name}", name


def stray_mounts(scene: Scene) -> Iterator[Finding]:
    """S1: every mount below ROOT is a jail's."""
    root = scene.site.root
    allowed = {f"{root}/{top}/{name}" for top in ("j", "manage") for name in scene.names}
    for top in ("j", "manage", ".layout"):
        for target in scene.live.below(f"{root}/{top}"):
            inside = target.removeprefix(f"{root}/").split("/")
            jail = "/".join([root, *inside[:2]])
            if len(inside) > 1 and jail not in allowed and inside != ["j", "mroot"]:
                found = f"a mount of {scene.live.at(target)[-1].source}"
                yield error("S1-stray", target, found, "no mount that is no jail's", f"umount {target}")


def writable_views(scene: Scene) -> Iterator[Finding]:
    """S3: mroot and every s can be written nowhere else."""
    names = scene.names
    tops = _places(scene, ["j", "s"])
    here = scene.live.place(scene.site.root)
    if here is not None:
        tops[here] = scene.site.root
    shared = _places(scene, ["j/mroot", *(f"s/{name}" for name in names)])
    for mount, path in compare.views(shared, tops, _elsewhere(scene)):
        if "ro" not in mount.options:
            hint = f"what is written there is in the jails at once: umount {mount.target}"
            found = f"a writable view of {path}"
            yield error("S3-view", mount.target, found, "no second writable view", hint)


def shared_writable(scene: Scene) -> Iterator[Finding]:
    """S3: no two jails can write to the same tree."""
    root = scene.site.root
    scene.checks += 1
    tops = {f"{root}/j/{name}": name for name in scene.names}
    for mount, other in compare.shared_writable(tops, scene.live.mounts):
        hint = "unmount it, or take it out of the template: what one writes the other reads"
        found = f"a writable tree that jail {other} can write to as well"
        yield error("S3-shared", mount.target, found, "no tree that two jails can write to", hint)


def reachable(scene: Scene) -> Iterator[Finding]:
    """S4: no t is seen outside ROOT in a way that setuid files work."""
    trees = _places(scene, (f"t/{name}" for name in scene.names))
    for mount, path in compare.views(trees, _places(scene, ["t"]), _elsewhere(scene)):
        if "nosuid" not in mount.options:
            hint = f"a setuid file that a jail makes works there: umount {mount.target}"
            found = f"a view of {path} without nosuid"
            yield error("S4-reachable", mount.target, found, "none outside ROOT", hint)


def _places(scene: Scene, paths: Iterable[str]) -> dict[compare.Place, str]:
    root = scene.site.root
    scene.checks += 1
    return {at: f"{root}/{p}" for p in paths if (at := scene.live.place(f"{root}/{p}")) is not None}


def _elsewhere(scene: Scene) -> list[MountPoint]:
    """Return all mounts but those that belong to jails."""
    root = scene.site.root
    own = {f"{root}/{top}/{name}" for top in ("j", "manage") for name in scene.names}
    depth = root.count("/") + 3
    return [m for m in scene.live.mounts if "/".join(m.target.split("/", depth)[:depth]) not in own]


def host_fstab(scene: Scene) -> Iterator[Finding]:
    """S12: the block in the host's fstab, if there is one, is what would be installed now."""
    scene.checks += 1
    path = scene.site.host_fstab
    try:
        stale = hostfstab.stale(scene.site, scene.plans, scene.names)
    except (OSError, LayoutError) as problem:
        yield unseen(path, problem)
        return
    if stale:
        hint = "layout fstab --install (--force, if it was edited by hand)"
        yield error("S12-host-fstab", path, stale, "what layout would install now", hint)
    if running_platform() is Platform.FREEBSD:
        lacking = [] if scene.site.trial else hostfstab.lacking(scene.site, scene.plans)
        for name in lacking:
            found = f"not all lines of {name}, which starts at boot"
            hint = "layout fstab --install NAME..., with all that it is to mount"
            yield warning("S12-host-fstab", path, found, "what boot = 'fstab' says", hint)
        try:
            hostfstab.refuse_others(scene.site, scene.plans)
        except LayoutError as other:
            yield error("S12-host-fstab", other.path, other.found, other.expected, other.hint)


def rc_conf(scene: Scene) -> Iterable[Finding]:
    """S12: by the host's rc.conf(5) of FreeBSD, jails start at boot as planned."""
    return booting_freebsd.host_findings(scene.site, scene.plans)
