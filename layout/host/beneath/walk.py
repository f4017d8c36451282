"""Look at every entry of a tree that may be hostile, and report what is remarkable about it."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator

import msgspec

from layout.core.errors import LayoutError
from layout.host.beneath import capability
from layout.host.beneath.directory import Dir
from layout.host.beneath.resolve import open_directory

DEPTH_LIMIT = 256
ENTRY_LIMIT = 5_000_000
OPEN_LIMIT = 400
"""Directories held open at once: the usual limit of a process is 1024 descriptors."""
_BUSY = 10
"""How much longer a walk may take by the clock than it uses the processor."""
_FILE = stat.S_IFREG
_PLAIN = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})


class Linked(msgspec.Struct):
    """A file that has more than one name."""

    path: str
    """The first of its names that was found."""
    names: int
    """How many it has."""
    seen: int = 1
    """How many of them are in the tree."""


class Seen(msgspec.Struct):
    """What a walk found. Paths are relative to its top."""

    entries: int = 0
    special: list[tuple[str, os.stat_result]] = []
    """Device nodes, FIFOs, sockets, and files that are setuid or setgid."""
    capable: list[tuple[str, os.stat_result, bytes]] = []
    """Files with capabilities (capabilities(7)), and the value; of a trusted tree only programs."""
    loose: list[tuple[str, os.stat_result]] = []
    """Of a trusted tree: what its group or anybody may write to."""
    owned: list[tuple[str, os.stat_result]] = []
    """Of a trusted tree: what is not root's."""
    links: list[tuple[str, str]] = []
    """Of a trusted tree: symbolic links and their targets."""
    linked: dict[tuple[int, int], Linked] = {}
    """Files with more than one name, by device and inode."""
    every: dict[str, tuple[os.stat_result, str]] = {}
    """When asked for: all entries, and the target of a link."""
    unseen: list[tuple[str, str]] = []
    """What could not be looked at, with the reason. Never empty means: not proven."""


def walk(top: Dir, *, trusted: bool = False, every: bool = False, seconds: float | None = None) -> Seen:
    """Look at every entry below `top`, itself left out, without following links or crossing mounts.

    Iterative, because a jail can make a tree of any depth; beyond 256 levels or 5,000,000 entries the rest
    is reported as unseen. In a `trusted` tree, which no jail can write to, owners, permissions to write and
    links are looked at as well. After so many `seconds` of the processor, or ten times as many of the clock
    on a host that is busy, the rest is unseen too.
    """
    walker = _Walker(trusted, every, seconds)
    walker.run(os.dup(top.fd), "", 0)
    return walker.seen


