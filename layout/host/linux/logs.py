"""The logs of services: files of the host that only root reads, reached by descriptor."""

from __future__ import annotations

import os

from layout.core.errors import LayoutError, printable, reason_of
from layout.host.beneath import Dir
from layout.host.linux import syscalls

_TAIL = 8192
_GUARD = syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV | syscalls.ATTR_NOEXEC


def open_log(state: Dir, name: str) -> int:
    """Open the log of jail `name` for appending, made when it is missing; the caller closes it.

    By a mount of its own without programs: the jail has the descriptor, and where its root is the host's it
    could otherwise execute what it writes there. Raises LayoutError when something else is in its place.
    """
    if state.lstat("log") is None:
        state.make_dir("log", 0o700)
    with state.open("log") as logs:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            tree = syscalls.open_tree(logs.fd, b"")
            try:
                syscalls.mount_setattr(tree, attr_set=_GUARD, propagation=syscalls.MS_PRIVATE)
                return os.open(f"{name}.log", flags, 0o600, dir_fd=tree)
            finally:
                os.close(tree)
        except OSError as error:
            found = reason_of(error)
            raise LayoutError(logs.show(f"{name}.log"), found, "a log file") from None


def size(fd: int) -> int:
    """Return how long a log is."""
    return os.fstat(fd).st_size


def tail(state: Dir, name: str, lines: int, start: int = 0) -> list[str]:
    """Return the last lines written after byte `start`, escaped: they come from the jail."""
    try:
        fd = state.open_file(f"log/{name}.log")
    except (FileNotFoundError, LayoutError):
        return []
    try:
        end = os.fstat(fd).st_size
        begin = max(start if start <= end else 0, end - _TAIL)
        text = os.pread(fd, end - begin, begin)
    finally:
        os.close(fd)
    return [printable(line)[:300] for line in text.splitlines()[-lines:]]
