"""What the attacks of `layout selftest` are aimed at, made inside the sandbox, and the controls.

A control is the same attack where it has to work. `bare` is a bare chroot(2): the trees of a jail,
read-only where they have to be, without other options; all capabilities; the host's /proc, /dev and
processes; and a descriptor left open.
`plain` is one writable tree without any mount.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from layout.core.attacks import Attack
from layout.host import played
from layout.host.attacks import files, frame, keyring, known, programs, reach, session
from layout.host.attacks.frame import Aim
from layout.host.linux import process, syscalls

WORK = "/tmp/work"  # noqa: S108 - the sandbox's own
ROOT = f"{WORK}/jails"
BASE = f"{WORK}/base"
TOKEN = f"{WORK}/outside/token"
HOME = "/usr/lib/selftest"
IN_BASE, IN_S, IN_T = f"{HOME}/target", "/etc/selftest", "/var/selftest"
NAME = "layout-victim"
_OFTEN = 0.2
_LEAKED = 200
"""Number from which on a descriptor is left open on purpose."""
_LOG = f"{WORK}/log"
"""Standard output of a control, as a service has its log."""
_START = 'import sys; sys.path.insert(0, "{home}"); from attacks.frame import main; main()'


def prepare(python: str) -> None:
    """Put what is attacked into the base, and the attacks themselves."""
    for top in (IN_BASE, IN_S, IN_T):
        files.fill(BASE + top)
    here = os.path.dirname(frame.__file__)
    for name in os.listdir(here):
        if name.endswith(".py"):
            files.copy(f"{here}/{name}", f"{BASE}{HOME}/attacks/{name}", 0o644)
    with open(f"{BASE}/bin/sh", "w", encoding="ascii") as file:
        file.write(f'#!{python} -S\nraise SystemExit("there is no shell here")\n')
    os.chmod(f"{BASE}/bin/sh", 0o755)


def command(aim: Aim, names: Sequence[str], *, stay: bool) -> tuple[str, ...]:
    """Return the words that start these attacks in a jail; `stay`: it does not end with the last."""
    return (*aim.interpreter, "-B", "-c", _START.format(home=HOME), json.dumps((aim, names, stay)))


class Tree(NamedTuple):
    """A directory of the host that a jail is made of."""

    source: str
    place: str
    """Where the jail sees it; "" for its root."""
    read_only: bool = False


class Target(NamedTuple):
    """A jail that is attacked."""

    name: str
    aim: Aim
    trees: tuple[Tree, ...]
    """Parents first."""
    t: str
    """Where the host sees the `t` of its aim."""


def write(path: str, text: str) -> None:
    """Write a file, its directories made."""
    files.directories(os.path.dirname(path))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def write_program(path: str, content: bytes) -> None:
    """Write a program of the host."""
    with open(path, "xb") as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o755)


def lay_beside(top: str) -> None:
    """Put the interpreter with the attacks beside the program of the jail at `top`, which has none."""
    for path in files.below(BASE):
        place = top + path[len(BASE) :]
        if not os.path.lexists(place):
            files.copy(path, place, stat.S_IMODE(os.stat(path).st_mode))


@contextlib.contextmanager
def outside(python: str) -> Iterator[tuple[Aim, str]]:
    """Make the token, the open descriptor and the victim; yield where everything is, and the token."""
    token = secrets.token_hex(16)
    write(TOKEN, token)
    opened = os.open(os.path.dirname(TOKEN), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    leaked = _duplicate(opened)
    os.close(opened)
    with contextlib.suppress(OSError):  # where there are no keys, the control says so
        keyring.plant()
    with contextlib.suppress(OSError):  # a number that no process of a jail has
        write("/proc/sys/kernel/ns_last_pid", "30000")
    try:
        with (
            played.beside(lambda: process.set_name(NAME.encode()), _OFTEN) as victim,
            socket.socket(socket.AF_UNIX) as server,
        ):
            server.bind(reach.ABSTRACT)
            server.listen(64)
            yield Aim(IN_BASE, IN_S, IN_T, victim, NAME, TOKEN, (python, "-S", "-E")), token
    finally:
        os.close(leaked)


def _duplicate(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD, _LEAKED)


@contextlib.contextmanager
def left_in_base() -> Iterator[None]:
    """Leave a FIFO and a socket in mroot, as a careless administrator would."""
    top = f"{ROOT}/j/mroot{IN_BASE}"
    os.mkfifo(f"{top}/fifo")
    os.chmod(f"{top}/fifo", 0o666)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{top}/socket")
        os.chmod(f"{top}/socket", 0o666)
        server.listen(64)
        yield


# -- controls -----------------------------------------------------------------------------------------------


def controls(attacks: Iterable[Attack], target: Target) -> dict[str, dict[str, Any]]:
    """Make each attack where it has to work."""
    exploits = known.exploits()
    found = {}
    for attack in attacks:
        if attack.control == "plain":
            plain = f"{WORK}/plain/{target.name}-{attack.id}"
            aim = target.aim._replace(base=f"{plain}/base", s=f"{plain}/s", t=f"{plain}/t")
            for top in aim[:3]:
                files.fill(top)
            before = _users_of_its_own if attack.id == "keys" else None
            found[attack.id] = frame.attempt(exploits[attack.id], aim, before)
        else:
            found[attack.id] = frame.attempt(exploits[attack.id], target.aim, bare(target.trees))
        match attack.id:
            case "device-mode" | "standard-input":
                found[attack.id]["worked"] = attack.id in host_device_changed()
            case "left-behind":
                found[attack.id]["worked"] = left_over()
            case _:
                pass
    return found


def _users_of_its_own() -> None:
    """Have the keyring of another user, for that of the host's root would be made."""
    with contextlib.suppress(OSError):
        syscalls.unshare(syscalls.CLONE_NEWUSER)


