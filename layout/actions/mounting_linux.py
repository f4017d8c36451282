"""Mounts of jails on Linux: whole trees at once where the kernel can, and nothing of them propagated."""

from __future__ import annotations

import contextlib
import errno
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from layout.core import devices
from layout.core.compare import Live, is_below
from layout.core.errors import LayoutError, reason_of
from layout.core.findings import Finding
from layout.core.model import JailPlan, Mount, Site
from layout.core.mountinfo import MountPoint
from layout.host import zfs
from layout.host.beneath import open_root
from layout.host.linux import holders, table
from layout.host.linux.devices import show_host_node
from layout.host.linux.mounts import Mounter, Way, make_private_root, unmount, unmount_all
from layout.host.linux.syscalls import statx_mount_id as mount_id

_PATIENCE = 50
"""Tries, a hundredth of a second apart, for a mount that is busy though no process holds it."""


def check(site: Site, plans: Sequence[JailPlan], live: Live, mounts: Sequence[Mount]) -> None:
    """Nothing stands in the way of mounts here that the mount table does not show."""


def submounts(root: str, live: Live) -> list[str]:
    """Mount points below ROOT that a source may lie on: not the jails' own."""
    return [
        target
        for target in live.below(root)
        if target != root
        and (is_below(target, f"{root}/j/mroot") or not target.startswith((f"{root}/j/", f"{root}/manage/")))
    ]


def attach(
    site: Site,
    live: Live,
    todo: Sequence[Sequence[tuple[Mount, ...]]],
    *,
    way: Way = Way.DETACHED,
) -> list[list[str]]:
    """Attach the parts of each jail, all of a jail's or none; return the new mount points of each.

    Raises LayoutError. The jails before the one that failed stay mounted.
    """
    live = _make_private(site, live)
    with _mounter(site, live, way) as mounter:
        return [_attach(mounter, parts) for parts in todo]


def _attach(mounter: Mounter, parts: Sequence[tuple[Mount, ...]]) -> list[str]:
    """Attach all parts of one jail or none; return the mount points."""
    done: list[str] = []
    try:
        for part in parts:
            mounter.attach(part)
            done += [mount.target for mount in part]
    except BaseException:
        undo(done)
        raise
    return done


def attach_privately(site: Site, tree: tuple[Mount, ...]) -> None:
    """Attach the mounts of a jail in a mount namespace that is the caller's own. Raises LayoutError."""
    with _mounter(site, Live(table.read())) as mounter:
        mounter.attach(tree)


def undo(targets: Sequence[str]) -> None:
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
    # Datasets mounted at boot would be there twice, and zfs(8) would go by the flags of the hidden mount.
    early = zfs.set_aside(site.zfs, site.root) if site.zfs else []
    try:
        with open_root(site.root) as root:
            make_private_root(root, recursive=bool(submounts(site.root, Live(table.read()))))
    finally:
        zfs.bring_back(early)
    return Live(table.read())


def private_root(site: Site) -> None:
    """See to it that nothing mounted below ROOT is propagated."""
    _make_private(site, Live(table.read()))


@contextlib.contextmanager
def _mounter(site: Site, live: Live, way: Way = Way.DETACHED) -> Iterator[Mounter]:
    own = live.at(site.root)
    with open_root(site.root) as root:
        # By its ID: the bind of ROOT can be taken away at any time before ROOT is open.
        private = bool(own) and not own[-1].propagation and mount_id(root.fd) == own[-1].mount_id
        with Mounter(root, submounts(site.root, live), way, private=private) as mounter:
            yield mounter


def with_nodes(tree: Sequence[Mount], live: Live) -> list[Mount]:
    """Add the device nodes that are mounts of their own, as in a user namespace, where none can be made."""
    nodes = [
        Mount(f"/dev/{name}", f"{mount.target}/{name}", "none", ("ro", "nosuid"))
        for mount in tree
        if mount.fstype == "tmpfs"
        for name, _, _ in devices.NODES
        if live.at(f"{mount.target}/{name}")
    ]
    return [*tree, *nodes]


def of_running(site: Site, plan: JailPlan) -> tuple[Mount, ...]:
    """Return nothing: what an engine mounts is in its own mount namespace."""
    del site, plan
    return ()


def leftovers(site: Site, plan: JailPlan, live: Live) -> tuple[Mount, ...]:
    """Return nothing, as of_running."""
    del site, plan, live
    return ()


def unmount_tree(site: Site, tree: Sequence[Mount], live: Live) -> list[str]:
    """Unmount a tree, deepest first; return the mount points. Raises LayoutError; it is whole again then."""
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
                f"a mount in use by {who}" if busy else reason_of(problem),
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
                show_host_node(dev.fd, name)


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


def device_findings(mount: Mount) -> list[Finding]:
    """Return nothing: what is in a jail's /dev was made by layout itself."""
    del mount
    return []
