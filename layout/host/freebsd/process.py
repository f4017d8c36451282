"""What a process of FreeBSD may ask of its kernel for itself: procctl(2)."""

from __future__ import annotations

import ctypes
import os
import signal

_P_PID = 0
_PDEATHSIG_CTL = 11
"""PROC_PDEATHSIG_CTL of sys/procctl.h, since FreeBSD 11.2."""
_NO_NEW_PRIVS_CTL = 19
"""PROC_NO_NEW_PRIVS_CTL."""

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends; `parent` is its process id.

    Where libc has no procctl, it ends at its next read or write of the pipe that they share. Raises OSError
    when the kernel refuses, or the parent is gone already.
    """
    call = getattr(_libc, "procctl", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int, ctypes.c_void_p]
        number = ctypes.c_int(signal.SIGKILL)
        if call(_P_PID, 0, _PDEATHSIG_CTL, ctypes.byref(number)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "procctl")
    if os.getppid() != parent:
        raise ProcessLookupError(3, os.strerror(3), "parent")


def forbid_new_privileges() -> None:
    """Let no execve(2) from here on honour setuid bits, where the kernel knows that (FreeBSD 14)."""
    call = getattr(_libc, "procctl", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int, ctypes.c_void_p]
        call(_P_PID, 0, _NO_NEW_PRIVS_CTL, ctypes.byref(ctypes.c_int(1)))
