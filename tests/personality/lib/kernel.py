"""The Linux kernel, by system call: what the programs of the personality are made of."""

from __future__ import annotations

import os
import sys

from record import record

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOSYMFOLLOW, MS_NOATIME, MS_BIND, MS_REC, MS_PRIVATE = 256, 1024, 4096, 16384, 1 << 18
UMOUNT_NOFOLLOW = 8

ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOATIME = 1, 2, 4, 8, 0x10
ATTR__ATIME, ATTR_NOSYMFOLLOW = 0x70, 0x200000
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
_AT_EMPTY_PATH, _OPEN_TREE_CLONE, _MOVE_FROM_EMPTY = 0x1000, 1, 4

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NAME = 1, 24, 15


class _Lazy:
    """libc by ctypes, imported when the first call is made: most programs only look."""

    def __getattr__(self, name: str) -> object:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        for call in ("mount", "umount2", "unshare", "setns", "prctl", "syscall"):
            setattr(self, call, getattr(libc, call))
        return getattr(self, name)


_LIBC = _Lazy()


def load() -> None:
    """Load libc now."""
    _LIBC.prctl  # noqa: B018 - looking it up does


def _attr(set_: int, clear: int, propagation: int) -> bytes:
    """struct mount_attr of mount_setattr(2)."""
    return b"".join(number.to_bytes(8, sys.byteorder) for number in (set_, clear, propagation, 0))


def _checked(result: int, path: object = None) -> int:
    if result == -1:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    _checked(_LIBC.mount(_text(source), _text(target), _text(fstype), flags, _text(data)), target)


def propagation(target: str, flags: int) -> None:
    _checked(_LIBC.mount(None, _text(target), None, flags, None), target)


def unmount(target: str) -> None:
    """Never lazy and never forced: busy stays busy."""
    _checked(_LIBC.umount2(_text(target), UMOUNT_NOFOLLOW), target)


def unshare(flags: int) -> None:
    _checked(_LIBC.unshare(flags))


def setns(fd: int, flags: int) -> None:
    _checked(_LIBC.setns(fd, flags))


def prctl(option: int, argument: int | bytes) -> None:
    _checked(_LIBC.prctl(option, argument, 0, 0, 0))


def clone_mount(source: str, set_: int, clear: int, target: str) -> None:
    """Show one directory or file at `target`, private, without what is mounted below it."""
    fd = _checked(_LIBC.syscall(_OPEN_TREE, -100, _text(source), _OPEN_TREE_CLONE | 0x80000), source)
    try:
        for wanted in (clear, 0):  # in a user namespace, inherited flags may be locked
            attr = _attr(set_, wanted, MS_PRIVATE)
            done = _LIBC.syscall(_MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH, attr, len(attr))
            if done == 0:
                break
        _checked(done, source)
        _checked(_LIBC.syscall(_MOVE_MOUNT, fd, b"", -100, _text(target), _MOVE_FROM_EMPTY), target)
    finally:
        os.close(fd)


def remount(target: str, set_: int, clear: int) -> None:
    attr = _attr(set_, clear, 0)
    done = _LIBC.syscall(_MOUNT_SETATTR, -100, _text(target), 0, attr, len(attr))
    _checked(done, target)


class Mounted(record("id parent device root on options type source super_options")):
    """One line of /proc/self/mountinfo."""

    __slots__ = ()

    @property
    def read_only(self) -> bool:
        return "ro" in self.options or "ro" in self.super_options


def _decoded(field: str) -> str:
    if "\\" not in field:
        return field
    import re

    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def mountinfo() -> list[Mounted]:
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            left, _, right = line.rstrip("\n").partition(" - ")
            one, two, device, root, on, options, *_ = left.split(" ")
            fstype, source, more = right.split(" ", 2)
            found.append(
                Mounted(
                    int(one),
                    int(two),
                    device,
                    _decoded(root),
                    _decoded(on),
                    frozenset(options.split(",")),
                    fstype,
                    _decoded(source),
                    frozenset(more.split(",")),
                )
            )
    return found


def mount_id(path: str) -> int:
    """The id of the mount that `path`, followed to its end, lies in."""
    fd = os.open(path, os.O_PATH)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            return next(int(line.split()[1]) for line in info if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
