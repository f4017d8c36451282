"""The one door for external programs: argument lists, no terminal, fixed environment, errors translated."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from layout.core.errors import LayoutError, printable, reason_of

PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
_SHOWN = 400
"""Characters of a command's last words that an error shows."""


class CommandError(LayoutError):
    """A program ended with another status than expected; `status`, `stdout` and `stderr` say more."""

    def __init__(self, words: Sequence[str], done: Done, hint: str) -> None:
        said = " ".join((done.stderr or done.stdout).split())[-_SHOWN:]
        super().__init__(shlex.join(words), f"exit status {done.status}: {said}", "exit status 0", hint)
        self.status = done.status
        self.stdout = done.stdout
        self.stderr = done.stderr


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended, and what it said."""

    status: int
    stdout: str
    stderr: str


@cache
def which(program: str) -> str | None:
    """Return the path of a program on PATH, or None: only directories that belong to the system count."""
    if "/" in program:
        return program if os.access(program, os.X_OK) else None
    for directory in PATH.split(":"):
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK):
            return path
    return None


def require(program: str, package: str) -> str:
    """Return the path of a program. Raises LayoutError that names the package that has it."""
    path = which(program)
    if path is None:
        raise LayoutError(program, "no such program", "it to be installed", f"install {package}")
    return path


def run(
    *words: str,
    input: str | bytes | None = None,
    ok: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    timeout: float | None = None,
    hint: str = "",
    lines: Callable[[str], None] | None = None,
    service: bool = False,
) -> Done:
    """Run a program to its end and return what it said.

    `ok`: exit statuses that are no error. `env`: variables besides PATH, LC_ALL and HOME. `timeout`: seconds.
    `lines` gets each line of its stderr as it comes, from another thread. An interrupt ends the program too.
    `service`: it starts what goes on without layout, and is not to inherit that `sh` ignores HUP.
    Raises CommandError, or LayoutError when it cannot be started or does not end in time.
    """
    import sh

    program = which(words[0])
    if program is None:
        raise LayoutError(words[0], "no such program", "it to be installed", hint)
    options: dict[str, Any] = {
        # A pseudo-terminal is not to be had in every jail, and none is wanted.
        "_tty_out": False,
        "_tty_in": False,
        "_env": {"PATH": PATH, "LC_ALL": "C", "HOME": "/root", **(env or {})},
        "_ok_code": list(range(256)),
        "_decode_errors": "surrogateescape",
        "_encoding": "utf-8",
        "_close_fds": True,
        "_timeout": timeout,
        "_return_cmd": True,
        "_in": input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input or b"",
    }
    if lines is not None:
        options |= {"_err": lines, "_tee": "err"}
    try:
        with _entered(cwd) as directory:

            def begin() -> None:
                os.fchdir(directory)
                if service:
                    signal.signal(signal.SIGHUP, signal.SIG_DFL)

            command = sh.Command(program)(*words[1:], _bg=True, _bg_exc=False, _preexec_fn=begin, **options)
        try:
            command.wait()
        except KeyboardInterrupt:
            command.kill()
            raise
    except sh.TimeoutException:
        raise LayoutError(shlex.join(words), "no end", f"one within {timeout:g} s", hint) from None
    except sh.SignalException as error:
        status = 128 + abs(int(error.exit_code))
        said = Done(status, "", f"killed by signal {abs(int(error.exit_code))}")
        raise CommandError(words, said, hint) from None
    except sh.ForkException as error:  # in the child: the kernel does not execute the program
        reason = str(error).strip().rpartition("\n")[2].strip()
        raise LayoutError(shlex.join(words), reason, "to be able to start it", hint) from None
    except OSError as error:
        where = f"in {cwd}: " if error.filename == cwd else ""
        found = f"{where}{reason_of(error)}"
        raise LayoutError(shlex.join(words), found, "to be able to start it", hint) from None
    done = Done(
        int(command.exit_code),
        command.stdout.decode("utf-8", "surrogateescape"),
        printable_lines(command.stderr.decode("utf-8", "surrogateescape")),
    )
    if done.status not in ok:
        raise CommandError(words, done, hint)
    return done


@contextlib.contextmanager
def _entered(cwd: str) -> Iterator[int]:
    """Open a working directory that can be entered. Raises OSError.

    Here and not in the child: sh leaves one that ends before it executes anything to nobody, as a zombie.
    """
    directory = os.open(cwd, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not os.access(".", os.X_OK, dir_fd=directory, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), cwd)
        yield directory
    finally:
        os.close(directory)


def printable_lines(text: str) -> str:
    """Return text with everything but its newlines escaped."""
    return "\n".join(printable(line) for line in text.split("\n"))
