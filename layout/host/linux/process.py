"""The process-level calls that Python's os module lacks: capabilities, root, death signal, descriptors.

Calls that libc exports (prctl, capget, capset, pivot_root, sethostname) are called by name, so that no table
of numbers per machine is needed; close_range(2) is newer than many a libc and has one number everywhere, and
keyctl(2) is in no libc.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
from collections.abc import Iterable
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint32, c_ulong
from dataclasses import dataclass

from layout.core import service
from layout.core.errors import LayoutError

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_IS_SET = 1
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4

CAPABILITIES: dict[str, int] = {name.upper(): number for number, name in enumerate(service.CAPABILITIES)}

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *types: type) -> ctypes._NamedFuncPointer:
    function = _libc[name]
    function.argtypes = list(types)
    function.restype = c_int
    return function


def _close_range_call() -> ctypes._NamedFuncPointer:
    function = _libc["syscall"]
    function.argtypes = [c_long, c_uint, c_uint, c_uint]
    function.restype = c_long
    return function


def _keyctl_call() -> ctypes._NamedFuncPointer:
    function = _libc["syscall"]
    function.argtypes = [c_long, c_int, c_char_p]
    function.restype = c_long
    return function


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", c_uint32), ("pid", c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", c_uint32), ("permitted", c_uint32), ("inheritable", c_uint32))


_prctl = _call("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_capget = _call("capget", ctypes.POINTER(_CapHeader), ctypes.POINTER(_CapData))
_capset = _call("capset", ctypes.POINTER(_CapHeader), ctypes.POINTER(_CapData))
_pivot_root = _call("pivot_root", c_char_p, c_char_p)
_sethostname = _call("sethostname", c_char_p, c_size_t)
_close_range = _close_range_call()
_keyctl = _keyctl_call()
_KEYCTL = {"x86_64": 250, "i686": 288, "armv7l": 311, "ppc64le": 271, "s390x": 280}
"""The number of keyctl(2), by machine; 219 on those whose table is asm-generic/unistd.h."""


def _fail(what: str | bytes) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), what)


def prctl(option: int, *values: int) -> int:
    """prctl(2). Raises OSError."""
    padded = [*values, 0, 0, 0, 0][:4]
    result: int = _prctl(option, *padded)
    if result < 0:
        raise _fail("prctl")
    return result


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; `parent` is a pidfd of that parent.

    The signal is sent for deaths after the call only, so an earlier death is looked for
    afterwards.
    A change of user or group ID clears the setting again (prctl(2)): call this after any such change.
    Raises ProcessLookupError when the parent is gone.
    """
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if has_ended(parent):
        raise ProcessLookupError("the parent process has ended")


def has_ended(pidfd: int) -> bool:
    """Say whether the process behind `pidfd` has ended (pidfd_open(2): then it polls as readable)."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def ends_within(pidfd: int, seconds: float) -> bool:
    """Wait for the end of the process behind `pidfd`; False when it has not come in time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def forbid_inspection() -> None:
    """Close this process's memory, environment and descriptors to ptrace(2) and /proc (PR_SET_DUMPABLE 0)."""
    prctl(_PR_SET_DUMPABLE, 0)


def leave_keyrings() -> None:
    """Have an empty session keyring from now on, instead of the one of whoever started us. Raises OSError.

    It is inherited and knows no namespace: what lies in it could be read, and changed (keyrings(7)).
    """
    if _keyctl(_KEYCTL.get(os.uname().machine, 219), 1, None) < 0:  # KEYCTL_JOIN_SESSION_KEYRING
        code = ctypes.get_errno()
        if code not in {errno.ENOSYS, errno.EPERM}:  # without keys, or none that we may have ourselves
            raise OSError(code, os.strerror(code), "keyctl")


