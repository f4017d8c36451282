"""Start the two children, watch them, and turn what they report into a result or an error."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import NoReturn

import msgspec

from layout.core.errors import LayoutError, UsageError
from layout.host.unpack.report import Done, Failed, Message, NotAnArchive

__all__ = ["Child", "fork", "outcome", "watch"]

_MESSAGE_MAX = 1 << 28
_NAME_SHOWN = 255
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


class Child:
    """A forked process and the pipe on which it sends one message before it exits."""

    def __init__(self, pid: int, fd: int, task: str) -> None:
        self.pid = pid
        self.fd = fd
        self.task = task
        self.received = bytearray()
        self.status: int | None = None

    def message(self) -> Message | None:
        """Return what it sent, or None when that is missing or malformed."""
        try:
            message: Message = msgspec.msgpack.decode(self.received, type=Message)
        except msgspec.MsgspecError:
            return None
        return message

    def end(self) -> None:
        """Kill it if it still runs, reap it, close its pipe. Safe to call twice."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def reap(self) -> None:
        """Wait for its end."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def fork(task: str, confined: Callable[[int], None], work: Callable[[], Done], children: list[Child]) -> None:
    """Fork a child, add it to children: it runs `confined` with its pipe, then `work`, and reports."""
    receive, send = os.pipe()
    # No Ctrl-C between the fork and the note of it: the child would be lost.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        try:
            pid = os.fork()
            if pid == 0:
                _child(confined, work, send)
            children.append(Child(pid, receive, task))
        except OSError:
            os.close(receive)
            raise
        finally:
            os.close(send)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _child(confined: Callable[[int], None], work: Callable[[], Done], send: int) -> NoReturn:
    """Never return: the caller's stack, with its cleanups, belongs to the parent."""
    try:
        confined(send)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        message: Message
        try:
            message = work()
        except LayoutError as error:
            message = Failed(
                os.fsencode(error.path),
                os.fsencode(error.found),
                os.fsencode(error.expected),
                os.fsencode(error.hint),
                usage=isinstance(error, NotAnArchive | UsageError),
            )
        except BrokenPipeError:
            message = Failed(b"", b"a closed pipe", b"a reader", consequence=True)
        except MemoryError:
            message = Failed(b"", b"no memory left for it", b"an archive that fits")
        view = memoryview(msgspec.msgpack.encode(message))
        while view:
            view = view[os.write(send, view) :]
        os._exit(0)
    except OSError as error:
        _note(send, f"{error} while confining a process", b"root, or a user namespace of one's own")
        os._exit(0)
    except BaseException as error:  # a bug: nothing of ours is to run twice
        _note(send, f"an internal error ({error!r})", b"none")
        os._exit(70)
    finally:
        os._exit(71)


def _note(send: int, found: str, expected: bytes) -> None:
    os.write(send, msgspec.msgpack.encode(Failed(b"", os.fsencode(found), expected)))


def watch(children: list[Child], tick: Callable[[], None] | None) -> None:
    """Receive every child's message and reap it; call `tick` ten times a second meanwhile."""
    poll = select.poll()
    waiting = {child.fd: child for child in children}
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting:
        for fd, _ in poll.poll(100):
            data = os.read(fd, 1 << 20)
            child = waiting[fd]
            child.received += data
            if not data or len(child.received) > _MESSAGE_MAX:
                poll.unregister(fd)
                del waiting[fd]
        if tick is not None:
            tick()
    for child in children:
        child.reap()


def outcome(children: list[Child], archive_path: str) -> Done:
    """Return what the last child did, or raise what failed first: not a decompressor that lost its reader."""
    done = Done()
    echo: Failed | None = None
    for child in children:
        message = child.message()
        if message is None or child.status != 0:
            end = f"signal {-child.status}" if child.status and child.status < 0 else f"status {child.status}"
            if isinstance(message, Failed):
                raise _error(message, archive_path)
            raise LayoutError(
                archive_path,
                f"that the process which {child.task} it ended with {end}",
                "a report from it",
                "look for out of memory in the kernel's log",
            )
        if isinstance(message, Done):
            done = message
        elif message.consequence:
            echo = message
        else:
            raise _error(message, archive_path)
    if echo is not None:
        raise _error(echo, archive_path)
    return done


def _error(failed: Failed, archive_path: str) -> LayoutError:
    entry = failed.entry if len(failed.entry) <= _NAME_SHOWN else failed.entry[:_NAME_SHOWN] + b"..."
    path = f"{archive_path}: {os.fsdecode(entry)}" if entry else archive_path
    kind = UsageError if failed.usage else LayoutError
    return kind(path, os.fsdecode(failed.found), os.fsdecode(failed.expected), os.fsdecode(failed.hint))
