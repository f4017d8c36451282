"""What an engine finds: the jail's mounts with a /dev and a /run of its own, in a private mount namespace."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from layout.core.devices import NODES
from layout.core.errors import LayoutError
from layout.core.units import RunDirectory
from layout.host.beneath import Dir, open_root
from layout.host.linux import devices, syscalls

_RUN = (("mode", "755"), ("size", "16m"), ("nr_inodes", "4k"))
_SHM = (("mode", "1777"), ("size", "64m"), ("nr_inodes", "4k"))
_DEV = (("mode", "755"), ("size", "64k"), ("nr_inodes", "64"))
_QUIET = syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV | syscalls.ATTR_NOEXEC
_DEVICES = syscalls.ATTR_NOSUID | syscalls.ATTR_NOEXEC
_IDMAP = 0x00100000
"""MOUNT_ATTR_IDMAP."""

STAGE = "/tmp"  # noqa: S108 - covered, in the engine's own mount namespace
JAIL = f"{STAGE}/jail"
SPARE = f"{STAGE}/spare"
GATE = f"{STAGE}/gate"


def move_in(source: str, namespace: int) -> None:
    """Show copies of the mounts at `source` at JAIL, with owners as the user namespace maps them.

    ROOT is closed to all but root, and root of a user namespace is another one: he needs a way in. Raises
    OSError.
    """
    fd = syscalls.open_tree(
        syscalls.AT_FDCWD, os.fsencode(source), syscalls.CLONE_TREE | syscalls.AT_RECURSIVE
    )
    try:
        if namespace >= 0:
            syscalls.mount_setattr(fd, attr_set=_IDMAP, user_namespace=namespace, recursive=True)
        with open_root(STAGE) as place:
            made = devices.tmpfs(_QUIET, (("mode", "755"), ("size", "1m")))
            try:
                for name in (JAIL, SPARE, GATE):
                    os.mkdir(os.path.basename(name), 0o755, dir_fd=made)
                syscalls.move_mount(made, place.fd, b"")
            finally:
                os.close(made)
        with open_root(JAIL) as target:
            syscalls.move_mount(fd, target.fd, b"")
    finally:
        os.close(fd)


def can_map(path: str, namespace: int) -> None:
    """See whether the file system of a directory can show other owners. Raises OSError when it cannot."""
    fd = syscalls.open_tree(syscalls.AT_FDCWD, os.fsencode(path))
    try:
        syscalls.mount_setattr(fd, attr_set=_IDMAP, user_namespace=namespace)
    finally:
        os.close(fd)


def device_tree(shift: int) -> None:
    """Mount a minimal /dev, read-only but for its /dev/shm and terminals, with `shift` as the jail's root."""
    with _below("dev") as target:
        if target is None:
            hint = "the base needs an empty directory dev"
            raise LayoutError(f"{JAIL}/dev", "no directory", "a place for devices", hint)
        made = devices.device_directory(_DEVICES, (*_DEV, *_owner(shift)))
        try:
            if shift:
                for name, _, _ in NODES:
                    os.chown(name, shift, shift, dir_fd=made)
            syscalls.move_mount(made, target.fd, b"")
        finally:
            os.close(made)
    for name, tree in (
        ("dev/shm", devices.tmpfs(_QUIET, (*_SHM, *_owner(shift)))),
        ("dev/pts", devices.pseudo_terminals()),
    ):
        _attach(name, tree)
    with _below("dev") as top:
        assert top is not None
        syscalls.mount_setattr(top.fd, attr_set=_DEVICES | syscalls.ATTR_RDONLY)


def run_tree(directories: Sequence[RunDirectory], shift: int) -> bool:
    """Mount an empty /run with these directories in the jail; False when it has no place for it.

    Raises LayoutError.
    """
    with _below("run") as target:
        if target is None:
            if not directories:
                return False
            hint = "the base needs an empty directory run"
            raise LayoutError(f"{JAIL}/run", "no directory", "a place for what is running", hint)
        made = devices.tmpfs(_QUIET, (*_RUN, *_owner(shift)))
        try:
            fill_run(made, directories, shift)
            syscalls.move_mount(made, target.fd, b"")
        finally:
            os.close(made)
    return True


def fill_run(fd: int, directories: Sequence[RunDirectory], shift: int) -> None:
    """Make these directories, and /run/lock, in a new /run. Raises OSError."""
    with Dir(os.dup(fd), "/run") as top:
        for one in (RunDirectory("lock", 0o1777, 0, 0), *directories):
            parts = one.path.split("/")
            for end in range(1, len(parts) + 1):
                path = "/".join(parts[:end])
                if top.lstat(path) is None:
                    top.make_dir(path, 0o755)
                    top.chown_chmod(path, 0o755, shift, shift)
            top.chown_chmod(one.path, one.mode, one.uid + shift, one.gid + shift)


def _owner(shift: int) -> tuple[tuple[str, str], ...]:
    return (("uid", str(shift)), ("gid", str(shift))) if shift else ()


def _attach(name: str, made: int) -> None:
    try:
        with _below(name) as target:
            assert target is not None, name
            syscalls.move_mount(made, target.fd, b"")
    finally:
        os.close(made)


@contextmanager
def _below(name: str) -> Iterator[Dir | None]:
    """Open a directory of the jail; None when there is none, or a link in its place."""
    with open_root(JAIL) as top:
        found = top.lstat(name)
        if found is None or not stat.S_ISDIR(found.st_mode):
            yield None
            return
        with top.open(name) as below:
            yield below
