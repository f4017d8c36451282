"""Runs attacks, each in a process of its own with a time limit, and says what came of them."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

SECONDS = 8.0
"""For one attack."""
RESULT = "layout-selftest: "
"""What the line with the results starts with, in the log of a jail."""

libc = ctypes.CDLL(None, use_errno=True)


class Aim(NamedTuple):
    """Where an attack finds what it is aimed at. Paths are those of the attacker."""

    base: str
    """A directory of mroot, with the files `file`, `other`, `linked`, `fifo` and `socket`."""
    s: str
    """A directory of s, with `file`, `other` and `linked`; `base` where the jail has one tree only."""
    t: str
    """A directory that can be written."""
    victim: int
    """A process of the host, by the host's number."""
    name: str
    """The name of that process (proc_pid_comm(5))."""
    token: str
    """Path of a file of the host that the jail does not have."""
    interpreter: tuple[str, ...]
    """Words that start an interpreter of the base on a script; none where it has none."""
    mount_of_s: str = "/s"
    """Mount point of s; "" where that is the jail's root."""
    mount_of_t: str = "/t"


Exploit = Callable[[Aim], str | None]
"""What carries an attack out: returning is success, with what it got."""


class Refused(Exception):
    """Nothing of several attempts worked."""

    def __init__(self, errors: Iterable[OSError], said: str = "") -> None:
        super().__init__(said)
        self.errnos = tuple(dict.fromkeys(name_of(error) for error in errors))
        self.said = said


class Untried(Exception):
    """It could not be tried here, and why."""


def name_of(error: OSError) -> str:
    """Return the name of an errno."""
    return errno.errorcode.get(error.errno or 0, str(error))


def check(result: int, what: str = "") -> int:
    """Return the result of a call of libc. Raises OSError for a negative one."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def each(attempts: Iterable[tuple[str, Callable[[], object]]]) -> str:
    """Make all attempts; return the names of those that worked. Raises Refused when none did."""
    good, errors = [], []
    for name, attempt in attempts:
        try:
            attempt()
        except OSError as error:
            errors.append(error)
        else:
            good.append(name)
    if not good:
        raise Refused(errors)
    return ", ".join(good)


def outcome(
    *, worked: bool = False, errnos: Iterable[str] = (), said: str = "", untried: bool = False
) -> dict[str, Any]:
    """Return what came of an attack, as layout.core.attacks judges it."""
    return {"worked": worked, "errnos": list(errnos), "said": said, "untried": untried}


def attempt(exploit: Exploit, aim: Aim, before: Callable[[], None] | None = None) -> dict[str, Any]:
    """Run one attack in a child; `before` prepares that. Returns worked, errnos, said, untried."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            os.setpgid(0, 0)
            answer = _answer(exploit, aim, before)
            os.write(writing, json.dumps(answer).encode() + b"\n")
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    data = _read(reading, SECONDS)
    os.close(reading)
    for target in (-pid, pid):
        try:
            os.kill(target, signal.SIGKILL)
        except OSError:
            continue
    os.waitpid(pid, 0)
    if not data:
        return outcome(said="no answer in time", untried=True)
    found: dict[str, Any] = json.loads(data)
    return found


def _answer(exploit: Exploit, aim: Aim, before: Callable[[], None] | None) -> dict[str, Any]:
    worked, errnos, untried = False, [], False
    try:
        if before is not None:
            before()
        said = exploit(aim) or ""
        worked = True
    except Refused as refused:
        errnos, said = list(refused.errnos), refused.said
    except OSError as error:
        errnos, said = [name_of(error)], f"{error.strerror} ({error.filename})"
    except Untried as why:
        said, untried = str(why), True
    except Exception as error:
        said, untried = f"{type(error).__name__}: {error}", True
    return outcome(worked=worked, errnos=errnos, said=said[:300], untried=untried)


def _read(fd: int, seconds: float) -> bytes:
    end = time.monotonic() + seconds
    data = b""
    while (left := end - time.monotonic()) > 0 and select.select([fd], [], [], left)[0]:
        piece = os.read(fd, 4096)
        if not piece:
            break
        data += piece
        if data.endswith(b"\n"):  # whoever it left behind may hold the other end open
            break
    return data


def main() -> None:
    """Be the attacker in a jail: the argument holds an Aim, the names of the attacks, and whether to stay."""
    from . import known

    aim, names, stay = json.loads(sys.argv[1])
    exploits = known.exploits()
    results = {name: attempt(exploits[name], Aim(*aim)) for name in names}
    print(RESULT + json.dumps(results), flush=True)
    while stay:
        signal.pause()
