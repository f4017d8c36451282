"""MANIFEST of the FreeBSD distribution sets: which SHA-256 each archive of a release has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from layout.core.errors import LayoutError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = 'file, sha256, entries, set, "description", on|off, separated by tabs'
_HINT = "fetch it again from the directory of the release that the archive came from"


@dataclass(frozen=True, slots=True)
class Distribution:
    """One set of a release (release/scripts/make-manifest.sh)."""

    file: str
    """Name of the archive: base.txz."""
    sha256: str
    entries: int
    name: str
    description: str


def parse(text: str, path: str) -> dict[str, Distribution]:
    """Return the sets of a MANIFEST by the names of their files; `path` names it in errors.

    Raises LayoutError for any line that make-manifest.sh would not write, and for a file with none.
    """
    found: dict[str, Distribution] = {}
    lines = text.split("\n")
    if lines.pop():
        raise LayoutError(path, "a last line without its end", _FIELDS, _HINT)
    if not lines:
        raise LayoutError(path, "an empty file", _FIELDS, _HINT)
    for number, line in enumerate(lines, start=1):
        one = _distribution(line)
        if one is None:
            raise LayoutError(path, f"{line[:80]!r} in line {number}", _FIELDS, _HINT)
        if one.file in found:
            raise LayoutError(path, f"{one.file} again in line {number}", "each file once", _HINT)
        found[one.file] = one
    return found


def _distribution(line: str) -> Distribution | None:
    fields = line.split("\t")
    if len(fields) != 6:
        return None
    file, sha256, entries, name, description, switch = fields
    if (
        not _NAME.fullmatch(file)
        or not _SHA256.fullmatch(sha256)
        or not (entries.isascii() and entries.isdigit() and len(entries) < 12)
        or not _NAME.fullmatch(name)
        or len(description) < 2
        or description[0] + description[-1] != '""'
        or switch not in {"on", "off"}
    ):
        return None
    return Distribution(file, sha256, int(entries), name, description[1:-1])


def compare(sets: Mapping[str, Distribution], manifest: str, file: str, archive: str, sha256: str) -> None:
    """Make sure that `archive`, whose digest is `sha256`, is the `file` that the manifest speaks of.

    Raises LayoutError.
    """
    wanted = sets.get(file)
    if wanted is None:
        known = ", ".join(sorted(sets))
        raise LayoutError(
            manifest,
            f"no {file}, only {known}",
            f"a line for {file}",
            "give the archive under its own name, or keep one that is no set of a release elsewhere",
        )
    if wanted.sha256 != sha256:
        raise LayoutError(
            archive,
            f"sha256 {sha256}",
            f"{wanted.sha256}, as {manifest} says",
            "nothing was changed; it is damaged, or of another release: fetch both again",
        )
