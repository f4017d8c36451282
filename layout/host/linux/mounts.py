"""Mount on Linux: options are set before a mount is visible, and a jail appears whole or not at all.

A jail's mounts are assembled on a detached copy of mroot and attached with one move_mount(2). Sources are
reached through a childless detached copy of ROOT: a bind walks all children of its source's mount
(`__has_locked_children`), which makes plain binds quadratic in the number of jails.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Sequence
from enum import Enum

from layout.core.errors import LayoutError
from layout.core.model import Mount
from layout.host.beneath import Dir
from layout.host.beneath.resolve import PASS, open_directory
from layout.host.linux import devices, syscalls

_FLAGS = {
    "ro": syscalls.ATTR_RDONLY,
    "rw": 0,
    "nosuid": syscalls.ATTR_NOSUID,
    "nodev": syscalls.ATTR_NODEV,
    "noexec": syscalls.ATTR_NOEXEC,
    "nosymfollow": syscalls.ATTR_NOSYMFOLLOW,
    "noatime": 0x10,
    "nodiratime": 0x80,
}
_NOT_FLAGS = frozenset({"bind", "private", "noauto", "nofail", "auto", "defaults"})
_OLD_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "nosymfollow": syscalls.MS_NOSYMFOLLOW,
    "noatime": 1024,
    "nodiratime": 2048,
}


class Way(Enum):
    """How far the kernel goes with us; each step down is a wider window, none of them unsafe."""

    DETACHED = "assembled detached, attached whole (Linux 6.15)"
    ATTACHED = "root attached first, then what is below it (Linux 5.12)"
    CLASSIC = "mount(2): bound and remounted in a private place, then moved (older kernels)"


def attributes(options: Iterable[str]) -> tuple[int, list[tuple[str, str]]]:
    """Split mount options into attribute flags and parameters of the file system.

    Raises LayoutError for a word that is neither: a mount with less than was asked for must not appear.
    """
    flags = 0
    parameters = []
    for word in options:
        key, equals, value = word.partition("=")
        if word in _FLAGS:
            flags |= _FLAGS[word]
        elif equals and not key.startswith("x-"):
            parameters.append((key, value))
        elif word not in _NOT_FLAGS and not key.startswith("x-"):
            raise LayoutError("mount options", repr(word), "an option of mount(8) that layout knows")
    return flags, parameters


class Mounter:
    """Mounts jails below one ROOT. Holds descriptors only; nothing is attached but what was asked for."""

    def __init__(self, root: Dir, submounts: Iterable[str] = (), way: Way = Way.DETACHED) -> None:
        """`submounts`: mount points below ROOT that sources may lie on, from the live table."""
        self.root = root
        self.way = way
        self.submounts = tuple(submounts)
        self._alias = -1
        self._parents: dict[tuple[int, str], int] = {}
        self._flags: dict[tuple[str, ...], int] = {}
        self.private = False

    def __enter__(self) -> Mounter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every descriptor."""
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()
        if self._alias >= 0:
            os.close(self._alias)
            self._alias = -1

    # -- where things are ---------------------------------------------------------------------------

    def _below(self, path: str) -> str | None:
        prefix = self.root.path + "/"
        return path[len(prefix) :] if path.startswith(prefix) else None

    def _start(self, relative: str) -> int:
        """Where a source below ROOT is opened from: the alias, unless a mount is on the way."""
        if self.way is not Way.DETACHED:
            return self.root.fd
        full = f"{self.root.path}/{relative}"
        if any(full == m or full.startswith(m + "/") for m in self.submounts):
            return self.root.fd
        if self._alias < 0:
            try:
                self._alias = syscalls.open_tree(self.root.fd, b"")
            except OSError as error:
                self._step_down(error)
                return self.root.fd
        return self._alias

    def _parent(self, start: int, head: str) -> int:
        if not head:
            return start
        fd = self._parents.get((start, head))
        if fd is None:
            fd = self._parents[start, head] = open_directory(start, head)
        return fd

    def _place(self, path: str, *, source: bool) -> tuple[int, bytes]:
        """Return (directory descriptor, last component) of a path, every component before it real."""
        relative = self._below(path)
        if relative is None:
            top = os.open("/", PASS)
            try:
                return open_directory(top, path.strip("/") or "."), b""
            finally:
                os.close(top)
        start = self._start(relative) if source else self.root.fd
        head, _, name = relative.rpartition("/")
        return self._parent(start, head), os.fsencode(name)

    # -- one mount, detached ------------------------------------------------------------------------

    def _step_down(self, error: OSError) -> None:
        """The kernel does not know a call: use the next older way, or give the error back."""
        match self.way, error.errno:
            case Way.DETACHED, errno.EINVAL | errno.ENOSYS | errno.EPERM:
                self.way = Way.ATTACHED
            case Way.ATTACHED, errno.ENOSYS:
                self.way = Way.CLASSIC
            case _:
                raise error

    def _detached(self, mount: Mount) -> int:
        """Return a detached mount with the options of `mount`, private from the start."""
        if mount.fstype == "tmpfs":
            return devices.device_directory(*attributes(mount.options))
        flags = self._flags.get(mount.options)
        if flags is None:
            flags, parameters = attributes(mount.options)
            if mount.fstype != "none" or parameters:
                raise LayoutError(
                    mount.target, f"type {mount.fstype} {mount.options}", "a bind mount or tmpfs"
                )
            self._flags[mount.options] = flags
        dir_fd, name = self._place(mount.source, source=True)
        fd = syscalls.open_tree(dir_fd, name)
        try:
            syscalls.mount_setattr(fd, attr_set=flags, propagation=syscalls.MS_PRIVATE)
        except BaseException:
            os.close(fd)
            raise
        return fd

    # -- a jail --------------------------------------------------------------------------------------

    def attach(self, table: Sequence[Mount]) -> None:
        """Make the mounts of one tree (a root, then what lies below it), all of them or none.

        Raises LayoutError that names the mount that could not be made.
        """
        while True:
            way = self.way
            try:
                match way:
                    case Way.DETACHED:
                        self._attach_detached(table)
                    case Way.ATTACHED:
                        self._attach_in_steps(table)
                    case Way.CLASSIC:
                        self._attach_classic(table)
            except OSError as error:
                failed = error
            else:
                return
            try:
                if self.way is way:  # else it was stepped down on the way
                    self._step_down(failed)
            except OSError:
                raise _explain(failed, table) from None
            self._forget_alias()

    def _forget_alias(self) -> None:
        """Sources come from ROOT itself from now on."""
        self.close()

    def assemble(self, table: Sequence[Mount]) -> int:
        """Return the detached tree of `table`: its first mount with the others attached below it."""
        top = self._detached(table[0])
        try:
            prefix = len(table[0].target) + 1
            for mount in table[1:]:
                fd = self._detached(mount)
                try:
                    syscalls.move_mount(fd, top, os.fsencode(mount.target[prefix:]))
                finally:
                    os.close(fd)
        except BaseException:
            os.close(top)
            raise
        return top

    def _attach_detached(self, table: Sequence[Mount]) -> None:
        top = self.assemble(table)
        try:
            dir_fd, name = self._place(table[0].target, source=False)
            syscalls.move_mount(top, dir_fd, name)
            if not self.private:
                # Attaching below a shared mount shares it again, so once more, and for all of it.
                syscalls.mount_setattr(top, propagation=syscalls.MS_PRIVATE, recursive=True)
        finally:
            os.close(top)

    def _attach_in_steps(self, table: Sequence[Mount]) -> None:
        done: list[Mount] = []
        try:
            for mount in table:
                fd = self._detached(mount)
                try:
                    dir_fd, name = self._place(mount.target, source=False)
                    syscalls.move_mount(fd, dir_fd, name)
                    done.append(mount)
                    syscalls.mount_setattr(fd, propagation=syscalls.MS_PRIVATE)
                finally:
                    os.close(fd)
                    self._drop_parents()
        except BaseException:
            self._undo(done)
            raise

    def _attach_classic(self, table: Sequence[Mount]) -> None:
        """Bind, remount and make private below .layout, where nobody looks, then move to the target."""
        done: list[Mount] = []
        try:
            for mount in table:
                self._classic_one(mount)
                done.append(mount)
                self._drop_parents()
        except BaseException:
            self._undo(done)
            raise

    def _classic_one(self, mount: Mount) -> None:
        flags, _ = attributes(mount.options)
        old = sum(_OLD_FLAGS[word] for word in mount.options if word in _OLD_FLAGS)
        with contextlib.suppress(FileExistsError):
            self.root.make_dir(".layout/stage", 0o700)
        stage = os.fsencode(f"{self.root.path}/.layout/stage")
        source, target = os.fsencode(mount.source), os.fsencode(mount.target)
        if mount.fstype == "tmpfs":
            data = ",".join(f"{key}={value}" for key, value in attributes(mount.options)[1])
            syscalls.mount(b"tmpfs", stage, b"tmpfs", old, os.fsencode(data))
        else:
            syscalls.mount(source, stage, None, syscalls.MS_BIND)
        try:
            syscalls.mount(b"none", stage, None, syscalls.MS_PRIVATE)
            if mount.fstype == "tmpfs":
                with self.root.open(".layout/stage") as made:
                    devices.fill(made.fd)
            elif flags:
                syscalls.mount(b"none", stage, None, syscalls.MS_REMOUNT | syscalls.MS_BIND | old)
            syscalls.mount(stage, target, None, syscalls.MS_MOVE)
            syscalls.mount(b"none", target, None, syscalls.MS_PRIVATE)
        except BaseException:
            with contextlib.suppress(OSError):
                syscalls.umount(stage)
            raise

    def _drop_parents(self) -> None:
        """Directories below a target look different once it is mounted: open them anew."""
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    def _undo(self, done: Sequence[Mount]) -> None:
        self._drop_parents()
        for mount in reversed(done):
            syscalls.umount(os.fsencode(mount.target))


