"""Mount and unmount jails: all of a jail's mounts or none, read back from the kernel afterwards."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from layout.core import compare
from layout.core.compare import Live
from layout.core.errors import LayoutError
from layout.core.findings import Finding
from layout.core.model import JailPlan, Manage, Mount, Platform, Site
from layout.core.mountinfo import MountPoint
from layout.host.beneath import Dir, open_root
from layout.host.linux import holders, table
from layout.host.linux.mounts import Mounter, Way, make_private_root, unmount
from layout.host.site import running_platform


def require_platform(site: Site) -> None:
    """Make sure that mounts of this site can be made here. Raises LayoutError."""
    running = running_platform()
    if running is not Platform.LINUX:
        raise LayoutError(
            "this host",
            str(running),
            "Linux",
            "mount the printed table yourself: layout fstab; see docs/freebsd.md",
        )
    if site.platform is not running:
        raise LayoutError(
            site.root,
            f"mount tables for {site.platform}",
            f"tables for {running}",
            "use --no-mount, or --platform",
        )


def wanted(plan: JailPlan, *, manage: bool = False) -> list[tuple[Mount, ...]]:
    """Return the trees of mounts that are to be there: the jail's, and its writable view when asked for."""
    trees = [plan.tables.jail]
    if (manage or plan.jail.manage is Manage.BOOT) and plan.tables.manage:
        trees.append(plan.tables.manage)
    return trees


def mount(
    site: Site, plans: Sequence[JailPlan], *, manage: bool = False, way: Way = Way.DETACHED
) -> list[str]:
    """Mount what is missing; return the mount points that are new.

    Raises LayoutError when a mount cannot be made or another one is in its place; a jail has all of its
    mounts then or none of the new ones.
    """
    require_platform(site)
    live = Live(table.read())
    todo = [
        missing for plan in plans for tree in wanted(plan, manage=manage) if (missing := _missing(tree, live))
    ]
    if not todo:
        return []
    with open_root(site.root) as root:
        if not _is_private(site.root, live):
            make_private_root(root)
    with open_root(site.root) as root, Mounter(root, submounts(site.root, live), way) as mounter:
        mounter.private = True
        for tree in todo:
            for part in tree:
                mounter.attach(part)
    made = [mount.target for tree in todo for part in tree for mount in part]
    _read_back(site, plans, manage)
    return made


def _missing(tree: tuple[Mount, ...], live: Live) -> list[list[Mount]]:
    """Return what of a tree is to be attached: all at once, or what is missing below a root that is there."""
    absent = [mount for mount in tree if not live.at(mount.target)]
    if len(absent) == len(tree):
        return [list(tree)]
    for finding in compare.compare(tree, live, opted_out=True):
        if finding.severity == "error" and finding.code != "S1-missing":
            raise LayoutError(finding.path, finding.found, finding.expected, finding.hint)
    return [[mount] for mount in absent]


def _read_back(site: Site, plans: Sequence[JailPlan], manage: bool) -> None:
    """Compare what the kernel says now with the plan. Raises LayoutError for the first difference."""
    live = Live(table.read())
    for plan in plans:
        for tree in wanted(plan, manage=manage):
            for finding in compare.compare(tree, live, opted_out=True):
                if finding.severity == "error":
                    raise LayoutError(finding.path, finding.found, finding.expected, finding.hint)


def _is_private(root: str, live: Live) -> bool:
    here = live.at(root)
    return bool(here) and not here[-1].propagation


def submounts(root: str, live: Live) -> list[str]:
    """Mount points below ROOT that a source may lie on: not the jails' own."""
    return [
        target
        for target in live.by_target
        if target.startswith(root + "/")
        and (target == f"{root}/j/mroot" or not target.startswith((f"{root}/j/", f"{root}/manage/")))
    ]


def umount(site: Site, plans: Sequence[JailPlan], *, manage_only: bool = False) -> list[str]:
    """Unmount jails, deepest mount first, never lazily and never by force; return the mount points.

    Raises LayoutError that names who holds a busy mount; that jail then has all of its mounts again.
    """
    require_platform(site)
    live = Live(table.read())
    done: list[str] = []
    for plan in plans:
        _refuse_foreign(site, plan, live)
    for plan in plans:
        trees = [plan.tables.manage] if manage_only else [plan.tables.manage, plan.tables.jail]
        for tree in trees:
            done += _umount_tree(site, plan, tree, live)
    return done


