"""Is an archive the distribution set that it claims to be? Its MANIFEST says so, or nothing does."""

from __future__ import annotations

import os
from dataclasses import dataclass

from layout.core import distribution
from layout.core.errors import LayoutError
from layout.host import hostfiles
from layout.host.freebsd import sets

_LARGE = 1 << 30
_SPARSE = 64
"""By how much a compressing file system may make an archive of more than _LARGE bytes smaller."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The digest of an archive, and what is to be said of it."""

    sha256: str
    notes: tuple[str, ...] = ()


def check_archive(source: str) -> Checked:
    """Compare a base archive for FreeBSD with its MANIFEST: the one beside it, else those of this host.

    Raises LayoutError for another digest, for an archive that the MANIFEST does not have, and for a
    MANIFEST that cannot be understood; OSError.
    """
    archive = hostfiles.open_regular(source)
    try:
        return check_open(archive, source)
    finally:
        os.close(archive)


def _refuse_holes(archive: int, source: str) -> None:
    """Refuse a file of nothing but holes, which takes hours to hash and is no archive. Raises LayoutError."""
    found = os.fstat(archive)
    on_disk = found.st_blocks * 512
    if found.st_size > _LARGE and on_disk < found.st_size // _SPARSE:
        raise LayoutError(source, f"{found.st_size} bytes, of which {on_disk} are on disk", "an archive")


def check_open(archive: int, source: str) -> Checked:
    """As check_archive, for what is open as `archive` already: what is unpacked is what was checked."""
    _refuse_holes(archive, source)
    sha256 = sets.digest(archive)
    file = source.rpartition("/")[2]
    for place in dict.fromkeys((source, hostfiles.canonical(source))):
        beside = f"{place.rpartition('/')[0]}/MANIFEST"
        text = hostfiles.read_text(beside)
        if text is not None:
            distribution.compare(distribution.parse(text, beside), beside, file, source, sha256)
            return Checked(sha256, (f"sha256 as in {beside}",))
    expected = []
    for path in sets.manifests():
        known = distribution.parse(hostfiles.read_text(path) or "", path).get(file)
        if known is not None and known.sha256 == sha256:
            return Checked(sha256, (f"sha256 as in {path}",))
        if known is not None:
            expected.append(path.rpartition("/")[2])
    if expected:
        raise LayoutError(
            source,
            f"sha256 {sha256}",
            f"that of one of {', '.join(expected)} in {sets.MANIFESTS}",
            "nothing was changed; put the MANIFEST of its release beside it, or update "
            "freebsd-release-manifests",
        )
    return Checked(
        sha256,
        (f"sha256 not checked: no MANIFEST beside {source}, none in {sets.MANIFESTS} that has {file}",),
    )
