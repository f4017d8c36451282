"""Does the service of a FreeBSD jail answer? One look each: a port, a socket, or what a command says."""

from __future__ import annotations

import os
import socket
import stat

from layout.core.errors import LayoutError, reason_of
from layout.core.service import Ready, address_of
from layout.host.beneath import Dir
from layout.host.run import run

_PATIENCE = 2.0
"""Seconds that one connection may take."""


def problem(ready: Ready, jail: str, root: Dir, place: str) -> str | None:
    """Return why the service is not ready yet, or None when it is.

    `place`: where its socket is, relative to the jail's root, without the links of mroot.
    """
    try:
        if ready.tcp:
            with socket.create_connection(address_of(ready.tcp), timeout=_PATIENCE):
                return None
        if ready.socket:
            _connect(root, place)
            return None
    except LayoutError as error:
        return str(error)
    except OSError as error:
        return f"{ready.tcp or ready.socket}: {reason_of(error)}"
    if ready.command:
        try:
            done = run("jexec", "-l", jail, *ready.command, ok=range(256), timeout=ready.timeout)
        except LayoutError as error:
            return str(error)
        return None if done.status == 0 else f"{ready.command[0]} exits with {done.status}"
    return None


def _connect(root: Dir, place: str) -> None:
    """Connect to a socket of the jail, by descriptor: a link that the jail made leads nowhere."""
    head, _, name = place.rpartition("/")
    with root.open(head or ".") as directory:
        found = directory.lstat(name)
        if found is None or not stat.S_ISSOCK(found.st_mode):
            raise LayoutError(directory.show(name), "no socket", "one that the service listens on")
        # A name alone, for sun_path is short; back again afterwards, whatever happens.
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fchdir(directory.fd)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_PATIENCE)
                client.connect(name)
        finally:
            os.fchdir(here)
            os.close(here)
