"""Attacks that want to execute what they wrote: files of t, libraries, setuid files, memory."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import stat
import struct
import sys

from .frame import Aim, Exploit, Refused, check, each, libc

# geteuid(2), then exit(2) with what it gave: all that has to be seen of a program that ran.
_CODE = {
    ("Linux", "x86_64"): (62, "b86b0000000f0589c7b83c0000000f05"),
    ("Linux", "aarch64"): (183, "e81580d2010000d4a80b80d2010000d4"),
    ("Linux", "riscv64"): (243, "9308f00a730000009308d00573000000"),
    ("FreeBSD", "amd64"): (62, "b8190000000f0589c7b8010000000f05"),
    ("FreeBSD", "arm64"): (183, "280380d2010000d4280080d2010000d4"),
    ("FreeBSD", "riscv"): (243, "93029001730000009302100073000000"),
}
# Linux: execve(2) of argv[1] with the arguments from there on and the same environment, then exit(2) of 255.
_LAUNCHERS = {
    "x86_64": (
        62,
        "488b0c24488b7c2410488d742410488d54cc10b83b0000000f05bfff000000b83c0000000f05",
    ),
    "aarch64": (
        183,
        "e30340f9e00b40f9e1430091e26f238b42400091a81b80d2010000d4e01f80d2a80b80d2010000d4",
    ),
    "riscv64": (
        243,
        "833601000335010193050101939636003306d100130606019308d00d730000001305f00f9308d00573000000",
    ),
}
_ABI = {"Linux": 0, "FreeBSD": 9}
_READ, _WRITE, _EXECUTE = 1, 2, 4
_PRIVATE = 2
_ANONYMOUS = 0x20 if platform.system() == "Linux" else 0x1000
OTHER = 65534
"""The user nobody."""


def program() -> bytes:
    """Return a program that exits with its effective user's number, modulo 256.

    Where no machine code is known for this machine, it is this Python.
    """
    system = platform.system()
    found = _CODE.get((system, platform.machine()))
    if found is None or sys.maxsize < 1 << 32:
        with open(sys.executable, "rb") as file:
            return file.read()
    return elf(found[0], bytes.fromhex(found[1]))


def launcher() -> bytes:
    """Return a static program that becomes the program in its first argument, with the others as its own.

    b"" where no machine code is known for this machine.
    """
    machine, text = _LAUNCHERS.get(platform.machine(), (0, ""))
    return elf(machine, bytes.fromhex(text)) if text else b""


def elf(machine: int, code: bytes) -> bytes:
    """Return a program with nothing in it but this code (elf(5))."""
    start = 0x400000
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01" + bytes([_ABI[platform.system()]]),
        2,
        machine,
        1,
        start + 120,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    size = 120 + len(code)
    return header + struct.pack("<IIQQQQQQ", 1, _READ | _EXECUTE, 0, start, start, size, size, 0x10000) + code


def arguments(path: str) -> list[str]:
    """Return the arguments with which `program` does that, whatever it is."""
    return [path, "-S", "-E", "-c", "import os; os._exit(os.geteuid() & 255)"]


def written(path: str, mode: int = 0o755) -> str:
    """Write the program and return its path."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700)
    try:
        os.write(fd, program())
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
    return path


def run(path: str | int, words: list[str], user: int | None = None) -> int:
    """Execute a program, as `user`; return its exit status. Raises OSError when that is refused."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            if user is not None:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            os.execve(path, words, {})  # noqa: S606 - whether that is possible is the question
        except OSError as error:
            os.write(writing, str(error.errno).encode())
        finally:
            os._exit(255)
    os.close(writing)
    refused = os.read(reading, 16)
    os.close(reading)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if refused:
        code = int(refused)
        raise OSError(code, os.strerror(code), str(path))
    return status


def execute(aim: Aim) -> str:
    path = written(f"{aim.t}/program")
    run(path, arguments(path))
    return path


def map_execute(aim: Aim) -> str:
    path = written(f"{aim.t}/library")
    mapped(os.open(path, os.O_RDONLY))
    return path


def mapped(fd: int) -> None:
    """Map a file executable. Raises OSError."""
    _map(fd, _READ | _EXECUTE, _PRIVATE)


def _map(fd: int, protection: int, flags: int) -> None:
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    if libc.mmap(None, 4096, protection, flags, fd, 0) in (None, ctypes.c_void_p(-1).value):
        check(-1, "mmap")


_LOG = "/proc/self/fd/1"


def log(aim: Aim) -> str:
    """The log holds no program: who may execute it is told that, and who may not, is not."""

    def executed() -> None:
        before = stat.S_IMODE(os.fstat(1).st_mode)
        with contextlib.suppress(OSError):
            os.fchmod(1, 0o755)
        try:
            run(_LOG, [_LOG])
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
        finally:
            with contextlib.suppress(OSError):
                os.fchmod(1, before)

    return each((("execve", executed), ("mmap", lambda: mapped(os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK)))))


def log_mode(aim: Aim) -> str:
    before = stat.S_IMODE(os.fstat(1).st_mode)
    os.fchmod(1, 0o644)
    os.fchmod(1, before)
    return "fchmod(2) of descriptor 1"


def setuid(aim: Aim) -> str:
    path = written(f"{aim.t}/setuid", 0o4755)
    os.chmod(aim.t, 0o755)
    user = run(path, arguments(path), OTHER)
    if user != os.geteuid() & 255:
        raise Refused((), f"it ran, as user {user}")
    return f"user {OTHER} became {user}"


def setuid_file(aim: Aim) -> str:
    path = written(f"{aim.t}/left-setuid", 0o4755)
    os.chmod(aim.t, 0o755)
    if not os.stat(path).st_mode & 0o4000:
        raise Refused((), "the bit did not stay")
    return path


def file_capability(aim: Aim) -> str:
    path = written(f"{aim.t}/capability")
    # struct vfs_cap_data, revision 2, effective: all capabilities
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 0xFFFFFFFF, 0, 0x1FF, 0))
    return path


def interpreter(aim: Aim) -> str:
    path = f"{aim.t}/script"
    with open(path, "w", encoding="ascii") as file:
        file.write("import os; os._exit(7)\n")
    if run(aim.interpreter[0], [*aim.interpreter, path]) != 7:
        raise Refused((), "it did not run")
    return aim.interpreter[0]


def memfd(aim: Aim) -> str:
    fd = os.memfd_create("program", 0)
    os.write(fd, program())
    run(fd, arguments("program"))
    return "memfd_create(2), then execveat(2)"


def anonymous(aim: Aim) -> str:
    _map(-1, _READ | _WRITE | _EXECUTE, _PRIVATE | _ANONYMOUS)
    return "mmap(2) of anonymous memory"


EXPLOITS: dict[str, Exploit] = {
    "execute": execute,
    "map-execute": map_execute,
    "log": log,
    "log-mode": log_mode,
    "setuid": setuid,
    "setuid-file": setuid_file,
    "file-capability": file_capability,
    "interpreter": interpreter,
    "memfd": memfd,
    "anonymous": anonymous,
}
