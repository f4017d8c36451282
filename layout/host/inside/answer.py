"""From the confined child to layout: attempts over a pipe, within a time and a size."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Sequence

from layout.core.errors import LayoutError, reason_of
from layout.core.probing import Attempt

_LIMIT = 8 << 20
_PATIENCE = 6.0
"""Seconds until a child is killed: it ends by itself long before, unless the kernel holds it."""


def send(fd: int, attempts: Sequence[Attempt]) -> None:
    """Write the answer. Raises OSError when nobody reads it."""
    rows = [[a.probe, a.action, a.path, a.place, a.outcome] for a in attempts]
    data = json.dumps(rows).encode("ascii")
    while data:
        data = data[os.write(fd, data) :]


def failed(fd: int, what: str, error: BaseException) -> None:
    """Write that the child could not get as far as trying."""
    text = reason_of(error) if isinstance(error, OSError) else str(error) or repr(error)
    with contextlib.suppress(OSError):
        send(fd, [Attempt("A0", what, "/", "/", text.lower()[:500])])


def collect(pid: int, fd: int) -> list[Attempt]:
    """Read the answer of a child and wait for its end; kill it when it takes too long. Closes `fd`.

    Raises LayoutError when there is no whole answer: a process of the jail may have killed the child.
    """
    data = bytearray()
    end = time.monotonic() + _PATIENCE
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    late = False
    try:
        while True:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000) or len(data) > _LIMIT:
                late = True
                break
            piece = os.read(fd, 65536)
            if not piece:
                break
            data += piece
    finally:
        os.close(fd)
        if late:
            # With all below it, the leader of a session: a jail may have stopped one of them.
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if late:
        raise LayoutError("probes", f"no end after {_PATIENCE:.0f} s", "a child that ends by itself")
    try:
        return [Attempt(*map(str, row)) for row in json.loads(bytes(data).decode("ascii"))]
    except (ValueError, TypeError):
        raise LayoutError("probes", "a child that was killed", "an answer of all of its attempts") from None
