"""Calls of FreeBSD's C library that Python does not have.

Those that ask for a privilege change nothing: whoever has no right to it is told so before the kernel looks
at what was asked for, and who has is told that there is no such thing.
"""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_HANDLE = ctypes.create_string_buffer(64)
"""struct fhandle of nothing (fhopen(2))."""

MAY = frozenset({errno.EINVAL, errno.ENODEV, errno.ENOENT, errno.ESTALE, errno.EFAULT})
"""Answers to somebody who may."""


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_char_p), ("size", ctypes.c_size_t))


def call(name: str, *words: object) -> int:
    """Call a function. Raises OSError; ENOSYS where libc has no such function."""
    function = getattr(_libc, name, None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)
    result: int = function(*words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return result


def attach(jid: int) -> None:
    """Be in a jail from now on, at its root (jail_attach(2)). Raises OSError."""
    call("jail_attach", ctypes.c_int(jid))
    os.chdir("/")


def ask_to_mount(path: str) -> None:
    """nmount(2) of a file system that does not exist. Raises OSError."""
    words = (b"fstype", b"layoutnothing", b"fspath", os.fsencode(path))
    vector = (_Vector * len(words))(*(_Vector(word, len(word) + 1) for word in words))
    call("nmount", ctypes.byref(vector), ctypes.c_uint(len(words)), ctypes.c_int(0))


def ask_to_unmount(path: str) -> None:
    """unmount(2) of what is not mounted. Raises OSError."""
    call("unmount", ctypes.c_char_p(os.fsencode(path)), ctypes.c_int(0))


def ask_for_handles() -> None:
    """fhopen(2) of a handle of nothing. Raises OSError."""
    os.close(call("fhopen", _HANDLE, ctypes.c_int(os.O_RDONLY)))
