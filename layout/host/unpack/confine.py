"""Shut a forked child in: no descriptors, no network, no capabilities but those it needs, an empty root.

Everything here is for the child between fork and its work. Sources: capabilities(7), prctl(2), unshare(2),
capset(2), credentials(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import resource
import signal
import sys
from collections.abc import Iterable

__all__ = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "confine"]

CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP = 0, 1, 3, 4, 31
"""Numbers of linux/capability.h."""

_CLONE_NEWIPC = 0x08000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_NOBODY = 65534

# Loaded with the module: a chroot has no libc to load.
_libc = ctypes.CDLL(None, use_errno=True)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def confine(
    root_fd: int, keep: Iterable[int], capabilities: Iterable[int], *, parent: int, nobody: bool, files: int
) -> None:
    """Confine this process for good; it must be a child that was forked for one piece of work.

    `root_fd` is the directory that becomes its root. `keep` are the descriptors it keeps besides 0, 1 and
    2, which become /dev/null. `capabilities` are the only ones left. `parent` is the process without which
    it must not live on. `nobody` gives up user 0 where the user namespace maps another. `files` is the
    limit of its descriptors. Raise OSError when a step that everything rests on fails: chroot, capset,
    no_new_privs.
    """
    # Ctrl-C reaches the whole process group: the parent decides, and kills us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    gc.disable()
    faulthandler.disable()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd, inheritable=False)
    with contextlib.suppress(OSError):
        _unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
    os.fchdir(root_fd)
    os.chroot(".")
    _close_all_but({0, 1, 2, *keep})
    os.umask(0)
    _limit(resource.RLIMIT_CORE, 0)
    # A hostile archive must not take the host's memory; this is far above what a real one needs.
    _limit(resource.RLIMIT_AS, 4 << 30)
    _limit(resource.RLIMIT_NOFILE, files)
    if sys.platform == "linux":
        _drop_capabilities(frozenset(capabilities), nobody=nobody)
        _prctl(_PR_SET_DUMPABLE, 0)
        # Last, for a change of user clears it. The check closes the gap in which the parent may have died.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def _close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not in keep: a lock or a directory outside must not come along."""
    low = 0
    for fd in sorted(keep):
        if low < fd:  # closerange(0, 0) closes everything: CPython passes -1 on to close_range(2)
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(low, os.sysconf("SC_OPEN_MAX"), 1 << 20))


def _limit(which: int, value: int) -> None:
    """Lower both limits to value, or to what the hard limit allows."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _unshare(flags: int) -> None:
    if sys.platform != "linux" or _libc.unshare(ctypes.c_int(flags)) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _prctl(option: int, *arguments: int) -> None:
    words = [ctypes.c_ulong(word) for word in (*arguments, *(0,) * (4 - len(arguments)))]
    if _libc.prctl(ctypes.c_int(option), *words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def _drop_capabilities(keep: frozenset[int], *, nobody: bool) -> None:
    """Leave exactly `keep` in the effective and permitted sets, nothing in the others."""
    for capability in range(64):
        if capability not in keep:
            with contextlib.suppress(OSError):  # beyond the last one, or without CAP_SETPCAP
                _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if nobody:
        # In a user namespace 65534 may be unmapped; then user 0 without capabilities has to do.
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    words = (_CapData * 2)()
    for capability in keep:
        words[capability // 32].permitted |= 1 << capability % 32
        words[capability // 32].effective |= 1 << capability % 32
    if _libc.capset(ctypes.byref(_CapHeader(_CAPABILITY_VERSION_3, 0)), words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")
