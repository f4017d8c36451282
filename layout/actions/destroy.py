"""`layout destroy`: remove one jail, after making sure that nothing is mounted or running below it."""

from __future__ import annotations

import contextlib
from typing import assert_never

import msgspec

from layout.actions import booting_freebsd, mounting
from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.core.errors import LayoutError
from layout.core.model import Platform
from layout.core.names import check_name
from layout.core.units import ROOT_IN_UNIT, quote, unit_name
from layout.host import hostfiles, locks, records
from layout.host.beneath import Dir, remove_tree
from layout.host.records import JailRecord
from layout.host.site import running_platform

PLACES = ("j", "manage", "s", "t")


def destroy(context: Context, name: str) -> int:
    """Remove jail `name` with its trees, generated files and record; return the number of entries removed.

    Raises LayoutError, before anything is removed, when something is mounted at or below one of its
    directories or shows them elsewhere, a process has its root or working directory there, or a manage
    session is open.
    """
    check_name(name)
    with context.open() as root, context.state(root) as state:
        record = records.jail(state, name)
        if record is None:
            raise LayoutError(name, "no such jail", "one that layout made", "layout status lists them")
        with _alone(state, name):
            if state.lstat(f"run/{name}.toml") is not None or _is_jailed(context, record):
                found = "a service that runs, or what is left of one"
                raise LayoutError(name, found, "a jail that is stopped", f"layout stop {name}")
            _refuse(context, record)
            # From here on a crash leaves a jail that can only be destroyed, not half of one that looks whole.
            records.write(state, f"jails/{name}.toml", msgspec.structs.replace(record, state="destroying"))
            return _remove(context, root, state, record)


def remaining(context: Context, name: str) -> str:
    """Say what an administrator has installed for a jail, and only he removes; "" for nothing.

    A unit for another ROOT is that of another jail.
    """
    if running_platform() is not Platform.LINUX:
        return ""
    from layout.host.linux import systemd

    unit = unit_name(name)
    if not systemd.is_installed(unit):
        return ""
    text = ""
    with contextlib.suppress(LayoutError):  # a unit that is masked is a link to /dev/null
        text = hostfiles.read_text(f"{systemd.INSTALLED}/{unit}") or ""
    roots = [line for line in text.splitlines() if line.startswith(ROOT_IN_UNIT)]
    if roots and f"{ROOT_IN_UNIT}{quote(context.site.root)}" not in roots:
        return ""
    return f"{systemd.INSTALLED}/{unit} is still there: systemctl disable {unit}, then remove it"


def finish(context: Context, root: Dir, state: Dir, record: JailRecord) -> int:
    """Remove what is left of a jail whose destruction was interrupted. Raises LayoutError as destroy does."""
    with _alone(state, record.name):
        _refuse(context, record)
        return _remove(context, root, state, record)


def _alone(state: Dir, name: str) -> contextlib.AbstractContextManager[None]:
    """No manage session is open, and none can be opened meanwhile."""
    return locks.held(state, f"manage-{name}.lock", f"no manage session of {name}")


def _remove(context: Context, root: Dir, state: Dir, record: JailRecord) -> int:
    name = record.name
    count = design_of(record.kind).forget(context, root, state, record)
    for place in PLACES:
        try:
            with root.open(place) as parent:
                count += remove_tree(parent, name)
                count += remove_tree(parent, f".new-{name}")
        except FileNotFoundError:
            continue
    for kind in ("fstab", "manage.fstab"):
        count += hostfiles.remove(f"{context.site.etc}/fstab.d/{name}.{kind}")
    count += booting_freebsd.forget(context.site, name)
    state.unlink(f"manage-{name}.lock")
    # manage-NAME.mounts was left by a killed session, and by now without any mount.
    for path in (f"run-{name}.lock", f"log/{name}.log", f"manage-{name}.mounts"):
        with contextlib.suppress(FileNotFoundError):
            state.unlink(path)
    state.unlink(f"jails/{name}.toml")
    return count


def _refuse(context: Context, record: JailRecord) -> None:
    """Make sure that nothing is mounted, shown elsewhere or running below a jail. Raises LayoutError."""
    top, name = context.site.root, record.name
    design = design_of(record.kind)
    design.check_forget(context, record)
    own = design.file_systems(context, record)
    paths = [f"{top}/{place}/{name}" for place in PLACES]
    for mount in mounting.mounts_below(top, paths):
        if own.get(mount.target) == mount.source:
            continue
        expected = "nothing mounted below a jail that is destroyed"
        raise LayoutError(mount.target, f"a mount of {mount.source}", expected, f"layout umount {name}")
    for mount, path in mounting.shown_elsewhere(paths):
        expected = f"no mount that shows {path}, which is to be removed"
        raise LayoutError(mount.target, f"a mount of {path}", expected, f"umount {mount.target}")
    found = _holders(paths, f"{top}/j/mroot")
    if found:
        raise LayoutError(paths[0], found, "nothing that runs in it", "stop it first")


def _is_jailed(context: Context, record: JailRecord) -> bool:
    """FreeBSD, which keeps no record of ours: say whether the jail itself runs."""
    if running_platform() is not Platform.FREEBSD:
        return False
    from layout.host.freebsd import jails

    found = jails.find(record.name)
    return found is not None and found.path == f"{context.site.root}/j/{record.name}"


def _holders(paths: list[str], shared: str) -> str:
    """Say who has the root of a process or of a jail below these paths; "" for nobody."""
    match running_platform():
        case Platform.LINUX:
            from layout.host.linux import holders as linux

            processes = linux.below(paths, shared)
            return linux.describe(processes) if processes else ""
        case Platform.FREEBSD:
            from layout.host.freebsd import holders as freebsd

            return freebsd.describe(freebsd.below(paths))
        case other:
            assert_never(other)
