"""The smallest program there is: ends at once, with its effective user as exit status. Bytes of ELF, elf(5).

The probes copy it to where nothing may be executed. It is made here, so that nothing of a jail has to be.
"""

from __future__ import annotations

import struct

RAN = 64
"""Added to the effective user: tells this program's exit status from all others."""

_BASE = 0x400000
_HEADER, _SEGMENT = 64, 56
_OSABI = {"Linux": 0, "FreeBSD": 9}
_MACHINE = {"x86_64": 62, "amd64": 62, "aarch64": 183, "arm64": 183, "riscv64": 243, "riscv": 243}
_CALLS = {
    "Linux": {62: (107, 60), 183: (175, 93), 243: (175, 93)},
    "FreeBSD": dict.fromkeys((62, 183, 243), (25, 1)),
}
"""Numbers of geteuid and exit, by system and machine."""


def program(system: str, machine: str) -> bytes:
    """Return the program for os.uname()'s `sysname` and `machine`.

    For a machine not known here it is one without instructions: a kernel that lets it be executed ends it by
    a signal, which tells the same.
    """
    return elf(system, machine, _code(system, _MACHINE[machine]) if machine in _MACHINE else b"")


def elf(system: str, machine: str, code: bytes) -> bytes:
    """Return a static program of this code, which needs nothing but to be mapped."""
    number = _MACHINE.get(machine, 62)
    size = _HEADER + _SEGMENT + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1, _OSABI.get(system, 0))) + bytes(8)
    entry = _BASE + _HEADER + _SEGMENT
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, number, 1, entry, _HEADER, 0, 0, _HEADER, _SEGMENT, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def _code(system: str, machine: int) -> bytes:
    """Return geteuid(2), then exit(2) of that and RAN."""
    geteuid, leave = _CALLS.get(system, _CALLS["Linux"])[machine]
    if machine == 62:
        call = b"\x0f\x05"
        add = b"\x8d\x78" + bytes((RAN,))  # lea edi, [rax + RAN]
        return b"\xb8" + struct.pack("<I", geteuid) + call + add + b"\xb8" + struct.pack("<I", leave) + call
    if machine == 183:
        words = (
            0xD2800008 | geteuid << 5,  # mov x8, geteuid
            0xD4000001,  # svc 0
            0x11000000 | RAN << 10,  # add w0, w0, RAN
            0xD2800008 | leave << 5,
            0xD4000001,
        )
    else:
        seven = 0x893 if system == "Linux" else 0x293  # a7; FreeBSD takes t0
        words = (geteuid << 20 | seven, 0x73, RAN << 20 | 0x50513, leave << 20 | seven, 0x73)
    return struct.pack(f"<{len(words)}I", *words)
