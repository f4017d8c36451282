"""Forked processes and their signals: a child with no way back, and signals that one poll(2) waits for."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType

from layout.core.errors import printable

ENDING = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
"""Signals that would end this process with the terminal still raw end the session instead."""
RELAYED = (signal.SIGINT, signal.SIGQUIT)
"""Signals that a session passes on."""
TERMINAL = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
"""Signals of the terminal itself."""
GRACE = 2.0
"""Seconds between a request to end and SIGKILL."""


def restore_default_signals() -> None:
    """Undo every signal disposition and mask that this Python or its caller set, ready for execve(2)."""
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):  # SIGKILL, SIGSTOP and libc's own
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def fork(child: Callable[[], int]) -> int:
    """Fork with every signal blocked, run `child` in the new process and end it with the status it returns.

    The child starts with all signals blocked, none handled, and no way back into the caller's stack.
    Returns the child's process ID. Raises OSError (fork(2)).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                # Collecting an object of the parent's would close its descriptor's number, used anew by then.
                gc.disable()
                signal.set_wakeup_fd(-1)
                for number in signal.valid_signals():
                    if callable(signal.getsignal(number)):
                        signal.signal(number, signal.SIG_DFL)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would lose the status of children
                status = child()
            finally:
                os._exit(status)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def load_nothing_more() -> None:
    """Make every later import fail: it would run code from the session's tree with this process's rights."""
    printable("\n")  # Python loads the codec that this needs when it is first used
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


class SignalInbox:
    """Signals as bytes to read from a descriptor, so that one poll(2) waits for them and for everything else.

    While it is entered, the signals named interrupt nothing and kill nothing. It must be entered in the main
    thread (a rule of Python's signal module); everything is put back on leaving.
    """

    def __init__(self, signals: Sequence[signal.Signals]) -> None:
        self._signals = signals
        self._before: list[tuple[signal.Signals, Callable[[int, FrameType | None], object] | int | None]] = []
        self._write = self._wakeup = -1
        self.fd = -1

    def __enter__(self) -> SignalInbox:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._signals:
            self._before.append((number, signal.getsignal(number)))
            signal.signal(number, lambda _signal, _frame: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in reversed(self._before):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._write)

    def take(self) -> tuple[int, ...]:
        """Return the signals that have come since the last call, without waiting."""
        try:
            return tuple(os.read(self.fd, 512))
        except BlockingIOError:
            return ()
