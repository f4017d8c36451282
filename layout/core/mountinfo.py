"""/proc/self/mountinfo: the kernel's own list of mounts, parsed fast enough for tens of thousands of them.

The form is in proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS [TAG...] - TYPE SOURCE SUPER.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from layout.core.errors import LayoutError


class MountPoint(NamedTuple):
    """One mount as the kernel has it. Paths are str as os.fsdecode gives them."""

    mount_id: int
    parent_id: int
    """Of the mount that this one lies on; the root of a namespace names one that is not listed."""
    dev: str
    """st_dev of what is in it, as "MAJOR:MINOR"."""
    root: str
    """What is mounted: a path inside its file system. An unlinked one ends in "//deleted"."""
    target: str
    """The mount point, seen from the root of the reader."""
    options: frozenset[str]
    """Flags of this mount (ro, nosuid, relatime...): they decide what can be written through it."""
    propagation: str
    """The tags shared:N, master:N, propagate_from:N, unbindable with blanks between; "" is private."""
    fstype: str
    source: str
    super_options: str
    """Options of the file system itself, not split: rw here says nothing about this mount."""


# The kernel writes a blank, tab, newline or backslash of a name as three octal digits (seq_escape).
_OCTAL = re.compile(rb"\\([0-7]{3})")
_KERNEL_ESCAPES = ((b"\\", rb"\134"), (b" ", rb"\040"), (b"\t", rb"\011"), (b"\n", rb"\012"))
_FORM = "ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS [TAG...] - TYPE SOURCE SUPER"


def _decode(field: str) -> str:
    if "\\" not in field:
        return field
    data = field.encode("utf-8", "surrogateescape")
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), data).decode("utf-8", "surrogateescape")


def _rest(rest: str) -> tuple[str, str, str, str]:
    """Return propagation, type, source and super options from what follows the options."""
    if rest.startswith("- "):
        tags, tail = "", rest[2:]
    else:
        tags, dash, tail = rest.partition(" - ")
        if not dash:
            raise ValueError
    # SOURCE may be empty, and SUPER is whatever the file system printed: only two blanks separate.
    fstype, source, super_options = tail.split(" ", 2)
    return tags, _decode(fstype), _decode(source), _decode(super_options)


def _candidates(data: bytes, prefix: bytes) -> Iterable[tuple[int, str]]:
    """Return the lines, numbered from 1, without most of those that cannot name a path below prefix."""
    if not prefix:
        # One decode for the whole is faster than one for each field.
        text = data.decode("utf-8", "surrogateescape").split("\n")
        if not text[-1]:
            text.pop()
        return enumerate(text, 1)
    needle = prefix
    for plain, escaped in _KERNEL_ESCAPES:
        needle = needle.replace(plain, escaped)
    # '#' is escaped in some fields by some kernels, so it takes no part in the search before decoding.
    needle = b" " + needle.partition(b"#")[0]
    lines = enumerate(data.split(b"\n"), 1)
    return [(number, line.decode("utf-8", "surrogateescape")) for number, line in lines if needle in line]


def parse(data: bytes, prefix: bytes = b"/", name: str = "/proc/self/mountinfo") -> list[MountPoint]:
    """Return the mounts at or below `prefix`, a decoded path, in the kernel's order: later ones lie on top.

    Other lines are passed over, most of them before they are taken apart. Raises LayoutError naming `name`
    and the line for one that is not of the form in proc_pid_mountinfo(5), as after a read that was cut short.
    """
    prefix = prefix.rstrip(b"/")
    wanted = prefix.decode("utf-8", "surrogateescape")
    inside = wanted + "/"
    # Few combinations of options and file systems occur: each is split once and shared by all that have it.
    flags: dict[str, frozenset[str]] = {}
    rests: dict[str, tuple[str, str, str, str]] = {}
    mounts: list[MountPoint] = []
    make = tuple.__new__
    for number, line in _candidates(data, prefix):
        try:
            mount_id, parent_id, dev, root, target, options, rest = line.split(" ", 6)
            if "\\" in line:
                root, target = _decode(root), _decode(target)
            if prefix and target != wanted and not target.startswith(inside):
                continue
            if target[:1] != "/":
                raise ValueError
            words = flags.get(options)
            if words is None:
                words = flags[options] = frozenset(options.split(","))
            tail = rests.get(rest)
            if tail is None:
                tail = rests[rest] = _rest(rest)
            fields = (int(mount_id), int(parent_id), dev, root, target, words, *tail)
        except ValueError:
            # Too few fields, a letter where a number belongs, or no absolute path.
            hint = "read the file again, from its start to its end"
            raise LayoutError(f"{name}:{number}", repr(line[:80]), _FORM, hint) from None
        # tuple.__new__ is what MountPoint._make calls, without a second look at the length.
        mounts.append(make(MountPoint, fields))
    return mounts


def below(mounts: Iterable[MountPoint], prefix: str) -> list[MountPoint]:
    """Return the mounts at `prefix` or below it, in order: /jails/j/a does not hold /jails/j/ab."""
    prefix = prefix.rstrip("/")
    if not prefix:
        return list(mounts)
    inside = prefix + "/"
    return [mount for mount in mounts if mount.target == prefix or mount.target.startswith(inside)]
