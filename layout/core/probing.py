"""What the probes should find in a jail, from its plan, and what they mean when they find something else.

Pure: which place may be written and executed in is read off the mount tables, for every design of jail. The
trying is done by layout.host.inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from layout.core.compare import is_below
from layout.core.findings import Finding, error, few, warning
from layout.core.model import Copy, Directory, JailPlan, Mount, Platform
from layout.core.mountinfo import MountPoint
from layout.core.plan import LINKS

_OWN_WORDS = """
    autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devfs devpts efivarfs fdescfs fusectl linprocfs
    linsysfs nsfs proc procfs pstore securityfs selinuxfs sysfs tracefs
"""
_SYSTEMS = frozenset(_OWN_WORDS.split())
"""File systems that are the kernel's own words."""
_OF_ENGINE = ("/dev", "/proc", "/run", "/sys")
"""Where whoever keeps a running jail mounts memory of its own."""
_MEMORY = frozenset({"mqueue", "ramfs", "tmpfs"})
_FEW = 1
"""Findings of one code in one place that are told one by one."""


class Place(msgspec.Struct, frozen=True):
    """A mount of a jail, by its path in there, and what may be done in it."""

    path: str
    writable: bool = False
    executable: bool = True
    setuid: bool = True
    devices: bool = True
    system: bool = False
    """The kernel's own words: refuses in any way it likes."""
    engine: bool = False
    """Memory of whoever keeps the jail: it may be closed to root of the jail, in any way."""

    shared: bool = False
    """A tree below ROOT that other jails may see as well: no FIFO or socket has a business there."""

    @property
    def sealed(self) -> bool:
        """It is a tree of ours, and nothing in it may change."""
        return not (self.writable or self.system or self.engine)


class Expected(msgspec.Struct, frozen=True):
    """What a jail should be like from within."""

    platform: Platform
    top: str
    """The jail's root, as the host names it."""
    places: tuple[Place, ...]
    """Parents first."""
    writable: tuple[str, ...]
    """Directories that the jail must be able to write to."""
    readable: tuple[str, ...]
    """What the jail must be able to read."""
    programs: tuple[str, ...]
    """Files, or directories of some, that the jail executes."""
    capabilities: tuple[str, ...]
    """Linux: what its service may keep, in lower case."""
    apart: bool = True
    """Its engine gives it processes of its own; a unit of systemd sees, and as root signals, the host's."""


class Attempt(msgspec.Struct, frozen=True):
    """One thing that was really tried in the jail, and what came of it."""

    probe: str
    """A1 to A8; A0 for what could not be tried."""
    action: str
    path: str
    """As the jail sees it; a process or a call where it is no path."""
    place: str
    """Path of the Place that it lies in."""
    outcome: str = ""
    """Empty when it was done, else the name of the errno, or a word of the probe's own."""


def expect(plan: JailPlan, live: Sequence[MountPoint]) -> Expected | None:
    """Return what is to be expected of a jail; `live` are the mounts as its processes see them.

    Their targets are paths in the jail. None for a jail without mounts of its own.
    """
    planned = plan.tables.jail
    if not planned:
        return None
    top = planned[0].target
    root = top.rpartition("/j/")[0]
    places = {inside(mount.target, top): _place(inside(mount.target, top), mount, root) for mount in planned}
    for point in live:
        if point.target not in places:
            places[point.target] = _unplanned(point, places)
    writable, readable = _controls(plan, top)
    service = plan.jail.settings.service
    return Expected(
        plan.jail.platform,
        top,
        tuple(sorted(places.values(), key=lambda place: place.path)),
        writable,
        readable,
        (*service.command[:1], "/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/libexec"),
        service.capabilities,
    )


def inside(target: str, top: str) -> str:
    """Return the path in the jail of a mount point of the host."""
    return target[len(top) :] or "/"


def _place(path: str, mount: Mount, root: str) -> Place:
    words = set(mount.options)
    return Place(
        path,
        writable="ro" not in words,
        executable="noexec" not in words,
        setuid="nosuid" not in words,
        devices="nodev" not in words,
        system=mount.fstype in _SYSTEMS,
        shared="ro" in words and mount.source.startswith(f"{root}/"),
    )


