"""Trees as a sequence of items: read from one directory, written into another, both by descriptor.

Owners, modes, times, links, extended attributes and file flags are kept. Device nodes, FIFOs and sockets
are left out and counted: a base needs none, and a jail must not inherit one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import msgspec

from layout.core.errors import LayoutError
from layout.host.beneath import fileflags
from layout.host.beneath.directory import Dir, kind_of
from layout.host.beneath.resolve import DIRECTORY, open_directory

IN_MEMORY = 1 << 20
"""Files up to this many bytes are held in memory; larger ones are copied from descriptor to descriptor."""
DEPTH_LIMIT = 256
_FICLONE = 0x40049409
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Item(msgspec.Struct):
    """One directory, file, symbolic link or further hard link of a tree; parents come before children."""

    path: str
    """Relative to the top of the tree; the top itself is ''."""
    mode: int
    """With the file type, as st_mode."""
    uid: int = 0
    gid: int = 0
    mtime_ns: int | None = None
    size: int = 0
    data: bytes | None = None
    """The content of a file; None for a larger one, which `fd` (while it is being read) or `reopen` gives."""
    target: str = ""
    """Of a symbolic link as written; of a further hard link, the path of the first one."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    flags: int = 0
    fd: int = -1
    reopen: Callable[[], int] | None = None


class Written(msgspec.Struct):
    """What write_items did: counts of entries, and what could not be carried over."""

    entries: int = 0
    bytes: int = 0
    setuid: list[Item] = []
    lost: Counter[str] = msgspec.field(default_factory=Counter)
    flags: list[tuple[str, int]] = []
    """File flags that are still to be set, by path: with `hold_flags`, until the tree is as it shall stay."""


def read_tree(top: Dir, left_out: Counter[str] | None = None) -> Iterator[Item]:
    """Yield the items of a tree, the top first. `left_out` counts the kinds that are not items.

    An Item's `fd` is valid only until the next one is asked for. Raises LayoutError for a tree deeper than
    256 levels or one that has a mount inside, OSError for what cannot be read.
    """
    left_out = Counter() if left_out is None else left_out
    links: dict[tuple[int, int], str] = {}
    yield from _read_directory(Dir(os.dup(top.fd), top.path), "", 0, left_out, links)


def _read_directory(
    here: Dir, path: str, depth: int, left_out: Counter[str], links: dict[tuple[int, int], str]
) -> Iterator[Item]:
    if depth > DEPTH_LIMIT:
        here.close()
        raise LayoutError(here.path, f"more than {DEPTH_LIMIT} levels", "a tree of ordinary depth")
    with here:
        found = os.fstat(here.fd)
        yield Item(
            path,
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_mtime_ns,
            xattrs=_xattrs(here.fd),
            flags=fileflags.get(here.fd, found),
        )
        for name in here.names():
            below = f"{path}/{name}" if path else name
            found = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
            match stat.S_IFMT(found.st_mode):
                case stat.S_IFDIR:
                    try:
                        child = Dir(open_directory(here.fd, name, cross=False), here.show(name))
                    except OSError as error:
                        if error.errno != errno.EXDEV:
                            raise
                        raise LayoutError(
                            here.show(name), "a mount point", "a tree without mounts", "unmount it first"
                        ) from None
                    yield from _read_directory(child, below, depth + 1, left_out, links)
                case stat.S_IFLNK:
                    target = os.readlink(name, dir_fd=here.fd)
                    yield Item(
                        below,
                        found.st_mode,
                        found.st_uid,
                        found.st_gid,
                        found.st_mtime_ns,
                        target=target,
                    )
                case stat.S_IFREG:
                    yield from _read_file(here, name, below, links)
                case _:
                    left_out[kind_of(found.st_mode)] += 1


