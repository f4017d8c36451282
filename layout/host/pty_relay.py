"""The administrator's terminal and the session's: two terminals, and a relay between them.

A process that shares a terminal with the administrator's shell can push input into it (TIOCSTI,
CVE-2017-5226), also after the session has ended. So the session gets one of its own, and only bytes cross.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from types import TracebackType

_END_OF_FILE = b"\x04"
_LIMIT = 65536  # what one direction may hold before its source has to wait

_GONE = {errno.EIO, errno.EPIPE, errno.ENXIO, errno.EBADF}  # the other side ended: no failure of the work


def is_terminal(fd: int) -> bool:
    """Say whether `fd` is open and a terminal."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def reopen(terminal: int, flags: int) -> int:
    """Open the terminal behind `terminal` again, non-blocking, for the relay alone.

    O_NONBLOCK belongs to the open file description, which the administrator's shell shares: setting it on the
    descriptor we were given would outlive us. Where opening is refused (a terminal of another user), returns
    a copy of the descriptor, which blocks.
    """
    with contextlib.suppress(OSError):
        again = _open_again(terminal, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if os.fstat(again).st_rdev == os.fstat(terminal).st_rdev:
            return again
        os.close(again)
    return fcntl.fcntl(terminal, fcntl.F_DUPFD_CLOEXEC, 3)


def _open_again(terminal: int, flags: int) -> int:
    """Open it by its descriptor on Linux; elsewhere that would be a copy (fdescfs(4)), so by its name."""
    if sys.platform != "linux":
        return os.open(os.ttyname(terminal), flags)
    if os.fstat(terminal).st_rdev == os.makedev(5, 2):  # opening ptmx would make a new terminal
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    return os.open(f"/proc/self/fd/{terminal}", flags)


class Pump:
    """One direction: bytes read from `source` and not yet written to `sink`.

    Reading stops while the sink is slow, so that a fast writer has to wait instead of filling memory.
    `farewell` is written after the last byte. `own` is the end of a pipe that is closed when this direction
    is over, so that the process at its other end learns of it.
    """

    def __init__(self, source: int, sink: int, *, own: int = -1, farewell: bytes = b"") -> None:
        self.source = source
        self.sink = sink
        self.source_open = True
        self.sink_open = True
        self.broken = False  # whether the sink went away while there was something to write
        self.failure: OSError | None = None
        self._own = own
        self._farewell = farewell
        self._buffer = bytearray()

    def wants(self) -> Iterator[tuple[int, int]]:
        """Yield the descriptors to wait for, with the events of poll(2)."""
        if self.source_open and self.sink_open and len(self._buffer) < _LIMIT:
            yield self.source, select.POLLIN
        if self._buffer and self.sink_open:
            yield self.sink, select.POLLOUT

    def move(self, ready: dict[int, int]) -> None:
        """Read and write what can be without waiting."""
        if self.source_open and self.source in ready and len(self._buffer) < _LIMIT:
            self._read()
        if self._buffer and self.sink_open and self.sink in ready:
            self._write()
        if not self.source_open and not self._buffer:
            self.finish()

    def _read(self) -> None:
        try:
            data = os.read(self.source, _LIMIT - len(self._buffer))
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in _GONE:
                self.failure = error
            data = b""
        if not data:
            self.source_open = False
            data = self._farewell
        self._buffer += data

    def _write(self) -> None:
        try:
            del self._buffer[: os.write(self.sink, self._buffer[:4096])]
        except BlockingIOError:
            return
        except OSError as error:
            # A full disk must not pass for success: the writer inside can no longer be told, so we are.
            if error.errno not in _GONE:
                self.failure = error
            self.broken = True
            self._buffer.clear()
            self.finish()

    def finish(self) -> None:
        """Give this direction up, with what has not been written yet."""
        if self.sink_open:
            self.sink_open = False
            if self._own >= 0:
                os.close(self._own)


class Relay:
    """All directions of one session: `inputs` lead into it, `outputs` out of it."""

    def __init__(self) -> None:
        self.inputs: list[Pump] = []
        self.outputs: list[Pump] = []

    def wants(self, *, ended: bool) -> dict[int, int]:
        """Return what to poll(2) for, by descriptor; once the session has `ended`, outputs alone matter."""
        events: dict[int, int] = {}
        for pump in self.outputs if ended else self.inputs + self.outputs:
            for fd, mask in pump.wants():
                events[fd] = events.get(fd, 0) | mask
        return events

    def move(self, ready: dict[int, int]) -> None:
        """Move what the result of poll(2) allows."""
        for pump in self.inputs + self.outputs:
            pump.move(ready)

    def finish(self) -> None:
        """Give all directions up."""
        for pump in self.inputs + self.outputs:
            pump.finish()

    def failure(self) -> OSError | None:
        """Return the first real failure of a read or write, if there was one."""
        return next((pump.failure for pump in self.inputs + self.outputs if pump.failure), None)


class Terminal:
    """The administrator's terminal, raw while it is entered and put back whatever happens.

    `keys` says whether its keyboard belongs to the session: only then is it made raw. `screen` says whether
    standard output is shown on it: if not (`layout manage NAME | tee log`), another program writes to it and
    counts on the line discipline's carriage returns.
    """

    def __init__(self, fd: int, *, keys: bool, screen: bool) -> None:
        self.fd = fd
        self._keys = keys
        self._screen = screen
        self._saved = termios.tcgetattr(fd)

    def __enter__(self) -> Terminal:
        try:
            self.raw()
        except BaseException:
            self.restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def raw(self) -> None:
        """Hand every key to the session, Ctrl-C and Ctrl-Z included."""
        if not self._keys:
            return
        tty.setraw(self.fd, termios.TCSANOW)
        if not self._screen:
            attributes = termios.tcgetattr(self.fd)
            attributes[1] = self._saved[1]
            termios.tcsetattr(self.fd, termios.TCSANOW, attributes)

    def restore(self) -> None:
        """Put the terminal back as it was found."""
        # From the background, tcsetattr(3) would stop us with the terminal still raw.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            with contextlib.suppress(
                termios.error
            ):  # the terminal is gone, and with it what was to be restored
                termios.tcsetattr(self.fd, termios.TCSANOW, self._saved)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def dress(self, master: int) -> None:
        """Give the session's terminal the settings (erase key, UTF-8 and so on) and the size of this one."""
        attributes = list(self._saved)
        if not self._keys:
            attributes[1] &= ~termios.OPOST  # this terminal still adds its carriage returns itself
        termios.tcsetattr(master, termios.TCSANOW, attributes)
        self.resize(master)

    def resize(self, master: int) -> None:
        """Copy the window size; the kernel tells the session with SIGWINCH when it differs."""
        with contextlib.suppress(OSError):  # a terminal without a size, or gone
            size = fcntl.ioctl(self.fd, termios.TIOCGWINSZ, bytes(8))
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)

    def stop(self, master: int) -> None:
        """Stop this process as SIGTSTP from outside asks, with the terminal put back meanwhile."""
        self.restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.resume(master)

    def resume(self, master: int) -> None:
        """Take the terminal again after a stop."""
        with contextlib.suppress(OSError, termios.error):  # gone: reading from it will say so
            if os.tcgetpgrp(self.fd) == os.getpgrp():
                self.raw()
        self.resize(master)


