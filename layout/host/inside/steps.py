"""What one attempt is: a system call or two that change nothing, or change it back."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
STALE = 60
"""Seconds after which a file of a probe is one that a killed probe left."""
OURS = re.compile(r"\.layout-probe-[0-9a-f]{16}")


def new_name() -> str:
    """Return a name that nobody else has, by which a stale one is known."""
    return f".layout-probe-{secrets.token_hex(8)}"


def is_directory(fd: int) -> bool:
    """Say whether a descriptor is that of a directory; not when it is closed."""
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    except OSError:
        return False


@contextlib.contextmanager
def untouched(fd: int) -> Iterator[None]:
    """Put the times of a directory back, unless somebody else changed it as well."""
    before = os.fstat(fd)
    yield
    after = os.fstat(fd)
    if after.st_mtime_ns != before.st_mtime_ns and entries_of(before) == entries_of(after):
        with contextlib.suppress(OSError):
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def entries_of(found: os.stat_result) -> tuple[int, int]:
    """Return what another change of a directory would most likely have changed too."""
    return found.st_nlink, found.st_size


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """Open a directory and put its times back in the end; -1 when a jail has removed it meanwhile."""
    try:
        fd = os.open(path, DIRECTORY)
    except OSError:
        yield -1
        return
    try:
        with untouched(fd):
            yield fd
    finally:
        os.close(fd)


def remove(fd: int, name: str) -> None:
    """Remove what a probe made."""
    with contextlib.suppress(OSError):  # root of the jail was faster
        os.unlink(name, dir_fd=fd)


def remove_stale(fd: int, name: str) -> None:
    """Remove what a killed probe left."""
    with contextlib.suppress(OSError):
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode) and time.time() - found.st_mtime > STALE:
            os.unlink(name, dir_fd=fd)


def open_node(fd: int, name: str) -> None:
    """Open a node. Raises OSError, as all that follow do: that is the outcome of an attempt."""
    os.close(os.open(name, READ, dir_fd=fd))


def open_fifo(path: str) -> None:
    """Open a FIFO for both ways, which waits for nobody."""
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))


def append_nothing(path: str) -> None:
    """Open a file for appending, and write nothing."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(path, flags))


def set_times(path: str, found: os.stat_result) -> None:
    """Give a file the times that it has."""
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def make_node(fd: int, name: str, kind: int, number: int) -> None:
    """Make a device node, mode 0600."""
    os.mknod(name, kind | 0o600, number, dir_fd=fd)


def rename_in(fd: int, old: str, new: str) -> None:
    """Rename within one directory."""
    os.rename(old, new, src_dir_fd=fd, dst_dir_fd=fd)


def link_into(path: str, fd: int, name: str) -> None:
    """Make another name of a file."""
    os.link(path, name, dst_dir_fd=fd, follow_symlinks=False)


def map_code(fd: int) -> None:
    """Map a file as code; nothing of it is run."""
    mmap.mmap(fd, 1, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


def make_and_remove(path: str) -> None:
    """Make a file, remove it, put the times of its directory back."""
    fd = os.open(path, DIRECTORY)
    try:
        with untouched(fd):
            name = new_name()
            os.close(os.open(name, NEW, 0o600, dir_fd=fd))
            remove(fd, name)
    finally:
        os.close(fd)


def look_into(path: str) -> None:
    """Read the first name of a directory."""
    with os.scandir(path) as entries:
        next(entries, None)


def executables(path: str) -> Iterator[str]:
    """Yield a file, or the first files of a directory."""
    try:
        with os.scandir(path) as entries:
            for number, entry in enumerate(entries):
                if number == 64:
                    return
                yield f"{path}/{entry.name}"
    except NotADirectoryError:
        yield path
    except OSError:
        return


def connect(path: str) -> None:
    """Connect to a socket, and say nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:
        client.connect(path)
