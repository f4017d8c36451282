"""What an unpacked archive held: the result of `unpack`, and the messages its children send to the parent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from layout.core.errors import LayoutError

__all__ = [
    "ArchiveError",
    "Done",
    "Failed",
    "Message",
    "NotAnArchive",
    "Privileged",
    "Unpacked",
]


class ArchiveError(LayoutError):
    """An archive that is damaged, hostile, or uses what we refuse; `path` is the entry's name, or ""."""


class NotAnArchive(ArchiveError):
    """The input is no tar archive at all."""


@dataclass(frozen=True, slots=True)
class Privileged:
    """A setuid or setgid entry, or a file with capabilities(7), as it lies on disk."""

    path: str
    kind: Literal["file", "dir"]
    mode: int
    """Permission bits, 07777."""
    uid: int
    gid: int
    capability: bool = False
    """security.capability was set on it."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Counts of one unpacked archive."""

    entries: int
    """Members of the archive, those left out included."""
    bytes: int
    """Bytes of file content written; a hard link adds none."""
    left_out: dict[str, int]
    """How many were not made, by kind: device, fifo, xattr, acl, flags; kinds without any are absent."""
    setuid: tuple[Privileged, ...]
    """Every setuid, setgid or capability-carrying entry, in the order of the archive."""
    unmapped: int
    """Entries whose owner the user namespace does not map: they belong to 0:0 and lost setuid and setgid."""
    flags: tuple[tuple[str, str], ...] = ()
    """File flags that the archive has, by path, as chflags(1) names them: counted as left out, to be set once
    everything is in its place."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """A child finished. Names travel as bytes: msgpack text must be UTF-8, and names need not be."""

    entries: int = 0
    bytes_: int = 0
    left_out: dict[str, int] = {}
    setuid: list[tuple[bytes, Literal["file", "dir"], int, int, int, bool]] = []
    unmapped: int = 0
    flags: list[tuple[bytes, bytes]] = []


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A child failed: the parts of a LayoutError."""

    entry: bytes
    found: bytes
    expected: bytes
    hint: bytes = b""
    usage: bool = False
    consequence: bool = False
    """It only follows from what happened to the other child: the pipe between them was closed."""


Message = Done | Failed
