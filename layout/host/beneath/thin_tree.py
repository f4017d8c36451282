"""The root of a thin jail as a tree: written, compared and read back, by descriptor."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import assert_never

from layout.core.errors import LayoutError
from layout.core.thin import (
    ThinDirectory,
    ThinEntry,
    ThinFile,
    ThinItem,
    ThinLink,
    ThinRoot,
    ThinText,
)
from layout.host.beneath.directory import Dir
from layout.host.beneath.resolve import DIRECTORY

_PIECE = 1 << 20
_MAP = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
_THREADS = 2
_COARSE = 2.0
"""Seconds."""
_FICLONE = 0x40049409
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def has(top: Dir, item: ThinItem) -> bool:
    """Say whether an item is there, a file in its size."""
    found = top.lstat(item.path)
    if found is None:
        return False
    match item:
        case ThinDirectory():
            return stat.S_ISDIR(found.st_mode)
        case ThinLink():
            return stat.S_ISLNK(found.st_mode) and top.readlink(item.path) == item.target
        case ThinFile():
            return stat.S_ISREG(found.st_mode) and found.st_size == item.size
        case ThinText():
            return stat.S_ISREG(found.st_mode) and found.st_size == len(_bytes(item))
        case _:
            assert_never(item)


def _bytes(item: ThinText) -> bytes:
    return item.text.encode("utf-8", "surrogateescape")


def write_root(top: Dir, origin: Dir, root: ThinRoot, known: dict[str, str]) -> list[ThinEntry]:
    """Write every item below `top`; return them as identity() wants them.

    `known` are digests of files that were hashed before, by what tells a file and its state from all others;
    those that are hashed now are added.
    """
    mask = os.umask(0)
    folders: dict[str, int] = {"": os.dup(top.fd)}
    made: list[ThinEntry] = []
    files: list[ThinFile] = []
    try:
        for item in root.items:
            head, _, name = item.path.rpartition("/")
            match item:
                case ThinDirectory(path, mode):
                    os.mkdir(name, mode, dir_fd=folders[head])
                    folders[path] = os.open(name, DIRECTORY, dir_fd=folders[head])
                    made.append(ThinEntry(path, "dir", mode, ""))
                case ThinLink(path, target):
                    os.symlink(target, name, dir_fd=folders[head])
                    made.append(ThinEntry(path, "link", 0, target))
                case ThinText(path, _, mode):
                    data = _bytes(item)
                    _put(folders[head], name, mode, data)
                    made.append(ThinEntry(path, "file", mode, hashlib.sha256(data).hexdigest()))
                case ThinFile():
                    files.append(item)
                case _:
                    assert_never(item)
        # Largest first: the last one to be done decides how long it takes.
        files.sort(key=lambda file: -file.size)
        with ThreadPoolExecutor(_THREADS) as pool:
            # Apart: while one thread hashes the largest file, another copies it.
            digests = [pool.submit(_digest, origin, file, known) for file in files]
            copies = [pool.submit(_copy, folders, origin, file) for file in files]
            for file, digest, copy in zip(files, digests, copies, strict=True):
                copy.result()
                made.append(ThinEntry(file.path, "file", file.mode, digest.result()))
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise LayoutError(top.path, "no space", "room for the root", "free some space") from None
        raise
    finally:
        os.umask(mask)
        for fd in folders.values():
            os.close(fd)
    return made


def _put(folder: int, name: str, mode: int, data: bytes) -> None:
    fd = os.open(name, _CREATE, mode, dir_fd=folder)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(origin: Dir, file: ThinFile) -> Iterator[int]:
    """Open a source by descriptor, and make sure before and after that it is the one that was looked at."""
    source = origin.open_file(file.source)
    try:
        _require_same(source, origin, file)
        yield source
        _require_same(source, origin, file)
    finally:
        os.close(source)


def _require_same(source: int, origin: Dir, file: ThinFile) -> None:
    found = os.fstat(source)
    if (found.st_ino, found.st_size, found.st_mtime_ns) != (file.inode, file.size, file.mtime_ns):
        path = origin.show(file.source)
        raise LayoutError(path, "a file that has just changed", "one at rest", "try again")


def _digest(origin: Dir, file: ThinFile, known: dict[str, str]) -> str:
    with _opened(origin, file) as source:
        found = os.fstat(source)
        # Nobody but the kernel sets the time of the last change.
        state = f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
        if state in known:
            return known[state]
        if not file.size:
            return hashlib.sha256().hexdigest()
        with mmap.mmap(source, file.size, _MAP, mmap.PROT_READ) as data:
            digest = hashlib.sha256(data).hexdigest()
        # One that has just changed may change again without a new time: clocks of file systems are coarse.
        if abs(time.time() - found.st_ctime) > _COARSE:
            known[state] = digest
        return digest


def _copy(folders: dict[str, int], origin: Dir, file: ThinFile) -> None:
    head, _, name = file.path.rpartition("/")
    with _opened(origin, file) as source:
        fd = os.open(name, _CREATE, file.mode, dir_fd=folders[head])
        try:
            if file.size and not _cloned(source, fd):
                _pump(source, fd, file.size)
        finally:
            os.close(fd)


def _pump(source: int, fd: int, size: int) -> None:
    """Copy a file inside the kernel where that can be done, else by hand. Raises OSError."""
    done = 0
    try:
        while done < size and (count := os.copy_file_range(source, fd, size - done)):
            done += count
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
    while done < size and (data := os.pread(source, _PIECE, done)):
        done += os.pwrite(fd, data, done)


def _cloned(source: int, fd: int) -> bool:
    try:
        fcntl.ioctl(fd, _FICLONE, source)
    except OSError:
        return False
    return True


def digest_root(origin: Dir, root: ThinRoot) -> list[ThinEntry]:
    """Return what write_root would write, without writing it. Raises LayoutError, OSError."""
    found = []
    for item in root.items:
        match item:
            case ThinDirectory(path, mode):
                found.append(ThinEntry(path, "dir", mode, ""))
            case ThinLink(path, target):
                found.append(ThinEntry(path, "link", 0, target))
            case ThinText(path, _, mode):
                found.append(ThinEntry(path, "file", mode, hashlib.sha256(_bytes(item)).hexdigest()))
            case ThinFile(path, _, mode):
                found.append(ThinEntry(path, "file", mode, _digest(origin, item, {})))
            case _:
                assert_never(item)
    return found


def read_root(top: Dir, path: str = "") -> Iterator[ThinEntry]:
    """Yield what is in a tree, without its top. Raises LayoutError for what no root has."""
    for name in top.names():
        below = f"{path}/{name}" if path else name
        found = top.lstat(name)
        assert found is not None
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISDIR(found.st_mode):
            yield ThinEntry(below, "dir", mode, "")
            with top.open(name, cross=False) as directory:
                yield from read_root(directory, below)
        elif stat.S_ISLNK(found.st_mode):
            yield ThinEntry(below, "link", 0, top.readlink(name))
        else:
            fd = top.open_file(name)
            try:
                digest = hashlib.file_digest(os.fdopen(os.dup(fd), "rb"), "sha256").hexdigest()
            finally:
                os.close(fd)
            yield ThinEntry(below, "file", mode, digest)