def _refuse_foreign(site: Site, plan: JailPlan, live: Live) -> None:
    planned = [*plan.tables.jail, *plan.tables.manage]
    for place in ("j", "manage"):
        for finding in compare.unplanned(planned, live, f"{site.root}/{place}/{plan.jail.name}"):
            raise LayoutError(
                finding.path, finding.found, "only mounts of layout", "unmount it yourself first"
            )


def _umount_tree(site: Site, plan: JailPlan, tree: tuple[Mount, ...], live: Live) -> list[str]:
    targets = [mount.target for mount in reversed(tree) for _ in live.at(mount.target)]
    gone: list[str] = []
    for target in targets:
        try:
            unmount(target)
        except OSError as error:
            if error.errno == errno.EINVAL and target not in {m.target for m in table.read(target)}:
                continue  # somebody else was faster
            who = holders.of(target) if error.errno == errno.EBUSY else []
            _restore(site, tree, live)
            raise LayoutError(
                target,
                f"a mount in use by {holders.describe(who)}"
                if error.errno == errno.EBUSY
                else error.strerror or "",
                "a mount nobody uses",
                "stop it, then try again; nothing was forced",
            ) from None
        gone.append(target)
    left = {mount.target for mount in table.read(tree[0].target)} if targets else set()
    if left & set(targets):
        raise LayoutError(sorted(left & set(targets))[0], "still a mount", "none", "layout umount again")
    return gone


def _restore(site: Site, tree: tuple[Mount, ...], before: Live) -> None:
    """Mount again what of a tree is gone: a jail without its t would be neither here nor there."""
    now = Live(table.read())
    gone = [mount for mount in tree if before.at(mount.target) and not now.at(mount.target)]
    if gone:
        with open_root(site.root) as root, Mounter(root, submounts(site.root, now)) as mounter:
            mounter.private = True
            for mount in gone:
                mounter.attach([mount])


def release_root(site: Site) -> None:
    """Take away ROOT's private bind of itself when nothing is mounted below it any more.

    To be called without the lock: a lock file that is open below ROOT keeps the mount busy. Somebody who
    mounts meanwhile keeps it busy too, and then it rightly stays.
    """
    mounts = table.read()
    own = Live(mounts).at(site.root)
    if not own or any(mount.target.startswith(site.root + "/") for mount in mounts):
        return
    if not is_self_bind(own[-1], mounts):
        return
    try:
        unmount(site.root)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A shell that stands in ROOT keeps it; it shows what is there anyway and goes with the next umount.


def is_self_bind(mount: MountPoint, mounts: Sequence[MountPoint]) -> bool:
    """Say whether a mount shows nothing but its own mount point: made by us, not a file system of its own."""
    parent = next((m for m in mounts if m.mount_id == mount.parent_id), None)
    if parent is None or parent.dev != mount.dev:
        return False
    inside = os.path.relpath(mount.target, parent.target)
    expected = parent.root if inside == "." else f"{parent.root.rstrip('/')}/{inside}"
    return mount.root == expected


def findings(plan: JailPlan, site: Site, live: Live, *, opted_out: bool) -> list[Finding]:
    """Return what is wrong with the mounts of one jail, extra ones included."""
    found: list[Finding] = []
    planned: list[Mount] = []
    for tree in wanted(plan):
        planned += tree
        found += compare.compare(tree, live, opted_out=opted_out)
    for place in ("j", "manage"):
        found += compare.unplanned(planned, live, f"{site.root}/{place}/{plan.jail.name}")
    return found


def anything_below(site: Site, root: Dir, name: str) -> list[MountPoint]:
    """Return every live mount at or below one of the four directories of jail `name`."""
    prefixes = [f"{root.path}/{place}/{name}" for place in ("j", "manage", "s", "t")]
    return [
        mount
        for mount in table.read(site.root)
        if any(mount.target == prefix or mount.target.startswith(prefix + "/") for prefix in prefixes)
    ]
