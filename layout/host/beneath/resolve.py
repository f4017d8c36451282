"""Open a directory below another one without following a link: openat2 where it exists, else a walk."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

if sys.platform == "linux":
    from layout.host.linux import syscalls

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW

# Where O_PATH exists (Linux, FreeBSD 14) a directory that may not be read can still be passed through.
PASS = (os.O_PATH if hasattr(os, "O_PATH") else os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def check_relative(path: str) -> None:
    """Refuse what cannot be a path below a directory. A mistake of the program, so ValueError."""
    if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"not a path below a directory: {path!r}")


def walk_to(dir_fd: int, path: str, *, cross: bool = True) -> int:
    """Return a descriptor of directory `path` below `dir_fd`, one component at a time.

    The way of FreeBSD and of kernels without openat2. With `cross=False` a change of st_dev raises EXDEV
    (nullfs has a device number of its own; on Linux bind mounts do not, which is why openat2 is preferred).
    Raises OSError: ELOOP or ENOTDIR for a link, ENOENT.
    """
    check_relative(path)
    device = -1 if cross else os.fstat(dir_fd).st_dev
    here = os.dup(dir_fd)
    try:
        parts = [part for part in path.split("/") if part not in {"", "."}]
        for index, part in enumerate(parts):
            flags = DIRECTORY if index == len(parts) - 1 else PASS
            below = os.open(part, flags, dir_fd=here)
            os.close(here)
            here = below
            if not cross and os.fstat(here).st_dev != device:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        if not parts:
            below = os.open(".", DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def _openat2_to(dir_fd: int, path: str, *, cross: bool = True) -> int:
    check_relative(path)
    rules = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
    if not cross:
        rules |= syscalls.RESOLVE_NO_XDEV
    return syscalls.openat2(dir_fd, os.fsencode(path), os.O_RDONLY | os.O_DIRECTORY, rules)


def _choose() -> Callable[..., int]:
    if sys.platform != "linux":
        return walk_to
    root = os.open("/", PASS)
    try:
        os.close(_openat2_to(root, "."))
    except OSError:  # Linux before 5.6, or a seccomp filter that does not know the call
        return walk_to
    finally:
        os.close(root)
    return _openat2_to


_chosen: list[Callable[..., int]] = []


def open_directory(dir_fd: int, path: str, *, cross: bool = True) -> int:
    """Return a descriptor of directory `path` below `dir_fd`; no component may be a link.

    With `cross=False` no mount point may be crossed either (EXDEV). Raises OSError.
    """
    if cross and path not in {"", ".", ".."} and "/" not in path:
        # For one component O_NOFOLLOW says all that openat2 would, in half the time.
        return os.open(path, DIRECTORY, dir_fd=dir_fd)
    if not _chosen:
        _chosen.append(_choose())
    return _chosen[0](dir_fd, path, cross=cross)
