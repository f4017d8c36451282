"""Mount and unmount jails: all of a jail's mounts or none, read back from the kernel afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from layout.actions.kinds import design_of
from layout.core import compare
from layout.core.compare import Live, is_below
from layout.core.errors import LayoutError
from layout.core.findings import Finding
from layout.core.model import JailPlan, Manage, Mount, Platform, Site
from layout.core.mountinfo import MountPoint
from layout.host import table
from layout.host.site import running_platform

Parts = Sequence[tuple[Mount, ...]]
"""What is to be attached of one jail: whole trees, or single mounts that a tree lacks."""


class Host(Protocol):
    """What each platform does in its own way: mounting_linux and mounting_freebsd."""

    @property
    def attach(self) -> Attach: ...

    def check(self, site: Site, plans: Sequence[JailPlan], live: Live, mounts: Sequence[Mount]) -> None: ...

    def undo(self, targets: Sequence[str]) -> None: ...

    def with_nodes(self, tree: Sequence[Mount], live: Live) -> list[Mount]: ...

    def unmount_tree(self, site: Site, tree: Sequence[Mount], live: Live) -> list[str]: ...

    def private_root(self, site: Site) -> None: ...

    def release_root(self, site: Site) -> None: ...

    def device_findings(self, mount: Mount) -> list[Finding]: ...

    def of_running(self, site: Site, plan: JailPlan) -> tuple[Mount, ...]: ...

    def leftovers(self, site: Site, plan: JailPlan, live: Live) -> tuple[Mount, ...]: ...


Attach = Callable[[Site, Live, Sequence[Parts]], list[list[str]]]
"""Attach the parts of jails; return the new mount points of each."""


def _host() -> Host:
    match running_platform():
        case Platform.LINUX:
            from layout.actions import mounting_linux

            return mounting_linux
        case Platform.FREEBSD:
            from layout.actions import mounting_freebsd

            return mounting_freebsd
        case other:
            assert_never(other)


def require_platform(site: Site) -> None:
    """Make sure that mounts of this site can be made here. Raises LayoutError."""
    running = running_platform()
    if site.platform is not running:
        raise LayoutError(
            site.root,
            f"mount tables for {site.platform}",
            f"tables for {running}",
            "use --no-mount, or --platform",
        )


def wanted(plan: JailPlan, *, manage: bool = False) -> list[tuple[Mount, ...]]:
    """Return the trees of mounts that are to be there: the jail's, and its writable view when asked for."""
    trees = [plan.tables.jail] if plan.tables.jail else []
    if (manage or plan.jail.manage is Manage.BOOT) and plan.tables.manage:
        trees.append(plan.tables.manage)
    return trees


def mount(
    site: Site, plans: Sequence[JailPlan], *, manage: bool = False, attach: Attach | None = None
) -> list[str]:
    """Mount what is missing; return the mount points that are new.

    `attach` is the platform's way to do it, or another one. Raises LayoutError when a mount cannot be made
    or another one is in its place; a jail has all of its mounts then or none of the new ones.
    """
    prepare(site, plans)
    live, todo = check(site, plans, manage=manage)
    if not todo:
        return []
    made = (attach or _host().attach)(site, live, [parts for _, parts in todo])
    live = Live(table.read())
    for (plan, _), targets in zip(todo, made, strict=True):
        try:
            _accept(plan, [mount for tree in wanted(plan, manage=manage) for mount in tree], live)
        except LayoutError:
            _host().undo(targets)
            raise
    return [target for targets in made for target in targets]


def prepare(site: Site, plans: Sequence[JailPlan]) -> None:
    """Mount the file systems that jails themselves are made of, where they have any. Raises LayoutError."""
    for plan in plans:
        design_of(plan.jail.kind).prepare(site, plan)


def check(
    site: Site, plans: Sequence[JailPlan], *, manage: bool = False
) -> tuple[Live, list[tuple[JailPlan, Parts]]]:
    """Return the live table, and for each jail that lacks mounts what is to be attached.

    Raises LayoutError when something is in the way: another mount, or a line of the host's that would make
    another one. Changes nothing.
    """
    require_platform(site)
    live = Live(table.read())
    todo: list[tuple[JailPlan, Parts]] = []
    for plan in plans:
        parts = [part for tree in wanted(plan, manage=manage) for part in _missing(plan, tree, live)]
        if parts:
            todo.append((plan, parts))
    new = [mount for _, parts in todo for part in parts for mount in part]
    _host().check(site, plans, live, new)
    return live, todo


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
    seen = [mount for mount in mounts if not is_under_session(plan, mount, live)]
    for finding in compare.compare(seen, live):
        if finding.severity == "error":
            hint = finding.hint.replace("NAME", plan.jail.name)
            raise LayoutError(finding.path, finding.found, finding.expected, hint)


