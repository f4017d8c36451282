"""The administrator's session on FreeBSD: a jail of its own, or a plain chroot(8), on a terminal of its own.

jexec(8) and not the `command` of jail(8), which tells success from failure and nothing more: jexec becomes
the command, so its exit status is the command's. The jail is made persistent for that, and whatever still
runs in it when the command has ended is ended with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from layout.core.errors import LayoutError, UsageError, reason_of
from layout.host.forked import ENDING, GRACE, RELAYED, TERMINAL, SignalInbox, fork, restore_default_signals
from layout.host.freebsd import jails
from layout.host.pty_relay import Relay, Terminals
from layout.host.run import PATH, require, run
from layout.host.standard import Standard, fill_closed, lend, take

_IDLE = 200  # milliseconds without output after the last process has ended
_PATIENCE = 200  # looks, a twentieth of a second apart, until a removed jail is gone


@dataclass(frozen=True, slots=True)
class Session:
    """One session: where its root is, and what runs in it.

    `name` is the layout's jail: the host name inside, and the prompt. `mountpoint` is the writable view,
    mounted. `command` is the program with its arguments, or nothing for a shell. `network`: with the host's
    addresses, else with none. `chroot`: by chroot(8), without a jail. `ruleset` is the devfs ruleset that
    the jail is held to. `environment` holds variables besides those of `variables`, or in their place.
    `jail`: one that runs already, and is entered as it is, in place of one that is made for the session.
    `user`: a name of the host to be there, in place of root. `dev`: where its devices are, if not in /dev of
    its root.
    """

    name: str
    mountpoint: str
    command: tuple[str, ...] = ()
    network: bool = True
    chroot: bool = False
    ruleset: int = 4
    environment: Mapping[str, str] = field(default_factory=dict)
    jail: str = ""
    user: str = ""
    dev: str = ""


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Let signals that would end this process wait, also for the programs that it starts meanwhile.

    A terminal that goes away signals more than once: the second must not stop an umount(8) halfway.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, *RELAYED))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _delivered_signals() -> Iterator[None]:
    """Take the signals that waited, and new ones, in the inbox that is open."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, (*ENDING, *RELAYED))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def jail_name(name: str) -> str:
    """Return what the management jail of jail `name` is called."""
    return f"layout-manage-{name}"


def remove(jail: str) -> None:
    """Remove a jail with every process in it, by its name, whatever any file says. Raises LayoutError."""
    run("jail", "-R", jail, ok=(0, 1))
    for _ in range(_PATIENCE):
        if jails.find(jail) is None:
            return
        time.sleep(0.05)
    raise LayoutError(f"jail {jail}", "still there", "none", f"see ps -J {jail}")


def variables(session: Session, terminal: str | None) -> dict[str, str]:
    """Return all variables of the command; `terminal` is the host's TERM."""
    usable = terminal is not None and re.fullmatch(r"[A-Za-z0-9._+-]{1,64}", terminal)
    marks = {
        "LAYOUT_MANAGE": session.name,
        # sh(1) of FreeBSD expands \w, and no variable, in a prompt.
        "PS1": f"[manage:{session.name}] \\w # ",
    }
    return {
        "PATH": PATH,
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/sh",
        "TERM": terminal if terminal is not None and usable else "dumb",
        "LANG": "C.UTF-8",
        **({} if session.jail else marks),
        **session.environment,
    }


def run_session(session: Session) -> int:
    """Run the session to its end and return the exit status of its command.

    128+N when signal N ended the command, or came to this process and so ended the session; 127 when the
    program is not there, 126 when it cannot be executed. Must be called in the main thread, while signals
    are held. Raises LayoutError when the jail cannot be made or removed, or output not be written;
    UsageError for a descriptor 0, 1 or 2 that a session must not have.
    """
    for text in (*session.command, *session.environment, *session.environment.values()):
        if "\0" in text:
            raise UsageError(f"session {session.name}", repr(text), "text without a zero byte")
    words = _words(session)
    fill_closed()
    relay = Relay()
    with contextlib.ExitStack() as stack:
        lent = stack.enter_context(contextlib.ExitStack())
        stack.callback(relay.finish)
        standard = lend(session.name, None, relay, lent)
        inbox = stack.enter_context(SignalInbox((*ENDING, *RELAYED, *TERMINAL, signal.SIGCHLD)))
        master, slave = os.openpty() if any(item.is_terminal for item in standard) else (-1, -1)
        terminals = Terminals(relay, stack)
        if master >= 0:
            stack.callback(os.close, master)
            stack.callback(os.close, slave)
            terminals.join(master)
        # It goes before the terminal is put back, whatever happens. A chroot holds nothing together.
        jail = stack.enter_context(contextlib.ExitStack())
        if not session.chroot and not session.jail:
            jail.callback(remove, jail_name(session.name))
            _create(session)
        pid = fork(lambda: _become(session, words, standard, slave))
        lent.close()
        return _Attendant(session, relay, inbox, terminals, pid, jail.close).attend()


