"""What a process of a jail sees as its root, and what is mounted there, by /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator

from layout.core import mountinfo
from layout.core.errors import LayoutError
from layout.host.linux import table

_PRIVATE = ("/dev/shm", "/dev/pts", "/proc", "/run")  # noqa: S108 - names in a jail, which are compared only
"""What an engine mounts for one jail alone, empty: writable, and gone with it."""


def identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a directory, None when it cannot be seen: a process that has ended."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_private(target: str) -> bool:
    """Say whether a mount point of a jail is one of the engine's own file systems."""
    return target in _PRIVATE or target.startswith(("/proc/", "/dev/"))


def mounts(pid: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield mount point and options of everything that a process sees; nothing when it has ended."""
    try:
        found = mountinfo.parse(table.read_bytes(f"/proc/{pid}/mountinfo"))
    except (LayoutError, OSError):
        return
    last = {one.target: one for one in found}
    for target, one in last.items():
        yield target, tuple(one.options)
