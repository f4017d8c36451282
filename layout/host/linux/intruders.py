"""What is in a running jail and was not put there by its start: mounts, and processes that have more.

Only root of the host can have put it there; but then the jail that runs is not the one on disk, and whoever
is root in it may use what it finds.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence

from layout.core.compare import is_below
from layout.core.model import Mount
from layout.core.mountinfo import MountPoint
from layout.host.linux import process, procs, syscalls

Told = tuple[str, str, str]
"""Path, what is found, and what is expected."""

_OF_ENGINE = ("/dev", "/proc", "/run", "/sys")
"""Where an engine mounts what it likes: of the host's files only single ones, to cover others."""
_LENT = "/run/host"
"""Where systemd-nspawn(1) lends a container what it may know of its host, read-only."""
_FEW = 8


def mounts(
    pid: int,
    planned: Sequence[Mount],
    live: Iterable[MountPoint],
    sources: Mapping[str, tuple[int, int]],
    lent: Sequence[str] = (_LENT,),
) -> Iterator[Told]:
    """Yield the mounts that process `pid` of a jail sees and that its plan does not have.

    `live` are its mounts; `sources` device and inode of what a planned target has to show; at or below `lent`
    are directories of the host that it may see. Raises OSError.
    """
    top = planned[0].target
    wanted = {mount.target[len(top) :] or "/": mount for mount in planned}
    seen: dict[str, int] = {}
    visible: dict[str, MountPoint] = {}
    foreign: set[str] = set()
    host = {found.dev for found in _of_host()}
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for point in live:
            seen[point.target] = seen.get(point.target, 0) + 1
            visible[point.target] = point
            where = f"{point.target} of process {pid}"
            if point.target in wanted:
                if seen[point.target] == 2:
                    yield where, "more than one mount on it", "one"
            elif not any(is_below(point.target, place) for place in _OF_ENGINE) or (
                point.dev in host
                and not any(is_below(point.target, place) for place in lent)
                and point.fstype not in _ANYWHERE
                and _is_directory(root, point.target)
            ):
                foreign.add(point.target)
                yield where, f"a mount of {point.fstype}, {point.root}", "no mount but those of the plan"
        for target, point in visible.items():
            if target not in wanted and target not in foreign and (lacking := _lacking(point)):
                yield f"{target} of process {pid}", f"without {', '.join(lacking)}", "what its engine gave it"
        for inside, mount in wanted.items():
            found = _look(root, inside)
            source = sources.get(mount.target)
            if source is not None and found is not None and (found.st_dev, found.st_ino) != source:
                yield f"{inside} of process {pid}", "another directory", f"{mount.source}, which is planned"
    finally:
        os.close(root)


_ANYWHERE = frozenset({"cgroup", "cgroup2", "mqueue", "proc", "sysfs"})
"""One instance of the kernel's words may be seen by the host as well."""


def _lacking(point: MountPoint) -> list[str]:
    """Return the options that a mount of an engine, which the jail can write to, should have and has not."""
    if "ro" in point.options or not any(is_below(point.target, place) for place in ("/dev", "/run")):
        return []
    has_devices = point.target == "/dev" or point.fstype == "devpts"
    wanted = ("nosuid", "noexec") if has_devices else ("nosuid", "nodev", "noexec")
    return [word for word in wanted if word not in point.options]


def _of_host() -> list[MountPoint]:
    from layout.host.linux import table

    return table.read()


def _look(root: int, path: str) -> os.stat_result | None:
    """Return the status of a path in a jail, without following anything in it; None when it has no such."""
    flags = syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
    try:
        fd = syscalls.openat2(root, os.fsencode(path[1:] or "."), os.O_PATH | os.O_CLOEXEC, flags)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _is_directory(root: int, path: str) -> bool:
    found = _look(root, path)
    return found is None or stat.S_ISDIR(found.st_mode)


def processes(
    pid: int, capabilities: Iterable[str], *, setuid: bool, starting: Iterable[str] = ()
) -> list[Told]:
    """Return what processes of the jail of `pid` have that it does not, those of layout's own left out.

    These give up what they bring within an instant: a process is told of that does not. `starting`: what the
    engine's process 1 of the jail has besides, to start the service with. Raises OSError.
    """
    allowed = process.capability_mask(name.upper() for name in capabilities)
    first = allowed | process.capability_mask(name.upper() for name in starting)

    def look() -> dict[object, list[Told]]:
        return _intruders(pid, allowed, first, setuid=setuid)

    return [told for several in procs.lasting(look(), look).values() for told in several]


def _intruders(pid: int, allowed: int, first: int, *, setuid: bool) -> dict[object, list[Told]]:
    found: dict[object, list[Told]] = {}
    for number in procs.of_jail(pid):
        known = procs.identify(number)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            mask = first if _is_first(number, pid) else allowed
            if number != pid and known is not None and (told := list(_more(number, pid, mask, setuid))):
                found[known] = told
    return found


def _is_first(number: int, pid: int) -> bool:
    """Say whether a process is the parent of the service and number 1 of its jail: nobody else is both."""
    is_parent = procs.status(pid).get("PPid") == str(number)
    return is_parent and procs.namespace_pids(number)[-1:] == [1]


def _more(number: int, pid: int, allowed: int, setuid: bool) -> Iterator[Told]:
    where = f"process {number}"
    if procs.namespace(number, "mnt") == procs.namespace("self", "mnt"):
        yield where, "the mounts of the host", "those of the jail"
    status = procs.status(number)
    if procs.namespace(number, "user") in {procs.namespace(pid, "user"), procs.namespace("self", "user")}:
        # In a user namespace of its own making a process has all of them, and they are good for nothing else.
        yield from more_capabilities(where, status, allowed)
    if status.get("NoNewPrivs") == "0" and not setuid:
        yield where, "no no_new_privs", "no_new_privs"


def more_capabilities(where: str, status: Mapping[str, str], allowed: int) -> Iterator[Told]:
    """Yield the sets of capabilities of a process (proc_pid_status(5)) that have more than it may have."""
    for key in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        more = int(status.get(key, "0"), 16) & ~allowed
        if more:
            names = [name.lower() for name, bit in process.CAPABILITIES.items() if more >> bit & 1]
            if "sys_admin" in names and len(names) > _FEW:
                names = ["sys_admin", f"{len(names) - 1} more"]
            yield where, f"{key} with {', '.join(names)}", "the capabilities of the profile"
