"""Who the selftest plays: an administrator with a command of layout, at a terminal or not; others beside."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import termios
import time
from collections.abc import Callable, Iterator

from layout.host import forked
from layout.host.attacks.session import TYPED

_SIZE = (24, 80)
_STEP = 0.02
_GRACE = 5.0


@contextlib.contextmanager
def beside(step: Callable[[], object], pause: float) -> Iterator[int]:
    """Have a process that does `step` every `pause` seconds; yield its number. It ends with this one."""
    parent = os.getpid()
    pid = forked.fork(lambda: _again(step, pause, parent))
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _again(step: Callable[[], object], pause: float, parent: int) -> int:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    while os.getppid() == parent:
        with contextlib.suppress(OSError):
            step()
        time.sleep(pause)
    return 0


def _performed(work: Callable[[], object], dress: Callable[[], None]) -> int:
    """In a child that `dress` gives its descriptors: run `work` as a command of layout would run."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    dress()
    try:
        work()
    except Exception as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
        return 1
    return 0


def output_of(path: str, work: Callable[[], object]) -> str:
    """Run `work` in a child without a terminal, its output in the file `path`; return that."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def dress() -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(fd, 1)
        os.dup2(fd, 2)

    try:
        os.waitpid(forked.fork(lambda: _performed(work, dress)), 0)
        return os.pread(fd, 1 << 20, 0).decode("utf-8", "replace")
    finally:
        os.close(fd)


class Terminal:
    """A terminal at which somebody works; `master` is the side of who looks on."""

    def __init__(self, master: int, slave: int, pid: int) -> None:
        self._master = master
        self._slave = slave
        self._pid = pid
        self._ended = False
        self._before = termios.tcgetattr(slave)

    def heard(self, seconds: float, until: str = "") -> str:
        """Return what is printed until a line begins with `until`, the end of the work, or in this time."""
        data, raw = "", b""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self._master], [], [], _STEP)[0]:
                raw += os.read(self._master, 65536)  # which may end within a character, or an end of line
                data = raw.decode("utf-8", "replace").replace("\r\n", "\n")
            elif self._ended:
                break
            elif os.waitpid(self._pid, os.WNOHANG)[0]:
                self._ended = True
            if until and f"\n{until}\n" in f"\n{data}":
                break
        return data

    def say(self, text: str) -> None:
        """Type."""
        os.write(self._master, text.encode())

    def end(self) -> None:
        """End the work, if it has not ended: first as when the window is closed, so that it tidies up."""
        if not self._ended:
            os.kill(self._pid, signal.SIGHUP)
            self.heard(_GRACE)
        if not self._ended:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._ended = True

    def was_typed(self) -> bool:
        """Say whether somebody else typed there: what is typed is for whoever reads next."""
        self.end()
        after = self._before
        after[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(self._slave, termios.TCSANOW, after)
        typed = b""
        while select.select([self._slave], [], [], 0)[0]:
            typed += os.read(self._slave, 4096)
        return TYPED.strip() in typed


@contextlib.contextmanager
def at_terminal(work: Callable[[], object]) -> Iterator[Terminal]:
    """Run `work` in a child whose terminal is a new one, as an administrator's is."""
    master, slave = os.openpty()

    def dress() -> None:
        os.setsid()
        termios.tcsetwinsize(slave, _SIZE)
        for fd in range(3):
            os.dup2(slave, fd)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.close(slave)
        os.close(master)

    terminal = Terminal(master, slave, forked.fork(lambda: _performed(work, dress)))
    try:
        yield terminal
    finally:
        terminal.end()
        os.close(master)
        os.close(slave)
