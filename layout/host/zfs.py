"""Datasets through zfs(8): made, set, mounted and destroyed, each step read back from zfs and the kernel."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from typing import assert_never

from layout.core import zfs
from layout.core.errors import LayoutError
from layout.core.model import Platform
from layout.core.mountinfo import MountPoint
from layout.core.zfs import Dataset
from layout.host import table
from layout.host.beneath import open_root
from layout.host.run import CommandError, Done, require, run
from layout.host.site import running_platform

_PATIENCE = 3.0
"""Seconds for what was in use a moment ago: zfs(8) says busy right after an unmount."""
_STEP = 0.1
_PACKAGE = "zfs-fuse or zfsutils-linux"
_FILE_SYSTEMS = {"zfs", "fuse.zfs"}
FUSE = "fuse.zfs"
"""zfs-fuse: it keeps readonly, and takes exec, setuid and devices without heeding them."""


def require_zfs() -> None:
    """Make sure that there is zfs(8). Raises LayoutError that names the package."""
    require("zfs", _PACKAGE)


def exists(name: str) -> bool:
    """Say whether there is a dataset of this name. Raises LayoutError: unknown is not the same as none."""
    return _look(name, ("type",)) is not None


def properties(name: str) -> dict[str, str]:
    """Return the properties that are looked at. Raises LayoutError."""
    found = _look(name, zfs.CHECKED)
    if found is None:
        raise LayoutError(name, "no such dataset", "one", "zfs list")
    return found


def _look(name: str, keys: Sequence[str]) -> dict[str, str] | None:
    """Return properties of a dataset, or None when there is none. Raises LayoutError when it is not known."""
    words = zfs.look(name, keys)
    done = run(*words, ok=range(256))
    if done.status == 0:
        return zfs.values(done.stdout, name)
    if "does not exist" in done.stderr:
        return None
    raise CommandError(words, done, f"install {_PACKAGE}, and see that it runs")


def below(name: str) -> list[str]:
    """Return every dataset and snapshot below one. Raises LayoutError."""
    return [found for found in zfs.names(run(*zfs.listing(name)).stdout) if found != name]


def create(dataset: Dataset, parent: str) -> list[str]:
    """Make a dataset, with those that hold it, and mount it; return the names of what was made.

    Its mount point must be empty or missing. Raises LayoutError; the dataset itself is gone then.
    """
    require_zfs()
    if not exists(parent):
        hint = f"zfs create -o mountpoint=none {parent}, or change zfs in layout.toml"
        raise LayoutError(parent, "no such dataset", "the parent of the jails' own", hint)
    there = below(parent)
    if dataset.name in there:
        hint = f"look at it, then zfs rename or zfs destroy {dataset.name}"
        raise LayoutError(dataset.name, "a dataset", "none of this name yet", hint)
    made = []
    for group in zfs.groups(parent):
        if dataset.name.startswith(f"{group}/") and group not in there:
            run(*zfs.create(group, [("mountpoint", "none")]))
            made.append(group)
    run(*zfs.create(dataset.name, dataset.properties))
    try:
        harden(dataset, readonly=False)
        check(dataset, readonly=False)
    except BaseException:
        destroy(dataset)
        raise
    return [*made, dataset.name]


def set_readonly(dataset: Dataset, *, on: bool) -> None:
    """Make a dataset read-only, or writable for a moment, and see that it is. Raises LayoutError."""
    _patiently(lambda: run(*zfs.change(dataset.name, "readonly", "on" if on else "off")))
    harden(dataset, readonly=on)
    check(dataset, readonly=on)


def opened_by_hand(dataset: Dataset, command: str) -> str:
    """Return what an administrator types to run a command that changes a read-only dataset."""
    live = mounted(dataset)
    mount = (
        f"mount -o remount,bind,rw {shlex.quote(dataset.mountpoint)} && "
        if live is not None and live.fstype == FUSE
        else ""
    )
    on, off = (shlex.join(zfs.change(dataset.name, "readonly", word)) for word in ("on", "off"))
    # The flags of a mount that zfs-fuse does not see to are given back by `layout init`.
    back = f"layout init {dataset.name.rpartition('/')[2]}" if mount else on
    return f"{off} && {mount}{command}; {back}"


def repair(dataset: Dataset) -> list[str]:
    """Set again what of a dataset is not as planned, and mount it; return what was done. Raises LayoutError.

    What only a new dataset can have is left for `check` to tell.
    """
    done = []
    found = properties(dataset.name)
    for key, _, value in zfs.differences(dataset, found, readonly=found["readonly"] == "on"):
        if key in zfs.CHANGEABLE:
            _patiently(lambda key=key, value=value: run(*zfs.change(dataset.name, key, value)))  # type: ignore[misc]
            done.append(f"{dataset.name}: {key}={value}")
    if dataset.readonly and found["readonly"] != "on":
        set_readonly(dataset, on=True)
        done.append(f"{dataset.name}: readonly=on")
    if mount(dataset):
        done.append(f"{dataset.name}: mounted")
    return done or [f"{dataset.name}: flags of its mount"]


def mounted(dataset: Dataset) -> MountPoint | None:
    """Return the mount of a dataset at its own place, or None. Raises LayoutError for another one there."""
    there = [mount for mount in table.read(dataset.mountpoint) if mount.target == dataset.mountpoint]
    if not there:
        return None
    # What is mounted over it by ROOT's own bind shows the same file system.
    last = there[-1]
    if last.source != dataset.name or last.fstype not in _FILE_SYSTEMS:
        found = f"a mount of {last.source} ({last.fstype})"
        raise LayoutError(dataset.mountpoint, found, f"a mount of {dataset.name}", "umount it first")
    return last


def show(dataset: Dataset) -> bool:
    """Mount a dataset as it is, where it is not; say whether it was not. Raises LayoutError."""
    new = mounted(dataset) is None
    if new:
        _mount(dataset.name)
    return new


def mount(dataset: Dataset) -> bool:
    """Mount a dataset with all flags that it needs; say whether it was not mounted. Raises LayoutError."""
    new = show(dataset)
    harden(dataset)
    check(dataset)
    return new


def set_aside(parent: str, root: str) -> list[str]:
    """Unmount datasets of jails that nothing uses, in the places that are theirs; return their names.

    Raises LayoutError when the table cannot be read.
    """
    done = []
    for mount in table.read(root):
        name = mount.source.removeprefix(f"{parent}/")
        own = mount.source.startswith(f"{parent}/") and mount.target == f"{root}/{name}"
        if mount.fstype not in _FILE_SYSTEMS or not own or not name.startswith(("s/", "t/")):
            continue
        if run("zfs", "unmount", mount.source, ok=range(256)).status == 0:
            done.append(mount.source)
    return done


def bring_back(names: Sequence[str]) -> None:
    """Mount datasets again. Raises LayoutError."""
    for name in names:
        _mount(name)


def _mount(name: str) -> None:
    _patiently(lambda: run("zfs", "mount", name))


def destroy(dataset: Dataset) -> bool:
    """Destroy exactly this dataset; say whether there was one.

    Never with what is below it, clones or snapshots, which are not layout's. Raises LayoutError.
    """
    if not exists(dataset.name):
        return False
    require_alone(dataset)
    _patiently(lambda: run("zfs", "destroy", dataset.name))
    if exists(dataset.name):
        raise LayoutError(dataset.name, "still a dataset", "none", f"zfs destroy {dataset.name}")
    return True


def require_alone(dataset: Dataset) -> None:
    """Make sure that a dataset has nothing below it and no snapshot. Raises LayoutError."""
    if others := below(dataset.name):
        hint = "look at it, then zfs destroy it yourself"
        raise LayoutError(others[0], f"part of {dataset.name}", "a dataset of nothing but its own", hint)


def check(dataset: Dataset, *, readonly: bool | None = None) -> None:
    """Make sure that a dataset is as planned, as zfs(8) and the kernel say. Raises LayoutError.

    When a mount has failed, what is written goes into the bare directory: so the table is looked at.
    """
    for path, found, expected in problems(dataset, readonly=readonly):
        name = dataset.name.rpartition("/")[2]
        raise LayoutError(path, found, expected, f"layout recover, then layout init {name}, which sets it so")


def problems(dataset: Dataset, *, readonly: bool | None = None) -> list[tuple[str, str, str]]:
    """Return path, what is found and what is expected wherever a dataset is not as planned.

    Raises LayoutError when it cannot be looked at.
    """
    now = _look(dataset.name, zfs.CHECKED)
    if now is None:
        return [(dataset.name, "no such dataset", f"the file system of {dataset.mountpoint}")]
    said = zfs.differences(dataset, now, readonly=readonly)
    found = [(dataset.name, f"{key}={is_}", f"{key}={wanted}") for key, is_, wanted in said]
    live = mounted(dataset)
    if live is None:
        return [*found, (dataset.mountpoint, "nothing mounted", f"a mount of {dataset.name}")]
    lacking = [word for word in _enforced(dataset, readonly) if word not in live.options]
    if lacking:
        found.append(
            (dataset.mountpoint, f"a mount without {', '.join(lacking)}", "all flags of its dataset")
        )
    return found


def harden(dataset: Dataset, *, readonly: bool | None = None) -> None:
    """Give the mount of a dataset the flags that its ZFS does not see to. Raises LayoutError, OSError."""
    if running_platform() is not Platform.LINUX:
        return  # it has its own ZFS
    live = mounted(dataset)
    if live is None or live.fstype != FUSE:
        return
    from layout.host.linux import syscalls

    bits = {
        "ro": syscalls.ATTR_RDONLY,
        "nosuid": syscalls.ATTR_NOSUID,
        "nodev": syscalls.ATTR_NODEV,
        "noexec": syscalls.ATTR_NOEXEC,
    }
    wanted = 0
    for word in _enforced(dataset, readonly):
        wanted |= bits[word]
    with open_root(dataset.mountpoint) as top:
        clear = 0 if wanted & syscalls.ATTR_RDONLY else syscalls.ATTR_RDONLY
        syscalls.mount_setattr(top.fd, attr_set=wanted, attr_clr=clear)


def _enforced(dataset: Dataset, readonly: bool | None) -> Sequence[str]:
    """Return the flags that the mount itself must have. FreeBSD has no nodev: devices work only in devfs."""
    on = dataset.readonly if readonly is None else readonly
    words = [word for word in dataset.flags if word != "ro"] + (["ro"] if on else [])
    match running_platform():
        case Platform.LINUX:
            return words
        case Platform.FREEBSD:
            return [word for word in words if word != "nodev"]
        case other:
            assert_never(other)


def _patiently(attempt: Callable[[], Done]) -> None:
    """Try for a few seconds while zfs(8) says busy. Raises CommandError."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            attempt()
        except CommandError as problem:
            if "busy" not in problem.stderr or time.monotonic() >= end:
                raise
            time.sleep(_STEP)
        else:
            return
