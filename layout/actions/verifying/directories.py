"""Check of the directories of the host that a jail writes to: users of the host may reach them."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from layout.actions.verifying.scene import JailScene
from layout.core.findings import Finding, warning
from layout.host.beneath import open_root

_REACHED_BY_OTHERS = stat.S_IXOTH


def closed(scene: JailScene) -> Iterator[Finding]:
    """S4: no user of the host reaches a setuid file that a jail makes in a directory of the host.

    In the jail its mount is nosuid; on the host the directory is what its own file system makes of it.
    For t the mode of ROOT does this.
    """
    for mount in scene.jail.settings.mounts:
        if not mount.writable:
            continue
        scene.scene.checks += 1
        under = scene.scene.live.under(mount.source)
        if under is not None and "nosuid" in under.options:
            continue
        if _is_reached(mount.source):
            hint = (
                f"chmod o-x {mount.source}, or mount it nosuid: a setuid file that the jail makes there works"
            )
            found = "a directory that the jail writes to, open to every user of the host"
            yield warning("S4-open", mount.source, found, "one closed to others, or nosuid on the host", hint)


def _is_reached(path: str) -> bool:
    """Say whether users of the host get into a directory; into none that is not there. Raises OSError."""
    parts = [part for part in path.split("/") if part]
    with open_root("/") as top:
        for number in range(len(parts)):
            status = top.lstat("/".join(parts[: number + 1]))
            if status is None or not stat.S_ISDIR(status.st_mode):
                return False  # reported as missing, and never mounted
            if not status.st_mode & _REACHED_BY_OTHERS:
                return False
    return True