def _unplanned(point: MountPoint, places: dict[str, Place]) -> Place:
    """Return what may be done in a mount of which the plan says nothing: no more than below it."""
    own = any(is_below(point.target, path) for path in _OF_ENGINE)
    if own and point.fstype in _SYSTEMS:
        return Place(point.target, system=True, executable=False, setuid=False)
    if own and point.fstype in _MEMORY:
        is_open = "ro" not in point.options
        return Place(point.target, writable=is_open, executable=False, setuid=False, engine=True)
    around = max((p for p in places if is_below(point.target, p)), key=len, default="/")
    return msgspec.structs.replace(places.get(around, Place("/")), path=point.target)


def _controls(plan: JailPlan, top: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what must be writable and what readable: each planned tree of a half, by the jail's own name."""
    names = {target: name for name, target in LINKS if "/" not in name}
    shared = plan.tables.jail[0].source.endswith("/j/mroot")
    found: dict[bool, list[str]] = {True: [], False: []}
    for mount in plan.tables.jail:
        way = inside(mount.target, top)
        can_write = "ro" not in mount.options
        trees = [
            f"{way.rstrip('/')}/{rest}"
            for entry in plan.entries
            if isinstance(entry, Copy | Directory)
            for whole, _, rest in [f"/{entry.path}".partition(_below(mount))]
            if not whole and rest and "/" not in rest
        ]
        if can_write and not trees and mount.fstype not in _SYSTEMS:
            trees = [way]
        for path in trees:
            name = names.get(path[1:]) if shared else None
            found[can_write].append(f"/{name}" if name else path)
    return tuple(dict.fromkeys(found[True])), tuple(dict.fromkeys(found[False])) or ("/",)


def _below(mount: Mount) -> str:
    """Return the end of a mount's source, below ROOT, such as '/t/bind/'."""
    return "/".join(["", *mount.source.split("/")[-2:], ""])


# --- what it means -----------------------------------------------------------------------------------------

_WRITE = {
    "create": "a directory that can be written to",
    "append": "a file that can be written to",
    "chmod": "a file whose mode can be changed",
    "chown": "a file whose owner can be changed",
    "rename": "a file that can be renamed",
    "utime": "a file whose times can be changed",
    "link": "a file that can be linked into what is writable",
}
_HINT = "layout umount NAME, then layout mount NAME"
_AGAIN = "layout stop NAME, layout umount NAME, then layout mount NAME"
_REPORT = "look into it: an answer that is neither yes nor the expected no proves nothing"
_SEALED = frozenset({"EROFS", "EPERM"})


def judge(expected: Expected, attempts: Iterable[Attempt]) -> list[Finding]:
    """Return findings for what did not come out as it should, few of each kind in each place."""
    places = {place.path: place for place in expected.places}

    def judged() -> Iterator[tuple[tuple[str, str], Finding]]:
        for attempt in attempts:
            finding = _judge(expected, places.get(attempt.place, Place(attempt.place)), attempt)
            if finding is not None:
                yield (finding.code, attempt.place), finding

    return few(judged(), _FEW)


def _judge(expected: Expected, place: Place, attempt: Attempt) -> Finding | None:
    path = attempt.path
    where = f"{expected.top}{path}" if path.startswith("/") else f"{expected.top}: {path}"
    match attempt.probe:
        case "A1" | "A3":
            return _write(place, attempt, where)
        case "A2":
            return _execution(place, attempt, where)
        case "A4":
            return _privilege(expected, place, attempt, where)
        case "A5":
            return _setuid(place, attempt, where)
        case "A6":
            return _outside(expected, attempt, where)
        case "A7":
            return _control(attempt, where)
        case "A8":
            return _channel(attempt, where)
        case _:
            if place.engine and attempt.outcome == "EACCES":
                return None
            hint = "what has not been tried has not been proven: run it as root, on a mounted jail"
            return error(
                "A0-unprobed", where, attempt.outcome or "no answer", f"to try {attempt.action}", hint
            )


def _write(place: Place, attempt: Attempt, where: str) -> Finding | None:
    """Judge an attempt to change something. In what may be written to, t, a jail may refuse as it likes."""
    if place.writable:
        return None
    if not attempt.outcome:
        code = "A1-writable" if attempt.probe == "A1" else "A3-changed"
        return error(
            code, where, _WRITE.get(attempt.action, attempt.action), "read-only, for root as well", _AGAIN
        )
    if (
        place.system
        or attempt.outcome in _SEALED
        or (attempt.action == "link" and attempt.outcome == "EXDEV")
    ):
        return None
    return error(f"{attempt.probe}-odd", where, f"{attempt.outcome} ({attempt.action})", "EROFS", _REPORT)


def _execution(place: Place, attempt: Attempt, where: str) -> Finding | None:
    if place.executable:
        return None
    if not attempt.outcome:
        what = "executed" if attempt.action == "execve" else "mapped as code"
        found = f"a file that was written, then {what}"
        return error("A2-executable", where, found, "noexec: nothing that can be written", _AGAIN)
    wanted = {"EACCES"} if attempt.action == "execve" else {"EACCES", "EPERM"}
    if attempt.outcome in wanted:
        return None
    return error(
        "A2-odd", where, f"{attempt.outcome} ({attempt.action})", " or ".join(sorted(wanted)), _REPORT
    )


_BY_CAPABILITY = {"chroot": "sys_chroot", "mknod": "mknod"}
"""What a profile may allow, because it leads nowhere: nodev, and a root that is a file system's own."""


def _privilege(expected: Expected, place: Place, attempt: Attempt, where: str) -> Finding | None:
    action = attempt.action
    if attempt.outcome in {"EPERM", "EACCES"}:
        return None
    if action.startswith("mknod") and attempt.outcome == "EROFS":
        return None
    if not attempt.outcome:
        if action == "open of a device node" and place.devices and "mknod" in expected.capabilities:
            return None
        allowed = _BY_CAPABILITY.get(action.partition(" ")[0])
        if allowed in expected.capabilities or (action == "chroot" and expected.platform is Platform.FREEBSD):
            return None
        hint = "take the privilege from the profile" if expected.capabilities else _AGAIN
        return error("A4-allowed", where, f"{action} works", "EPERM", hint)
    return error("A4-odd", where, f"{attempt.outcome} ({action})", "EPERM", _REPORT)


def _setuid(place: Place, attempt: Attempt, where: str) -> Finding | None:
    if attempt.outcome in {"", "EACCES"}:
        return None
    if attempt.outcome != "setuid":
        expected = "EACCES, or a program without its owner's rights"
        return error("A5-odd", where, attempt.outcome, expected, _REPORT)
    if place.setuid and place.executable:
        return None
    found = "a setuid file that gives its owner's rights"
    return error("A5-setuid", where, found, "nosuid, so that it gives none", _HINT)


def _outside(expected: Expected, attempt: Attempt, where: str) -> Finding | None:
    if not attempt.outcome:
        return None
    if attempt.action == "process" and not expected.apart:
        hint = "layout restart NAME --engine bwrap, or nspawn: they give it processes of its own"
        return warning("A6-outside", where, attempt.outcome, "nothing outside the jail", hint)
    return error("A6-outside", where, attempt.outcome, "nothing outside the jail", "layout restart NAME")


_CONTROLS = {
    "create": "a directory that the jail can write to",
    "read": "a directory that the jail can read",
}
"""What is to work in every jail, by action; else it is code that is executed."""


def _control(attempt: Attempt, where: str) -> Finding | None:
    """Judge a positive control."""
    if not attempt.outcome:
        return None
    wanted = _CONTROLS.get(attempt.action, "code that the jail can execute")
    hint = "a jail that refuses everything proves nothing: look at its mounts and owners"
    return error("A7-denied", where, attempt.outcome, wanted, hint)


def _channel(attempt: Attempt, where: str) -> Finding | None:
    if attempt.action == "look":
        if not attempt.outcome:
            return None
        return error("A8-unseen", where, attempt.outcome, "to look at all of it", _REPORT)
    if not attempt.outcome:
        hint = "jails can talk to each other through it: remove it"
        return error(
            "A8-channel", where, f"a {attempt.action} that can be used", "none in a read-only tree", hint
        )
    if attempt.outcome in {"ECONNREFUSED", "EPROTOTYPE", "EACCES"}:
        return None
    return error("A8-odd", where, attempt.outcome, "a refusal", _REPORT)
