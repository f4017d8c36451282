"""Mount and unmount single file systems by mount(8) and umount(8), each call checked against the table.

umount(8) takes a name that is no mount point for the source of a mount, and takes that away; a nullfs
mounted twice fails with EDEADLK or hides the first. So nothing is done here without a look at the table.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from layout.core.errors import LayoutError
from layout.core.model import Mount
from layout.core.mountlist import Line
from layout.host.beneath import open_root
from layout.host.freebsd import table
from layout.host.run import CommandError, run

_OF_FSTAB = frozenset({"noauto", "late", "failok"})
"""Words for whoever reads the table at boot (fstab(5)); a mount that is made now has no use for them."""


class Busy(OSError):
    """EBUSY: somebody uses it."""


def attach(mount: Mount) -> None:
    """Make one mount. Raises LayoutError when it cannot be made, or its ends are not real directories.

    The caller has looked at the table: nothing is mounted on its mount point.
    """
    ends = [mount.target, mount.source] if mount.source.startswith("/") else [mount.target]
    for path in ends:
        try:
            # mount_nullfs follows links at both ends.
            open_root(path).close()
        except FileNotFoundError:
            hint = "layout init makes what is missing"
            raise LayoutError(path, "no such directory", "a directory to mount", hint) from None
    options = ",".join(word for word in mount.options if word.partition("=")[0] not in _OF_FSTAB)
    run("mount", "-t", mount.fstype, "-o", options, mount.source, mount.target)


def is_made(mount: Mount) -> bool:
    """Say whether the topmost mount on its mount point is this one. Raises LayoutError."""
    top = topmost(mount.target, table.lines())
    if top is None or top.fstype != mount.fstype:
        return False
    return not mount.source.startswith("/") or top.special == mount.source


def topmost(target: str, lines: Sequence[Line]) -> Line | None:
    """Return the newest mount on `target`."""
    return next((line for line in reversed(lines) if line.node == target), None)


def detach(target: str, lines: Sequence[Line]) -> list[Line]:
    """Take away the newest mount on `target`; as detach_line, and FileNotFoundError when there is none."""
    top = topmost(target, lines)
    if top is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target)
    return detach_line(top, lines)


def detach_line(mounted: Line, lines: Sequence[Line]) -> list[Line]:
    """Take one mount away; return the table as it is then.

    `lines` is the table just read, with `mounted` in it. Raises Busy, FileNotFoundError when it is gone
    already, LayoutError when it cannot be named beyond doubt or is still there afterwards.
    """
    target = mounted.node
    if mounted not in lines:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target)
    doubtful = sum(line.node == target for line in lines) > 1 or any(line.special == target for line in lines)
    if not mounted.fsid and doubtful:
        hint = "umount it yourself by the fsid that mount -v prints"
        raise LayoutError(target, "a name that fits several mounts", "one with an fsid", hint)
    try:
        run("umount", mounted.fsid or target)
    except CommandError as problem:
        if "busy" in problem.stderr.lower():
            raise Busy(errno.EBUSY, os.strerror(errno.EBUSY), target) from None
        raise
    now = table.lines()
    if mounted in now:
        raise LayoutError(target, "still a mount", "none", "somebody mounts it: try again")
    return now
