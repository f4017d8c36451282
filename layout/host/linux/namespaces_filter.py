"""A filter of system calls: a process, and whatever it starts, makes no user namespace and sees no keyring.

In a namespace of its own, a user without any capability may mount a memory file system, write to it and
execute from it. Keyrings (keyrings(7)) know of users only: those of the host's root would be there for uid 0
of a jail that has no user namespace, to be read and changed. Source: seccomp(2), and the tables of system
calls in asm/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from layout.host.linux import process

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
"""Places in struct seccomp_data; of the argument the lower half, on little-endian machines."""
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_X32 = 0x40000000
"""Bit of the second set of numbers that x86_64 has."""
_CLONE3 = 435
_NEW_USER = 0x10000000
_MACHINES = {
    "x86_64": ((0xC000003E, 56, 272, 248), (0x40000003, 120, 310, 286)),
    "aarch64": ((0xC00000B7, 220, 97, 217), (0x40000028, 120, 337, 309)),
    "riscv64": ((0xC00000F3, 220, 97, 217),),
}
"""AUDIT_ARCH_*, and the numbers of clone, unshare and add_key; then the same for 32-bit programs.

request_key and keyctl are the two numbers after add_key everywhere.
"""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def is_known() -> bool:
    """Say whether there is a filter for this machine."""
    return os.uname().machine in _MACHINES


def program(machine: str) -> bytes:
    """Return the filter, as classic BPF: clone and unshare make no user namespace; no clone3, no keys.

    Calls of another machine's set of numbers are refused. Raises KeyError for a machine without a filter.
    """
    lines = [line for numbers in _MACHINES[machine] for line in _block(*numbers)]
    return b"".join(struct.pack("=HBBI", *line) for line in [*lines, (_RETURN, 0, 0, _ERRNO | errno.EPERM)])


def _block(audit: int, clone: int, unshare: int, keys: int) -> list[tuple[int, int, int, int]]:
    """Return the filter for one set of numbers; for another one it goes on behind it."""
    return [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 0, 12, audit),  # another one: the next block
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 9, 0, _X32),  # refuse
        (_EQUAL, 7, 0, _CLONE3),  # its flags lie in memory: libraries take clone when there is none
        (_AT_LEAST, 1, 0, keys + 3),
        (_AT_LEAST, 5, 0, keys),  # as on a kernel without keys
        (_EQUAL, 1, 0, clone),
        (_EQUAL, 0, 2, unshare),  # none of them: allow
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 2, 0, _NEW_USER),  # refuse
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]


def apply() -> bool:
    """Put this process under the filter; False where there is none. Raises OSError.

    It needs no_new_privs or CAP_SYS_ADMIN.
    """
    if not is_known():
        return False
    code = program(os.uname().machine)
    wanted = _Program(len(code) // 8, code)
    process.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(wanted))
    return True
