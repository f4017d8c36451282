"""A throw-away root: a place in which real attacks and real mounts can harm nothing of the host.

Own mount, pid, ipc, uts and net namespaces; a read-only view of /; its own /dev, /tmp, /run and /mnt, which
are tmpfs; a fresh /proc; the old root is unmounted. "/" is shared inside, as on every systemd host, so that
what would propagate there does so here. A devtmpfs is never shown: it is one instance for the whole machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator

from layout.core import mountinfo
from layout.core.errors import LayoutError
from layout.host import forked
from layout.host.attacks import files
from layout.host.linux import devices, process, procs, syscalls, table

_NEW = "/sys/sandbox"
"""Built over /sys, which hides it in this mount namespace only."""
_OWN = frozenset({"dev", "mnt", "proc", "run", "sys", "tmp"})
_QUIET = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_SHARED = 1 << 20
_NAMESPACES = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWNET
)
_PIECE = 65536
_GRACE = 2.0
"""Seconds for what is inside to end."""


def run(work: Callable[[], bytes], seconds: float, *, user_namespace: bool) -> bytes:
    """Run `work` in a throw-away root and return what it returns; everything in there has ended then.

    `user_namespace`: this process is an ordinary user's, so be root of a user namespace there. `work` must
    not fail: an answer of nothing is an error. Raises LayoutError, also when it takes longer than `seconds`.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    caller = os.pidfd_open(os.getpid())
    pid = forked.fork(lambda: _outer(work, writing, caller, user_namespace=user_namespace))
    os.close(writing)
    os.close(caller)
    try:
        data = _read(reading, seconds)
    finally:
        os.close(reading)
        _end(pid)
    match data[:1], data[-1:]:
        case b"=", b".":
            return data[1:-1]
        case b"[", b"]":
            raise LayoutError(*json.loads(data))
        case b"!", _:
            found = data[1:].decode("utf-8", "replace")
        case _:
            found = "an answer cut short" if data else "no answer"
    hint = "run it as root" if user_namespace else "see docs/security.md: what selftest needs"
    raise LayoutError("the sandbox", found, "a throw-away root in which attacks harm nothing", hint)


def _end(pid: int) -> None:
    """Wait for the end of everything inside, which has come when its process 1 has ended."""
    own = os.pidfd_open(pid)
    try:
        if not process.ends_within(own, _GRACE):
            inside = [os.pidfd_open(child) for child in procs.children(pid)]
            os.kill(pid, signal.SIGKILL)
            for first in inside:
                process.ends_within(first, _GRACE)
                os.close(first)
        os.waitpid(pid, 0)
    finally:
        os.close(own)


def _read(fd: int, seconds: float) -> bytes:
    end = time.monotonic() + seconds
    pieces: list[bytes] = []
    while select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(fd, _PIECE)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
    return f"!no end within {seconds:g} s".encode()


def _outer(work: Callable[[], bytes], answer: int, caller: int, *, user_namespace: bool) -> int:
    """Make the namespaces and process 1 of them; wait for that."""
    try:
        process.die_with_parent(caller)
        process.close_descriptors({answer})
        if user_namespace:
            _map_user()
        syscalls.unshare(_NAMESPACES)
        first = forked.fork(lambda: _first(work, answer))
    except OSError as error:
        os.write(answer, f"!{error.filename or 'namespaces'}: {(error.strerror or '').lower()}".encode())
        return 1
    os.close(answer)
    return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) and 1


def _map_user() -> None:
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _first(work: Callable[[], bytes], answer: int) -> int:
    """Be process 1: build the root, run the work in a child, reap whatever ends."""
    try:
        process.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; the parent lives, it waits for us
        _build()
    except (OSError, LayoutError) as error:
        os.write(answer, f"!{error}".encode())
        return 1
    worker = forked.fork(lambda: _work(work, answer))
    os.close(answer)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == worker:
            return os.waitstatus_to_exitcode(status) and 1


def _work(work: Callable[[], bytes], answer: int) -> int:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        data = b"=" + work() + b"."
    except LayoutError as error:
        data = json.dumps([error.path, error.found, error.expected, error.hint]).encode()
    except Exception as error:
        data = f"!{type(error).__name__}: {error}".encode()
    while data:
        data = data[os.write(answer, data) :]
    return 0


# -- the root -----------------------------------------------------------------------------------------


