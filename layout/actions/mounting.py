"""Mount and unmount jails: all of a jail's mounts or none, read back from the kernel afterwards."""

from __future__ import annotations

import contextlib
import errno
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from layout.core import compare
from layout.core.compare import Live, is_below
from layout.core.errors import LayoutError
from layout.core.findings import Finding, error, named
from layout.core.model import JailPlan, Manage, Mount, Platform, Preset, Site
from layout.core.mountinfo import MountPoint
from layout.host.beneath import open_root
from layout.host.linux import devices, holders, table
from layout.host.linux.mounts import Mounter, Way, make_private_root, unmount, unmount_all
from layout.host.linux.syscalls import statx_mount_id as mount_id
from layout.host.site import running_platform

_PATIENCE = 10
"""Tries, a hundredth of a second apart, for a mount that is busy though no process holds it."""


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
    todo = []
    for plan in plans:
        parts = [part for tree in wanted(plan, manage=manage) for part in _missing(plan, tree, live)]
        if parts:
            todo.append((plan, parts))
    if not todo:
        return []
    live = _make_private(site, live)
    made: list[list[str]] = []
    with _mounter(site, live, way) as mounter:
        for _, parts in todo:
            made.append(_attach(mounter, parts))
    live = Live(table.read())
    for (plan, _), targets in zip(todo, made, strict=True):
        try:
            _accept(plan, [mount for tree in wanted(plan, manage=manage) for mount in tree], live)
        except LayoutError:
            _undo(targets)
            raise
    return [target for targets in made for target in targets]


def _missing(plan: JailPlan, tree: tuple[Mount, ...], live: Live) -> list[tuple[Mount, ...]]:
    """Return what of a tree is to be attached: all at once, or what is missing below a root that is there."""
    top = tree[0].target
    if not live.at(top):
        for target in live.below(top):
            hint = f"the jail would hide it: umount {target}, then layout mount {plan.jail.name}"
            raise LayoutError(target, "a mount", "nothing mounted before the jail itself", hint)
        return [tree]
    _accept(plan, [mount for mount in tree if live.at(mount.target)], live)
    return [(mount,) for mount in tree if not live.at(mount.target)]


def _accept(plan: JailPlan, mounts: Sequence[Mount], live: Live) -> None:
    """Make sure that these mounts are as planned. Raises LayoutError for the first that is not."""
    for finding in compare.compare(mounts, live):
        if finding.severity == "error":
            hint = finding.hint.replace("NAME", plan.jail.name)
            raise LayoutError(finding.path, finding.found, finding.expected, hint)


def _attach(mounter: Mounter, parts: Sequence[tuple[Mount, ...]]) -> list[str]:
    """Attach all parts of one jail or none; return the mount points."""
    done: list[str] = []
    try:
        for part in parts:
            mounter.attach(part)
            done += [mount.target for mount in part]
    except BaseException:
        _undo(done)
        raise
    return done


def _undo(targets: Sequence[str]) -> None:
    """Take new mounts away again. One that somebody uses already stays, and the next run finds it."""
    for target in reversed(targets):
        with contextlib.suppress(OSError):
            unmount(target)


def _make_private(site: Site, live: Live) -> Live:
    """See to it that what is mounted below ROOT is propagated nowhere; return the table as it is then.

    Where mount(8) has mounted jails already, ROOT stays as it is: a bind of itself would hide them. The
    mounts are private then all the same, but copies of them appear where those of mount(8) did.
    """
    own = live.at(site.root)
    if own and not own[-1].propagation:
        return live
    foreign = submounts(site.root, live)
    if len(foreign) != len([target for target in live.below(site.root) if target != site.root]):
        return live
    with open_root(site.root) as root:
        make_private_root(root, recursive=bool(foreign))
    return Live(table.read())


