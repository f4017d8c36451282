"""The administrator's confined session: what it is, and the host's side of it.

Four processes. The caller relays bytes and signals. Its child, the keeper, has unshared the pid namespace,
which the caller cannot do for itself: once that namespace had ended, it could never fork again. The
keeper's child is process 1 of the session (layout.host.linux.confined), and the command is the child of
that. Each dies with its parent, and with process 1 the kernel ends everything inside and drops the
session's mounts.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from layout.core.errors import LayoutError, UsageError, reason_of
from layout.host import forked
from layout.host.linux import confined, process, syscalls
from layout.host.pty_relay import Relay, Terminals
from layout.host.standard import Standard, fill_closed, lend

# Enough for `apt-get install bind9`, whose postinst makes a user, a group, a key and runs ldconfig.
NINE = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETFCAP", "SYS_CHROOT")

_NOW = signal.SIGUSR1  # tells the keeper to kill at once


@dataclass(frozen=True, slots=True)
class Session:
    """One session: where its root is, how that comes to be there, and what runs in it.

    `name` is the jail's: the host name inside, and the prompt. `mountpoint` is the absolute, canonical path
    on the host that is the session's root once `attach` has returned: that is called in process 1 of the
    session, in its own mount namespace, and mounts everything at `mountpoint` but /proc. `command` is the
    program with its arguments, or nothing for a shell. `keep` names the capabilities that are kept.
    `terminal` says whether the session has one of its own; None: if one of descriptors 0, 1, 2 is one.
    `environment` holds variables besides those of `confined.environment`, or in their place. `descriptors`
    are open ones that `attach` needs; every other from 3 on is closed before.
    """

    name: str
    mountpoint: str
    attach: Callable[[], None]
    command: tuple[str, ...] = ()
    keep: tuple[str, ...] = NINE
    terminal: bool | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()

    def separate(self) -> None:
        """In the keeper: let its next child be process 1 of a pid namespace. Raises OSError."""
        syscalls.unshare(syscalls.CLONE_NEWPID)

    def first_process(self, standard: tuple[Standard, ...], keeper: int, channel: socket.socket) -> int:
        """Be process 1: returns the exit status of the command."""
        return confined.first_process(self, standard, keeper, channel)


class Runnable(Protocol):
    """What `run` can run: a session of its own, or a command in a running jail."""

    @property
    def name(self) -> str: ...
    @property
    def command(self) -> tuple[str, ...]: ...
    @property
    def keep(self) -> tuple[str, ...]: ...
    @property
    def terminal(self) -> bool | None: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def descriptors(self) -> tuple[int, ...]: ...
    def separate(self) -> None: ...
    def first_process(self, standard: tuple[Standard, ...], keeper: int, channel: socket.socket) -> int: ...


def run(session: Runnable) -> int:
    """Run the session to its end and return the exit status of its command.

    128+N when signal N ended the command, or came to this process and so ended the session; 127 when the
    program is not there, 126 when it cannot be executed. Must be called in the main thread. Raises
    LayoutError when the session could not be set up or its output not be written, UsageError for a
    descriptor 0, 1 or 2 that a confined session must not have.
    """
    if os.geteuid() != 0:
        hint = "run it as root, or below `unshare -Ur -m`"
        raise LayoutError(f"session {session.name}", f"user {os.geteuid()}", "root", hint)
    for name in session.keep:
        if name not in process.CAPABILITIES:
            raise UsageError(f"session {session.name}", f"capability {name!r}", "a name of capabilities(7)")
    for text in (*session.command, *session.environment, *session.environment.values()):
        if "\0" in text:
            raise UsageError(f"session {session.name}", repr(text), "text without a zero byte")
    fill_closed()
    relay = Relay()
    with contextlib.ExitStack() as stack:
        lent = stack.enter_context(contextlib.ExitStack())
        stack.callback(relay.finish)
        standard = lend(session.name, session.terminal, relay, lent)
        inbox = stack.enter_context(
            forked.SignalInbox((*forked.ENDING, *forked.RELAYED, *forked.TERMINAL, signal.SIGCHLD))
        )
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(channel)
        with theirs:
            keeper = stack.enter_context(_keeper(session, standard, theirs))
        lent.close()
        return _Attendant(session, relay, inbox, channel, keeper, stack).attend()


class _Keeper:
    """The keeper as the caller sees it."""

    def __init__(self, pid: int) -> None:
        self.pidfd = os.pidfd_open(pid)
        self._pid = pid
        self._status: int | None = None

    def tell(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if self._status is None:
            os.kill(self._pid, number)

    def wait(self) -> int:
        """Wait for its end, and so for that of everything in the session; returns the exit status."""
        if self._status is None:
            self._status = confined.exit_status(os.waitpid(self._pid, 0)[1])
        return self._status


@contextlib.contextmanager
def _keeper(session: Runnable, standard: tuple[Standard, ...], channel: socket.socket) -> Iterator[_Keeper]:
    """Start the keeper; whatever happens, it and the session have ended when the context is left."""
    try:
        caller = os.pidfd_open(os.getpid())
        try:
            keeper = _Keeper(forked.fork(lambda: _keep(session, standard, caller, channel)))
        finally:
            os.close(caller)
    except OSError as error:
        raise confined.failure(error, "a process for the session", f"session {session.name}") from error
    try:
        yield keeper
    finally:
        keeper.tell(_NOW)
        keeper.wait()
        os.close(keeper.pidfd)


def _keep(session: Runnable, standard: tuple[Standard, ...], caller: int, channel: socket.socket) -> int:
    """Be the keeper: start process 1 of a new pid namespace, pass signals on, return its exit status."""
    process.close_descriptors(
        {caller, channel.fileno(), *(item.fd for item in standard), *session.descriptors}
    )
    os.setsid()  # a Ctrl-C on the administrator's terminal is for the caller to deal with
    try:
        process.die_with_parent(caller)
        session.separate()
        own = os.pidfd_open(os.getpid())
        first = forked.fork(lambda: session.first_process(standard, own, channel))
    except OSError as error:
        confined.report(channel, confined.failure(error, "a process in a pid namespace of its own"))
        return 1
    # No copy of what the session writes to stays here: its readers wait for the last one to be closed.
    process.close_descriptors(first=0)
    watched = (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, *forked.RELAYED, _NOW)
    deadline: float | None = None
    while True:
        if deadline is None:
            number = signal.sigwait(watched)
        else:
            info = signal.sigtimedwait(watched, max(0.0, deadline - time.monotonic()))
            number = _NOW if info is None else signal.Signals(info.si_signo)
        if number == signal.SIGCHLD:
            pid, status = os.waitpid(first, os.WNOHANG)
            if pid:
                return confined.exit_status(status)
        elif number == _NOW:
            os.kill(first, signal.SIGKILL)
            deadline = None
        else:
            os.kill(first, number)
            if number not in forked.RELAYED and deadline is None:
                deadline = time.monotonic() + forked.GRACE


class _Attendant:
    """The caller while the session lives: moves bytes and signals."""

    def __init__(
        self,
        session: Runnable,
        relay: Relay,
        inbox: forked.SignalInbox,
        channel: socket.socket,
        keeper: _Keeper,
        stack: contextlib.ExitStack,
    ) -> None:
        self._session = session
        self._relay = relay
        self._inbox = inbox
        self._channel = channel
        self._keeper = keeper
        self._stack = stack
        self._terminals = Terminals(relay, stack)
        self._master = -1
        self._signal = 0
        self._deadline: float | None = None

    def attend(self) -> int:
        """See the session from its setting up to its end; returns what `run` returns."""
        if not self._set_up():
            return 128 + self._signal
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died, which _move() sees
            self._channel.send(confined.GO)
        self._move()
        status = self._keeper.wait()
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            self._receive(socket.MSG_DONTWAIT)
        failed = self._relay.failure()
        if failed is not None:
            found = reason_of(failed)
            raise LayoutError(f"output of session {self._session.name}", found, "all of it written")
        return 128 + self._signal if self._signal else status

    def _receive(self, flags: int = 0) -> bytes:
        """Take one message of process 1; raises what it reports."""
        message, extra, _, _ = self._channel.recvmsg(
            32768, socket.CMSG_SPACE(4), flags | socket.MSG_CMSG_CLOEXEC
        )
        for _, _, data in extra:
            self._master = array.array("i", data)[0]
            self._stack.callback(os.close, self._master)
        if message in (b"", confined.READY):
            return message
        kind, *fields = json.loads(message)
        raise (UsageError if kind == "usage" else LayoutError)(*fields)

    def _set_up(self) -> bool:
        """Wait until process 1 is ready; False when a signal came first."""
        poll = select.poll()
        poll.register(self._inbox.fd, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            for number in self._inbox.take():
                if number in forked.ENDING or number in forked.RELAYED:
                    self._signal = number
                    return False
            if self._channel.fileno() in ready:
                if not self._receive():
                    found = "an end without a word"
                    raise LayoutError(f"session {self._session.name}", found, "a confined session")
                if self._master >= 0:
                    self._terminals.join(self._master, keys=bool(self._session.terminal))
                return True

    def _move(self) -> None:
        """Move bytes and signals until the session has ended and its output has been delivered."""
        ended = False
        while True:
            events = self._relay.wants(ended=ended)
            timeout = None
            if ended:
                # Nobody is left to write: every source gives its last bytes and then its end.
                if not events:
                    return
                # After a signal the reader may be what is stuck.
                if self._signal:
                    self._deadline = self._deadline or time.monotonic() + forked.GRACE
                    timeout = max(0.0, self._deadline - time.monotonic())
                    if timeout == 0.0:
                        return
            else:
                events[self._keeper.pidfd] = select.POLLIN
            events[self._inbox.fd] = select.POLLIN
            poll = select.poll()
            for fd, mask in events.items():
                poll.register(fd, mask)
            ready = dict(poll.poll(None if timeout is None else timeout * 1000))
            ended = ended or self._keeper.pidfd in ready
            for number in self._inbox.take():
                self._handle(number)
            self._relay.move(ready)
            if not self._signal and self._terminals.hung_up():
                self._handle(signal.SIGHUP)

    def _handle(self, number: int) -> None:
        if number in forked.ENDING:
            self._signal = self._signal or number
            self._keeper.tell(number if number in (signal.SIGTERM, signal.SIGHUP) else signal.SIGTERM)
        elif number in forked.RELAYED:
            self._keeper.tell(number)
        else:
            self._terminals.tell(number)
