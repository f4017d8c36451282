"""Distribution sets on this host: where an installer leaves them, and their digests."""

from __future__ import annotations

import hashlib
import os

DIST = "/usr/freebsd-dist/base.txz"
"""Where bsdinstall(8) keeps the sets that it was started with."""
MANIFESTS = "/usr/local/share/freebsd/MANIFESTS"
"""One MANIFEST for each release, from the package freebsd-release-manifests."""

_PIECE = 1 << 20
_known: dict[tuple[int, ...], str] = {}


def digest(fd: int) -> str:
    """Return the SHA-256 of an open regular file in hexadecimal; its offset moves. Raises OSError.

    Known again as long as the file stays the same one, unchanged: a run asks more than once.
    """
    before = _identity(fd)
    if before not in _known:
        os.lseek(fd, 0, os.SEEK_SET)
        hashed = hashlib.sha256()
        while piece := os.read(fd, _PIECE):
            hashed.update(piece)
        if _identity(fd) != before:
            return hashed.hexdigest()
        _known[before] = hashed.hexdigest()
    return _known[before]


def _identity(fd: int) -> tuple[int, ...]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def manifests() -> list[str]:
    """Return the paths of the MANIFESTs of releases on this host, none without their package."""
    try:
        names = os.listdir(MANIFESTS)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{MANIFESTS}/{name}" for name in sorted(names) if not name.startswith(".")]
