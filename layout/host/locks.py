"""One lock keeps two runs apart. It is held by a descriptor that no child inherits."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import sys
import time
from collections.abc import Iterator

from layout.core.errors import LayoutError, reason_of
from layout.host.beneath import Dir

ROOT = "lock"
"""The lock of everything that changes ROOT."""


_PATIENCE = 20
"""Tries, a hundredth of a second apart: a holder that has just got the lock has yet to write its name."""


@contextlib.contextmanager
def held(state: Dir, name: str, what: str) -> Iterator[None]:
    """Hold lock file `name` in the directory of layout's state.

    Raises LayoutError that names the holder when another process has it. The file's text is only for that
    message; what counts is flock(2), which the kernel releases when the holder dies in whatever way.
    """
    path = state.show(name)
    fd = _take(state, name, path, what)
    try:
        os.ftruncate(fd, 0)
        words = shlex.join(["layout", *sys.argv[1:]])[:300]
        # On a full disk the lock is as good without its text, and whoever stops or unmounts must get it.
        with contextlib.suppress(OSError):
            os.pwrite(fd, f"process {os.getpid()} ({words})\n".encode("utf-8", "replace"), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _take(state: Dir, name: str, path: str, what: str) -> int:
    """Return a descriptor that has the lock."""
    for tries in range(_PATIENCE + 1):
        fd = os.open(
            name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=state.fd
        )  # close-on-exec, and forked children close every descriptor first
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # An init that failed takes its lock file away: a lock on a file without a name keeps nobody out.
            if state.is_same(name, fd):
                return fd
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                os.close(fd)
                raise LayoutError(path, reason_of(error), "a lock that can be taken") from None
            who = _text(fd)
            if who or tries == _PATIENCE:
                os.close(fd)
                raise _busy(path, who, what) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        time.sleep(0.01)
    raise LayoutError(path, "a lock file that comes and goes", what, "try again")


def _busy(path: str, who: str, what: str) -> LayoutError:
    hint = "wait for it to end, then try again"
    return LayoutError(path, f"a lock held by {who or 'another process'}", what, hint)


def refuse_held(state: Dir, name: str, what: str) -> None:
    """Raise LayoutError that names the holder if another process has the lock now."""
    who = holder(state, name)
    if who is not None:
        raise _busy(state.show(name), who, what)


def _text(fd: int) -> str:
    return os.pread(fd, 400, 0).decode("utf-8", "replace").strip()


def holder(state: Dir, name: str) -> str | None:
    """Return who holds lock `name`, or None when nobody does."""
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state.fd)
    except FileNotFoundError:
        return None
    try:
        for _ in range(_PATIENCE):
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                who = _text(fd)
                if who:
                    return who
                time.sleep(0.01)
            else:
                return None
        return "another process"
    finally:
        os.close(fd)
