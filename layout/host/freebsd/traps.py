"""What the tools of an administrator of FreeBSD look for, planted in t, and his own beside it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from layout.core.attacks import Attack
from layout.core.freebsd_files import STATE
from layout.host import traps
from layout.host.attacks import files, frame, programs
from layout.host.attacks.frame import Aim
from layout.host.attacks.session import TYPED
from layout.host.freebsd import arena, attacks, typist

_HONEST = ":\n"
_BEGINS = 30.0
"""Seconds for a process to begin in."""
_SCRIPTS = ("db/pkg/info/demo.prerm", "db/ports/demo/options")


def prepare(base: str) -> str:
    """Put what is the administrator's own into the base; return the typist's path in it, or ""."""
    for path, text in (
        *((f"{STATE}/{one}", _HONEST) for one in _SCRIPTS),
        (attacks.MERGED, "as it was delivered\n"),
        ("/var/log/messages", "a line\n"),
        ("/var/tmp/.keep", ""),  # noqa: S108 - of the base
    ):
        traps.write(base + path, text)
    program = typist.program(TYPED)
    if not program:
        return ""
    place = f"{arena.IN_BASE}/typist"
    with open(base + place, "wb") as file:
        file.write(program)
        os.fchmod(file.fileno(), 0o755)
    return place


@contextlib.contextmanager
def planted(t: str, aim: Aim) -> Iterator[None]:
    """Plant everything in a jail's t."""
    payload = f": >{aim.s}/pwned\n"
    texts = {**dict.fromkeys((f"var/{one}" for one in _SCRIPTS), payload), attacks.MERGED[1:]: "as it was\n"}
    with traps.planted(t, aim, texts, payload):
        directory = t + traps.libraries(aim)
        files.directories(directory)
        programs.written(f"{directory}/{attacks.LIBRARY}")
        yield


def controls(wanted: Sequence[Attack], aim: Aim, top: str) -> dict[str, dict[str, Any]]:
    """Let each be sprung where it has to work: in a plain chroot(8), with nothing but the tools' defaults."""
    tree = f"{top}/plain/traps"
    arena.base(tree)

    def enter() -> None:
        os.environ.clear()
        os.chroot(tree)
        os.chdir("/")

    with planted(tree, aim):
        return {one.id: frame.attempt(attacks.EXPLOITS[one.id], aim, enter) for one in wanted}


def stays(ours: socket.socket, seconds: float) -> bool:
    """Say whether the process that was left behind is still there after so many seconds."""
    return not select.select([ours], [], [], seconds)[0] or ours.recv(1) != b""


def began(ours: socket.socket) -> bool:
    """Say whether the process that is to be left behind has begun."""
    return bool(select.select([ours], [], [], _BEGINS)[0]) and ours.recv(1) == b"x"