@contextlib.contextmanager
def _mounter(site: Site, live: Live, way: Way = Way.DETACHED) -> Iterator[Mounter]:
    own = live.at(site.root)
    with open_root(site.root) as root:
        # By its ID: the bind of ROOT can be taken away at any time before ROOT is open.
        private = bool(own) and not own[-1].propagation and mount_id(root.fd) == own[-1].mount_id
        with Mounter(root, submounts(site.root, live), way, private=private) as mounter:
            yield mounter


def submounts(root: str, live: Live) -> list[str]:
    """Mount points below ROOT that a source may lie on: not the jails' own."""
    return [
        target
        for target in live.below(root)
        if target != root
        and (is_below(target, f"{root}/j/mroot") or not target.startswith((f"{root}/j/", f"{root}/manage/")))
    ]


def umount(site: Site, plans: Sequence[JailPlan], *, manage_only: bool = False) -> list[str]:
    """Unmount jails, deepest mount first, never lazily and never by force; return the mount points.

    Raises LayoutError that names who holds a busy mount; that jail then has all of its mounts again.
    """
    require_platform(site)
    live = Live(table.read())
    trees = [(plan, _with_nodes(plan.tables.manage if manage_only else _both(plan), live)) for plan in plans]
    for plan, tree in trees:
        _refuse_foreign(site, plan, tree, live)
    done: list[str] = []
    for _, tree in trees:
        done += _umount_tree(site, tree, live)
    now = Live(table.read()) if done else live
    for target in done:
        if now.at(target):
            raise LayoutError(target, "still a mount", "none", "somebody mounts it: try again")
    return done


def _both(plan: JailPlan) -> tuple[Mount, ...]:
    return (*plan.tables.jail, *plan.tables.manage)


def _with_nodes(tree: Sequence[Mount], live: Live) -> list[Mount]:
    """Add the device nodes that are mounts of their own, as in a user namespace, where none can be made."""
    nodes = [
        Mount(f"/dev/{name}", f"{mount.target}/{name}", "none", ("ro", "nosuid"))
        for mount in tree
        if mount.fstype == "tmpfs"
        for name, _, _ in devices.NODES
        if live.at(f"{mount.target}/{name}")
    ]
    return [*tree, *nodes]


def _refuse_foreign(site: Site, plan: JailPlan, tree: Sequence[Mount], live: Live) -> None:
    """Refuse what is not ours below a jail, or on one of its mount points, before anything is unmounted."""
    hint = "unmount it yourself first"
    planned = _with_nodes(_both(plan), live)
    for top in dict.fromkeys(f"{site.root}/{place}/{plan.jail.name}" for place in ("j", "manage")):
        if any(mount.target == top for mount in tree):
            for finding in compare.unplanned(planned, live, top):
                raise LayoutError(finding.path, finding.found, "only mounts of layout", hint)
    for mount in tree:
        place = live.place(mount.source) if mount.fstype == "none" else None
        for found in live.at(mount.target):
            # Whatever shows the same file system is a bind: nothing is lost with it.
            if found.fstype != mount.fstype if place is None else found.dev != place[0]:
                seen = f"a mount of {found.source} ({found.fstype})"
                raise LayoutError(mount.target, seen, f"only mounts of {mount.source}", hint)


def _umount_tree(site: Site, tree: Sequence[Mount], live: Live) -> list[str]:
    gone: list[str] = []
    for target in [mount.target for mount in reversed(tree) for _ in live.at(mount.target)]:
        try:
            _unmount_patiently(target)
        except OSError as problem:
            if problem.errno == errno.EINVAL and not Live(table.read()).at(target):
                continue  # somebody else was faster
            busy = problem.errno == errno.EBUSY
            who = holders.describe(holders.of(target)) if busy else ""
            _restore(site, tree, live)
            raise LayoutError(
                target,
                f"a mount in use by {who}" if busy else problem.strerror or "an error",
                "a mount nobody uses",
                "stop it, then try again; nothing was forced",
            ) from None
        gone.append(target)
    return gone


def _unmount_patiently(target: str) -> None:
    """Unmount; what is only just being looked at (stat(2), a file that is closed again) is waited for."""
    for _ in range(_PATIENCE):
        try:
            unmount(target)
        except OSError as problem:
            if problem.errno != errno.EBUSY or holders.of(target):
                raise
        else:
            return
        time.sleep(0.01)
    unmount(target)


