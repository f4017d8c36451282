"""Processes as /proc shows them: told apart by their start time, signalled through pidfds."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from layout.core.running import ProcessId
from layout.host.linux import process

K = TypeVar("K")
V = TypeVar("V")

TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 3.0
"""Seconds until who enters a jail has given up what the jail does not have."""
_STEP = 0.1
_STATE, _PARENT, _START = 0, 1, 19
"""Places in /proc/PID/stat after the name, which may hold spaces and parentheses itself."""


def boot_id() -> str:
    """Return what tells this boot of the kernel from all others."""
    return _read("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()


def identify(pid: int) -> ProcessId | None:
    """Return the identity of a process, or None when there is none, or only its exit status."""
    fields = _stat(pid)
    if fields is None or fields[_STATE] in {b"Z", b"X"}:
        return None
    return ProcessId(pid, int(fields[_START]), boot_id())


def lives(known: ProcessId) -> bool:
    """Say whether this very process is still there."""
    return identify(known.pid) == known


def open_process(known: ProcessId) -> int | None:
    """Return a pidfd of this very process, or None when it has ended: a number used anew is another one."""
    try:
        fd = os.pidfd_open(known.pid)
    except OSError:
        return None
    if not lives(known):
        os.close(fd)
        return None
    return fd


def send(known: ProcessId, number: int) -> bool:
    """Send a signal to this very process; False when it has ended. Raises OSError."""
    fd = open_process(known)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def wait(known: ProcessId, seconds: float) -> bool:
    """Wait until a process has ended; False when it has not in time."""
    fd = open_process(known)
    if fd is None:
        return True
    try:
        return process.ends_within(fd, seconds)
    finally:
        os.close(fd)


def uptime(known: ProcessId) -> int:
    """Return for how many seconds a process has been there."""
    return max(0, int(time.clock_gettime(time.CLOCK_BOOTTIME) - known.ticks / TICKS))


def since(known: ProcessId) -> str:
    """Return when it was started, RFC 3339, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - uptime(known)))


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    return [other for other, fields in _all() if int(fields[_PARENT]) == pid]


def descendants(pid: int) -> list[int]:
    """Return all processes below one, parents first."""
    below: dict[int, list[int]] = {}
    for other, fields in _all():
        below.setdefault(int(fields[_PARENT]), []).append(other)
    found, todo = [], [pid]
    while todo:
        here = below.get(todo.pop(0), [])
        found += here
        todo += here
    return found


def status(pid: int) -> dict[str, str]:
    """Return the fields of proc_pid_status(5); none when the process has ended."""
    try:
        text = _read(f"/proc/{pid}/status").decode("ascii", "replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def catches(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal; True when it has ended meanwhile."""
    found = status(pid).get("SigCgt", "")
    return not found or bool(int(found, 16) >> (number - 1) & 1)


def namespace_pids(pid: int) -> list[int]:
    """Return the numbers of a process in all pid namespaces that it is in, ours first; none when it ended."""
    return [int(word) for word in status(pid).get("NSpid", "").split()]


def first_of_jail(engine: int) -> int | None:
    """Return the process that is number 1 of the innermost pid namespace below an engine."""
    depth = len(namespace_pids(engine))
    for pid in descendants(engine):
        numbers = namespace_pids(pid)
        if len(numbers) > depth and numbers[-1] == 1:
            return pid
    return None


def daemon_of(engine: int) -> int | None:
    """Return the process that an engine runs: the second of its pid namespace, once it is the program itself.

    Until it has been executed, it is a copy of the engine.
    """
    first = first_of_jail(engine)
    if first is None:
        return None
    for pid in children(first):
        if namespace_pids(pid)[-1:] == [2]:
            return pid if program(pid) != program(first) else None
    return None


def output_of(pid: int) -> set[tuple[int, int]]:
    """Return device and inode of the files that descriptors 1 and 2 of a process lead to."""
    found = set()
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            status = os.stat(f"/proc/{pid}/fd/{fd}")
            found.add((status.st_dev, status.st_ino))
    return found


def flags_of(pid: int, fd: str) -> int:
    """Return the flags that a descriptor was opened with, by proc_pid_fdinfo(5). Raises OSError."""
    lines = _read(f"/proc/{pid}/fdinfo/{fd}").splitlines()
    return next((int(line.split()[1], 8) for line in lines if line.startswith(b"flags:")), os.O_RDWR)


def namespace(pid: int | str, kind: str) -> str:
    """Return the identity of a namespace, such as 'mnt:[4026531840]'. Raises OSError."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def of_jail(pid: int) -> list[int]:
    """Return a process of a jail, all below it, and all in its mount or pid namespace. Raises OSError."""
    own = {(kind, namespace(pid, kind)) for kind in ("mnt", "pid")}
    own -= {(kind, namespace("self", kind)) for kind in ("mnt", "pid")}
    found = dict.fromkeys([pid, *descendants(pid)])
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if any(namespace(name, kind) == which for kind, which in own):
                    found[int(name)] = None
    return list(found)


def uid_map(pid: int) -> tuple[int, int, int] | None:
    """Return the first line of a process's map of users: inside, outside, count."""
    try:
        words = _read(f"/proc/{pid}/uid_map").split()[:3]
    except OSError:
        return None
    return (int(words[0]), int(words[1]), int(words[2])) if len(words) == 3 else None


def inside(pid: int, kind: str, numbers: list[str]) -> set[int | None]:
    """Return users ("uid") or groups ("gid") of a process as its user namespace has them, None for no number.

    A process of this one's namespace has the same numbers: its map would speak of the namespace above (see
    user_namespaces(7)). Raises OSError.
    """
    known = {int(word) for word in numbers}
    if namespace(pid, "user") == namespace("self", "user"):
        return set(known)
    text = _read(f"/proc/{pid}/{kind}_map")
    ranges = [tuple(map(int, line.split())) for line in text.splitlines()]
    return {
        next((one - there + here for here, there, count in ranges if there <= one < there + count), None)
        for one in known
    }


def mapped_ranges() -> set[tuple[int, int]]:
    """Return the users of this one's namespace that others map: first number and count of each range."""
    own = _read("/proc/self/uid_map")
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                text = _read(f"/proc/{name}/uid_map")
                lines = text.splitlines() if text != own and identify(int(name)) is not None else []
                found |= {(int(outside), int(count)) for _, outside, count in map(bytes.split, lines)}
    return found


def program(pid: int) -> tuple[int, int] | None:
    """Return device and inode of the program that a process executes; None when it has ended."""
    try:
        found = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _all() -> Iterator[tuple[int, list[bytes]]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields is not None and fields[_STATE] != b"Z":
                yield int(name), fields


def _stat(pid: int) -> list[bytes] | None:
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    return fields if len(fields) > _START else None


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 65536):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def lasting(found: dict[K, V], look: Callable[[], dict[K, V]]) -> dict[K, V]:
    """Return what of `found` is found again by every later look, for as long as its bringer may take.

    Who enters a jail, a probe of another run or `layout exec`, gives up in an instant what the jail does not
    have. Nothing is waited for when nothing was found.
    """
    end = time.monotonic() + _PATIENCE
    while found and time.monotonic() < end:
        time.sleep(_STEP)
        again = look()
        found = {key: value for key, value in again.items() if key in found}
    return found
