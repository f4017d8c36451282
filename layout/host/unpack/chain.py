"""Open directories one component at a time, and keep the current path open: archives go depth first."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from layout.host.unpack.report import ArchiveError

__all__ = ["Chain"]

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Chain:
    """The descriptors of one path, from the root of this process down; at most one for each level."""

    def __init__(self, implied: Callable[[bytes], None] | None) -> None:
        """`implied` is told of every directory made because it was missing; None makes none."""
        self._implied = implied
        self.root = os.open("/", _OPEN)
        self.path = b""
        self.fd = self.root
        self._names: list[bytes] = []
        self._fds: list[int] = []

    def open(self, path: bytes, entry: bytes) -> int:
        """Return a descriptor of a clean path, b"" for the root; it is the chain's own.

        Raise ArchiveError, naming `entry`, when a component is a symbolic link or no directory.
        """
        if path == self.path:
            return self.fd
        names = path.split(b"/") if path else []
        same = 0
        for old, new in zip(self._names, names, strict=False):
            if old != new:
                break
            same += 1
        while len(self._fds) > same:
            os.close(self._fds.pop())
            self._names.pop()
        fd = self._fds[-1] if self._fds else self.root
        # Set before anything can fail: path and descriptors must never disagree.
        self.path, self.fd = b"/".join(self._names), fd
        for name in names[same:]:
            fd = self._enter(fd, name, b"/".join((*self._names, name)), entry)
            self._fds.append(fd)
            self._names.append(name)
        self.path, self.fd = path, fd
        return fd

    def _enter(self, fd: int, name: bytes, path: bytes, entry: bytes) -> int:
        try:
            return os.open(name, _OPEN, dir_fd=fd)
        except OSError as error:
            # EMLINK is FreeBSD's ELOOP for O_NOFOLLOW.
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
                raise ArchiveError(
                    os.fsdecode(entry),
                    f"a name that leads through {os.fsdecode(path)!r}, which is no directory",
                    "directories on the way, never a symbolic link",
                ) from None
            if error.errno != errno.ENOENT or self._implied is None:
                raise
        os.mkdir(name, 0o700, dir_fd=fd)
        self._implied(path)
        return os.open(name, _OPEN, dir_fd=fd)
