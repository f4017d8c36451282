"""A program that waits at the gate of a jail until it becomes the service: bytes of ELF, elf(5).

systemd-nspawn(1) starts a service as soon as its container is there; what layout still has to forbid there
would come a moment later. So this is started in its place, which waits for one byte on descriptor 0, opens
/dev/null as that, and executes its arguments (execve(2)). Without that byte it ends: layout has ended. It is
made here, so that a base needs no such program.
"""

from __future__ import annotations

from layout.core import tinyprogram

# What an assembler makes of the steps that the comments name; system calls by syscall(2), svc and ecall.
_CODE = {
    "x86_64": (
        "488b1c24 488d6c2410 4c8d64dc10"  # rbp: the arguments after the first; r12: the environment
        "50 31c0 31ff 4889e6 6a01 5a 0f05"  # read(0, rsp, 1)
        "83f801 754a"  # not 1: the end
        "488d3d81000000 31f6 6a02 58 0f05 85c0 7814"  # open("/dev/null", O_RDONLY)
        "89c7 4189c5 31f6 6a21 58 0f05"  # dup2(r13, 0)
        "4489ef 6a03 58 0f05"  # close(r13)
        "488b7d00 4889ee 4c89e2 6a3b 58 0f05"  # execve(arguments[0], arguments, environment)
        "6a02 5f 488d3513000000 6836000000 5a 6a01 58 0f05"  # write(2, words)
        "6a7f 5f 6a3c 58 0f05"  # the end: exit(127)
    ),
    "aarch64": (
        "f30340f9 f4430091 950e138b ff4300d1"  # x20: the arguments after the first; x21: the environment
        "000080d2 e1030091 220080d2 e80780d2 010000d4"  # read(0, sp, 1)
        "1f0400f1 41030054"  # not 1: the end
        "600c8092 01050050 020080d2 030080d2 080780d2 010000d4 2001f8b7"  # openat
        "f60300aa 010080d2 020080d2 080380d2 010000d4"  # dup3(x22, 0, 0)
        "e00316aa 280780d2 010000d4"  # close(x22)
        "800240f9 e10314aa e20315aa a81b80d2 010000d4"  # execve
        "400080d2 e1000010 c20680d2 080880d2 010000d4"  # write(2, words)
        "e00f80d2 a80b80d2 010000d4"  # the end: exit(127)
    ),
    "riscv64": (
        "03340100 93040101 13193400 33099900 130101ff"  # s1: arguments; s2: environment
        "13050000 93050100 13061000 9308f003 73000000"  # read(0, sp, 1)
        "93021000 63185506"  # not 1: the end
        "1305c0f9 97050000 9385a50a 13060000 93060000 93088003 73000000 63420502"  # openat
        "93090500 93050000 13060000 93088001 73000000"  # dup3(s3, 0, 0)
        "13850900 93089003 73000000"  # close(s3)
        "03b50400 93850400 13060900 9308d00d 73000000"  # execve
        "13052000 97050000 93850502 13066003 93080004 73000000"  # write(2, words)
        "1305f007 9308d005 73000000"  # the end: exit(127)
    ),
}
_WORDS = b"layout: the program of the service cannot be executed\n"


def program(machine: str) -> bytes | None:
    """Return the program for a machine of Linux, as os.uname() names it; None for one that is not known."""
    code = _CODE.get(machine)
    if code is None:
        return None
    return tinyprogram.elf("Linux", machine, bytes.fromhex(code) + _WORDS + b"/dev/null\0")
