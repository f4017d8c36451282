"""Compare planned mounts with live ones. Pure: both are data."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

from layout.core.findings import Finding, error, warning
from layout.core.model import Jail, Mount, Platform, Preset
from layout.core.mountinfo import MountPoint

_STRICT = ("ro", "nosuid", "nodev", "noexec", "nosymfollow")
_OF_FREEBSD = ("nullfs", "devfs")
_OF_THE_KERNEL = {"cgroup2", "devfs", "devpts", "devtmpfs", "fdescfs", "mqueue", "proc", "procfs", "sysfs"}
"""File systems that are one and the same, or none, wherever they are mounted: no trees that jails share."""
_AGAIN = "layout umount NAME, then layout mount NAME"

Place = tuple[str, str]
"""A device as "MAJOR:MINOR" and a path inside its file system: what is mounted, whatever its name."""


def is_below(path: str, parent: str) -> bool:
    """Say whether `path` is `parent` or below it: /jails/j/ab is not below /jails/j/a."""
    return path == parent or path.startswith(parent.rstrip("/") + "/")


class Live:
    """The live mount table, by mount point. Mounts that no path leads to any more are left out of it."""

    def __init__(self, mounts: Iterable[MountPoint]) -> None:
        self.mounts = tuple(mounts)
        self.by_target: dict[str, list[MountPoint]] = {}
        for mount in _reachable(self.mounts):
            self.by_target.setdefault(mount.target, []).append(mount)
        for stack in self.by_target.values():
            if len(stack) > 1:
                _order(stack)
        self._places: dict[str, Place] = {}

    def at(self, target: str) -> list[MountPoint]:
        """Return the mounts on exactly this point, the visible one last."""
        return self.by_target.get(target, [])

    def below(self, path: str) -> list[str]:
        """Return the mount points at and below `path`."""
        inside = path.rstrip("/") + "/"
        first = bisect.bisect_left(self._sorted, inside)
        last = bisect.bisect_left(self._sorted, inside[:-1] + "0")  # the character after '/'
        return [path] * (path in self.by_target and path != "/") + self._sorted[first:last]

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.by_target)

    def place(self, path: str) -> Place | None:
        """Return what a path shows if it lies on a known mount, else None.

        Only the mount of the containing directory is looked for by its components; a mount on `path` itself
        counts as well.
        """
        own = self.at(path)
        if own:
            return own[-1].dev, own[-1].root
        head, _, name = path.rpartition("/")
        known = self._places.get(head)
        if known is None:
            found = self._containing(head)
            if found is None:
                return None
            known = self._places[head] = found
        dev, inside = known
        return dev, f"{inside.rstrip('/')}/{name}"

    def under(self, path: str) -> MountPoint | None:
        """Return the mount that an absolute path lies on, None when none is known."""
        here = path
        while True:
            mounts = self.at(here or "/")
            if mounts:
                return mounts[-1]
            if not here:
                return None
            here = here.rpartition("/")[0]

    def _containing(self, path: str) -> Place | None:
        mount = self.under(path)
        if mount is None:
            return None
        rest = path[len(mount.target.rstrip("/")) :]
        return mount.dev, f"{mount.root.rstrip('/')}{rest}"


def _reachable(mounts: Sequence[MountPoint]) -> Iterable[MountPoint]:
    """Leave out what lies below another mount: on a directory that a later mount of the same parent hides."""
    by_id = {mount.mount_id: mount for mount in mounts}
    children = {(mount.parent_id, mount.target) for mount in mounts}
    hidden: dict[int, bool] = {}
    for mount in mounts:
        chain: list[int] = []
        here: MountPoint | None = mount
        found = False
        while here is not None and here.mount_id not in hidden:
            hidden[here.mount_id] = False  # the root of a namespace may be its own parent
            chain.append(here.mount_id)
            above = by_id.get(here.parent_id)
            if _is_covered(here, above, children):
                found = True
                break
            here = above
        else:
            found = here is not None and hidden[here.mount_id]
        if found:
            hidden.update(dict.fromkeys(chain, True))
    return [mount for mount in mounts if not hidden[mount.mount_id]]


def _is_covered(mount: MountPoint, parent: MountPoint | None, children: set[tuple[int, str]]) -> bool:
    """Say whether a sibling lies on a directory between a mount and the root of its parent."""
    floor = len(parent.target) if parent is not None else 1
    here = mount.target
    while here != "/":
        here = here[: here.rindex("/")] or "/"
        if len(here) < floor:
            break
        if (mount.parent_id, here) in children:
            return True
    return False


def _order(stack: list[MountPoint]) -> None:
    """Put the mounts of one point into the order in which they lie on each other."""
    waiting = {mount.parent_id: mount for mount in stack}
    ids = {mount.mount_id for mount in stack}
    here = next((mount for mount in stack if mount.parent_id not in ids), None)
    ordered: list[MountPoint] = []
    while here is not None and len(ordered) < len(stack):
        ordered.append(here)
        here = waiting.get(here.mount_id)
    if len(ordered) == len(stack):
        stack[:] = ordered


def compare(planned: Sequence[Mount], live: Live) -> list[Finding]:
    """Return what is wrong with these planned mounts: missing, stacked, another source, options, shared."""
    findings = missing(planned, live)
    for mount in planned:
        if found := live.at(mount.target):
            for judge in (stacked, wrong_source, wrong_options, propagated):
                findings += judge(mount, found, live)
    return findings


def missing(planned: Sequence[Mount], live: Live) -> list[Finding]:
    """Return a finding for each planned mount that is not there, a single one when there is none at all."""
    lacking = [mount for mount in planned if not live.at(mount.target)]
    if planned and len(lacking) == len(planned):
        return [
            error("S1-unmounted", planned[0].target, "nothing mounted", "its mounts", "layout mount NAME")
        ]
    return [
        error("S1-missing", m.target, "no mount", f"a mount of {m.source}", "layout mount NAME")
        for m in lacking
    ]


Judge = Callable[[Mount, list[MountPoint], Live], list[Finding]]
"""Takes a planned mount, what is mounted on its point, the visible one last, and the table."""


def stacked(mount: Mount, found: list[MountPoint], live: Live) -> list[Finding]:
    """Return a finding when more than one mount lies on a point."""
    del live
    if len(found) == 1:
        return []
    table = "findmnt" if mount.fstype not in _OF_FREEBSD else "mount -v | grep"
    hint = f"see who mounted it: {table} {mount.target}; umount {mount.target} takes the one on top away"
    return [error("S1-stacked", mount.target, f"{len(found)} mounts on one point", "exactly one", hint)]


def wrong_source(mount: Mount, found: list[MountPoint], live: Live) -> list[Finding]:
    """Return a finding when something else is shown than planned."""
    top = found[-1]
    if shows(mount, top, live):
        return []
    seen, wanted = f"type {top.fstype}", f"type {mount.fstype}"
    if mount.fstype == "none":
        seen, wanted = f"{top.root} of device {top.dev}", mount.source
    elif mount.fstype == "nullfs":
        seen, wanted = f"a {top.fstype} of {top.source}", f"a nullfs of {mount.source}"
    return [error("S1-source", mount.target, seen, wanted, _AGAIN)]


def wrong_options(mount: Mount, found: list[MountPoint], live: Live) -> list[Finding]:
    """Return findings for options that make a mount safe and are missing, and for one that is read-only."""
    del live
    findings = []
    top = found[-1]
    lacking = ",".join(word for word in _STRICT if word in mount.options and word not in top.options)
    if lacking:
        hint = f"{_AGAIN}; find out who remounted it"
        findings.append(error("S2-options", mount.target, f"without {lacking}", f"with {lacking}", hint))
    if "ro" not in mount.options:
        if "ro" in top.options:
            findings.append(error("S2-options", mount.target, "read-only", "writable", _AGAIN))
        elif top.super_options.split(",", 1)[0] == "ro":
            hint = "the kernel may have done that after an error of the disk: see dmesg"
            findings.append(error("S2-options", mount.target, "on a read-only file system", "writable", hint))
    return findings


def lacking(planned: Sequence[Mount], jail: Jail, root: str) -> list[Finding]:
    """Return a finding for each mount of a shared root whose template leaves out what makes it safe.

    mroot and s have to be ro whatever the preset; classic has chosen to do without the rest.
    """
    findings = []
    for mount in planned:
        if mount.source in {f"{root}/j/mroot", f"{root}/s/{jail.name}"}:
            wanted = {"ro"} if jail.suid else {"ro", "nosuid"}
        elif mount.source == f"{root}/t/{jail.name}":
            wanted = {"nosuid"}
        else:
            continue
        if jail.platform is Platform.LINUX:
            wanted |= {"nodev"}
        if jail.preset is Preset.CLASSIC:
            wanted &= {"ro"}
        words = ",".join(word for word in _STRICT if word in wanted and word not in mount.options)
        if words:
            hint = "put it back into the template in ETC/fstab.d, then layout init NAME"
            findings.append(
                error("S2-template", mount.target, f"a template without {words}", f"with {words}", hint)
            )
    return findings


def propagated(mount: Mount, found: list[MountPoint], live: Live) -> list[Finding]:
    """Return a finding for a mount that is not private."""
    del live
    tags = found[-1].propagation
    if not tags:
        return []
    hint = f"mounts on it appear in other jails: {_AGAIN}"
    return [error("S2-propagation", mount.target, f"propagation {tags}", "private", hint)]


def is_view(mount: Mount) -> bool:
    """Say whether a mount shows a directory by another name: a bind mount or a nullfs."""
    return mount.fstype in {"none", "nullfs"}


def is_same_device(mount: Mount, found: MountPoint, place: Place) -> bool:
    """Say whether a live mount shows something of the file system that the planned source is on.

    Nothing is lost with such a mount. On Linux it may be a mount of that file system itself; a nullfs is
    always one.
    """
    return found.dev == place[0] and mount.fstype in {"none", found.fstype}


def shows(mount: Mount, found: MountPoint, live: Live) -> bool:
    """Say whether a live mount shows what was planned, by device and path in its file system."""
    if not is_view(mount):
        return found.fstype == mount.fstype
    if mount.fstype == "nullfs" and found.fstype != "nullfs":
        return False
    expected = live.place(mount.source)
    return expected is None or (found.dev, found.root) == expected


def writable_and_executable(planned: Sequence[Mount], live: Live, *, opted_out: bool) -> list[Finding]:
    """Return a finding for each mount of a jail that breaks W^X: what can be written can be executed.

    `opted_out`: the profile or preset allows programs in t, which is then a warning. Options that are
    missing though they were planned are left to compare().
    """
    findings = []
    for mount in planned:
        found = live.at(mount.target)
        if "ro" in mount.options or "noexec" in mount.options or not found:
            continue
        if found[-1].options.isdisjoint({"ro", "noexec"}):
            seen = "writable and executable"
            if opted_out:
                hint = "take exec = true out of the profile, or use the preset hardened"
                findings.append(
                    warning(
                        "S2-writable-exec",
                        mount.target,
                        f"{seen}, as the profile or preset asks",
                        "not both",
                        hint,
                    )
                )
            else:
                hint = "put ${noexec} into the template in ETC/fstab.d, then layout init NAME"
                findings.append(error("S2-writable-exec", mount.target, seen, "not both", hint))
    return findings


def unplanned(planned: Iterable[Mount], live: Live, below: str) -> list[Finding]:
    """Return a finding for each live mount at or below `below` that nobody planned."""
    targets = {mount.target for mount in planned}
    return [
        error(
            "S1-extra",
            target,
            f"a mount of {live.at(target)[-1].source} ({live.at(target)[-1].fstype})",
            "no mount here",
            "unmount it, or find out who needs it",
        )
        for target in live.below(below)
        if target not in targets
    ]


def views(
    trees: Mapping[Place, str], tops: Mapping[Place, str], mounts: Iterable[MountPoint]
) -> list[tuple[MountPoint, str]]:
    """Return each of the mounts that shows a tree, or part of one, elsewhere: with the path of what it shows.

    `trees` and `tops` map what is mounted to its path; of a top only the whole of it counts, of a tree also
    what is below.
    """
    found = []
    for mount in mounts:
        path = tops.get((mount.dev, mount.root)) or _tree_of(mount, trees)
        if path is not None and mount.target != path:
            found.append((mount, path))
    return found


def shared_writable(tops: Mapping[str, str], mounts: Iterable[MountPoint]) -> list[tuple[MountPoint, str]]:
    """Return each writable mount of a jail that shows a tree, or part of one, that another can write to.

    `tops` maps the roots of jails to their names; the name of the other comes with the mount.
    """
    trees: dict[Place, str] = {}
    theirs = []
    for mount in mounts:
        name = next((tops[path] for path in _ancestors(mount.target) if path in tops), None)
        if name is not None and "ro" not in mount.options and mount.fstype not in _OF_THE_KERNEL:
            theirs.append((mount, name))
            trees.setdefault((mount.dev, mount.root), name)
    found = []
    for mount, name in theirs:
        for inside in _ancestors(mount.root):
            other = trees.get((mount.dev, inside))
            if other is not None and other != name:
                found.append((mount, other))
                break
    return found


def _tree_of(mount: MountPoint, trees: Mapping[Place, str]) -> str | None:
    for inside in _ancestors(mount.root):
        path = trees.get((mount.dev, inside))
        if path is not None:
            return path + mount.root[len(inside.rstrip("/")) :].rstrip("/")
    return None


def _ancestors(path: str) -> Iterable[str]:
    """Yield a path and the directories above it, the nearest first."""
    while path not in {"", "/"}:
        yield path
        path = path.rpartition("/")[0]
    yield "/"
