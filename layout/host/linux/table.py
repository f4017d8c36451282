"""The live mount table of this process's namespace, read whole and once."""

from __future__ import annotations

import os

from layout.core import mountinfo
from layout.core.errors import LayoutError, reason_of
from layout.core.mountinfo import MountPoint

PATH = "/proc/self/mountinfo"


def read_bytes(path: str = PATH) -> bytes:
    """Return the kernel's text. Raises LayoutError: without it nothing can be proven."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LayoutError(path, reason_of(error), "the mount table", "is /proc mounted?") from None
    try:
        pieces = []
        while piece := os.read(fd, 1 << 20):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def read(prefix: str = "/") -> list[MountPoint]:
    """Return the mounts at and below `prefix`, in the kernel's order. Raises LayoutError."""
    return mountinfo.parse(read_bytes(), os.fsencode(prefix))
