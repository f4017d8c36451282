"""A minimal private /dev: never the host's devtmpfs, which is one instance for the whole machine."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from layout.core.devices import LINKS, NODES
from layout.host.linux import syscalls


def tmpfs(flags: int, parameters: Sequence[tuple[str, str]]) -> int:
    """Return a new detached tmpfs with these attributes and parameters (tmpfs(5)). Raises OSError."""
    context = syscalls.fsopen(b"tmpfs")
    try:
        for key, value in parameters:
            syscalls.fsconfig_set(context, key.encode(), value.encode())
        return syscalls.fsmount(context, flags)
    finally:
        os.close(context)


def device_directory(flags: int, parameters: Sequence[tuple[str, str]]) -> int:
    """Return a detached tmpfs that holds the nodes every program expects. Raises OSError."""
    fd = tmpfs(flags, parameters)
    try:
        fill(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def fill(dir_fd: int) -> None:
    """Make the device nodes, links and directories of a minimal /dev. Raises OSError."""
    mask = os.umask(0)
    try:
        for name, major, minor in NODES:
            _node(dir_fd, name, major, minor)
        for name, target in LINKS:
            os.symlink(target, name, dir_fd=dir_fd)
        os.mkdir("shm", 0o1777, dir_fd=dir_fd)
        os.mkdir("pts", 0o755, dir_fd=dir_fd)
    finally:
        os.umask(mask)


def _node(dir_fd: int, name: str, major: int, minor: int) -> None:
    try:
        os.mknod(name, 0o666 | stat.S_IFCHR, os.makedev(major, minor), dir_fd=dir_fd)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    else:
        return
    # In a user namespace nobody may make nodes: show the host's single nodes instead, never its directory.
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=dir_fd))
    show_host_node(dir_fd, name)


def show_host_node(dir_fd: int, name: str) -> None:
    """Mount the host's node `name` on the file of that name, read-only. Raises OSError.

    Or a chmod inside would change the host's own node; data still goes both ways.
    """
    node = _guarded(f"/dev/{name}".encode())
    try:
        syscalls.move_mount(node, dir_fd, name.encode())
    finally:
        os.close(node)


def null(flags: int) -> int:
    """Open the host's /dev/null for a process of a jail; the caller closes it. Raises OSError.

    By a mount of its own that is read-only, though data goes both ways: root of a jail may be root of the
    host, and would change the node's mode by the descriptor, for the whole host.
    """
    try:
        node = _guarded(b"/dev/null")
    except PermissionError:  # root of a user namespace only, who is an ordinary user for the node
        return os.open("/dev/null", flags | os.O_CLOEXEC)
    try:
        return os.open(f"/proc/self/fd/{node}", flags | os.O_CLOEXEC)
    finally:
        os.close(node)


def _guarded(path: bytes) -> int:
    """Return a detached mount of a node by which nothing but data goes. Raises OSError."""
    node = syscalls.open_tree(syscalls.AT_FDCWD, path)
    try:
        guard = syscalls.ATTR_RDONLY | syscalls.ATTR_NOSUID | syscalls.ATTR_NOEXEC
        syscalls.mount_setattr(node, attr_set=guard, propagation=syscalls.MS_PRIVATE)
    except BaseException:
        os.close(node)
        raise
    return node


def pseudo_terminals() -> int:
    """Return a detached devpts instance of its own (Documentation/filesystems/devpts.rst). Raises OSError."""
    context = syscalls.fsopen(b"devpts")
    try:
        for key, value in (("ptmxmode", "0666"), ("mode", "0620")):
            syscalls.fsconfig_set(context, key.encode(), value.encode())
        return syscalls.fsmount(context, syscalls.ATTR_NOSUID | syscalls.ATTR_NOEXEC)
    finally:
        os.close(context)
