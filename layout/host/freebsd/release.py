"""What the running FreeBSD is: its kernel's release and its processor."""

from __future__ import annotations

from layout.host.run import run


def kernel() -> str:
    """Return the release of the running kernel, such as 15.0-RELEASE-p1. Raises LayoutError."""
    return run("uname", "-r").stdout.strip()


def processor() -> str:
    """Return the name that packages have for this processor, such as amd64 or aarch64. Raises LayoutError."""
    return run("uname", "-p").stdout.strip()