def _explain(error: OSError, table: Sequence[Mount]) -> LayoutError:
    where = table[0].target
    if error.filename:
        name = os.fsdecode(error.filename)
        where = next((m.target for m in table if m.target.endswith("/" + name)), where)
    match error.errno:
        case errno.ENOENT:
            return LayoutError(
                where,
                "no source or no mount point",
                "both to exist",
                "run layout init again: it makes what is missing",
            )
        case errno.EPERM | errno.EACCES:
            return LayoutError(where, "no permission to mount", "root with CAP_SYS_ADMIN", "run it as root")
        case errno.ELOOP | errno.ENOTDIR:
            return LayoutError(
                where, "a symbolic link or a file on the way", "real directories", "layout verify"
            )
        case errno.ENOSPC:
            return LayoutError(
                where,
                "no room in the mount table",
                "room",
                "see sysctl fs.mount-max and /proc/self/mountinfo",
            )
        case _:
            return LayoutError(where, error.strerror or str(error), "a mount")


def make_private_root(root: Dir) -> None:
    """Bind ROOT on itself and make that private, so that no jail's mount is ever propagated anywhere.

    Raises LayoutError, OSError. The caller opens ROOT anew afterwards: `root` still names what is below.
    """
    path = os.fsencode(root.path)
    try:
        fd = syscalls.open_tree(root.fd, b"")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise LayoutError(
                root.path, error.strerror or "an error", "to mount here", "run it as root"
            ) from None
        syscalls.mount(path, path, None, syscalls.MS_BIND)
        syscalls.mount(b"none", path, None, syscalls.MS_PRIVATE)
        return
    try:
        syscalls.mount_setattr(fd, propagation=syscalls.MS_PRIVATE)
        syscalls.move_mount(fd, root.fd, b"")
        syscalls.mount_setattr(fd, propagation=syscalls.MS_PRIVATE)
    finally:
        os.close(fd)


def unmount(target: str) -> None:
    """Unmount exactly this mount point, not following a link; never lazily, never by force.

    Raises OSError: EBUSY while anything of it is in use, EINVAL when it is no mount point.
    """
    syscalls.umount(os.fsencode(target))