def _read_file(here: Dir, name: str, path: str, links: dict[tuple[int, int], str]) -> Iterator[Item]:
    fd = os.open(name, _READ, dir_fd=here.fd)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise LayoutError(here.show(name), f"a {kind_of(found.st_mode)}", "a regular file")
        if found.st_nlink > 1:
            first = links.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                yield Item(path, found.st_mode, found.st_uid, found.st_gid, target=first)
                return
        data = None
        if found.st_size <= IN_MEMORY:
            data = os.read(fd, IN_MEMORY + 1)
            if len(data) > IN_MEMORY:
                raise LayoutError(here.show(name), "a file that grows while it is read", "one at rest")
        yield Item(
            path,
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_mtime_ns,
            found.st_size,
            data,
            xattrs=_xattrs(fd),
            flags=fileflags.get(fd, found),
            fd=fd,
        )
    finally:
        os.close(fd)


def load_tree(top: Dir, left_out: Counter[str] | None = None) -> list[Item]:
    """Return the items of a small tree that is going to be written many times (a skeleton).

    Larger files are opened again from `top` each time, which must stay open. Raises as read_tree.
    """
    items = []
    for item in read_tree(top, left_out):
        if stat.S_ISREG(item.mode) and not item.target:
            item.fd = -1
            item.reopen = _reopener(top, item.path)
        items.append(item)
    return items


def _reopener(top: Dir, path: str) -> Callable[[], int]:
    return lambda: top.open_file(path)


def _xattrs(fd: int) -> tuple[tuple[str, bytes], ...]:
    if not hasattr(os, "listxattr"):  # FreeBSD: extattr_list_fd is not in the standard library
        return ()
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno in {errno.ENOTSUP, errno.ENODATA}:
            return ()
        raise
    return tuple((name, os.getxattr(fd, name)) for name in names)


class _Writer:
    """Writes items in order; holds open the chain of directories from the top to the current one."""

    def __init__(self, into: Dir, digests: Callable[[Item, str], None] | None, clone: bool) -> None:
        self.chain: list[tuple[str, int, Item | None]] = [("", os.dup(into.fd), None)]
        self.into = into
        self.digests = digests
        self.clone = clone
        self.result = Written()

    def close(self) -> None:
        while self.chain:
            os.close(self.chain.pop()[1])

    def finish_top(self) -> None:
        """Give the innermost directory its final metadata: its entries are written, so its time holds."""
        _, fd, item = self.chain.pop()
        try:
            if item is not None:
                self._metadata(fd, item)
        finally:
            os.close(fd)

    def _metadata(self, fd: int, item: Item) -> None:
        mode, times = item.mode, item.mtime_ns
        if not (item.uid or item.gid or mode & 0o7000 or item.xattrs or item.flags) and item.path:
            if times is not None:  # as for nearly every entry
                os.utime(fd, ns=(times, times))
            return
        if (item.uid or item.gid) and not self._own(fd, item):
            mode &= ~0o6000  # it would be setuid to whoever owns it instead
        # What was made got its plain mode then; the top was there, and a changed owner clears setuid bits.
        if mode & 0o7000 or not item.path:
            os.fchmod(fd, mode & 0o7777)
        for name, value in item.xattrs:
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                self.result.lost["extended attribute"] += 1
        if times is not None:
            os.utime(fd, ns=(times, times))
        if item.flags:
            self.result.flags.append((item.path, item.flags))

    def _own(self, fd: int, item: Item) -> bool:
        try:
            os.fchown(fd, item.uid, item.gid)
        except OSError as error:
            # A user namespace does not map every id; only root of the host can keep them all.
            if error.errno not in {errno.EINVAL, errno.EPERM}:
                raise
            self.result.lost["owner"] += 1
            return False
        return True

    def parent(self, head: str) -> int:
        """Return the descriptor of directory `head`, an ancestor of what was written last."""
        while self.chain[-1][0] != head:
            if len(self.chain) == 1:
                raise ValueError(f"item before its parent {head!r}")
            self.finish_top()
        return self.chain[-1][1]

    def write(self, item: Item) -> None:
        self.result.entries += 1
        if not item.path:
            path, fd, _ = self.chain[0]
            self.chain[0] = (path, fd, item)
            return
        head, _, name = item.path.rpartition("/")
        here, dir_fd, _ = self.chain[-1]
        if here != head:
            dir_fd = self.parent(head)
        kind = item.mode & 0o170000
        if kind == stat.S_IFDIR:
            os.mkdir(name, item.mode & 0o777, dir_fd=dir_fd)
            self.chain.append((item.path, os.open(name, DIRECTORY, dir_fd=dir_fd), item))
        elif kind == stat.S_IFLNK:
            os.symlink(item.target, name, dir_fd=dir_fd)
            if item.uid or item.gid:
                try:
                    os.chown(name, item.uid, item.gid, dir_fd=dir_fd, follow_symlinks=False)
                except OSError:
                    self.result.lost["owner"] += 1
            if item.mtime_ns is not None:
                os.utime(name, ns=(item.mtime_ns, item.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)
        elif item.target:
            self._hard_link(item, dir_fd, name)
        else:
            self._file(item, dir_fd, name)
        if item.mode & 0o6000 and kind == stat.S_IFREG:
            self.result.setuid.append(item)

    def _hard_link(self, item: Item, dir_fd: int, name: str) -> None:
        head, _, first = item.target.rpartition("/")
        with self.into.open(head or ".") as parent:
            os.link(first, name, src_dir_fd=parent.fd, dst_dir_fd=dir_fd, follow_symlinks=False)

    def _file(self, item: Item, dir_fd: int, name: str) -> None:
        fd = os.open(name, _CREATE, item.mode & 0o777, dir_fd=dir_fd)
        try:
            digest = self._content(item, fd)
            self._metadata(fd, item)
        finally:
            os.close(fd)
        self.result.bytes += item.size
        if self.digests is not None:
            self.digests(item, digest)

    def _content(self, item: Item, fd: int) -> str:
        if self.clone and item.size and self._cloned(item, fd):
            return ""
        data = item.data
        if data is not None:
            if data and os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), item.path)
            return hashlib.sha256(data).hexdigest() if self.digests is not None else ""
        source = item.reopen() if item.reopen is not None else os.dup(item.fd)
        try:
            return self._pump(source, fd)
        finally:
            os.close(source)

    def _pump(self, source: int, fd: int) -> str:
        digest = hashlib.sha256() if self.digests is not None else None
        while piece := os.read(source, IN_MEMORY):
            if digest is not None:
                digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        return digest.hexdigest() if digest is not None else ""

    def _cloned(self, item: Item, fd: int) -> bool:
        """Share the blocks of the origin on a file system that can (ioctl_ficlone(2))."""
        if item.reopen is None or self.digests is not None:
            return False
        source = item.reopen()
        try:
            fcntl.ioctl(fd, _FICLONE, source)
        except OSError:
            self.clone = False
            return False
        finally:
            os.close(source)
        return True


