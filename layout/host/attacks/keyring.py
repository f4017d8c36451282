"""Keys of the kernel, keyrings(7): they know of users and sessions, and of no jail.

libc has no function for add_key(2) and keyctl(2). The numbers are those of asm/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import platform
from collections.abc import Callable, Iterator

from .frame import check, libc

_CALLS = {"x86_64": 248, "i686": 286, "armv7l": 309, "ppc64le": 269, "s390x": 278}
_ADD = _CALLS.get(platform.machine(), 217)
_CONTROL = _ADD + 2
_SESSION, _USER = -3, -4
_JOIN, _UPDATE, _LINK, _SEARCH, _READ = 1, 2, 8, 10, 11
_TYPE, _NAME = b"user", b"layout-selftest"


def _call(number: int, *words: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call the kernel. Raises OSError."""
    longs = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    return check(libc.syscall(ctypes.c_long(number), *longs), "keyctl")


def plant() -> None:
    """Have a session keyring of this process's own with a key in it; both go with its last process.

    Raises OSError.
    """
    _call(_CONTROL, _JOIN, None)
    _add(_NAME)


def _add(name: bytes) -> None:
    _call(_ADD, _TYPE, name, b"secret", 6, _SESSION)


def _found() -> int:
    """Return the number of the planted key. Raises OSError; ENOKEY where the keyring is another one."""
    return _call(_CONTROL, _SEARCH, _SESSION, _TYPE, _NAME, 0)


def _added() -> None:
    _found()
    _add(_NAME + b"-added")


def _of_user() -> None:
    """Ask whether the keyring of the user could be changed: only who could is told of the loop."""
    try:
        _call(_CONTROL, _LINK, _USER, _USER)
    except OSError as error:
        if error.errno != errno.EDEADLK:
            raise


def attempts() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what can be tried with the keys of whoever started this process."""
    yield "read", lambda: _call(_CONTROL, _READ, _found(), ctypes.create_string_buffer(64), 64)
    yield "change", lambda: _call(_CONTROL, _UPDATE, _found(), b"other", 5)
    yield "add", _added
    yield "of the user", _of_user
