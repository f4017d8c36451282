"""A control group of a jail's own, for an engine that makes groups wherever it finds itself.

systemd-nspawn makes groups in that of whoever starts it, hands them to the jail's root and leaves them
behind. In a group and a cgroup namespace of its own it reaches nothing else, and what it made is removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time

from layout.core.errors import LayoutError
from layout.host import forked
from layout.host.beneath import open_root
from layout.host.linux import devices, syscalls

_TOP = "/sys/fs/cgroup"
_QUIET = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_NEW_GROUP = 0x02000000
_PATIENCE = 500
"""Tries, a hundredth of a second apart, for a group whose processes have only just ended."""


def group_of(name: str, mountpoint: str) -> str:
    """Return the name of a jail's group, which no jail of another ROOT has."""
    return f"layout-{name}-{hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:8]}"


def enter(group: str) -> None:
    """Be in this group, and see nothing but it. In a mount namespace of one's own only. Raises OSError."""
    top = _mount()
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{top}/{group}", 0o755)
    fd = os.open(f"{top}/{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)
    syscalls.unshare(_NEW_GROUP)
    _mount()


def remove(group: str) -> None:
    """Remove a group that nothing is in any more, with those below it. Raises LayoutError."""
    pid = forked.fork(lambda: _remove(group))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        found = f"a control group that stays: {os.strerror(status)}" if status > 0 else "an interrupt"
        raise LayoutError(
            group, found, "none after a jail", "see /proc/self/cgroup, rmdir it below /sys/fs/cgroup"
        )


def _remove(group: str) -> int:
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        top = f"{_mount()}/{group}"
        for path in [here for here, _, _ in os.walk(top, topdown=False)]:
            _rmdir(path)
    except OSError as error:
        return error.errno or 1
    return 0


def _rmdir(path: str) -> None:
    """Remove a group, also one that somebody else removes at the same time. Raises OSError."""
    for _ in range(_PATIENCE):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return
        time.sleep(0.01)
    os.rmdir(path)


def _mount() -> str:
    """Mount the hierarchy that systemd counts in, as it does itself; return where.

    It goes by what is mounted there, whatever other hierarchies the kernel has besides.
    """
    legacy = False
    if not os.path.exists(f"{_TOP}/cgroup.procs"):
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            legacy = ":name=systemd:" in file.read()
    with open_root(_TOP) as target:
        # The kernel mounts no file system twice over itself (EBUSY), and v2 is one for the whole host.
        made = devices.tmpfs(syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV | syscalls.ATTR_NOEXEC, ())
        try:
            if legacy:
                os.mkdir("systemd", 0o755, dir_fd=made)
            syscalls.move_mount(made, target.fd, b"")
        finally:
            os.close(made)
    if not legacy:
        syscalls.mount(b"cgroup2", _TOP.encode(), b"cgroup2", _QUIET)
        return _TOP
    syscalls.mount(b"cgroup", f"{_TOP}/systemd".encode(), b"cgroup", _QUIET, b"none,name=systemd")
    return f"{_TOP}/systemd"
