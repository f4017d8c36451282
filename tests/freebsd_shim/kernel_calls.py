"""System calls of FreeBSD that layout makes through ctypes, as the kernel of a pretended host answers them.

jail_attach(2) really puts the process into the jail; the others ask Linux whether this process may do such a
thing, and only that is told: EPERM, or what FreeBSD says to somebody who may.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

LIB = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "personality", "lib")


class Libc:
    """libc with the calls of FreeBSD, and without those that only Linux has."""

    def __init__(self, real, allowed) -> None:
        self._real = real
        self._allowed = allowed
        sys.path.insert(0, LIB)
        try:
            import prison
            import state

            prison.kernel.load()
        finally:
            sys.path.remove(LIB)
        self._prison, self._state = prison, state

    def __getattr__(self, name: str):
        if name in {"mount", "umount", "umount2", "unshare", "setns", "pivot_root", "prctl", "syscall"}:
            raise AttributeError(f"{name}: not in FreeBSD's libc")
        return getattr(self._real, name)

    def _answer(self, code: int) -> int:
        ctypes.set_errno(code)
        return -1 if code else 0

    def jail_attach(self, jid) -> int:
        with self._allowed(), self._state.locked() as state:
            jail = self._prison.find(state, str(jid.value))
        if jail is None:
            return self._answer(errno.EINVAL)
        if any(_is_directory(fd) for fd in range(3, 256)):
            return self._answer(errno.EPERM)  # FreeBSD-EN-24:17
        with self._allowed():
            self._prison.attach(jail)
        os.chroot(jail["path"])
        os.chdir("/")
        allow = jail["params"].get
        more = {9} if allow("allow.chflags") in (["true"], ["1"]) else set()
        self._prison._drop(more)
        return self._answer(self._lose(more))

    def _lose(self, more: set[int]) -> int:
        """Give up, in this very process, what _drop has taken from those that it will execute."""
        keep = sum(1 << number for number in self._prison._CAPABILITIES | more)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        low, high = keep & 0xFFFFFFFF, keep >> 32
        data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
        return 0 if self._real.capset(header, data) == 0 else errno.EPERM

    def nmount(self, vector, count, flags) -> int:
        read_only, bind, remount = 1, 0x1000, 0x20
        del vector, count, flags
        if self._real.mount(b"none", b"/", None, read_only | bind | remount, None) == 0:
            return self._answer(errno.ENODEV)
        return self._answer(ctypes.get_errno())

    def unmount(self, path, flags) -> int:
        del path, flags
        expire = 4  # the first such call unmounts nothing
        self._real.umount2(b"/", expire)
        code = ctypes.get_errno()
        return self._answer(code if code == errno.EPERM else errno.EINVAL)

    def fhopen(self, handle, flags) -> int:
        del handle
        made = (ctypes.c_uint32 * 34)(8, 1)
        at = os.open("/", os.O_RDONLY)
        try:
            fd = self._real.open_by_handle_at(at, made, flags.value)
        finally:
            code = ctypes.get_errno()
            os.close(at)
        return fd if fd >= 0 else self._answer(code)


def _is_directory(fd: int) -> bool:
    try:
        return os.fstat(fd).st_mode & 0o170000 == 0o040000
    except OSError:
        return False
