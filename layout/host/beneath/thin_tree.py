"""The root of a thin jail as a tree: written, compared and read back, by descriptor."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
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

_PIECE = 128 << 10
"""Bytes that are read, hashed and written at a time: they stay in the processor's cache."""
_THREADS = 4
"""More than two processors need: one that waits for a disk keeps no other from its work."""
_COARSE = 2.0
"""Seconds."""
_FICLONE = 0x40049409
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
            digests = [pool.submit(_bring, folders, origin, file, known) for file in files]
            for file, digest in zip(files, digests, strict=True):
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
def _opened(origin: Dir, file: ThinFile) -> Iterator[tuple[int, str]]:
    """Open a source by descriptor, and make sure before and after that it is the one that was looked at.

    Yields what tells the file and its state from all others, too.
    """
    source = origin.open_file(file.source)
    try:
        before = _require_same(source, origin, file)
        yield source, before
        _require_same(source, origin, file)
    finally:
        os.close(source)


def _require_same(source: int, origin: Dir, file: ThinFile) -> str:
    found = os.fstat(source)
    state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if state != (file.inode, file.size, file.mtime_ns, file.ctime_ns):
        path = origin.show(file.source)
        raise LayoutError(path, "a file that has just changed", "one at rest", "try again")
    return ":".join(map(str, (found.st_dev, *state)))


def _bring(folders: dict[str, int], origin: Dir, file: ThinFile, known: dict[str, str]) -> str:
    """Copy a file and return its digest: that of what was written, unless it is known of the source."""
    head, _, name = file.path.rpartition("/")
    with _opened(origin, file) as (source, state):
        fd = os.open(name, _CREATE, file.mode, dir_fd=folders[head])
        try:
            digest = known.get(state)
            cloned = _cloned(source, fd)
            if digest is not None:
                if not cloned:
                    _copy(source, fd, file.size)
                return digest
            digest = _read(fd) if cloned else _read(source, fd)
        finally:
            os.close(fd)
    _remember(known, state, file, digest)
    return digest


def _remember(known: dict[str, str], state: str, file: ThinFile, digest: str) -> None:
    # One that has just changed may change again without a new time: clocks of file systems are coarse.
    if abs(time.time() - file.ctime_ns / 1e9) > _COARSE:
        known[state] = digest


def _read(source: int, to: int = -1) -> str:
    """Read a file from its start and return its digest; with `to`, write there what is read."""
    digest = hashlib.sha256()
    view = memoryview(bytearray(_PIECE))
    done = 0
    while count := os.preadv(source, [view], done):
        piece = view[:count]
        digest.update(piece)
        while to >= 0 and piece:
            piece = piece[os.write(to, piece) :]
        done += count
    return digest.hexdigest()


def _copy(source: int, fd: int, size: int) -> None:
    """Copy a file inside the kernel where that can be done, else by hand. Raises OSError."""
    done = 0
    try:
        while done < size and (count := os.copy_file_range(source, fd, size - done, done)):
            done += count
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
    view = memoryview(bytearray(_PIECE))
    while done < size and (count := os.preadv(source, [view], done)):
        done += os.write(fd, view[:count])


def _cloned(source: int, fd: int) -> bool:
    try:
        fcntl.ioctl(fd, _FICLONE, source)
    except OSError:
        return False
    return True


def digest_root(origin: Dir, root: ThinRoot, known: dict[str, str]) -> list[ThinEntry]:
    """Return what write_root would write, without writing it. Raises LayoutError, OSError.

    `known` is believed and added to, as there.
    """
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
                with _opened(origin, item) as (source, state):
                    digest = known.get(state) or _read(source)
                _remember(known, state, item, digest)
                found.append(ThinEntry(path, "file", mode, digest))
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
                digest = _read(fd)
            finally:
                os.close(fd)
            yield ThinEntry(below, "file", mode, digest)
