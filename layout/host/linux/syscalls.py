"""The system calls that Python's os module lacks: mounts and paths by descriptor.

Every wrapper raises OSError with the errno of the call. Numbers from 424 on are the same on every
architecture that Debian and FreeBSD's linuxulator know (asm-generic/unistd.h), so no libc wrapper is needed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
CLONE_TREE = 1  # OPEN_TREE_CLONE
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_FROM_EMPTY = 0x04
MOVE_TO_EMPTY = 0x40

ATTR_RDONLY = 0x01
ATTR_NOSUID = 0x02
ATTR_NODEV = 0x04
ATTR_NOEXEC = 0x08
ATTR_NOSYMFOLLOW = 0x00200000

MS_RDONLY = 0x01
MS_NOSUID = 0x02
MS_NODEV = 0x04
MS_NOEXEC = 0x08
MS_REMOUNT = 0x20
MS_NOSYMFOLLOW = 0x100
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

MNT_DETACH = 0x02
UMOUNT_NOFOLLOW = 0x08

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

# PyDLL keeps Python's lock during a call: these are short, layout has one thread, and it halves their cost.
_libc = ctypes.PyDLL(None, use_errno=True)


def _syscall(*types: type) -> ctypes._NamedFuncPointer:
    """A function object of its own for each signature: ctypes converts untyped ints to 32 bits."""
    function = _libc["syscall"]
    function.argtypes = [c_long, *types]
    function.restype = c_long
    return function


_open_tree = _syscall(c_int, c_char_p, c_uint)
_move_mount = _syscall(c_int, c_char_p, c_int, c_char_p, c_uint)
_mount_setattr = _syscall(c_int, c_char_p, c_uint, c_char_p, c_size_t)
_openat2 = _syscall(c_int, c_char_p, c_char_p, c_size_t)
_fsopen = _syscall(c_char_p, c_uint)
_fsconfig = _syscall(c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = _syscall(c_int, c_uint, c_uint)


def _libc_call(name: str, *types: type) -> ctypes._NamedFuncPointer:
    function = _libc[name]
    function.argtypes = list(types)
    function.restype = c_int
    return function


def _fail(what: str | bytes) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), what)


def open_tree(dir_fd: int, path: bytes, flags: int = CLONE_TREE) -> int:
    """Return a descriptor of a detached, non-recursive copy of the mount at `path` (open_tree(2))."""
    at = AT_EMPTY_PATH if not path else AT_SYMLINK_NOFOLLOW
    fd: int = _open_tree(428, dir_fd, path, flags | at | OPEN_TREE_CLOEXEC)
    if fd < 0:
        raise _fail(path)
    return fd


def move_mount(mount_fd: int, to_fd: int, to_path: bytes) -> None:
    """Attach the detached mount `mount_fd` at `to_path` below `to_fd` (move_mount(2), Linux 5.2)."""
    flags = MOVE_FROM_EMPTY | (0 if to_path else MOVE_TO_EMPTY)
    if _move_mount(429, mount_fd, b"", to_fd, to_path, flags) < 0:
        raise _fail(to_path)


def mount_setattr(
    fd: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    user_namespace: int = 0,
    recursive: bool = False,
) -> None:
    """Change the flags or propagation of the mount behind `fd` (mount_setattr(2), Linux 5.12).

    `user_namespace` is the descriptor of the one that MOUNT_ATTR_IDMAP takes its maps from.
    """
    attr = _mount_attr(attr_set, attr_clr, propagation, user_namespace)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if _mount_setattr(442, fd, b"", flags, attr, 32) < 0:
        raise _fail("mount_setattr")


@functools.cache
def _mount_attr(attr_set: int, attr_clr: int, propagation: int, user_namespace: int) -> bytes:
    """Return struct mount_attr; there are a handful of them, for thousands of mounts."""
    return struct.pack("=4Q", attr_set, attr_clr, propagation, user_namespace)


def openat2(dir_fd: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dir_fd` under the rules of `resolve` (openat2(2), Linux 5.6).

    EAGAIN means that a rename went on meanwhile, which an attacker can cause at will: retried a few times,
    then raised, so that a hostile tree can fail a call but never stall it.
    """
    how = _open_how(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(32):
        fd: int = _openat2(437, dir_fd, path, how, 24)
        if fd >= 0:
            return fd
        if ctypes.get_errno() != 11:
            break
    raise _fail(path)


@functools.cache
def _open_how(flags: int, mode: int, resolve: int) -> bytes:
    """Return struct open_how; as with struct mount_attr, few of them serve many calls."""
    return struct.pack("=3Q", flags, mode, resolve)


def fsopen(fstype: bytes) -> int:
    """Return a configuration context for a new file system (fsopen(2), Linux 5.2)."""
    fd: int = _fsopen(430, fstype, 1)
    if fd < 0:
        raise _fail(fstype)
    return fd


def fsconfig_set(context: int, key: bytes, value: bytes) -> None:
    """Set one parameter of a file system context (FSCONFIG_SET_STRING)."""
    if _fsconfig(431, context, 1, key, value, 0) < 0:
        raise _fail(key)


def fsmount(context: int, attributes: int) -> int:
    """Create the file system and return it as a detached mount with `attributes` (fsmount(2))."""
    if _fsconfig(431, context, 6, None, None, 0) < 0:
        raise _fail("fsconfig")
    fd: int = _fsmount(432, context, 1, attributes)
    if fd < 0:
        raise _fail("fsmount")
    return fd


def mount(source: bytes, target: bytes, fstype: bytes | None, flags: int, data: bytes | None = None) -> None:
    """mount(2): for kernels without the calls above, and for propagation of a whole namespace."""
    call = _libc_call("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
    if call(source, target, fstype, flags, data) < 0:
        raise _fail(target)


def _umount_call() -> ctypes._NamedFuncPointer:
    return _libc_call("umount2", c_char_p, c_int)


_umount2 = _umount_call()


def umount(target: bytes, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2). Never lazy and never forced unless the caller's own private namespace is concerned."""
    if _umount2(target, flags) < 0:
        raise _fail(target)


def unshare(flags: int) -> None:
    """unshare(2); os.unshare exists from Python 3.12 on only."""
    if _libc_call("unshare", c_int)(flags) < 0:
        raise _fail("unshare")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2), by namespace or (Linux 5.8) pidfd; os.setns exists from Python 3.12 on only."""
    if _libc_call("setns", c_int, c_int)(fd, flags) < 0:
        raise _fail("setns")


def syncfs(fd: int) -> None:
    """Write the whole file system that holds `fd` to its disk (syncfs(2))."""
    if _libc_call("syncfs", c_int)(fd) < 0:
        raise _fail("syncfs")


def statx_mount_id(fd: int) -> int:
    """Return the mount ID of the open descriptor `fd`, as mountinfo counts (statx(2), Linux 5.8)."""
    buffer = ctypes.create_string_buffer(256)
    call = _libc_call("statx", c_int, c_char_p, c_int, c_uint, c_void_p)
    if call(fd, b"", AT_EMPTY_PATH, 0x1000, buffer) < 0:
        raise _fail("statx")
    mount_id: int = c_uint64.from_buffer(buffer, 0x90).value
    return mount_id
