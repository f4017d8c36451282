"""The probes' child on Linux: in the jail's namespaces, or in new ones made like those of an engine.

It keeps the capabilities that stand in for all users of the jail at once, so that no refusal is owed to the
owner of a directory; none of them helps against a mount. Everything else a jail lacks, it lacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Sequence

from layout.core import mountinfo
from layout.core.errors import LayoutError
from layout.core.mountinfo import MountPoint
from layout.core.probing import Attempt, Place
from layout.host import forked, inside
from layout.host.beneath import open_root
from layout.host.inside.executing import name_of
from layout.host.linux import enter, process, procs, syscalls, table

KEPT = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETPCAP")
_MNT_EXPIRE = 4
_HANDLE = ctypes.c_uint32 * 34  # struct file_handle: size, type, 128 bytes
_RDONLY = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC


def stopped(task: inside.Task, top: str, capabilities: Iterable[str]) -> list[Attempt]:
    """Try it in a jail that is mounted on `top` and does not run. Raises LayoutError."""
    keep = _kept(capabilities)

    def middle(writer: int) -> int:
        syscalls.unshare(
            syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
        )
        syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_SLAVE)

        def enter_root() -> None:
            with open_root(top) as root:
                _pivot(root.fd)

        return _first(task, writer, enter_root, keep)

    return _run(middle, ())


def running(task: inside.Task, name: str, pid: int | None, capabilities: Iterable[str]) -> list[Attempt]:
    """Try it in the jail that a process is in. Raises LayoutError."""
    keep = _kept(capabilities)
    with enter.entry(name, pid, (), keep, {}) as entry:
        if not entry.namespaces & syscalls.CLONE_NEWNS:
            # A record that is wrong must not let the probes loose on the host.
            raise LayoutError(f"process {pid}", "the host's own mounts", "a process in a jail")

        def middle(writer: int) -> int:
            syscalls.setns(entry.target, syscalls.CLONE_NEWPID)

            def enter_root() -> None:
                entry.join()
                for fd in entry.descriptors:
                    os.close(fd)

            return _first(task, writer, enter_root, keep)

        return _run(middle, entry.descriptors)


def mounts_of(pid: int) -> list[MountPoint]:
    """Return the mounts that a process sees, as it names them. Raises LayoutError."""
    return mountinfo.parse(table.read_bytes(f"/proc/{pid}/mountinfo"))


def _kept(capabilities: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*KEPT, *(name.upper() for name in capabilities))))


# --- processes ---------------------------------------------------------------------------------------------


def _run(middle: Callable[[int], int], descriptors: Sequence[int]) -> list[Attempt]:
    """Fork the child that makes or joins namespaces, and read what its child tells."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    ours = os.pidfd_open(os.getpid())

    def child() -> int:
        try:
            process.close_descriptors({writer, ours, *descriptors}, first=0)
            process.die_with_parent(ours)
            os.close(ours)
            process.forbid_inspection()
            os.setsid()
            return middle(writer)
        except BaseException as error:  # all of them: a traceback helps nobody on the other side of a fork
            inside.failed(writer, "namespaces of its own", error)
            return 1

    try:
        pid = forked.fork(child)
    finally:
        os.close(ours)
        os.close(writer)
    return inside.collect(pid, reader)


def _first(task: inside.Task, writer: int, enter_root: Callable[[], None], keep: tuple[str, ...]) -> int:
    """Fork the process that is in the pid namespace, and wait for it: it ends with this one."""
    keeper = os.pidfd_open(os.getpid())
    pid = forked.fork(lambda: _probe(task, writer, enter_root, keep, keeper))
    os.close(writer)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _probe(
    task: inside.Task, writer: int, enter_root: Callable[[], None], keep: tuple[str, ...], keeper: int
) -> int:
    try:
        # A jail whose root is the host's may stop it here already. Again below: a new user clears it.
        process.die_with_parent(keeper)
        process.set_name(b"layout-probe")
        forked.load_nothing_more()
        enter_root()
        process.forbid_inspection()
        process.keep_capabilities(keep)
        process.die_with_parent(keeper)
        os.close(keeper)
        os.umask(0o077)
        powers = inside.Powers(_powerless, process.forbid_new_privileges, _privileged)
        inside.send(writer, inside.attempts(task, powers))
    except BaseException as error:  # as above
        inside.failed(writer, "to enter the jail", error)
        return 1
    return 0


def _pivot(root: int) -> None:
    """Make the directory `root`, a mount point, the root of this mount namespace."""
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(root)
    process.pivot_root(b".", b".")
    os.fchdir(old)
    syscalls.umount(b".", syscalls.MNT_DETACH)
    os.close(old)
    os.chdir("/")


def _powerless() -> None:
    """Empty the bounding set too: then no setuid file of root's gives anything back."""
    process.bound_capabilities(())


# --- A4, and processes of A6 -------------------------------------------------------------------------------