def forbid_core_dumps() -> None:
    """Let no process that this one becomes or starts dump core, by a limit that cannot be raised again.

    A limit of 1, for the kernel asks neither 0 nor more before it starts the host's program, as root of the
    host, that kernel.core_pattern may name (fs/coredump.c).
    """
    with contextlib.suppress(ValueError, OSError):  # it is 0, and may not be raised even to 1
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def set_name(name: bytes) -> None:
    """Set the name that ps(1) shows for this process, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name, 16)
    prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """pivot_root(2): make `new_root` the root of this mount namespace. Raises OSError."""
    if _pivot_root(new_root, put_old) < 0:
        raise _fail(new_root)


def sethostname(name: bytes) -> None:
    """sethostname(2), for the UTS namespace of the caller. Raises OSError."""
    if _sethostname(name, len(name)) < 0:
        raise _fail(name)


def close_descriptors(keep: Iterable[int] = (), first: int = 3) -> None:
    """Close every descriptor from `first` on but those in `keep` (close_range(2), Linux 5.9).

    The limit RLIMIT_NOFILE says nothing about descriptors opened before it was lowered, so without the call
    the descriptors that /proc lists are closed. Raises OSError when neither way can be gone.
    """
    start = first
    for fd in sorted({fd for fd in keep if fd >= first}):
        if fd > start and _close_range(436, start, fd - 1, 0) < 0:
            return _close_listed(set(keep), first)
        start = fd + 1
    if _close_range(436, start, 0xFFFFFFFF, 0) < 0:
        return _close_listed(set(keep), first)
    return None


def _close_listed(keep: set[int], first: int) -> None:
    for entry in os.listdir("/proc/self/fd"):
        fd = int(entry)
        if fd >= first and fd not in keep:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is gone already
                os.close(fd)


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """The capability sets of this thread, as bit masks (capabilities(7))."""

    effective: int
    permitted: int
    inheritable: int
    bounding: int
    ambient: int


def capability_sets() -> CapabilitySets:
    """Read all five sets back from the kernel. Raises OSError."""
    header = _CapHeader(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    data = (_CapData * 2)()
    if _capget(ctypes.byref(header), data) < 0:
        raise _fail("capget")
    bounding = ambient = 0
    for number in range(64):
        try:
            bounding |= prctl(_PR_CAPBSET_READ, number) << number
        except OSError:  # EINVAL: beyond the last capability this kernel knows
            break
        ambient |= prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_IS_SET, number) << number
    low, high = data
    return CapabilitySets(
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
        bounding,
        ambient,
    )


def capability_mask(names: Iterable[str]) -> int:
    """Return the bit mask of capabilities given by name, without the prefix CAP_. Raises KeyError."""
    mask = 0
    for name in names:
        mask |= 1 << CAPABILITIES[name]
    return mask


def keep_capabilities(names: Iterable[str]) -> int:
    """Give up every capability but `names`, for good, and prove it; returns the mask of those that are left.

    Names that this process does not hold are left out: root of a container may hold fewer. Inheritable and
    ambient end up empty: root gets what the bounding set holds at execve(2), and an inheritable set would be
    given to programs of other users too (the mistake of CVE-2022-24769).
    Raises OSError, or LayoutError when the kernel reports other sets than those asked for.
    """
    kept = bound_capabilities(names)
    set_capabilities(kept)
    after = capability_sets()
    expected = CapabilitySets(kept, kept, 0, kept, 0)
    if after != expected:
        raise LayoutError(
            "the session's capabilities", repr(after), repr(expected), "the kernel kept more than asked"
        )
    return kept


def bound_capabilities(names: Iterable[str]) -> int:
    """Take everything but `names` out of the bounding and ambient sets; returns the mask of what is left.

    The first step, while CAP_SETPCAP is still there. Raises OSError.
    """
    before = capability_sets()
    kept = capability_mask(names) & before.permitted & before.bounding
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(64):
        if (before.bounding & ~kept) >> number & 1:
            prctl(_PR_CAPBSET_DROP, number)
    return kept


def set_capabilities(kept: int, inheritable: int = 0) -> None:
    """Make the mask `kept` the permitted and effective sets, and `inheritable` that one. Raises OSError."""
    header = _CapHeader(0x20080522, 0)
    data = (_CapData * 2)(
        _CapData(kept & 0xFFFFFFFF, kept & 0xFFFFFFFF, inheritable & 0xFFFFFFFF),
        _CapData(kept >> 32, kept >> 32, inheritable >> 32),
    )
    if _capset(ctypes.byref(header), data) < 0:
        raise _fail("capset")


def become_user(uid: int, gid: int, names: Iterable[str]) -> int:
    """Be this user and group alone, with these capabilities at most, kept by execve(2); return their mask.

    Without the capability SETUID there is no way back. Raises OSError, or LayoutError when the kernel reports
    something else than what was asked for.
    """
    kept = bound_capabilities(names)
    prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    set_capabilities(kept, inheritable=kept)
    for number in range(64):
        if kept >> number & 1:
            prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)
    after = capability_sets()
    expected = CapabilitySets(kept, kept, kept, kept, kept)
    if after != expected or os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise LayoutError(f"user {uid}", repr(after), repr(expected), "the kernel kept more than asked")
    return kept


def forbid_new_privileges() -> None:
    """Let no execve(2) from here on give a privilege: setuid bits and file capabilities are ignored."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