def is_under_session(plan: JailPlan, mount: Mount, live: Live) -> bool:
    """Say whether this is the t of an always mounted view, and a session on FreeBSD has covered it."""
    if plan.jail.platform is not Platform.FREEBSD or not mount.target.endswith(f"/manage/{plan.jail.name}/t"):
        return False
    there = live.at(mount.target)
    return [mount.fstype, "tmpfs"] == [found.fstype for found in there]


def umount(site: Site, plans: Sequence[JailPlan], *, manage_only: bool = False) -> list[str]:
    """Unmount jails, deepest mount first, never lazily and never by force; return the mount points.

    Raises LayoutError that names who holds a busy mount; that jail then has all of its mounts again.
    """
    require_platform(site)
    live = Live(table.read())
    nodes = _host().with_nodes
    trees = []
    for plan in plans:
        planned = plan.tables.manage
        if not manage_only:
            planned = (*_both(plan), *_host().leftovers(site, plan, live))
        trees.append((plan, nodes(planned, live)))
    for plan, tree in trees:
        _refuse_foreign(site, plan, tree, live)
    done: list[str] = []
    for _, tree in trees:
        done += _host().unmount_tree(site, tree, live)
    now = Live(table.read()) if done else live
    for target in done:
        if now.at(target):
            raise LayoutError(target, "still a mount", "none", "somebody mounts it: try again")
    return done


def _both(plan: JailPlan) -> tuple[Mount, ...]:
    return (*plan.tables.jail, *plan.tables.manage)


def _refuse_foreign(site: Site, plan: JailPlan, tree: Sequence[Mount], live: Live) -> None:
    """Refuse what is not ours below a jail, or on one of its mount points, before anything is unmounted."""
    hint = "unmount it yourself first"
    if site.platform is Platform.FREEBSD:
        hint += "; if a session of layout manage left it: layout recover"
    planned = [*_host().with_nodes(_both(plan), live), *tree]
    for top in dict.fromkeys(f"{site.root}/{place}/{plan.jail.name}" for place in ("j", "manage")):
        if any(mount.target == top for mount in tree):
            for finding in compare.unplanned(planned, live, top):
                raise LayoutError(finding.path, finding.found, "only mounts of layout", hint)
    for mount in tree:
        place = live.place(mount.source) if compare.is_view(mount) else None
        for found in live.at(mount.target):
            # Whatever shows the same file system is a bind: nothing is lost with it.
            ours = compare.is_same_device(mount, found, place) if place else found.fstype == mount.fstype
            if not ours:
                seen = f"a mount of {found.source} ({found.fstype})"
                raise LayoutError(mount.target, seen, f"only mounts of {mount.source}", hint)


def private_root(site: Site) -> None:
    """See to it that what is mounted below ROOT from now on is mounted there alone."""
    _host().private_root(site)


def release_root(site: Site) -> None:
    """Take away what mounting did to ROOT itself, once no jail is mounted; to be called without the lock."""
    _host().release_root(site)


def of_running(site: Site, plan: JailPlan) -> tuple[Mount, ...]:
    """Return what is mounted for a jail only while it runs. Raises LayoutError."""
    return _host().of_running(site, plan)


def with_nodes(tree: Sequence[Mount], live: Live) -> list[Mount]:
    """Return a tree with the device nodes that belong to it, where they are mounts of their own."""
    return _host().with_nodes(tree, live)


def device_findings(mount: Mount) -> list[Finding]:
    """Return what is wrong with the devices that a mount shows."""
    return _host().device_findings(mount)


def mounts_below(root: str, paths: Sequence[str]) -> list[MountPoint]:
    """Return every live mount at or below one of these paths below ROOT, hidden ones included."""
    return [m for m in table.read(root) if any(is_below(m.target, path) for path in paths)]


def shown_elsewhere(paths: Sequence[str]) -> list[tuple[MountPoint, str]]:
    """Return every live mount that shows one of these directories, or part of it, by another name."""
    live = Live(table.read())
    trees = {place: path for path in paths if (place := live.place(path)) is not None}
    return compare.views(trees, {}, live.mounts)
