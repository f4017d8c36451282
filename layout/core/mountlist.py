"""What mount(8) of FreeBSD says is mounted, as the same records that mountinfo gives on Linux.

A nullfs names its source by path; here it becomes what that path showed when it was mounted: a file system
and a path inside of it. The list is in the order of mounting, as getfsstat(2) returns it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from layout.core.errors import LayoutError
from layout.core.mountinfo import MountPoint

_FORM = "a list of mounts"
_WORDS = {"read-only": "ro"}
_FSID = re.compile(r"[0-9a-f]{16}")
_FIELDS = 4
"""Of a line of `mount -p`: device, mount point, type and options come before dump and pass."""


class Line(msgspec.Struct, frozen=True):
    """One mount as mount(8) prints it; `fsid` is "" where it does not say."""

    special: str
    node: str
    fstype: str
    options: frozenset[str]
    fsid: str = ""


def from_json(text: str, name: str = "mount -v --libxo=json") -> list[Line]:
    """Return the mounts in the JSON of xo_options(7). Raises LayoutError for anything else."""
    try:
        rows = json.loads(text)["mount"]["mounted"]
        return [_line(row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LayoutError(name, repr(text[:80]), _FORM) from None


def _line(row: dict[str, Any]) -> Line:
    words = {_WORDS.get(word, word) for word in row.get("opts", [])}
    fsid = row.get("fsid", "")
    special, node, fstype = row["special"], row["node"], row["fstype"]
    if not (isinstance(special, str) and isinstance(fstype, str) and node.startswith("/")):
        raise TypeError
    return Line(
        special,
        node,
        fstype,
        frozenset(words if "ro" in words else {*words, "rw"}),
        fsid if _FSID.fullmatch(fsid) else "",
    )


def from_fstab(text: str, name: str = "mount -p") -> list[Line]:
    """Return the mounts in the lines of `mount -p`, which escapes nothing.

    Raises LayoutError for a line of more or fewer than its six fields: a path with a blank cannot be told
    from two fields.
    """
    found = []
    for number, text_line in enumerate(text.splitlines(), 1):
        fields = text_line.split()
        if len(fields) != _FIELDS + 2 or not fields[1].startswith("/"):
            hint = "a path with a blank can only be read by a mount(8) with libxo: FreeBSD 14 has it"
            raise LayoutError(f"{name}:{number}", repr(text_line[:80]), "six fields", hint)
        special, node, fstype, options = fields[:_FIELDS]
        found.append(Line(special, node, fstype, frozenset(options.split(","))))
    return found


def mount_points(lines: Iterable[Line]) -> list[MountPoint]:
    """Return the same as records; the number of a line is the ID of its mount, and 0 is nobody's."""
    made: list[MountPoint] = []
    tops: dict[str, MountPoint] = {}
    for number, line in enumerate(lines, 1):
        under = _containing(tops, line.node)
        dev = line.fsid or f"{line.fstype}:{line.special}:{line.node}"
        root = "/"
        below = ""
        if line.fstype == "nullfs":
            lower = _containing(tops, line.special)
            if lower is not None:
                dev = lower.dev
                rest = line.special[len(lower.target.rstrip("/")) :]
                root = f"{lower.root.rstrip('/')}{rest}" or "/"
                if "ro" in lower.options or lower.super_options == "ro":
                    below = "ro"
        mount = MountPoint(
            number,
            under.mount_id if under is not None else 0,
            dev,
            root,
            line.node,
            line.options,
            "",
            line.fstype,
            line.special,
            below,
        )
        made.append(mount)
        tops[line.node] = mount
    return made


def _containing(tops: dict[str, MountPoint], path: str) -> MountPoint | None:
    """Return the topmost mount that a path lies on, by its components."""
    here = path.rstrip("/")
    while here:
        if here in tops:
            return tops[here]
        here = here.rpartition("/")[0]
    return tops.get("/")