def _build() -> None:
    wanted = list(_shown())
    syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(b"sandbox", b"/sys", b"tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, b"mode=755")
    os.mkdir(_NEW)
    syscalls.mount(b"sandbox", _NEW.encode(), b"tmpfs", 0, b"mode=755")
    for name in sorted(os.listdir("/")):
        if name not in _OWN:
            _view(f"/{name}")
    for name in sorted(_OWN):
        os.mkdir(f"{_NEW}/{name}", 0o755)
    _hide_device_trees()
    _own_trees()
    for path in wanted:
        if not os.path.lexists(_NEW + path):
            _view(path)
    _hide_device_trees()
    _change_root()


def _shown() -> Iterator[str]:
    """Yield what of this Python and of layout would be hidden by the new /tmp, /run and /mnt."""
    # What comes with layout lies beside it in a checkout.
    checkout = os.path.dirname(os.path.dirname(sys.modules["layout"].__file__ or ""))
    places = map(os.path.realpath, filter(None, [checkout, sys.prefix, sys.base_prefix, *sys.path]))
    for path in sorted(set(places), key=len):  # one that holds another first
        if path.startswith(("/tmp/", "/run/", "/mnt/")) and os.path.exists(path):  # noqa: S108
            yield path


def _view(path: str) -> None:
    """Show the host's `path` read-only at the same place."""
    target = _NEW + path
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(path), target)
        return
    if stat.S_ISDIR(found.st_mode):
        files.directories(target)
    elif stat.S_ISREG(found.st_mode):
        files.directories(os.path.dirname(target))
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    else:
        return
    syscalls.mount(path.encode(), target.encode(), None, syscalls.MS_BIND | syscalls.MS_REC)
    fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.mount_setattr(fd, attr_set=syscalls.ATTR_RDONLY, recursive=True)
    finally:
        os.close(fd)


def _hide_device_trees() -> None:
    for mount in mountinfo.parse(table.read_bytes(), _NEW.encode()):
        # Single nodes of the host are bound in the new /dev where none can be made.
        if mount.fstype == "devtmpfs" and not mount.target.startswith(f"{_NEW}/dev/"):
            try:
                syscalls.umount(os.fsencode(mount.target), syscalls.MNT_DETACH)
            except OSError:  # locked: it came with the mounts of another user namespace
                syscalls.mount(b"none", os.fsencode(mount.target), b"tmpfs", syscalls.MS_RDONLY, b"mode=755")


def _own_trees() -> None:
    # Without nosuid and nodev on /tmp: jails below would inherit them, and what they lack would not be seen.
    for name, flags, data in (
        ("tmp", 0, b"mode=1777,size=50%"),
        ("run", 0, b"mode=755"),
        ("mnt", 0, b"mode=755"),
        ("dev", syscalls.MS_NOSUID, b"mode=755"),
    ):
        syscalls.mount(name.encode(), f"{_NEW}/{name}".encode(), b"tmpfs", flags, data)
    syscalls.mount(b"proc", f"{_NEW}/proc".encode(), b"proc", _QUIET)
    with contextlib.suppress(OSError):
        syscalls.mount(b"sysfs", f"{_NEW}/sys".encode(), b"sysfs", _QUIET | syscalls.MS_RDONLY)
    top = os.open(f"{_NEW}/dev", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        devices.fill(top)
    finally:
        os.close(top)
    shm = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount(b"shm", f"{_NEW}/dev/shm".encode(), b"tmpfs", shm, b"mode=1777")  # noqa: S108
    terminals = devices.pseudo_terminals()
    try:
        target = os.open(f"{_NEW}/dev/pts", os.O_PATH | os.O_CLOEXEC)
        syscalls.move_mount(terminals, target, b"")
        os.close(target)
    finally:
        os.close(terminals)


def _change_root() -> None:
    os.mkdir(f"{_NEW}/mnt/old")
    os.chdir(_NEW)
    process.pivot_root(b".", b"mnt/old")
    os.chdir("/")
    syscalls.umount(b"/mnt/old", syscalls.MNT_DETACH)
    os.rmdir("/mnt/old")
    syscalls.mount(b"none", b"/", None, syscalls.MS_REC | _SHARED)
    os.environ["TMPDIR"] = "/tmp"  # noqa: S108 - the sandbox's own
