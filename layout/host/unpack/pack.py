"""Write a tree as a .tar.zst: the way back from `unpack`."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterable

from layout.host.beneath import Item

__all__ = ["pack"]

_LEVEL = 3
"""Of zstd: what tar --zstd takes; higher levels cost minutes for a few megabytes."""


def pack(items: Iterable[Item], fd: int) -> tuple[int, int]:
    """Write the items, parents first, to the open file; return entries and bytes of content.

    Owners are numbers, times are kept, the order is that of the items: the same tree gives the same bytes.
    Raises OSError.
    """
    import zstandard

    entries = size = 0
    with (
        os.fdopen(os.dup(fd), "wb") as raw,
        zstandard.ZstdCompressor(level=_LEVEL, threads=-1).stream_writer(raw, closefd=False) as packed,
        tarfile.open(
            fileobj=packed,
            mode="w|",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar,
    ):
        for item in items:
            member = _member(item)
            if member.isreg():
                size += _add(tar, member, item)
            else:
                tar.addfile(member)
            entries += 1
    return entries, size


def _member(item: Item) -> tarfile.TarInfo:
    member = tarfile.TarInfo(f"./{item.path}" if item.path else ".")
    member.mode = stat.S_IMODE(item.mode)
    member.uid, member.gid = item.uid, item.gid
    if item.mtime_ns is not None:
        member.mtime = item.mtime_ns // 1_000_000_000
    member.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in item.xattrs
    }
    match stat.S_IFMT(item.mode):
        case stat.S_IFDIR:
            member.type = tarfile.DIRTYPE
        case stat.S_IFLNK:
            member.type, member.linkname = tarfile.SYMTYPE, item.target
        case _ if item.target:
            member.type, member.linkname = tarfile.LNKTYPE, f"./{item.target}"
        case _:
            member.size = item.size
    return member


def _add(tar: tarfile.TarFile, member: tarfile.TarInfo, item: Item) -> int:
    if item.data is not None:
        tar.addfile(member, io.BytesIO(item.data))
        return item.size
    fd = item.reopen() if item.reopen is not None else os.dup(item.fd)
    with os.fdopen(fd, "rb") as file:
        tar.addfile(member, file)  # raises OSError when it has become shorter
    return item.size
