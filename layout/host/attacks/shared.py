"""Attacks that want a channel to other jails: what two of them share is the read-only base."""

from __future__ import annotations

import fcntl
import os
import socket

from .frame import Aim, Exploit, each


def new_fifo(aim: Aim) -> str:
    def listening(path: str) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)

    return each(
        (
            ("FIFO", lambda: os.mkfifo(f"{aim.base}/.fifo")),
            ("socket", lambda: listening(f"{aim.base}/.socket")),
        )
    )


def fifo(aim: Aim) -> str:
    path = f"{aim.base}/fifo"
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, b"hello")
    return path


def socket_of_base(aim: Aim) -> str:
    path = f"{aim.base}/socket"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"hello")
    return path


def flock(aim: Aim) -> str:
    path = f"{aim.base}/file"
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    return path


def lease(aim: Aim) -> str:
    path = f"{aim.base}/file"
    fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
    return path


EXPLOITS: dict[str, Exploit] = {
    "new-fifo": new_fifo,
    "fifo": fifo,
    "socket": socket_of_base,
    "flock": flock,
    "lease": lease,
}