class Terminals:
    """The administrator's terminal and the session's, joined by two directions of a relay.

    What is opened is closed, and the administrator's terminal put back, by `stack`.
    """

    def __init__(self, relay: Relay, stack: contextlib.ExitStack) -> None:
        self._relay = relay
        self._stack = stack
        self._own: Terminal | None = None
        self._keyboard: Pump | None = None
        self._screen: Pump | None = None
        self._master = -1

    def join(self, master: int, *, keys: bool = False) -> None:
        """Lead bytes to and from the session's terminal. `keys`: from standard input though it is none."""
        terminals = [fd for fd in (1, 2, 0) if is_terminal(fd)]
        # Without a terminal at all the caller asked for one: then 0 and 1 take its place.
        source, sink = 0, terminals[0] if terminals else 1
        self._master = master
        os.set_blocking(master, False)
        if terminals:
            with_keys = is_terminal(0)
            self._own = Terminal(0 if with_keys else sink, keys=with_keys, screen=is_terminal(1))
            self._own.dress(master)
            self._stack.enter_context(self._own)
            sink = reopen(sink, os.O_WRONLY)
            self._stack.callback(os.close, sink)
        if is_terminal(0):
            source = reopen(0, os.O_RDONLY)
            self._stack.callback(os.close, source)
            self._keyboard = Pump(source, master)
            self._relay.inputs.append(self._keyboard)
        elif keys:
            self._relay.inputs.append(Pump(source, master, farewell=_END_OF_FILE))
        output = Pump(master, sink)
        self._relay.outputs.append(output)
        if terminals:
            self._screen = output

    def hung_up(self) -> bool:
        """Say whether the administrator's terminal is gone."""
        no_keys = self._keyboard is not None and not self._keyboard.source_open
        return no_keys or (self._screen is not None and self._screen.broken)

    def tell(self, number: int) -> None:
        """Do what a signal about the administrator's terminal asks for: SIGWINCH, SIGTSTP, SIGCONT."""
        if self._own is None:
            if number == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)
        elif number == signal.SIGWINCH:
            self._own.resize(self._master)
        elif number == signal.SIGTSTP:
            self._own.stop(self._master)
        elif number == signal.SIGCONT:
            self._own.resume(self._master)
