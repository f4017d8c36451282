"""SHA-256 beside the writing: one thread hashes big files, and whoever has time hashes the next.

hashlib lets go of the interpreter lock for more than 2 KiB. Small files are hashed where they are written:
handing one over costs more than hashing it.
"""

from __future__ import annotations

import os
from hashlib import sha256
from queue import SimpleQueue
from threading import Semaphore, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Aside", "Stream"]

_WAITING = 32  # pieces, of at most 2 MiB, that may wait for the thread


class Stream:
    """One big file's hash, fed piece by piece: all by the thread, or all here."""

    def __init__(self, aside: Aside | None) -> None:
        self._aside = aside
        self.hash = sha256()

    def update(self, piece: memoryview) -> None:
        """Hash a piece, now or soon; the memoryview may change afterwards."""
        if self._aside is None:
            self.hash.update(piece)
        else:
            self._aside.put(self.hash, piece)


class Aside:
    """The thread and its queue; every hash given out is complete once the block is left."""

    def __init__(self, *, thread: bool) -> None:
        self._queue: SimpleQueue[tuple[_Hash, bytes] | None] = SimpleQueue()
        self._room = Semaphore(_WAITING)
        self._thread = Thread(target=self._work, daemon=True) if thread and _processors() > 1 else None

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._queue.put(None)
            if error is None:
                self._thread.join()

    def whole(self, data: memoryview) -> _Hash:
        """Hash a whole file: in the thread when it has time for it, else here."""
        if self._thread is None or not self._room.acquire(blocking=False):
            return sha256(data)
        digest = sha256()
        self._queue.put((digest, bytes(data)))
        return digest

    def stream(self) -> Stream:
        """Begin a file that comes in pieces: for the thread, unless it has enough to do."""
        return Stream(None if self._thread is None or self._queue.qsize() > _WAITING // 2 else self)

    def put(self, digest: _Hash, piece: memoryview) -> None:
        """Add a piece to a stream; wait while too many are waiting, for their order counts."""
        self._room.acquire()
        self._queue.put((digest, bytes(piece)))

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            digest, data = item
            digest.update(data)
            self._room.release()


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
