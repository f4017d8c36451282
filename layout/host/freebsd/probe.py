"""The probes' child on FreeBSD: attached to the jail, or to a throw-away one with the same parameters.

A process that jail_attach(2) puts into a jail has what the kernel gives that jail's root, and no more: it is
the kernel's own policy that is tried.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence

from layout.core.probing import Attempt, Place
from layout.host import forked, inside
from layout.host.freebsd import jails, libc, passing, process, session
from layout.host.inside.executing import name_of

_SECONDS = 5
"""Until a child that only changes its root is ended."""

_SOCK_FDS = 65536


def prefix(name: str) -> str:
    """Return how the throw-away jails of jail `name` begin; the number of layout's process follows."""
    return f"layout-probe-{name}-"


@contextlib.contextmanager
def throw_away(name: str, path: str, parameters: Sequence[str]) -> Iterator[int]:
    """Make a jail with these parameters of jail(8) for a moment; yield its number. Raises LayoutError."""
    with session.held_signals(), passing.jail(f"{prefix(name)}{os.getpid()}", path, parameters) as jid:
        yield jid


def clear(name: str, listed: Sequence[jails.Prison]) -> list[str]:
    """Remove throw-away jails of a jail whose layout is gone; return their names. Raises LayoutError."""
    gone = []
    for one in listed:
        number = one.name.removeprefix(prefix(name))
        if number != one.name and number.isdigit() and not _is_there(int(number)):
            session.remove(one.name)
            gone.append(one.name)
    return gone


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def attached(task: inside.Task, jid: int) -> list[Attempt]:
    """Try it in a jail, by its number. Raises LayoutError."""
    reader, writer = os.pipe()
    parent = os.getpid()

    def child() -> int:
        try:
            _close_all_but(writer)
            os.setsid()
            process.die_with_parent(parent)
            forked.load_nothing_more()
            libc.attach(jid)
            own = os.getpid()
            pid = forked.fork(lambda: _probe(task, writer, own, parent))
            os.close(writer)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException as error:  # all of them: a traceback helps nobody on the other side of a fork
            inside.failed(writer, "to enter the jail", error)
            return 1

    try:
        pid = forked.fork(child)
    finally:
        os.close(writer)
    return inside.collect(pid, reader)


def _probe(task: inside.Task, writer: int, keeper: int, outside: int) -> int:
    try:
        with contextlib.suppress(ProcessLookupError):  # a jail may not show who is not in it
            process.die_with_parent(keeper)
        os.umask(0o077)

        def privileged(places: Sequence[Place]) -> list[Attempt]:
            return [_seen(outside), _twice(), *_privileged(places)]

        powers = inside.Powers(lambda: None, process.forbid_new_privileges, privileged)
        inside.send(writer, inside.attempts(task, powers))
    except BaseException as error:  # as above
        inside.failed(writer, "to try anything", error)
        return 1
    return 0


def _close_all_but(writer: int) -> None:
    """Close what a jail must not have: jail_attach(2) refuses whoever has a directory open, too."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.closerange(3, writer)
    os.closerange(writer + 1, max(os.sysconf("SC_OPEN_MAX"), _SOCK_FDS))


# --- A4, and processes and roots of A6 ---------------------------------------------------------------------


def _privileged(places: Sequence[Place]) -> list[Attempt]:
    found = []
    for place in places:
        if not place.system:
            nowhere = f"{place.path.rstrip('/')}/.layout-probe"
            found.append(_attempt("mount", place.path, libc.ask_to_mount, place.path))
            found.append(_attempt("unmount", place.path, libc.ask_to_unmount, nowhere))
    found.append(_attempt("fhopen", "/", libc.ask_for_handles))
    found.append(_attempt("chroot", "/", os.chroot, "/"))
    return found


def _attempt(action: str, path: str, work: Callable[..., object], *words: object) -> Attempt:
    outcome = ""
    try:
        work(*words)
    except OSError as error:
        outcome = "" if error.errno in libc.MAY else name_of(error)
    return Attempt("A4", action, path, path, outcome)


def _seen(outside: int) -> Attempt:
    """Look whether layout's own process, which is outside, is seen."""
    try:
        os.kill(outside, 0)
    except ProcessLookupError:
        outcome = ""
    except PermissionError:
        outcome = "a process that is outside"
    else:
        outcome = "a process that is outside, and can be ended"
    return Attempt("A6", "process", "processes", "/", outcome)


def _twice() -> Attempt:
    """Change the root twice, the way out of a chroot(8): in a jail it leads back to the jail's root."""
    here = os.stat("/")
    pid = forked.fork(lambda: _climbed((here.st_dev, here.st_ino)))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    outcome = {0: "", 1: "another root"}.get(status, f"ended with {status}")
    return Attempt("A6", "outside", "chroot twice", "/", outcome)


def _climbed(root: tuple[int, int]) -> int:
    signal.alarm(_SECONDS)
    try:
        above = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        os.chroot("/t" if os.path.isdir("/t") else "/dev")
        os.fchdir(above)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
    except OSError:
        return 0  # refused on the way
    there = os.stat("/")
    return int((there.st_dev, there.st_ino) != root)
