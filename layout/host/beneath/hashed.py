"""Every entry of a tree as its manifest has it: looked at by descriptor, big files hashed in threads."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from threading import Semaphore
from typing import TYPE_CHECKING

import msgspec

from layout.core.errors import LayoutError
from layout.core.mtree import ManifestEntry
from layout.host.beneath.directory import Dir, kind_of
from layout.host.beneath.walk import entries

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SMALL = 64 << 10
"""Bytes up to which a file is hashed where it is found: handing it to a thread would cost more."""
_PIECE = 1 << 20
_WAITING = 64
"""Files that may be open and wait for a thread."""

Known = Mapping[str, tuple[int, str]]
"""Size and SHA-256 of files whose content is known already, by path."""


class Hashed(msgspec.Struct):
    """A tree as it is now."""

    entries: dict[str, ManifestEntry]
    """By path, "." for the top; parents before what is in them, names sorted."""
    special: list[tuple[str, str]]
    """Path and kind of what no manifest has: device nodes, FIFOs, sockets."""
    bytes: int = 0
    """How much was read to be hashed."""


def hashed(top: Dir, known: Known | None = None, tell: Callable[[int], None] | None = None) -> Hashed:
    """Look at every entry of the tree and hash its files. `tell` gets the number of entries so far.

    What is `known` is not read again, if it still has that size. Raises LayoutError for a mount inside or a
    file that changes meanwhile, OSError for what cannot be read.
    """
    with ExitStack() as stack:
        return _Scan(top, known or {}, tell, stack).run()


def sha256(top: Dir, path: str) -> str:
    """Return the SHA-256 of a regular file in hexadecimal. Raises OSError, LayoutError for any other."""
    fd = top.open_file(path)
    try:
        digest = hashlib.sha256()
        while piece := os.read(fd, _PIECE):
            digest.update(piece)
        return digest.hexdigest()
    finally:
        os.close(fd)


class _Scan:
    def __init__(self, top: Dir, known: Known, tell: Callable[[int], None] | None, stack: ExitStack) -> None:
        self.top = top
        self.known = known
        self.tell = tell
        self.stack = stack
        self.pool: ThreadPoolExecutor | None = None
        self.room = Semaphore(_WAITING)
        self.found: dict[str, ManifestEntry] = {}
        self.pending: dict[str, Future[str]] = {}
        self.names: dict[tuple[int, int], list[str]] = {}
        self.special: list[tuple[str, str]] = []
        self.bytes = 0

    def run(self) -> Hashed:
        status = os.fstat(self.top.fd)
        mode = stat.S_IMODE(status.st_mode)
        self.found["."] = ManifestEntry(".", "dir", mode, status.st_uid, status.st_gid)
        try:
            for fd, directory, name, status in entries(self.top):
                path = f"{directory}/{name}" if directory else name
                self._entry(fd, path, name, status)
                if self.tell is not None and not len(self.found) & 0xFF:
                    self.tell(len(self.found))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise LayoutError(
                self.top.path, "a mount inside", "a tree without mounts", "unmount it first"
            ) from None
        for path, future in self.pending.items():
            self.found[path] = msgspec.structs.replace(self.found[path], digest=future.result())
        for names in self.names.values():
            digest = self.found[names[0]].digest
            first, *others = sorted(names, key=_order)
            for path in names:
                of = first if path in others else ""
                self.found[path] = msgspec.structs.replace(self.found[path], digest=digest, nlink_of=of)
        order = sorted(self.found, key=_order)
        return Hashed({path: self.found[path] for path in order}, self.special, self.bytes)

    def _entry(self, fd: int, path: str, name: str, status: os.stat_result) -> None:
        mode = status.st_mode
        kind = mode & 0o170000
        permissions, uid, gid = mode & 0o7777, status.st_uid, status.st_gid
        if kind == stat.S_IFREG:
            names = [path]
            if status.st_nlink > 1:
                names = self.names.setdefault((status.st_dev, status.st_ino), [])
                names.append(path)
            digest = self._digest(fd, path, name, status) if names[0] == path else ""
            self.found[path] = ManifestEntry(path, "file", permissions, uid, gid, status.st_size, digest)
        elif kind == stat.S_IFDIR:
            self.found[path] = ManifestEntry(path, "dir", permissions, uid, gid)
        elif kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=fd)
            self.found[path] = ManifestEntry(path, "link", permissions, uid, gid, target=target)
        else:
            self.special.append((path, kind_of(mode)))

    def _digest(self, dir_fd: int, path: str, name: str, status: os.stat_result) -> str:
        size, digest = self.known.get(path, (-1, ""))
        if size == status.st_size:
            return digest
        fd = os.open(name, _READ, dir_fd=dir_fd)
        try:
            now = os.fstat(fd)
            if (now.st_dev, now.st_ino, now.st_mode) != (status.st_dev, status.st_ino, status.st_mode):
                raise self._moving(path)
            self.bytes += status.st_size
            if status.st_size <= _SMALL:
                return self._hash(fd, path, status.st_size)
            self.room.acquire()
            self.pending[path] = self._threads().submit(self._aside, os.dup(fd), path, status.st_size)
            return ""
        finally:
            os.close(fd)

    def _threads(self) -> ThreadPoolExecutor:
        if self.pool is None:
            from concurrent.futures import ThreadPoolExecutor  # most commands hash nothing

            workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            self.pool = self.stack.enter_context(ThreadPoolExecutor(workers or 1))
        return self.pool

    def _aside(self, fd: int, path: str, size: int) -> str:
        try:
            return self._hash(fd, path, size)
        finally:
            os.close(fd)
            self.room.release()

    def _hash(self, fd: int, path: str, size: int) -> str:
        digest = hashlib.sha256()
        left = size
        while piece := os.read(fd, min(_PIECE, left + 1)):
            digest.update(piece)
            left -= len(piece)
            if left < 0:
                break
        if left:
            raise self._moving(path)
        return digest.hexdigest()

    def _moving(self, path: str) -> LayoutError:
        hint = "end the session that writes there, then try again"
        return LayoutError(self.top.show(path), "a file that changes while it is read", "one at rest", hint)


def _order(path: str) -> str:
    """Sort parents before what is in them, by whole names."""
    return path.replace("/", "\0") if path != "." else ""