def _restore(site: Site, tree: Sequence[Mount], before: Live) -> None:
    """Mount again what is gone: a jail without its t would be neither here nor there."""
    now = Live(table.read())
    gone = [mount for mount in tree if before.at(mount.target) and not now.at(mount.target)]
    whole = [mount for mount in gone if not mount.source.startswith("/dev/")]
    with _mounter(site, now) as mounter:
        for mount in whole:
            mounter.attach([mount])
    for mount in gone:
        head, _, name = mount.target.rpartition("/")
        if mount not in whole and head not in {one.target for one in whole}:
            with open_root(head) as dev:
                devices.show_host_node(dev.fd, name)


def release_root(site: Site) -> None:
    """Take away ROOT's private bind of itself when no jail is mounted below it any more.

    To be called without the lock: a lock file that is open below ROOT keeps the mount busy. Somebody who
    mounts meanwhile keeps it busy too, and then it rightly stays. So does a shell that stands in ROOT: it
    shows what is there anyway and goes with the next umount.
    """
    live = Live(table.read())
    own = live.at(site.root)
    if not own or not is_self_bind(own[-1], live.mounts):
        return
    targets = [target for target in live.below(site.root) if target != site.root]
    if len(submounts(site.root, live)) != len(targets):
        return
    # What was mounted below ROOT before has two mounts, the bind's copy and the one that it hides.
    counts = Counter((mount.target, mount.dev, mount.root) for mount in live.mounts)
    for target in targets:
        copy = live.at(target)[-1]
        if counts[copy.target, copy.dev, copy.root] < 2:
            return
    try:
        unmount_all([*sorted(targets, key=len, reverse=True), site.root])
    except OSError as problem:
        if problem.errno != errno.EBUSY:
            raise


def is_self_bind(mount: MountPoint, mounts: Sequence[MountPoint]) -> bool:
    """Say whether a mount shows nothing but its own mount point: made by us, not a file system of its own."""
    parent = next((m for m in mounts if m.mount_id == mount.parent_id), None)
    if parent is None or parent.dev != mount.dev:
        return False
    inside = mount.target[len(parent.target.rstrip("/")) :]
    return mount.root.rstrip("/") == f"{parent.root.rstrip('/')}{inside}"


def findings(plan: JailPlan, site: Site, live: Live) -> list[Finding]:
    """Return what is wrong with the mounts of one jail, extra ones included."""
    jail = plan.jail
    opted_out = jail.exec or jail.preset is Preset.CLASSIC
    found: list[Finding] = []
    for tree in wanted(plan):
        found += compare.compare(tree, live)
    found += compare.writable_and_executable(plan.tables.jail, live, opted_out=opted_out)
    found += compare.unplanned(plan.tables.jail, live, f"{site.root}/j/{jail.name}")
    if jail.manage is Manage.BOOT:
        found += compare.unplanned(
            _with_nodes(plan.tables.manage, live), live, f"{site.root}/manage/{jail.name}"
        )
    elif below := live.below(f"{site.root}/manage/{jail.name}"):
        hint = "layout umount --manage NAME; a session of layout manage needs no mount that others see"
        found.append(error("S3-view", below[0], "the writable view, mounted", "none between sessions", hint))
    return [named(finding, jail.name) for finding in found]


def mounts_below(root: str, paths: Sequence[str]) -> list[MountPoint]:
    """Return every live mount at or below one of these paths below ROOT, hidden ones included."""
    return [m for m in table.read(root) if any(is_below(m.target, path) for path in paths)]


def shown_elsewhere(paths: Sequence[str]) -> list[tuple[MountPoint, str]]:
    """Return every live mount that shows one of these directories, or part of it, by another name."""
    live = Live(table.read())
    trees = {place: path for path in paths if (place := live.place(path)) is not None}
    return compare.views(trees, {}, live.mounts)
