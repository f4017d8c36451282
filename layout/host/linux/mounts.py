"""Mount on Linux: options are set before a mount is visible, and a jail appears whole or not at all.

A jail's mounts are assembled on a detached copy of mroot and attached with one move_mount(2). Sources are
reached through a childless detached copy of ROOT: a bind walks all children of its source's mount
(`__has_locked_children`), which makes plain binds quadratic in the number of jails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import assert_never

from layout.core.errors import LayoutError, reason_of
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
    "relatime": 0,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
}
_ATIME = 0x70
"""The bits of MOUNT_ATTR__ATIME: an enumeration, so mount_setattr(2) wants the old value cleared."""
_ATIME_WORDS = frozenset({"relatime", "noatime", "strictatime"})
_NOT_FLAGS = frozenset({"bind", "private", "noauto", "nofail", "auto", "defaults"})
_OLD_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "nosymfollow": syscalls.MS_NOSYMFOLLOW,
    "noatime": 1 << 10,
    "nodiratime": 1 << 11,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
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

    def __init__(
        self,
        root: Dir,
        submounts: Iterable[str] = (),
        way: Way = Way.DETACHED,
        *,
        private: bool = False,
    ) -> None:
        """`submounts`: mount points below ROOT that sources may lie on, from the live table.

        `private`: ROOT lies on a private mount, so that what is attached below it is private as well.
        """
        self.root = root
        self.way = way
        self.private = private
        self.submounts = frozenset(submounts)
        self._alias = -1
        self._parents: dict[tuple[int, str], int] = {}
        self._known: dict[tuple[str, bool], int] = {}
        self._flags: dict[tuple[str, ...], tuple[int, int]] = {}

    def __enter__(self) -> Mounter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every descriptor."""
        self._drop_parents()
        if self._alias >= 0:
            os.close(self._alias)
            self._alias = -1

    # -- where things are ---------------------------------------------------------------------------

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
        head, _, name = path.rpartition("/")
        fd = self._known.get((head, source))
        if fd is not None and path not in self.submounts:
            return fd, os.fsencode(name)
        prefix = self.root.path + "/"
        if not path.startswith(prefix):
            return self._outside(path), b""
        relative = path[len(prefix) :]
        start = self._start(relative) if source else self.root.fd
        fd = self._parent(start, relative.rpartition("/")[0])
        if path not in self.submounts:
            self._known[head, source] = fd
        return fd, os.fsencode(name)

    def _outside(self, path: str) -> int:
        fd = self._parents.get((-1, path))
        if fd is None:
            top = os.open("/", PASS)
            try:
                fd = self._parents[-1, path] = open_directory(top, path.strip("/") or ".")
            finally:
                os.close(top)
        return fd

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
            attr_set, parameters = attributes(mount.options)
            if mount.fstype != "none" or parameters:
                raise LayoutError(
                    mount.target, f"type {mount.fstype} {','.join(mount.options)}", "a bind mount or tmpfs"
                )
            attr_clr = 0 if _ATIME_WORDS.isdisjoint(mount.options) else _ATIME
            flags = self._flags[mount.options] = attr_set, attr_clr
        try:
            dir_fd, name = self._place(mount.source, source=True)
            fd = syscalls.open_tree(dir_fd, name)
        except OSError as error:
            error.filename = mount.source
            raise
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), mount.source)
            syscalls.mount_setattr(fd, attr_set=flags[0], attr_clr=flags[1], propagation=syscalls.MS_PRIVATE)
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
                    case _:
                        assert_never(way)
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
                    _attach_inside(fd, top, mount, mount.target[prefix:])
                finally:
                    os.close(fd)
        except BaseException:
            os.close(top)
            raise
        return top

    def _move(self, fd: int, mount: Mount) -> None:
        """Attach the detached `fd` at the mount point of `mount`."""
        try:
            _attach_at(fd, *self._place(mount.target, source=False))
        except OSError as error:
            error.filename = mount.target
            raise

    def _attach_detached(self, table: Sequence[Mount]) -> None:
        top = self.assemble(table)
        try:
            self._move(top, table[0])
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
                    self._move(fd, mount)
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
        with self._stage() as stage:
            try:
                for mount in table:
                    self._classic_one(mount, stage)
                    done.append(mount)
                    self._drop_parents()
            except BaseException:
                self._undo(done)
                raise

    @contextlib.contextmanager
    def _stage(self) -> Iterator[bytes]:
        """A private mount in layout's own directory: MS_MOVE refuses what lies on a shared one."""
        with contextlib.suppress(FileExistsError):
            self.root.make_dir(".layout/stage", 0o700)
        stage = os.fsencode(f"{self.root.path}/.layout/stage")
        with contextlib.suppress(OSError):  # EINVAL: a crash left nothing there
            while True:
                syscalls.umount(stage)
        syscalls.mount(stage, stage, None, syscalls.MS_BIND)
        try:
            syscalls.mount(b"none", stage, None, syscalls.MS_PRIVATE)
            yield stage
        finally:
            syscalls.umount(stage)

    def _classic_one(self, mount: Mount, stage: bytes) -> None:
        flags = sum(_OLD_FLAGS[word] for word in mount.options if word in _OLD_FLAGS)
        _, parameters = attributes(mount.options)
        if mount.fstype == "tmpfs":
            data = ",".join(f"{key}={value}" for key, value in parameters)
            syscalls.mount(b"tmpfs", stage, b"tmpfs", flags, os.fsencode(data))
        else:
            with self._named(mount.source, source=True) as source:
                syscalls.mount(source, stage, None, syscalls.MS_BIND)
        try:
            syscalls.mount(b"none", stage, None, syscalls.MS_PRIVATE)
            if mount.fstype == "tmpfs":
                with self.root.open(".layout/stage") as made:
                    devices.fill(made.fd)
            elif flags:
                syscalls.mount(b"none", stage, None, syscalls.MS_REMOUNT | syscalls.MS_BIND | flags)
            with self._named(mount.target, source=False) as target:
                syscalls.mount(stage, target, None, syscalls.MS_MOVE)
        except BaseException:
            with contextlib.suppress(OSError):
                syscalls.umount(stage)
            raise
        if not self.private:
            self._drop_parents()
            with self._named(mount.target, source=False) as target:
                syscalls.mount(b"none", target, None, syscalls.MS_PRIVATE)

    @contextlib.contextmanager
    def _named(self, path: str, *, source: bool) -> Iterator[bytes]:
        """A name for mount(2), which knows no descriptors, that leads where the walk to `path` led."""
        try:
            dir_fd, name = self._place(path, source=source)
            fd = open_directory(dir_fd, os.fsdecode(name) or ".")
        except OSError as error:
            error.filename = path
            raise
        try:
            yield f"/proc/self/fd/{fd}".encode()
        finally:
            os.close(fd)

    def _drop_parents(self) -> None:
        """Directories below a target look different once it is mounted: open them anew."""
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()
        self._known.clear()

    def _undo(self, done: Sequence[Mount]) -> None:
        self._drop_parents()
        for mount in reversed(done):
            syscalls.umount(os.fsencode(mount.target))


