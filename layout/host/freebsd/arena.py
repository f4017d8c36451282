"""Where the selftest attacks on FreeBSD: a tmpfs of its own, and a jail that is there for a moment.

FreeBSD has no mount namespaces, so what is mounted is mounted on the host. All of it lies below one new
directory, is taken away in order, and a directory that still has a mount below it is left as it is.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from layout.core.attacks import Attack
from layout.core.errors import LayoutError
from layout.host import forked
from layout.host.attacks import files, frame
from layout.host.attacks.frame import Aim
from layout.host.freebsd import attacks, process, table
from layout.host.run import run

IN_BASE, IN_S, IN_T = "/usr/lib/selftest", "/etc/selftest", "/var/selftest"
_RESCUE = "/rescue/sh"
"""A static shell of the base system."""
_DIRECTORIES = (
    "bin",
    "dev",
    "etc",
    "proc",
    "root",
    "tmp",
    "usr/bin",
    "usr/local",
    "usr/lib",
    "var/log",
    "var/run",
)
_TEMPORARY = "/tmp"  # noqa: S108 - a new directory there, closed to others
_PATIENCE = 20
_PAUSE = 0.1


@contextlib.contextmanager
def made() -> Iterator[str]:
    """Make the directory, yield it, and take it away. Raises LayoutError."""
    top = f"{os.path.realpath(_TEMPORARY)}/layout-selftest-{secrets.token_hex(6)}"
    os.mkdir(top, 0o700)
    try:
        run("mount", "-t", "tmpfs", "-o", "rw,size=128m,mode=700", "tmpfs", top)
        try:
            yield top
        finally:
            _unmount(top)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(top)


def _unmount(top: str) -> None:
    """Unmount the tmpfs, and all that is in it is gone. Raises LayoutError for a mount below it."""
    inside = [line.node for line in table.lines() if line.node.startswith(f"{top}/")]
    if inside:
        raise LayoutError(top, f"mounts below it: {', '.join(inside)}", "none", "umount them, then it")
    for attempt in range(_PATIENCE):
        if run("umount", top, ok=range(256)).status == 0:
            return
        time.sleep(_PAUSE * (attempt > 0))
    raise LayoutError(top, "a tmpfs that is busy", "nobody in it", f"umount {top}")


def base(top: str) -> str:
    """Make a base with nothing in it but a static shell, and what is attacked; return that shell, or ""."""
    for name in _DIRECTORIES:
        files.directories(f"{top}/{name}")
    for place in (IN_BASE, IN_S, IN_T):
        files.fill(top + place)
    found = os.path.isfile(_RESCUE)
    if found:
        files.copy(_RESCUE, f"{top}/bin/sh", 0o755)
    else:
        with open(f"{top}/bin/sh", "w", encoding="ascii") as file:
            file.write("there is no shell here\n")
    os.chmod(f"{top}/bin/sh", 0o755)
    return "/bin/sh" if found else ""


@contextlib.contextmanager
def outside(top: str, root: str, shell: str) -> Iterator[tuple[Aim, str]]:
    """Make a token, a victim, and a FIFO and a socket in mroot; yield where everything is, and the token."""
    token, path = secrets.token_hex(16), f"{top}/outside/token"
    files.directories(os.path.dirname(path))
    with open(path, "w", encoding="ascii") as file:
        file.write(token)
    own = os.getpid()
    victim = forked.fork(lambda: _victim(own))
    left = f"{root}/j/mroot{IN_BASE}"
    try:
        os.mkfifo(f"{left}/fifo")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(_short(f"{left}/socket"))
            server.listen(8)
            yield Aim(IN_BASE, IN_S, IN_T, victim, "victim", path, (shell,) if shell else ()), token
    finally:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)


def _short(path: str) -> str:
    """A name of a socket has 104 bytes at most."""
    return path if len(os.fsencode(path)) < 100 else os.path.relpath(path)


def _victim(parent: int) -> int:
    process.die_with_parent(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    while True:
        signal.pause()


def attacked(wanted: Sequence[Attack], place: Aim, jid: int) -> dict[str, dict[str, Any]]:
    """Make each attack as root of the jail: a child attaches to it, and its children attack."""
    reading, writing = os.pipe()
    own = os.getpid()

    def child() -> int:
        os.close(reading)
        process.die_with_parent(own)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            attacks.attach(jid)
        except (OSError, frame.Untried) as why:
            found = {one.id: _untried(f"the jail cannot be entered: {why}") for one in wanted}
        else:
            found = {one.id: frame.attempt(attacks.EXPLOITS[one.id], place) for one in wanted}
        with open(writing, "w", encoding="utf-8") as out:
            json.dump(found, out)
        return 0

    pid = forked.fork(child)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    found: dict[str, dict[str, Any]] = json.loads(text or "{}")
    return found


def _untried(why: str) -> dict[str, Any]:
    return {"worked": False, "errnos": [], "said": why, "untried": True}


def controls(wanted: Sequence[Attack], place: Aim, top: str, root: str) -> dict[str, dict[str, Any]]:
    """Make each where it has to work: in one writable tree without mounts, or by root who is in no jail."""
    found = {}
    os.chmod(top, 0o711)  # for the control that is another user; ROOT below is closed
    for one in wanted:
        plain = f"{top}/plain/{one.id}"
        tree = place._replace(base=f"{plain}/base", s=f"{plain}/s", t=f"{plain}/t")
        for path in tree[:3]:
            files.fill(path)
        before, aim = None, tree
        if one.id == "chroot":
            before, aim = functools.partial(os.chroot, plain), tree._replace(t="/t")
        elif one.id in {"fifo", "socket"}:
            aim = place._replace(base=f"{root}/j/mroot{IN_BASE}")
        elif one.id == "interpreter" and place.interpreter:
            aim = tree._replace(interpreter=(_RESCUE,))
        found[one.id] = frame.attempt(attacks.EXPLOITS[one.id], aim, before)
    os.chmod(top, 0o700)
    return found