def _create(session: Session) -> None:
    """Make the management jail, and look whether it is what it should be. Raises LayoutError."""
    jail = jail_name(session.name)
    network = "inherit" if session.network else "disable"
    run(
        "jail",
        "-c",
        f"name={jail}",
        f"path={session.mountpoint}",
        f"host.hostname={session.name}",
        "persist",
        # schg of the base is taken off and put back in here; nothing else is allowed.
        "allow.chflags",
        "allow.noset_hostname",
        "children.max=0",
        "enforce_statfs=2",
        f"devfs_ruleset={session.ruleset}",
        f"ip4={network}",
        f"ip6={network}",
    )
    made = jails.find(jail)
    if made is None or made.path != session.mountpoint:
        remove(jail)
        found = f"its root at {made.path}" if made is not None else "none, though jail(8) made it"
        raise LayoutError(f"jail {jail}", found, f"one with its root at {session.mountpoint}")


def _words(session: Session) -> list[str]:
    """Return the program that enters, with its arguments. The shell inside finds the command on its PATH."""
    if session.chroot:
        enter = [require("chroot", "the base system"), session.mountpoint]
    else:
        user = ("-u", session.user) if session.user else ()
        enter = [require("jexec", "the base system"), *user, session.jail or jail_name(session.name)]
    if session.jail and session.command:
        # It may have no shell.
        return [*enter, *session.command]
    if not session.command:
        return [*enter, "/bin/sh"]
    return [*enter, "/bin/sh", "-c", 'exec "$@"', "sh", *session.command]


def _become(session: Session, words: list[str], standard: tuple[Standard, ...], slave: int) -> int:
    """In the child: become what enters the jail; returns an exit status only when that fails."""
    try:
        take(standard, slave, session.dev or f"{session.mountpoint}/dev")
        terminal = os.environ.get("TERM")
        os.closerange(3, max(os.sysconf("SC_OPEN_MAX"), 65536))
        os.chdir("/")
        os.umask(0o022)
        restore_default_signals()
        os.execve(words[0], words, variables(session, terminal))  # noqa: S606 - it is the purpose
    except OSError as error:
        os.write(2, f"layout: {words[0]}: {error.strerror}\n".encode())
    return 126


class _Attendant:
    """The caller while the session lives: moves bytes and signals."""

    def __init__(
        self,
        session: Session,
        relay: Relay,
        inbox: SignalInbox,
        terminals: Terminals,
        pid: int,
        end: Callable[[], None],
    ) -> None:
        self._session = session
        self._relay = relay
        self._inbox = inbox
        self._terminals = terminals
        self._pid = pid
        self._end = end
        self._signal = 0
        self._deadline: float | None = None

    def attend(self) -> int:
        """See the session to its end; returns what `run_session` returns."""
        try:
            with _delivered_signals():
                status = self._move()
        except BaseException:
            self._kill()
            raise
        self._end()
        with _delivered_signals():
            self._drain()
        failed = self._relay.failure()
        if failed is not None:
            found = reason_of(failed)
            raise LayoutError(f"output of session {self._session.name}", found, "all of it written")
        return 128 + self._signal if self._signal else status

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _ended(self) -> int | None:
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if code < 0 else code

    def _move(self) -> int:
        """Move bytes and signals until the command has ended; returns its exit status."""
        while (status := self._ended()) is None:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._kill()
                return 128 + self._signal
            self._wait(self._relay.wants(ended=False))
            if not self._signal and self._terminals.hung_up():
                self._handle(signal.SIGHUP)
        return status

    def _wait(self, events: dict[int, int], timeout: float | None = None) -> bool:
        """Wait for one of `events` or a signal, and move what can be; says whether there was anything."""
        if self._deadline is not None:
            left = max(0.0, self._deadline - time.monotonic()) * 1000
            timeout = left if timeout is None else min(timeout, left)
        poll = select.poll()
        for fd, mask in {**events, self._inbox.fd: select.POLLIN}.items():
            poll.register(fd, mask)
        ready = dict(poll.poll(timeout))
        for number in self._inbox.take():
            self._handle(number)
        ready.pop(self._inbox.fd, None)
        self._relay.move(ready)
        return bool(ready)

    def _drain(self) -> None:
        """Deliver what was written before the end. A terminal gives no end of file while we keep it open."""
        while events := self._relay.wants(ended=True):
            stuck = any(mask & select.POLLOUT for mask in events.values())
            # After a signal the reader may be what is stuck.
            if stuck and self._signal:
                self._deadline = self._deadline or time.monotonic() + GRACE
                if time.monotonic() >= self._deadline:
                    return
            if not self._wait(events, None if stuck else _IDLE) and not stuck:
                return

    def _handle(self, number: int) -> None:
        if number in ENDING:
            self._signal = self._signal or number
            self._deadline = self._deadline or time.monotonic() + GRACE
            self._tell(number if number in (signal.SIGTERM, signal.SIGHUP) else signal.SIGTERM)
            self._tell(signal.SIGHUP)  # a shell on a terminal ignores SIGTERM
        elif number in RELAYED:
            self._tell(number)
        else:
            self._terminals.tell(number)

    def _tell(self, number: int) -> None:
        """Signal the command's process group, as the keys of a terminal do."""
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:  # it has not yet made the group
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)