def _attach_inside(fd: int, top: int, mount: Mount, path: str) -> None:
    """Attach `fd` at `path` below the detached `top`; no component may be a link: t may be one of them."""
    head, _, name = path.rpartition("/")
    try:
        if not head:
            _attach_at(fd, top, os.fsencode(name))
            return
        parent = open_directory(top, head)
        try:
            _attach_at(fd, parent, os.fsencode(name))
        finally:
            os.close(parent)
    except OSError as error:
        error.filename = mount.target
        raise


def _attach_at(fd: int, dir_fd: int, name: bytes) -> None:
    try:
        syscalls.move_mount(fd, dir_fd, name)
    except OSError as error:
        # EINVAL for a link that is not followed would look like a kernel that cannot do this.
        if error.errno == errno.EINVAL and name:
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from None
        raise


def _explain(error: OSError, table: Sequence[Mount]) -> LayoutError:
    paths = {path for mount in table for path in (mount.source, mount.target)}
    where = error.filename if error.filename in paths else table[0].target
    match error.errno:
        case errno.ENOENT:
            return LayoutError(where, "nothing", "a directory", "layout init makes what is missing")
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
            return LayoutError(where, reason_of(error), "a mount")


def make_private_root(root: Dir, *, recursive: bool) -> None:
    """Bind ROOT on itself and make that private, so that no jail's mount is ever propagated anywhere.

    `recursive`: with the file systems that are mounted below ROOT, which would else be hidden. Raises
    LayoutError, OSError. The caller opens ROOT anew afterwards: `root` still names what is below.
    """
    path = os.fsencode(root.path)
    try:
        fd = syscalls.open_tree(
            root.fd, b"", syscalls.CLONE_TREE | (syscalls.AT_RECURSIVE if recursive else 0)
        )
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise LayoutError(root.path, reason_of(error), "to mount here", "run it as root") from None
        more = syscalls.MS_REC if recursive else 0
        syscalls.mount(path, path, None, syscalls.MS_BIND | more)
        syscalls.mount(b"none", path, None, syscalls.MS_PRIVATE | more)
        return
    try:
        syscalls.mount_setattr(fd, propagation=syscalls.MS_PRIVATE, recursive=recursive)
        syscalls.move_mount(fd, root.fd, b"")
        syscalls.mount_setattr(fd, propagation=syscalls.MS_PRIVATE, recursive=recursive)
    finally:
        os.close(fd)


def unmount_all(targets: Sequence[str]) -> None:
    """Unmount all of these mount points in this order, or none of them.

    Raises OSError for the one that could not be; the others have been attached again then.
    """
    if len(targets) == 1:
        unmount(targets[0])
        return
    kept: list[tuple[str, int]] = []
    try:
        for target in targets:
            kept.append((target, syscalls.open_tree(syscalls.AT_FDCWD, os.fsencode(target))))
        for done, target in enumerate(targets):
            try:
                unmount(target)
            except OSError:
                for again, fd in reversed(kept[:done]):
                    syscalls.move_mount(fd, syscalls.AT_FDCWD, os.fsencode(again))
                raise
    finally:
        for _, fd in kept:
            os.close(fd)


def unmount(target: str) -> None:
    """Unmount exactly this mount point, not following a link; never lazily, never by force.

    Raises OSError: EBUSY while anything of it is in use, EINVAL when it is no mount point.
    """
    syscalls.umount(os.fsencode(target))
