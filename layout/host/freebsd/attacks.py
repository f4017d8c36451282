"""What root of a jail of FreeBSD tries, besides what is tried everywhere: the kernel's own calls.

Where a call would change the host if it worked, it is made so that nothing can come of it: whoever has no
right is told so first. Outside, the same call gets another answer, and that is its control.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import stat
from collections.abc import Callable

from layout.host.attacks import mounts, programs, reach, session, shared
from layout.host.attacks.frame import Aim, Exploit, Untried, each
from layout.host.freebsd import libc

_ATTACH, _DETACH = 10, 11
_HIGHEST = 1024
_ANONYMOUS = ctypes.c_char_p(1)
"""SHM_ANON of shm_open(2)."""
_IMMUTABLE = 0x00020000
"""SF_IMMUTABLE (chflags(2))."""
LIBRARY, MERGED = "libevil.so", "/var/db/etcupdate/file"
_KNOB = b"kern.ps_arg_cache_limit"


def call(name: str, *words: object) -> int:
    """Call libc. Raises OSError; Untried where there is no such function."""
    try:
        return libc.call(name, *words)
    except OSError as error:
        raise (_untried(error) or error) from None


def _untried(error: OSError) -> Untried | None:
    return Untried(f"there is no {error.filename}(2) here") if error.errno == errno.ENOSYS else None


def attach(jid: int) -> None:
    """Be in a jail; a directory that is open would keep one from that. Raises OSError."""
    for fd in range(3, _HIGHEST):
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                os.close(fd)
    libc.attach(jid)


def _asks(work: Callable[[], object]) -> str:
    """Make a call that does nothing; it has worked when the answer is not that one has no right to it."""
    try:
        work()
    except OSError as error:
        if error.errno not in libc.MAY:
            raise (_untried(error) or error) from None
    return "it may"


def mount(aim: Aim) -> str:
    return _asks(lambda: libc.ask_to_mount(aim.t))


def umount(aim: Aim) -> str:
    return _asks(lambda: libc.ask_to_unmount(f"{aim.t}/no-mount"))


def handle(aim: Aim) -> str:
    return _asks(libc.ask_for_handles)


def jail(aim: Aim) -> str:
    return _asks(lambda: libc.call("jail_set", None, ctypes.c_uint(0), ctypes.c_int(1)))


def device(aim: Aim) -> str:
    path = f"{aim.t}/node"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(2, 2))
    os.unlink(path)
    return path


def ptrace(aim: Aim) -> str:
    call("ptrace", ctypes.c_int(_ATTACH), ctypes.c_int(aim.victim), None, ctypes.c_int(0))
    os.waitpid(aim.victim, os.WNOHANG)
    call("ptrace", ctypes.c_int(_DETACH), ctypes.c_int(aim.victim), ctypes.c_void_p(1), ctypes.c_int(0))
    return f"process {aim.victim}"


def kernel(aim: Aim) -> str:
    return each(
        (
            ("sysctl", _same_sysctl),
            ("/dev/mem", lambda: os.close(os.open("/dev/mem", os.O_RDONLY))),
            ("/dev/io", lambda: os.close(os.open("/dev/io", os.O_RDONLY))),
        )
    )


def _same_sysctl() -> None:
    """Set a value to what it is."""
    value, size = ctypes.c_long(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_long))
    call("sysctlbyname", _KNOB, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0))
    call("sysctlbyname", _KNOB, None, None, ctypes.byref(value), size)


def flags(aim: Aim) -> str:
    path = f"{aim.t}/flagged"
    change = getattr(os, "chflags", None)
    if change is None:
        raise Untried("this Python has no chflags(2)")
    with open(path, "w", encoding="ascii"):
        pass
    change(path, _IMMUTABLE)
    change(path, 0)
    return path


def raw_socket(aim: Aim) -> str:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "socket(2)"


def memory(aim: Aim) -> str:
    fd = call("shm_open", _ANONYMOUS, ctypes.c_int(os.O_RDWR), ctypes.c_int(0o700))
    os.ftruncate(fd, len(programs.program()))
    os.write(fd, programs.program())
    programs.run(fd, programs.arguments("memory"))
    return "shm_open(2), then fexecve(2)"


def interpreter(aim: Aim) -> str:
    if not aim.interpreter:
        raise Untried("this host has no /rescue/sh to put into the base")
    path = f"{aim.t}/script"
    with open(path, "w", encoding="ascii") as file:
        file.write("exit 7\n")
    if programs.run(aim.interpreter[0], [*aim.interpreter, path]) != 7:
        raise OSError(errno.EACCES, "it did not run", path)
    return aim.interpreter[0]


def linker_hints(aim: Aim) -> str:
    """What rtld(1) does with hints: it opens what they lead to, and maps it executable."""
    with open(session.HINTS, encoding="ascii") as file:
        path = f"{file.read().strip()}/{LIBRARY}"
    fd = os.open(path, os.O_RDONLY)
    programs.mapped(fd)
    return path


def package_script(aim: Aim) -> str:
    """pkg(8) delete."""
    return session.ran(aim, f"{os.environ.get('PKG_DBDIR', '/var/db/pkg')}/info/demo.prerm")


def merge_base(aim: Aim) -> str:
    return session.merge_base(aim, MERGED)


def left_behind(channel: int) -> Exploit:
    """Return what leaves a process behind, which says so through a socket and stays until that is closed."""

    def begin() -> None:
        os.dup2(channel, 0)
        os.closerange(1, _HIGHEST)  # whoever waits for the end of these does not wait for this one
        os.write(0, b"x")

    return lambda _: session.leave(begin, lambda: os.read(0, 1))


EXPLOITS: dict[str, Exploit] = {
    **{name: mounts.EXPLOITS[name] for name in ("write-base", "write-s", "link")},
    **{
        name: programs.EXPLOITS[name]
        for name in ("execute", "map-execute", "setuid", "setuid-file", "anonymous")
    },
    **{name: reach.EXPLOITS[name] for name in ("chroot", "signal")},
    **{name: shared.EXPLOITS[name] for name in ("new-fifo", "fifo", "socket", "flock")},
    **{
        name: session.EXPLOITS[name]
        for name in ("build-options", "temporary", "link-write", "script-in-tmp", "script", "fifo-log")
    },
    "linker-hints": linker_hints,
    "package-script": package_script,
    "merge-base": merge_base,
    "mount": mount,
    "umount": umount,
    "handle": handle,
    "jail": jail,
    "device": device,
    "ptrace": ptrace,
    "kernel": kernel,
    "flags": flags,
    "raw-socket": raw_socket,
    "memory": memory,
    "interpreter": interpreter,
}
