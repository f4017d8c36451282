"""One lock keeps two runs apart. It is held by a descriptor that no child inherits."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import sys
from collections.abc import Iterator

from layout.core.errors import LayoutError
from layout.host.beneath import Dir

ROOT = "lock"
"""The lock of everything that changes ROOT."""


@contextlib.contextmanager
def held(state: Dir, name: str, what: str) -> Iterator[None]:
    """Hold lock file `name` in the directory of layout's state.

    Raises LayoutError that names the holder when another process has it. The file's text is only for that
    message; what counts is flock(2), which the kernel releases when the holder dies in whatever way.
    """
    path = state.show(name)
    fd = os.open(
        name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=state.fd
    )  # close-on-exec, and forked children close every descriptor first
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise LayoutError(path, error.strerror or "an error", "a lock that can be taken") from None
            holder = os.pread(fd, 400, 0).decode("utf-8", "replace").strip() or "another process"
            raise LayoutError(
                path, f"a lock held by {holder}", what, "wait for it to end, then try again"
            ) from None
        os.ftruncate(fd, 0)
        words = shlex.join(["layout", *sys.argv[1:]])[:300]
        os.pwrite(fd, f"process {os.getpid()} ({words})\n".encode("utf-8", "replace"), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def holder(state: Dir, name: str) -> str | None:
    """Return who holds lock `name`, or None when nobody does."""
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state.fd)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(fd, 400, 0).decode("utf-8", "replace").strip() or "another process"
    else:
        return None
    finally:
        os.close(fd)