class _Walker:
    def __init__(self, trusted: bool, every: bool, seconds: float | None) -> None:
        self.seconds = seconds
        self.begun = time.monotonic(), time.thread_time()
        self.trusted = trusted
        self.every = every
        self.seen = Seen()
        self.held = 0

    def run(self, fd: int, path: str, depth: int) -> None:
        """Look at the directory `fd`, which is closed on the way, and at all below it."""
        stack = [(fd, path, depth)]
        self.held += 1
        while stack:
            fd, path, depth = stack.pop()
            self.held -= 1
            try:
                self._directory(fd, path, depth, stack)
            except OSError as error:
                self.seen.unseen.append((path or ".", os.strerror(error.errno or 0)))
            finally:
                os.close(fd)
            if self.seen.entries > ENTRY_LIMIT:
                self.seen.unseen.append((path or ".", f"more than {ENTRY_LIMIT} entries"))
                break
            if self._is_late():
                self.seen.unseen.append((path or ".", "so much that the time for it was over"))
                break
        for fd, _, _ in stack:
            os.close(fd)
            self.held -= 1

    def _is_late(self) -> bool:
        if self.seconds is None:
            return False
        passed, used = time.monotonic() - self.begun[0], time.thread_time() - self.begun[1]
        return used > self.seconds or passed > self.seconds * _BUSY

    def _trusted(self, fd: int, name: str, below: str, found: os.stat_result) -> None:
        mode = found.st_mode
        target = ""
        if stat.S_ISLNK(mode):
            target = os.readlink(name, dir_fd=fd)
            self.seen.links.append((below, target))
        elif mode & 0o022 and not _sticky(mode):
            self.seen.loose.append((below, found))
        if found.st_uid:
            self.seen.owned.append((below, found))
        if self.every:
            self.seen.every[below] = found, target

    def _linked(self, below: str, found: os.stat_result) -> None:
        known = self.seen.linked.get((found.st_dev, found.st_ino))
        if known is None:
            self.seen.linked[found.st_dev, found.st_ino] = Linked(below, found.st_nlink)
        else:
            known.names = found.st_nlink
            known.seen += 1

    def _directory(self, fd: int, path: str, depth: int, stack: list[tuple[int, str, int]]) -> None:
        seen = self.seen
        trusted, every = self.trusted, self.every
        remarkable = 0o6022 if trusted else 0o6000
        with os.scandir(fd) as found_here:
            for entry in found_here:
                seen.entries += 1
                if not seen.entries % 4096 and self._is_late():
                    break
                try:
                    found = entry.stat(follow_symlinks=False)
                    mode = found.st_mode
                    kind = mode & 0o170000
                    if kind == _FILE and (not trusted or mode & 0o111):
                        value = capability.of(fd, entry.name)
                        if value is not None:
                            seen.capable.append((_joined(path, entry.name), found, value))
                except FileNotFoundError:  # a live jail may remove what it likes
                    continue
                if kind == _FILE and found.st_nlink > 1:
                    self._linked(_joined(path, entry.name), found)
                if kind == _FILE and not mode & remarkable and not (trusted and found.st_uid) and not every:
                    continue
                name = entry.name
                below = _joined(path, name)
                if kind not in _PLAIN or (mode & 0o6000 and kind == _FILE):
                    seen.special.append((below, found))
                if trusted:
                    self._trusted(fd, name, below, found)
                if kind == stat.S_IFDIR:
                    self._descend(fd, name, below, depth, stack)

    def _descend(self, fd: int, name: str, below: str, depth: int, stack: list[tuple[int, str, int]]) -> None:
        """Open a directory, to be looked at next."""
        if depth >= DEPTH_LIMIT:
            self.seen.unseen.append((below, f"more than {DEPTH_LIMIT} levels deep"))
            return
        try:
            child = open_directory(fd, name, cross=False)
        except FileNotFoundError:
            return
        except OSError as error:
            reason = "a mount point" if error.errno == errno.EXDEV else os.strerror(error.errno or 0)
            self.seen.unseen.append((below, reason))
            return
        if self.held < OPEN_LIMIT:
            stack.append((child, below, depth + 1))
            self.held += 1
        else:  # too wide to hold every directory open: look at this one now, with all below it
            self.run(child, below, depth + 1)


def _sticky(mode: int) -> bool:
    """Say whether this is a directory such as /tmp, meant for everybody."""
    return bool(mode & 0o1000) and stat.S_ISDIR(mode)


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def entries(top: Dir) -> Iterator[tuple[int, str, str, os.stat_result]]:
    """Yield (descriptor of the directory, its path, name, status) of every entry below `top`.

    Only the directories on the way to the current one are held open, however wide the tree is. Raises
    OSError and, for a tree that is too deep for that, LayoutError: nothing may be overlooked.
    """
    chain: list[tuple[int, str, list[str]]] = [(os.dup(top.fd), "", [])]
    try:
        while True:
            fd, path, below = chain[-1]
            with os.scandir(fd) as found_here:
                for entry in found_here:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_mode & 0o170000 == stat.S_IFDIR:
                        below.append(entry.name)
                    yield fd, path, entry.name, found
            while not chain[-1][2]:
                os.close(chain.pop()[0])
                if not chain:
                    return
            fd, path, below = chain[-1]
            name = below.pop()
            path = f"{path}/{name}" if path else name
            if len(chain) > DEPTH_LIMIT:
                raise LayoutError(
                    top.show(path), f"more than {DEPTH_LIMIT} levels", "a tree of ordinary depth"
                )
            chain.append((open_directory(fd, name, cross=False), path, []))
    finally:
        for fd, _, _ in chain:
            os.close(fd)


def symlinks(top: Dir) -> Iterator[tuple[str, str]]:
    """Yield (path, target) of every symbolic link below `top`. Raises OSError, LayoutError."""
    for fd, path, name, found in entries(top):
        if stat.S_ISLNK(found.st_mode):
            yield f"{path}/{name}" if path else name, os.readlink(name, dir_fd=fd)


class Print(msgspec.Struct, frozen=True):
    """What tells one state of an entry from another without reading it."""

    mode: int
    uid: int
    gid: int
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    def same_but_times(self, other: Print) -> bool:
        """Say whether only times and size differ: of a directory, whose entries speak for themselves."""
        return (self.mode, self.uid, self.gid, self.inode) == (other.mode, other.uid, other.gid, other.inode)


def snapshot(top: Dir) -> Iterator[tuple[str, Print]]:
    """Yield (path, print) of every entry below `top`. Raises OSError, LayoutError: no change goes unseen."""
    for _, path, name, s in entries(top):
        yield (
            f"{path}/{name}" if path else name,
            Print(s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns),
        )
