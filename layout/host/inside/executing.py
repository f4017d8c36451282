"""Executing a program of our own by its descriptor: in a child without any rights, for a few seconds at most.

The descriptor is of a file that has just been written and unlinked. Should root of the jail have put other
bytes into it meanwhile, they run with fewer rights than his.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
from collections.abc import Callable, Sequence

from layout.core.tinyprogram import RAN
from layout.host import forked

USER = 2
"""Whom the program is executed as."""
OWNER = 1
"""Who owns the setuid copy."""
_GROUP = 65534
_SECONDS = 3.0
"""From before the first refusal, so not too few: on a busy host none may be over by then."""
_AT_MOST = 6
"""Programs that are let run, where they may: each costs a process."""

Steps = tuple[Callable[[], None], Callable[[], None]]
"""Give up all rights; ignore setuid bits from then on."""


def name_of(error: OSError) -> str:
    """Return the errno as its name, such as EROFS."""
    return errno.errorcode.get(error.errno or 0, f"errno {error.errno}")


def execute_all(files: Sequence[int], late: int, prepare: Steps) -> list[str]:
    """Execute each file; return what came of it: the errno's name, "" when it ran, or "setuid".

    One process tries them all, for refusals leave it as it is; where one ran, another goes on. From the file
    at index `late` on, setuid bits are to be ignored. At most _AT_MOST are let run.
    """
    found: list[str] = []
    ran = 0
    while len(found) < len(files) and ran < _AT_MOST:
        done = len(found)
        refused, status = _execute(files[done:], max(0, late - done), prepare)
        found += refused
        if len(found) == len(files):
            break
        if status is None:
            # Nothing was executed, and nothing refused: the child could not be made ready.
            found.append("unprepared")
        elif status == RAN + OWNER:
            found.append("setuid")
        else:
            found.append("")
        ran += 1
    return found


def _execute(files: Sequence[int], late: int, prepare: Steps) -> tuple[list[str], int | None]:
    """Return the refusals before the first file that ran, and how that ended; None when none did."""
    reader, writer = os.pipe()
    pid = forked.fork(lambda: _become(files, late, writer, prepare))
    os.close(writer)
    told = b""
    while piece := os.read(reader, 4096):
        told += piece
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    numbers = [number for (number,) in struct.iter_unpack("<i", told[: len(told) // 4 * 4])]
    if numbers[:1] != [0]:
        return [], None
    refused = [errno.errorcode.get(number, f"errno {number}") for number in numbers[1:]]
    return refused, status


def _become_other() -> None:
    """Be another user, where there is one: a user namespace of one user has no other. Raises OSError."""
    try:
        os.setgroups([])
        os.setresgid(_GROUP, _GROUP, _GROUP)
        os.setresuid(USER, USER, USER)
    except OSError as error:
        # EPERM: setgroups(2) is denied there. `prepare` has taken all rights from root as well.
        if error.errno not in {errno.EINVAL, errno.EPERM}:
            raise


def _become(files: Sequence[int], late: int, writer: int, prepare: Steps) -> int:
    """Execute the files until one is not refused; tell of each that was. The pipe closes at execve(2)."""
    try:
        powerless, no_new_privileges = prepare
        powerless()
        _become_other()
        forked.restore_default_signals()
        # It outlives execve(2): whatever runs then is ended by it.
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    except OSError:
        return 1
    os.write(writer, struct.pack("<i", 0))
    for number, fd in enumerate(files):
        try:
            if number == late:
                no_new_privileges()
            os.execve(fd, ["probe"], {})  # noqa: S606 - it must be refused
        except OSError as error:
            os.write(writer, struct.pack("<i", error.errno or -1))
    return 0
