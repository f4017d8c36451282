"""File flags that a copy keeps: schg and friends of chflags(2), immutable and friends of Linux."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import sys

_GETFLAGS = 0x80086601
_SETFLAGS = 0x40086602
# immutable, append-only, no-dump, no-atime: those that say something about intent, not about the disk.
_KEPT_LINUX = 0x10 | 0x20 | 0x40 | 0x80
# nodump, uchg, uappnd, uunlnk, schg, sappnd, sunlnk (sys/stat.h of FreeBSD).
_KEPT_FREEBSD = 0x1 | 0x2 | 0x4 | 0x10 | 0x20000 | 0x40000 | 0x100000


def get(fd: int, found: os.stat_result) -> int:
    """Return the flags of the open file that are worth keeping; 0 where the file system has none."""
    if sys.platform.startswith("freebsd"):
        flags: int = getattr(found, "st_flags", 0)
        return flags & _KEPT_FREEBSD
    try:
        raw = fcntl.ioctl(fd, _GETFLAGS, b"\0" * 8)
    except OSError:
        return 0
    word: int = struct.unpack_from("=I", raw)[0]
    return word & _KEPT_LINUX


def put(fd: int, flags: int) -> bool:
    """Set flags from `get` on the open file; say whether they hold now."""
    if sys.platform.startswith("freebsd"):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fchflags.argtypes = [ctypes.c_int, ctypes.c_ulong]
        return int(libc.fchflags(fd, flags)) == 0
    try:
        raw = fcntl.ioctl(fd, _GETFLAGS, b"\0" * 8)
        word = struct.unpack_from("=I", raw)[0]
        fcntl.ioctl(fd, _SETFLAGS, struct.pack("=II", word | flags, 0))
    except OSError:
        return False
    return True


def clear(fd: int) -> None:
    """Take away the flags that would stop a removal; best effort, the removal itself reports what stays."""
    if sys.platform.startswith("freebsd"):
        put(fd, 0)
        return
    try:
        raw = fcntl.ioctl(fd, _GETFLAGS, b"\0" * 8)
        word = struct.unpack_from("=I", raw)[0]
        if word & 0x30:
            fcntl.ioctl(fd, _SETFLAGS, struct.pack("=II", word & ~0x30, 0))
    except OSError:
        return
