"""What root of a jail plants in t for the administrator, on both platforms; `t` is its tree on the host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from layout.host import played
from layout.host.attacks import files, session
from layout.host.attacks.frame import Aim

_TEMPORARY = ("tmp", "var/tmp")
_LOG = "var/log/messages"
_OFTEN = 0.005
"""Seconds between two looks for a temporary file."""


def write(path: str, text: str) -> None:
    """Write a file, in the place of what was there, its directories made."""
    files.directories(os.path.dirname(path))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def libraries(aim: Aim) -> str:
    """Return the directory of t that planted hints lead to."""
    return f"{aim.t}/evil"


@contextlib.contextmanager
def planted(t: str, aim: Aim, texts: Mapping[str, str], payload: str) -> Iterator[None]:
    """Plant everything, and change every temporary file that appears meanwhile.

    `texts` is what the tools of the platform look for, by path below t; `payload` is the script of the
    attacker.
    """
    for path, text in texts.items():
        write(f"{t}/{path}", text)
    for path in (*(f"{one}/fix" for one in _TEMPORARY), f"{aim.t[1:]}/fix"):
        write(f"{t}/{path}", payload)
    write(f"{t}/{session.HINTS[1:]}", libraries(aim))
    write(f"{t}/{_LOG}", "")
    os.unlink(f"{t}/{_LOG}")
    os.mkfifo(f"{t}/{_LOG}")
    os.symlink(f"{aim.s}/file", f"{t}/var/log/link")
    with played.beside(lambda: _change([f"{t}/{one}" for one in _TEMPORARY]), _OFTEN):
        yield


def _change(directories: list[str]) -> None:
    for directory in directories:
        with contextlib.suppress(OSError):
            fd = os.open(f"{directory}/{session.TEMPORARY}", os.O_WRONLY | os.O_TRUNC)
            os.write(fd, b"evil")
            os.close(fd)