def write_items(
    items: Iterable[Item],
    into: Dir,
    *,
    digests: Callable[[Item, str], None] | None = None,
    clone: bool = False,
    hold_flags: bool = False,
) -> Written:
    """Write a tree into the existing empty directory `into`; its own metadata comes from the item ''.

    `digests` is told the SHA-256 of each file. `clone` shares blocks with the origin of loaded items where
    the file system can. File flags come last, when every link is made; with `hold_flags` they are left to
    the caller (put_flags). Raises OSError (ENOSPC, EROFS, EEXIST ...): what was written so far stays.
    """
    writer = _Writer(into, digests, clone)
    mask = os.umask(0)
    try:
        for item in items:
            writer.write(item)
        while writer.chain:
            writer.finish_top()
    finally:
        os.umask(mask)
        writer.close()
    result = writer.result
    if not hold_flags:
        _count_lost(result, put_flags(into, result.flags))
        result.flags = []
    return result


def _count_lost(result: Written, flags: int) -> None:
    if flags:
        result.lost["file flag"] += flags


def put_flags(top: Dir, flags: Iterable[tuple[str, int]]) -> int:
    """Set file flags by path below `top`; return how many the file system does not have. Raises OSError."""
    lost = 0
    for path, wanted in flags:
        head, _, name = path.rpartition("/")
        with top.open(head or ".") as parent:
            fd = os.open(name or ".", _READ, dir_fd=parent.fd)
        try:
            lost += not fileflags.put(fd, wanted)
        finally:
            os.close(fd)
    return lost