def _privileged(places: Sequence[Place]) -> list[Attempt]:
    found = [_seen()]
    for place in places:
        if not place.system:
            path = place.path
            found.append(_attempt("remount", path, _remount, os.fsencode(path)))
            found.append(_attempt("umount", path, _expire, os.fsencode(path)))
            if stat.S_ISDIR(os.stat(path).st_mode):  # else a single file was mounted
                found.append(_attempt("open_by_handle_at", path, _by_handle, path))
    found.append(_attempt("chroot", "/", os.chroot, "/"))
    return found


# Answers of a kernel that would have let it be done.
_MAY = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINVAL, errno.ESTALE})


def _attempt(action: str, path: str, work: Callable[..., object], word: str | bytes) -> Attempt:
    outcome = ""
    try:
        work(word)
    except OSError as error:
        outcome = "" if error.errno in _MAY else name_of(error)
    return Attempt("A4", action, path, path, outcome)


def _expire(name: bytes) -> None:
    """MNT_EXPIRE takes no mount away at the first call; but whoever has no right to hears so first."""
    syscalls.umount(name, syscalls.UMOUNT_NOFOLLOW | _MNT_EXPIRE)


def _remount(name: bytes) -> None:
    """Remount with the flags that it has: nothing changes, even where that is allowed."""
    flags = os.statvfs(name).f_flag & _RDONLY
    syscalls.mount(b"none", name, None, syscalls.MS_REMOUNT | syscalls.MS_BIND | flags)


def _by_handle(path: str) -> None:
    """Open the root of a place by its handle (open_by_handle_at(2)): past every mount, if that works."""
    handle = _HANDLE(128)
    mount_id = ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    name_to, open_by = libc["name_to_handle_at"], libc["open_by_handle_at"]
    if name_to(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0) < 0:
        # A file system without handles: any will do to hear whether one may ask.
        handle = _HANDLE(8, 1)
    at = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fd = open_by(at, ctypes.byref(handle), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        code = ctypes.get_errno()
        os.close(at)
    if fd < 0:
        raise OSError(code, os.strerror(code), path)
    os.close(fd)


def _seen() -> Attempt:
    """Look whether processes outside are seen: the parent is one, and /proc may be another namespace's."""
    outcome = "" if os.getppid() == 0 else f"process {os.getppid()}, which is outside"
    with contextlib.suppress(FileNotFoundError):
        if os.readlink("/proc/self") != str(os.getpid()):
            outcome = "a /proc that shows processes outside"
    return Attempt("A6", "process", "processes", "/", outcome)


# --- A6 from outside: what the processes of a running jail hold open ---------------------------------------


def held_outside(pid: int, logs: Collection[tuple[int, int]]) -> tuple[list[Attempt], int]:
    """Look for directories outside that processes of the jail of `pid` hold open, or stand in.

    For disks, too, and for files outside that are open for writing; but for `logs`, by device and inode.
    Returns those found, and how many processes were looked at. Raises OSError, LayoutError.
    """
    found, looked = _held(pid, logs)
    return list(procs.lasting(found, lambda: _held(pid, logs)[0]).values()), looked


def _held(pid: int, logs: Collection[tuple[int, int]]) -> tuple[dict[object, Attempt], int]:
    ids = {mount.mount_id for mount in mounts_of(pid)}
    disks = {os.makedev(*map(int, mount.dev.split(":"))) for mount in table.read()}
    found: dict[object, Attempt] = {}
    looked = 0
    for number in procs.of_jail(pid):
        identity = procs.identify(number)
        try:
            # One that has made a namespace below the jail's may have mounts of its own, too.
            known = ids | {mount.mount_id for mount in mounts_of(number)}
            held = ["cwd", "root", *(f"fd/{fd}" for fd in os.listdir(f"/proc/{number}/fd"))]
        except (FileNotFoundError, ProcessLookupError, LayoutError):
            if procs.identify(number) is not None:
                raise
            continue  # it has ended meanwhile
        looked += 1
        for what in held:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it is gone
                if is_what := _outside(number, what, known, disks, logs):
                    outcome = f"{is_what} as {what}"
                    found[identity, outcome] = Attempt("A6", "descriptor", f"process {number}", "/", outcome)
    return found, looked


def _outside(
    number: int, what: str, ids: set[int], disks: set[int], logs: Collection[tuple[int, int]]
) -> str:
    """Say what of the outside a link of /proc leads to, "" for nothing. Raises OSError."""
    path = f"/proc/{number}/{what}"
    found = os.stat(path)
    match stat.S_IFMT(found.st_mode):
        case stat.S_IFBLK:
            return "a disk"
        case stat.S_IFDIR:
            return "" if _mount_of(path) in ids else "a directory outside"
        case stat.S_IFREG:
            # Memory (memfd_create(2)) is on no mount either, but on no file system of the host's.
            if found.st_dev not in disks or (found.st_dev, found.st_ino) in logs or _mount_of(path) in ids:
                return ""
            flags = procs.flags_of(number, what.removeprefix("fd/"))
            return "" if flags & os.O_ACCMODE == os.O_RDONLY else "a file outside, open for writing,"
        case _:
            return ""


def _mount_of(path: str) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return syscalls.statx_mount_id(fd)
    finally:
        os.close(fd)
