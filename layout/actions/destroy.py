"""`layout destroy`: remove one jail, after making sure that nothing is mounted or running below it."""

from __future__ import annotations

import msgspec

from layout.actions import mounting
from layout.actions.context import Context
from layout.core.errors import LayoutError
from layout.core.model import Platform
from layout.core.names import check_name
from layout.host import hostfiles, locks, records
from layout.host.beneath import Dir, remove_tree
from layout.host.linux import holders
from layout.host.records import JailRecord
from layout.host.site import running_platform

PLACES = ("j", "manage", "s", "t")


def destroy(context: Context, name: str) -> int:
    """Remove jail `name` with its trees, tables and record; return the number of entries removed.

    Raises LayoutError, before anything is removed, when something is mounted at or below one of its
    directories, a process has its root or working directory there, or a manage session is open.
    """
    check_name(name)
    with context.open() as root, root.open(".layout") as state:
        record = records.jail(state, name)
        if record is None:
            raise LayoutError(name, "no such jail", "one that layout made", "layout status lists them")
        _refuse(context, root, state, name)
        # From here on a crash leaves a jail that can only be destroyed: never half a jail that looks whole.
        records.write(state, f"jails/{name}.toml", msgspec.structs.replace(record, state="destroying"))
        return finish(context, root, state, record)


def finish(context: Context, root: Dir, state: Dir, record: JailRecord) -> int:
    """Remove what there is of a jail that is being destroyed. Done again after a crash, it goes on."""
    name = record.name
    _refuse(context, root, state, name)
    count = 0
    for place in PLACES:
        try:
            with root.open(place) as parent:
                count += remove_tree(parent, name)
                count += remove_tree(parent, f".new-{name}")
        except FileNotFoundError:
            continue
    for kind in ("fstab", "manage.fstab"):
        count += hostfiles.remove(f"{context.site.etc}/fstab.d/{name}.{kind}")
    if state.lstat(f"manage-{name}.lock") is not None:
        state.unlink(f"manage-{name}.lock")
    state.unlink(f"jails/{name}.toml")
    return count


def _refuse(context: Context, root: Dir, state: Dir, name: str) -> None:
    if running_platform() is Platform.LINUX:
        for mount in mounting.anything_below(context.site, root, name):
            raise LayoutError(
                mount.target,
                f"a mount of {mount.source}",
                "nothing mounted below a jail that is destroyed",
                f"layout umount {name}",
            )
        found = holders.below([f"{context.site.root}/{place}/{name}" for place in PLACES])
        if found:
            raise LayoutError(
                f"{context.site.root}/j/{name}",
                holders.describe(found),
                "nothing that runs in it",
                "stop it first",
            )
    session = locks.holder(state, f"manage-{name}.lock")
    if session is not None:
        raise LayoutError(name, f"a manage session of {session}", "none", "end the session first")
