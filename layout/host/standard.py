"""Descriptors 0, 1 and 2 of a confined session: what crosses from the host, and how."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass

from layout.core.errors import UsageError
from layout.host.pty_relay import Pump, Relay

_MEMORY_DEVICES = {3: "null", 5: "zero", 7: "full", 8: "random", 9: "urandom"}
"""What a session's own /dev has, by minor number on Linux, all of major 1: mem(4), null(4), random(4)."""

_NAMES = ("standard input", "standard output", "standard error")


@dataclass(frozen=True, slots=True)
class Standard:
    """One of descriptors 0, 1, 2 as the command gets it: an open one, a device inside, else its terminal."""

    fd: int = -1
    device: str = ""
    flags: int = os.O_RDWR

    @property
    def is_terminal(self) -> bool:
        """Whether it is the session's own terminal."""
        return self.fd < 0 and not self.device


def _kind(fd: int) -> str:
    status = os.fstat(fd)
    mode = status.st_mode
    if fcntl.fcntl(fd, fcntl.F_GETFL) & getattr(os, "O_PATH", 0):
        return "a path only (O_PATH)"
    if stat.S_ISDIR(mode):
        return "a directory"
    if os.isatty(fd):
        return "a terminal"
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return "a stream"
    if stat.S_ISREG(mode):
        return "a file"
    return "a memory device" if memory_device(status) else "a device"


def memory_device(status: os.stat_result) -> str:
    """Return the name below /dev of a memory device, or nothing for another kind of file."""
    if not stat.S_ISCHR(status.st_mode):
        return ""
    if sys.platform != "linux":
        return _same_number(status.st_rdev)
    return _MEMORY_DEVICES.get(os.minor(status.st_rdev), "") if os.major(status.st_rdev) == 1 else ""


def _same_number(number: int) -> str:
    """FreeBSD numbers devices as they appear: only one with the same number is the same device."""
    for name in _MEMORY_DEVICES.values():
        with contextlib.suppress(OSError):
            if os.stat(f"/dev/{name}").st_rdev == number:
                return name
    return ""


def fill_closed() -> None:
    """Open /dev/null for each of 0, 1, 2 that is closed, or the next file opened becomes one of them."""
    while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(fd)


@contextlib.contextmanager
def captured(log: int) -> Iterator[None]:
    """Let descriptor 0 be /dev/null, and 1 and 2 a file, meanwhile."""
    fill_closed()
    kept = [os.dup(fd) for fd in range(3)]
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for fd, other in enumerate((null, log, log)):
            os.dup2(other, fd)
        yield
    finally:
        os.close(null)
        for fd, old in enumerate(kept):
            os.dup2(old, fd)
            os.close(old)


def lend(name: str, terminal: bool | None, relay: Relay, lent: contextlib.ExitStack) -> tuple[Standard, ...]:
    """Decide what the command of session `name` gets as descriptors 0, 1, 2.

    Pipes and sockets are handed over. A file is not: who has it open can open it again through /proc for
    writing or make it setuid, and it is a file of the host; so its bytes go through a pipe and `relay`.
    Memory devices are replaced by the session's own, or a chmod inside would reach the host's /dev/null.
    Terminals are replaced by the session's own, with `terminal` True all three are. `lent` closes what the
    caller has to close once the session has its copies. Raises UsageError for anything else: a directory, a
    disk, a terminal it must not have.
    """
    pipes: dict[tuple[int, int], int] = {}
    result = []
    for fd in range(3):
        kind = _kind(fd)
        if terminal or (kind == "a terminal" and terminal is None):
            result.append(Standard())
        elif kind == "a stream":
            result.append(Standard(fd=fd))
        elif kind == "a memory device":
            flags = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
            result.append(Standard(device=memory_device(os.fstat(fd)), flags=flags))
        elif kind == "a file" and fd == 0:
            inside, outside = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(outside, False)
            relay.inputs.append(Pump(fd, outside, own=outside))
            lent.callback(os.close, inside)
            result.append(Standard(fd=inside))
        elif kind == "a file":
            status = os.fstat(fd)
            identity = (status.st_dev, status.st_ino)
            if identity not in pipes:  # `> log 2>&1` shares a pipe, which keeps the order of what is written
                outside, inside = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(outside, False)
                relay.outputs.append(Pump(outside, fd, own=outside))
                lent.callback(os.close, inside)
                pipes[identity] = inside
            result.append(Standard(fd=pipes[identity]))
        else:
            allowed = (
                "a pipe, a file or /dev/null" if terminal is False else "a terminal, pipe, file or /dev/null"
            )
            hint = "redirect it: a confined session must not have this one"
            raise UsageError(f"{_NAMES[fd]} of {name}", kind, allowed, hint)
    return tuple(result)


def _device(path: str, flags: int) -> int:
    """Open a device of a jail, whose root may have put something else there. Raises OSError.

    A FIFO is not waited for, and a link, which on FreeBSD would lead to a file of the host, is not followed.
    """
    own = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISCHR(os.fstat(own).st_mode):
        os.close(own)
        raise OSError(errno.ENODEV, "no device", path)
    os.set_blocking(own, True)
    return own


def take(standard: tuple[Standard, ...], slave: int, dev: str = "/dev") -> None:
    """Become the leader of a new terminal session, and make 0, 1 and 2 what the command gets.

    `slave` is the session's own terminal, or -1; `dev` is where its devices are from here, "" where there are
    none: what is /dev/null already stays so. Raises OSError.
    """
    os.setsid()
    for fd, item in enumerate(standard):
        if item.is_terminal:
            os.dup2(slave, fd)
        elif item.device == "null" and not dev:
            continue
        elif item.device:
            os.dup2(_device(f"{dev}/{item.device}", item.flags), fd)
        else:
            os.dup2(os.dup(item.fd), fd)  # a copy, which execve(2) does not close
    if slave >= 0:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
