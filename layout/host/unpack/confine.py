"""Shut a forked child in: no descriptors, no network, no capabilities but those it needs, an empty root.

Everything here is for the child between fork and its work.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import resource
import signal
import sys
from collections.abc import Iterable

if sys.platform == "linux":  # loaded with the module: a chroot has nothing to load it from
    from layout.host.linux import process, syscalls
else:
    from layout.host.freebsd import process as freebsd_process

_NOBODY = 65534


def confine(
    root_fd: int, keep: Iterable[int], capabilities: Iterable[str], *, parent: int, nobody: bool, files: int
) -> None:
    """Confine this process for good; it must be a child that was forked for one piece of work.

    `root_fd` is the directory that becomes its root. `keep` are the descriptors it keeps besides 0, 1 and
    2, which become /dev/null. `capabilities` are the only ones left, by name. `parent` is a pidfd of the
    process without which it must not live on (Linux; -1 elsewhere). `nobody` gives up user 0 where the user
    namespace maps another. `files` is the limit of its descriptors. Raises OSError or LayoutError when a
    step that everything rests on fails: chroot, capabilities, no_new_privs.
    """
    parent_pid = os.getppid()
    # Ctrl-C reaches the whole process group: the parent decides, and kills us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    gc.disable()
    faulthandler.disable()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd, inheritable=False)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC)
    os.fchdir(root_fd)
    _close_all_but({*keep, parent})
    os.chroot(".")
    os.umask(0)
    _limit(resource.RLIMIT_CORE, 0)
    # A hostile archive must not take the host's memory; this is far above what a real one needs.
    _limit(resource.RLIMIT_AS, 4 << 30)
    if sys.platform == "linux":
        _drop_privileges(capabilities, nobody=nobody)
        # Last, for a change of user clears it.
        process.die_with_parent(parent)
        os.close(parent)
    else:
        if nobody:
            # No capabilities here: whoever needs no other's files is no longer root, and stays in his chroot.
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        freebsd_process.die_with_parent(parent_pid)
    _limit(resource.RLIMIT_NOFILE, files)


def _close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not in keep: a lock or a directory outside must not come along."""
    if sys.platform == "linux":
        process.close_descriptors(keep)
    else:
        low = 3
        for fd in sorted(fd for fd in keep if fd >= low):
            os.closerange(low, fd)
            low = fd + 1
        os.closerange(low, max(low, os.sysconf("SC_OPEN_MAX"), 1 << 20))


def _limit(which: int, value: int) -> None:
    """Lower both limits to value, or to what the hard limit allows."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _drop_privileges(capabilities: Iterable[str], *, nobody: bool) -> None:
    """Leave exactly these capabilities in the effective, permitted and bounding sets, none in the others."""
    kept = process.bound_capabilities(capabilities)
    process.forbid_new_privileges()
    if nobody:
        # In a user namespace 65534 may be unmapped; then user 0 without capabilities has to do.
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    process.set_capabilities(kept)
    process.forbid_inspection()
