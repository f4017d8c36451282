"""The live mount table as mount(8) prints it, read whole and once."""

from __future__ import annotations

from layout.core import mountlist
from layout.core.errors import LayoutError
from layout.core.mountinfo import MountPoint, below
from layout.core.mountlist import Line
from layout.host.run import run


def lines() -> list[Line]:
    """Return every mount in the order of mounting. Raises LayoutError: without it nothing can be proven.

    From `mount -v --libxo=json`, which escapes what is odd in a name. A mount(8) without libxo (before
    FreeBSD 14) is asked with -p, as long as no path has a blank.
    """
    done = run("mount", "-v", "--libxo=json", ok=range(256))
    if done.status == 0 and done.stdout.lstrip().startswith("{"):
        return mountlist.from_json(done.stdout)
    return mountlist.from_fstab(run("mount", "-p").stdout)


def read(prefix: str = "/") -> list[MountPoint]:
    """Return the mounts at and below `prefix`, the later ones on top. Raises LayoutError."""
    found = mountlist.mount_points(lines())
    if not any(mount.target == "/" for mount in found):
        raise LayoutError("mount", "no mount on /", "the mount table of the host", "run it on the host")
    return below(found, prefix)
