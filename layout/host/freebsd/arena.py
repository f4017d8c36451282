"""Where the selftest attacks on FreeBSD: a tmpfs of its own, and a jail that is there for a moment.

FreeBSD has no mount namespaces, so what is mounted is mounted on the host. All of it lies below one new
directory, and a process that outlives all others takes away what they could not.
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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layout.core.attacks import Attack
from layout.core.errors import LayoutError
from layout.host import forked, played
from layout.host.attacks import files, frame
from layout.host.attacks.frame import Aim, Exploit
from layout.host.freebsd import attacks, jails, mounts, process, session, table
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
_PATIENCE = 100
_PAUSE = 0.1
_OFTEN = 0.2


@contextlib.contextmanager
def made() -> Iterator[str]:
    """Make the directory, yield it, and take it away, whatever ends this process. Raises LayoutError."""
    top = f"{os.path.realpath(_TEMPORARY)}/layout-selftest-{secrets.token_hex(6)}"
    os.mkdir(top, 0o700)
    # A guard sees the end of everybody who has the other end of this, and then tidies up.
    watched, held = os.pipe2(os.O_CLOEXEC)
    guard = forked.fork(lambda: _guard(top, watched, held))
    os.close(watched)
    try:
        run("mount", "-t", "tmpfs", "-o", "rw,size=128m,mode=700", "tmpfs", top)
        yield top
    finally:
        os.close(held)
        if os.waitstatus_to_exitcode(os.waitpid(guard, 0)[1]):
            raise LayoutError(top, "something that is still mounted or in use", "nothing", f"umount {top}")


def _guard(top: str, watched: int, held: int) -> int:
    """In a child whose signals are held: wait for the end of all others, then take away what is left."""
    os.close(held)
    os.setsid()
    os.read(watched, 1)
    for _ in range(_PATIENCE):
        with contextlib.suppress(LayoutError, OSError):
            if _taken_away(top):
                os.rmdir(top)
                return 0
        time.sleep(_PAUSE)
    return 1


def _taken_away(top: str) -> bool:
    """Remove jails with their root below a directory, then mounts, the newest first. Raises LayoutError."""
    for prison in jails.listed():
        if prison.path.startswith(f"{top}/"):
            session.remove(prison.name)
    lines = table.lines()
    while inside := [line for line in lines if f"{line.node}/".startswith(f"{top}/")]:
        lines = mounts.detach_line(inside[-1], lines)
    return True


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
    left = f"{root}/j/mroot{IN_BASE}"
    os.mkfifo(f"{left}/fifo")
    with socket.socket(socket.AF_UNIX) as server, played.beside(lambda: None, _OFTEN) as victim:
        server.bind(_short(f"{left}/socket"))
        server.listen(8)
        yield Aim(IN_BASE, IN_S, IN_T, victim, "victim", path, (shell,) if shell else ()), token


def _short(path: str) -> str:
    """A name of a socket has 104 bytes at most."""
    return path if len(os.fsencode(path)) < 100 else os.path.relpath(path)


def attacked(
    wanted: Sequence[Attack],
    aim: Aim,
    jid: int,
    exploits: Mapping[str, Exploit] = attacks.EXPLOITS,
    variables: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Make each attack as root of the jail: a child attaches to it, and its children attack.

    `variables` is the environment there, where that matters.
    """
    reading, writing = os.pipe()
    own = os.getpid()

    def child() -> int:
        os.close(reading)
        process.die_with_parent(own)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            attacks.attach(jid)
        except (OSError, frame.Untried) as why:
            found = {
                one.id: frame.outcome(said=f"the jail cannot be entered: {why}", untried=True)
                for one in wanted
            }
        else:
            if variables is not None:
                os.environ.clear()
                os.environ.update(variables)
            found = {one.id: frame.attempt(exploits[one.id], aim) for one in wanted}
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


def controls(wanted: Sequence[Attack], aim: Aim, top: str, root: str) -> dict[str, dict[str, Any]]:
    """Make each where it has to work: in one writable tree without mounts, or by root who is in no jail."""
    found = {}
    os.chmod(top, 0o711)  # for the control that is another user; ROOT below is closed
    for one in wanted:
        plain = f"{top}/plain/{one.id}"
        tree = aim._replace(base=f"{plain}/base", s=f"{plain}/s", t=f"{plain}/t")
        for path in tree[:3]:
            files.fill(path)
        before, there = None, tree
        if one.id == "chroot":
            before, there = functools.partial(os.chroot, plain), tree._replace(t="/t")
        elif one.id in {"fifo", "socket"}:
            there = aim._replace(base=f"{root}/j/mroot{IN_BASE}")
        elif one.id == "interpreter" and aim.interpreter:
            there = tree._replace(interpreter=(_RESCUE,))
        found[one.id] = frame.attempt(attacks.EXPLOITS[one.id], there, before)
    os.chmod(top, 0o700)
    return found
