"""An open directory and what may be done right below it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from types import TracebackType

from layout.core.errors import LayoutError
from layout.host.beneath.resolve import DIRECTORY, open_directory

_REGULAR_LIMIT = 16 << 20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}")


def kind_of(mode: int) -> str:
    """Return the name of a file type in the words of mtree(5)."""
    match stat.S_IFMT(mode):
        case stat.S_IFDIR:
            return "directory"
        case stat.S_IFREG:
            return "file"
        case stat.S_IFLNK:
            return "symbolic link"
        case stat.S_IFIFO:
            return "FIFO"
        case stat.S_IFSOCK:
            return "socket"
        case stat.S_IFCHR | stat.S_IFBLK:
            return "device node"
        case _:
            return "unknown kind of file"


class Dir:
    """A directory held open. `path` is where it was found, for messages only: it is never looked up again."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    def __enter__(self) -> Dir:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; twice is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def show(self, name: str) -> str:
        """Return the path of `name` for a message."""
        return f"{self.path}/{name}"

    def open(self, path: str, *, cross: bool = True) -> Dir:
        """Open directory `path` below this one.

        Raises FileNotFoundError, or LayoutError when something on the way is a link, no directory, or (with
        `cross=False`) a mount point.
        """
        try:
            return Dir(open_directory(self.fd, path, cross=cross), self.show(path))
        except OSError as error:
            raise self._explain(error, path) from None

    def _explain(self, error: OSError, path: str) -> Exception:
        match error.errno:
            case errno.ELOOP | errno.ENOTDIR | errno.EMLINK:
                found = "a symbolic link or a file on the way"
            case errno.EXDEV:
                found = "a mount point"
            case errno.EAGAIN:
                found = "a tree that keeps changing"
            case errno.ENOENT:
                return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.show(path))
            case _:
                error.filename = self.show(path)
                return error
        return LayoutError(self.show(path), found, "a directory", "look at it before you move it aside")

    def _parent(self, path: str) -> tuple[Dir, str]:
        head, _, name = path.rpartition("/")
        if not name or name in {".", ".."}:
            raise ValueError(f"not the path of an entry: {path!r}")
        return (self.open(head) if head else Dir(os.dup(self.fd), self.path)), name

    def lstat(self, path: str) -> os.stat_result | None:
        """Return the status of `path` itself, or None when it does not exist."""
        if "/" not in path:
            try:
                return os.stat(path, dir_fd=self.fd, follow_symlinks=False)
            except FileNotFoundError:
                return None
        try:
            parent, name = self._parent(path)
        except FileNotFoundError:
            return None
        with parent:
            return parent.lstat(name)

    def is_same(self, name: str, fd: int) -> bool:
        """Say whether entry `name` is the file that `fd` has open."""
        here, there = self.lstat(name), os.fstat(fd)
        return here is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def readlink(self, path: str) -> str:
        """Return the target of symbolic link `path`. Raises OSError when it is none."""
        if "/" not in path:
            return os.readlink(path, dir_fd=self.fd)
        parent, name = self._parent(path)
        with parent:
            return os.readlink(name, dir_fd=parent.fd)

    def names(self) -> list[str]:
        """Return the names in this directory, sorted."""
        return sorted(os.listdir(self.fd))

    def some(self, limit: int) -> list[str]:
        """Return at most `limit` of the names, in no order: a jail can make any number of them."""
        with os.scandir(self.fd) as found:
            return [entry.name for entry, _ in zip(found, range(limit), strict=False)]

    def open_file(self, path: str) -> int:
        """Return a descriptor of regular file `path`, for reading; never waits on a FIFO.

        Raises FileNotFoundError, or LayoutError when it is anything but a regular file.
        """
        parent, name = self._parent(path)
        with parent:
            try:
                fd = os.open(
                    name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent.fd
                )
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENXIO}:
                    raise LayoutError(parent.show(name), "a link or a socket", "a regular file") from None
                if error.errno == errno.ENOENT:
                    raise FileNotFoundError(
                        errno.ENOENT, os.strerror(errno.ENOENT), parent.show(name)
                    ) from None
                raise
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                os.close(fd)
                raise LayoutError(parent.show(name), f"a {kind_of(found.st_mode)}", "a regular file")
            return fd

    def read(self, path: str, limit: int = _REGULAR_LIMIT) -> bytes:
        """Return the content of regular file `path`, at most `limit` bytes of it allowed.

        Raises FileNotFoundError, or LayoutError when it is no regular file or larger.
        """
        fd = self.open_file(path)
        try:
            size = os.fstat(fd).st_size
            if size > limit:
                raise LayoutError(self.show(path), f"{size} bytes", f"at most {limit}")
            pieces = []
            left = limit + 1
            while left > 0 and (piece := os.read(fd, min(left, 1 << 20))):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
        finally:
            os.close(fd)

    def make_dir(self, path: str, mode: int) -> None:
        """Make directory `path` with exactly `mode`, whatever the umask. Raises FileExistsError, OSError."""
        parent, name = self._parent(path)
        with parent:
            os.mkdir(name, mode & 0o777, dir_fd=parent.fd)
            with Dir(os.open(name, DIRECTORY, dir_fd=parent.fd), parent.show(name)) as made:
                os.fchmod(made.fd, mode)

    def make_link(self, path: str, target: str) -> None:
        """Make symbolic link `path` with this target. Raises FileExistsError, OSError."""
        parent, name = self._parent(path)
        with parent:
            os.symlink(target, name, dir_fd=parent.fd)

    def change_link(self, path: str, target: str) -> None:
        """Give symbolic link `path` another target; its owner and time stay. Raises OSError."""
        parent, name = self._parent(path)
        with parent:
            found = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            os.unlink(name, dir_fd=parent.fd)
            os.symlink(target, name, dir_fd=parent.fd)
            if found.st_uid or found.st_gid:
                with contextlib.suppress(PermissionError):
                    os.chown(name, found.st_uid, found.st_gid, dir_fd=parent.fd, follow_symlinks=False)
            times = (found.st_atime_ns, found.st_mtime_ns)
            os.utime(name, ns=times, dir_fd=parent.fd, follow_symlinks=False)

    def write_whole(
        self,
        path: str,
        data: bytes,
        mode: int,
        *,
        durable: bool = True,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Write regular file `path` whole: a temporary name, fsync, one rename, fsync of the directory.

        What stood there before is replaced, never followed. Without `durable` both fsyncs are left out: for
        a tree that is written to disk as a whole afterwards. `owner`: uid and gid, if not our own. Raises
        OSError; nothing changed then.
        """
        parent, name = self._parent(path)
        with parent:
            temporary = f".{name}.{secrets.token_hex(6)}"
            fd = os.open(
                temporary,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                mode & 0o777,
                dir_fd=parent.fd,
            )
            try:
                try:
                    if owner is not None:
                        os.fchown(fd, *owner)
                    os.fchmod(fd, mode)
                    view = memoryview(data)
                    while view:
                        view = view[os.write(fd, view) :]
                    if durable:
                        os.fsync(fd)
                finally:
                    os.close(fd)
                os.rename(temporary, name, src_dir_fd=parent.fd, dst_dir_fd=parent.fd)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):  # an interrupt right after the rename
                    os.unlink(temporary, dir_fd=parent.fd)
                raise
            if durable:
                os.fsync(parent.fd)

    def sweep(self, name: str = "") -> int:
        """Remove what a write_whole that was killed left here, of file `name` or of any; return how many.

        The caller holds the lock, so nobody is writing. Raises OSError.
        """
        count = 0
        for entry in os.listdir(self.fd):
            if _TEMPORARY.fullmatch(entry) and entry.startswith(f".{name}." if name else "."):
                found = self.lstat(entry)
                if found is not None and stat.S_ISREG(found.st_mode):
                    os.unlink(entry, dir_fd=self.fd)
                    count += 1
        return count

    def create(self, name: str, mode: int) -> int:
        """Return a descriptor of a new file here, for writing. Raises FileExistsError, OSError."""
        fd = os.open(
            name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.fd
        )
        os.fchmod(fd, mode)
        return fd

    def scratch(self) -> int:
        """Return a descriptor of a new file here that has no name and goes when it is closed."""
        if hasattr(os, "O_TMPFILE"):
            return os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        name = f".scratch.{secrets.token_hex(6)}"
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        os.unlink(name, dir_fd=self.fd)
        return fd

    def rename(self, old: str, new: str) -> None:
        """Rename `old` to `new`, which must not exist, and make it last. Raises FileExistsError, OSError."""
        source, old_name = self._parent(old)
        with source:
            destination, new_name = self._parent(new)
            with destination:
                source.move(old_name, destination, new_name)
                os.fsync(source.fd)
                os.fsync(destination.fd)

    def move(self, name: str, to: Dir, new_name: str) -> None:
        """Move entry `name` into directory `to`, where it must not exist. Raises FileExistsError, OSError."""
        if to.lstat(new_name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to.show(new_name))
        os.rename(name, new_name, src_dir_fd=self.fd, dst_dir_fd=to.fd)

    def replace(self, name: str, to: Dir, new_name: str) -> None:
        """Move entry `name` into directory `to`, in the place of what is there. Raises OSError."""
        os.rename(name, new_name, src_dir_fd=self.fd, dst_dir_fd=to.fd)

    def unlink(self, path: str) -> None:
        """Remove the file or link `path`. Raises OSError."""
        parent, name = self._parent(path)
        with parent:
            os.unlink(name, dir_fd=parent.fd)

    def rmdir(self, path: str) -> None:
        """Remove the empty directory `path`. Raises OSError."""
        parent, name = self._parent(path)
        with parent:
            os.rmdir(name, dir_fd=parent.fd)

    def chown_chmod(self, path: str, mode: int, uid: int, gid: int) -> None:
        """Give directory `path` this owner and exactly this mode. Raises LayoutError, OSError."""
        with self.open(path) as found:
            os.fchown(found.fd, uid, gid)
            os.fchmod(found.fd, mode)

    def sync(self) -> None:
        """Write the file system that holds this directory to its disk."""
        if sys.platform == "linux":
            from layout.host.linux import syscalls

            syscalls.syncfs(self.fd)
        else:
            os.sync()


def open_root(path: str) -> Dir:
    """Open ROOT or ETC by its absolute path, one component at a time: none of them may be a link.

    Raises FileNotFoundError, or LayoutError that names the first component which is no real directory.
    """
    here = Dir(os.open("/", DIRECTORY), "")
    for part in [part for part in path.split("/") if part]:
        try:
            below = here.open(part)
        finally:
            here.close()
        here = below
    here.path = here.path or "/"
    return here
