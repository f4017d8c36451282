"""Does a service answer? One look each: at a port, at a socket, or what a command in the jail says."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from layout.core.errors import LayoutError, reason_of
from layout.core.service import Ready, address_of
from layout.host.linux import syscalls

_RESOLVE_IN_ROOT = 0x10
_PATIENCE = 2.0
"""Seconds that one connection may take."""


def problem(ready: Ready, pid: int, run: Callable[[tuple[str, ...]], int]) -> str | None:
    """Return why the service of process `pid` is not ready yet, or None when it is.

    `run` runs a command in the jail and returns its exit status.
    """
    try:
        if ready.tcp:
            with socket.create_connection(address_of(ready.tcp), timeout=_PATIENCE):
                return None
        if ready.socket:
            _connect(ready.socket, pid)
            return None
    except OSError as error:
        return f"{ready.tcp or ready.socket}: {reason_of(error)}"
    if ready.command:
        try:
            status = run(ready.command)
        except LayoutError as error:  # it ended a moment ago, perhaps, which the caller sees
            return str(error)
        return None if status == 0 else f"{ready.command[0]} exits with {status}"
    return None


def _connect(path: str, pid: int) -> None:
    """Connect to a socket of the jail; a link of the jail's that leads out of it leads nowhere."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = _RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        fd = syscalls.openat2(root, os.fsencode(path.lstrip("/")), os.O_PATH, flags)
    finally:
        os.close(root)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_PATIENCE)
            client.connect(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