def bare(trees: Iterable[Tree]) -> Callable[[], None]:
    """Return what makes a bare chroot of a jail's trees, in a mount namespace of this attack's own."""
    top = f"{WORK}/bare"

    def enter() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        files.directories(top)
        for tree in (*trees, Tree("/proc", "/proc"), Tree("/dev", "/dev")):
            where = (top + tree.place).encode()
            syscalls.mount(tree.source.encode(), where, None, syscalls.MS_BIND)
            if tree.read_only:
                flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
                syscalls.mount(b"none", where, None, flags)
        # Descriptors as a service has them, and not those that layout itself was given.
        os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
        os.dup2(os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), 1)
        os.chroot(top)
        os.chdir("/")

    return enter


def host_device_changed() -> set[str]:
    """Return by which attacks the sandbox's /dev/null was changed, and change it back."""
    found = os.stat("/dev/null")
    changed = set()
    if stat.S_IMODE(found.st_mode) & 0o777 != 0o666:
        changed.add("device-mode")
    if found.st_mode & reach.STICKY or found.st_gid == reach.GROUP:
        changed.add("standard-input")
    if changed:
        os.chown("/dev/null", -1, 0)
        os.chmod("/dev/null", 0o666)
    return changed


def left_over() -> bool:
    """Say whether a process outlived what started it, and end it."""
    found = []
    for name in os.listdir("/proc"):
        with (
            contextlib.suppress(OSError, ValueError),
            open(f"/proc/{int(name)}/comm", encoding="ascii") as file,
        ):
            if file.read().strip() == session.LEFT.decode():
                found.append(int(name))
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def host_user(target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let a user of the host run the setuid file that a jail left; and where all above it is open to all."""
    path = f"{target.t}/left-setuid"

    def ran(_: Aim) -> str:
        user = programs.run(path, programs.arguments(path), programs.OTHER)
        if user == programs.OTHER & 255:
            raise frame.Refused((), "it ran without a privilege")
        return f"user {programs.OTHER} became {user}"

    if not os.path.exists(path):
        missing = frame.outcome(said="the jail could not make it", untried=True)
        return missing, missing
    found = frame.attempt(ran, target.aim)
    opened = [os.path.dirname(path)]
    while opened[-1] != WORK:
        opened.append(os.path.dirname(opened[-1]))
    modes = {one: stat.S_IMODE(os.stat(one).st_mode) for one in opened}
    try:
        for one in opened:
            os.chmod(one, 0o755)
        return found, frame.attempt(ran, target.aim)
    finally:
        for one, mode in modes.items():
            os.chmod(one, mode)
