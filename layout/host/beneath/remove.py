"""Remove a tree by descriptor: never through a link, never across a mount, however deep it is."""

from __future__ import annotations

import errno
import os
import secrets
import stat

from layout.core.errors import LayoutError
from layout.host.beneath import fileflags
from layout.host.beneath.directory import Dir
from layout.host.beneath.resolve import open_directory

_CHAIN = 64


def remove_tree(parent: Dir, name: str) -> int:
    """Remove `name` and everything below it; return the number of entries removed.

    The caller has checked that nothing is mounted or running there. A mount met all the same stops the
    removal before anything of it is touched: openat2(2) RESOLVE_NO_XDEV sees bind mounts of the same file
    system, which st_dev and `rm --one-file-system` do not. Raises LayoutError, OSError.
    """
    found = parent.lstat(name)
    if found is None:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        _unlink(parent, name, found)
        return 1
    count = 0
    # A subtree too deep to hold open is moved up to the top first and emptied in the next round. That is
    # safe here only: the jail is dead, no process of it can be inside (jail(8) on moving directories).
    with _enter(parent, name) as top:
        while True:
            removed, moved = _empty(top, top, 0)
            count += removed
            if not moved:
                break
    _rmdir(parent, name)
    return count + 1


def _rmdir(here: Dir, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=here.fd)
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP, errno.ENOTEMPTY, errno.EEXIST}:
            raise
        raise LayoutError(here.show(name), "something that was swapped", "a directory at rest") from None


def _enter(here: Dir, name: str) -> Dir:
    try:
        return Dir(open_directory(here.fd, name, cross=False), here.show(name))
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise _is_mount(here, name) from None
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise LayoutError(here.show(name), "something that was swapped", "a directory at rest") from None
        raise


def _is_mount(here: Dir, name: str) -> LayoutError:
    return LayoutError(
        here.show(name),
        "a mount point",
        "nothing mounted in what is removed",
        "layout umount, then try again; nothing below it was touched",
    )


def _empty(top: Dir, here: Dir, depth: int) -> tuple[int, int]:
    """Remove what is in `here`; return how many entries went and how many subtrees were moved to `top`."""
    removed = moved = 0
    fileflags.clear(here.fd)
    for name in os.listdir(here.fd):
        found = here.lstat(name)
        if found is None:
            continue
        if not stat.S_ISDIR(found.st_mode):
            _unlink(here, name, found)
            removed += 1
        elif depth >= _CHAIN:
            with _enter(here, name) as child:  # not a mount, before it is moved
                fileflags.clear(child.fd)
            os.rename(name, f".layout-{secrets.token_hex(8)}", src_dir_fd=here.fd, dst_dir_fd=top.fd)
            moved += 1
        else:
            with _enter(here, name) as child:
                gone, up = _empty(top, child, depth + 1)
            _rmdir(here, name)
            removed += gone + 1
            moved += up
    return removed, moved


def _unlink(here: Dir, name: str, found: os.stat_result) -> None:
    try:
        os.unlink(name, dir_fd=here.fd)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _is_mount(here, name) from None
        if error.errno != errno.EPERM or not stat.S_ISREG(found.st_mode):
            raise
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here.fd)
        try:
            fileflags.clear(fd)
        finally:
            os.close(fd)
        os.unlink(name, dir_fd=here.fd)
