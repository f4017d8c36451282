"""The live mount table of the platform that runs, as the same records on both."""

from __future__ import annotations

from typing import assert_never

from layout.core.model import Platform
from layout.core.mountinfo import MountPoint
from layout.host.site import running_platform


def read(prefix: str = "/") -> list[MountPoint]:
    """Return the mounts at and below `prefix`, the later of two on one point on top. Raises LayoutError."""
    match running_platform():
        case Platform.LINUX:
            from layout.host.linux import table as linux

            return linux.read(prefix)
        case Platform.FREEBSD:
            from layout.host.freebsd import table as freebsd

            return freebsd.read(prefix)
        case other:
            assert_never(other)
