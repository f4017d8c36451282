"""Starts an engine so that it outlives layout: detached, in a private mount and an outer pid namespace.

Two forks. The first child makes the pid namespace and ends; the second is process 1 of it, prepares what the
engine finds, and becomes the engine. So whoever kills the engine ends everything in the jail at once: that
is a rule of the kernel for process 1. Until layout has written down whom to look for, the second child
waits; when layout dies, it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn

from layout.core.errors import LayoutError
from layout.host import forked
from layout.host.linux import confined, devices, namespaces_filter, process, syscalls

_PROC = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_LIMIT = 32768


@dataclass(frozen=True, slots=True)
class Launch:
    """An engine to be started."""

    name: str
    """Of the jail, for messages."""
    argv: tuple[str, ...]
    """Program and arguments; the program by its absolute path."""
    environment: dict[str, str]
    prepare: Callable[[], None]
    """Mounts what the engine finds; called in the private mount namespace."""
    log: int
    """Descriptor that standard output and standard error go to."""
    namespace: int = -1
    """Descriptor of the user namespace whose root the engine is; the host's when negative."""
    descriptors: tuple[int, ...] = ()
    """Further ones that `prepare` needs."""
    become: Callable[[], NoReturn] | None = None
    """What becomes the engine; None: the program in `argv`."""
    held: list[int] = field(default_factory=list)
    """Descriptors that `prepare` opens for `become`."""
    stdin: int = -1
    """Descriptor that standard input comes from; /dev/null when negative."""
    filtered: bool = False
    """Neither the engine nor what it starts can make a user namespace."""


class Prepared:
    """An engine that waits to be told to start."""

    def __init__(self, pid: int, channel: socket.socket, what: str) -> None:
        self.pid = pid
        self._channel = channel
        self._what = what

    def __enter__(self) -> Prepared:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()  # one that was not told to start ends

    def go(self) -> None:
        """Let it become the engine. Raises LayoutError when that fails."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.send(confined.GO)
        message = _receive(self._channel)
        if message:
            raise _reported(message, self._what)


def launch(wanted: Launch) -> Prepared:
    """Make the process that becomes the engine once `go` is called. Raises LayoutError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    what = f"engine of {wanted.name}"
    try:
        with theirs:
            middle = forked.fork(lambda: _middle(wanted, theirs))
        os.waitpid(middle, 0)
        pid = 0
        ready = False
        while not (pid and ready):  # either may come first
            message = _receive(ours)
            if message.isdigit():
                pid = int(message)
            elif message == confined.READY:
                ready = True
            else:
                raise _reported(message, what)
    except BaseException:
        ours.close()  # the other side sees it and ends
        raise
    return Prepared(pid, ours, what)


def _receive(channel: socket.socket) -> bytes:
    try:
        return channel.recv(_LIMIT)
    except ConnectionResetError:
        return b""


def _reported(message: bytes, what: str) -> LayoutError:
    if message.startswith(b"["):
        _, *fields = json.loads(message)
        return LayoutError(*fields)
    return LayoutError(what, "its process ended", "a process that starts it")


def _middle(wanted: Launch, channel: socket.socket) -> int:
    try:
        keep = {channel.fileno(), wanted.log, *wanted.descriptors, *({wanted.stdin} - {-1})}
        process.close_descriptors(keep | ({wanted.namespace} if wanted.namespace >= 0 else set()))
        _standard(wanted.log, wanted.stdin)
        os.setsid()
        syscalls.unshare(syscalls.CLONE_NEWPID)
        pid = forked.fork(lambda: _become(wanted, channel))
        channel.send(str(pid).encode())
    except BaseException as error:  # all of them: a traceback helps nobody on the other side of a fork
        confined.report(channel, confined.failure(error, "a process for the engine", wanted.name))
        return 1
    return 0


def _standard(log: int, stdin: int) -> None:
    given = stdin if stdin >= 0 else devices.null(os.O_RDONLY)
    os.dup2(given, 0)
    os.close(given)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _become(wanted: Launch, channel: socket.socket) -> int:
    try:
        os.setsid()
        process.forbid_inspection()
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        # /proc/PID has to mean what the engine's own pid namespace says.
        syscalls.mount(b"proc", b"/proc", b"proc", _PROC)
        wanted.prepare()
        forbid_memory_programs()
        os.umask(0o022)
        os.chdir("/")
        channel.send(confined.READY)
        if channel.recv(len(confined.GO)) != confined.GO:
            return 1
        keep = {channel.fileno(), *wanted.held}
        if wanted.namespace >= 0:
            become_root_of(wanted.namespace)
        process.leave_keyrings()
        process.forbid_core_dumps()
        if wanted.filtered:
            namespaces_filter.apply()
        process.close_descriptors(keep)
        forked.restore_default_signals()
        if wanted.become is not None:
            wanted.become()
        os.execve(wanted.argv[0], wanted.argv, wanted.environment)  # noqa: S606 - starting it is the purpose
    except BaseException as error:  # as above
        confined.report(channel, confined.failure(error, "the engine to start", wanted.argv[0]))
        return 1


def forbid_memory_programs() -> None:
    """Let nothing in this pid namespace execute what was written to memory only (memfd_create(2)).

    Linux 6.3 and later; before, a program can be executed from a memfd though all that is writable is noexec.
    """
    with contextlib.suppress(OSError):
        fd = os.open("/proc/sys/vm/memfd_noexec", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"2")
        finally:
            os.close(fd)


def become_root_of(namespace: int) -> None:
    """Join a user namespace and be its root. Raises OSError."""
    syscalls.setns(namespace, syscalls.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    with contextlib.suppress(OSError):
        forbid_namespaces()


def forbid_namespaces() -> None:
    """Let no user namespace be made below this one. Raises OSError.

    Each is a way to reach more of the kernel. In one of its own a user may also mount memory there,
    write to it and execute from it.
    """
    fd = os.open("/proc/sys/user/max_user_namespaces", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def user_namespace(base: int, count: int) -> int:
    """Return a descriptor of a new user namespace: its 0 is `base` outside, and so on. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            pid = forked.fork(lambda: _holder(theirs, ours))
        try:
            if ours.recv(1) != b"1":
                raise OSError(1, "no user namespace can be made")
            for name in ("uid_map", "gid_map"):
                fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, f"0 {base} {count}\n".encode())
                finally:
                    os.close(fd)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _holder(channel: socket.socket, other: socket.socket) -> int:
    other.close()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    except OSError:
        return 1
    channel.send(b"1")
    channel.recv(1)
    return 0
