"""Process 1 of a session: builds its confinement from within, starts the command and reaps the dead.

It runs none of the jail's code, and after the root has changed it loads none either: no import, no name
service.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from layout.core.errors import LayoutError, UsageError, printable, reason_of
from layout.host import forked
from layout.host.linux import devices, namespaces_filter, process, pts, syscalls
from layout.host.standard import Standard, take

if TYPE_CHECKING:
    from layout.host.linux.session import Session

READY = b"ready"
GO = b"go"

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Read-only as in every container runtime: files of root that speak for the whole host, whatever the
# namespace. Some are open to any uid 0 without a capability: /proc/sys/kernel/core_pattern is code
# execution on the host.
READ_ONLY = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "asound", "dynamic_debug", "driver")
MASKED = ("kcore", "kmsg", "keys", "timer_list", "sched_debug", "latency_stats")
_PROC_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def environment(session: Session, terminal: str | None) -> dict[str, str]:
    """Return all variables of the command; `terminal` is the host's TERM.

    The prompt uses $PWD, which dash, busybox and bash all expand, and not \\w, which is bash's alone.
    """
    usable = terminal is not None and re.fullmatch(r"[A-Za-z0-9._+-]{1,64}", terminal)
    return {
        "PATH": PATH,
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": _shell()[0],
        "TERM": terminal if terminal is not None and usable else "dumb",
        "LANG": "C.UTF-8",
        "LAYOUT_MANAGE": session.name,
        "TMPDIR": "/tmp",  # noqa: S108 - the session's private one
        "PS1": f"[manage:{session.name}] $PWD # ",
        **session.environment,
    }


def exit_status(status: int) -> int:
    """Return the status of waitpid(2) as a shell gives it: 128+N for signal N."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def failure(error: BaseException, expected: str, path: str = "the session") -> LayoutError:
    """Put any error that kept a session from starting into the shape of a LayoutError."""
    if isinstance(error, LayoutError):
        return error
    if isinstance(error, PermissionError):
        hint = "run it as root, or below `unshare -Ur -m`"
        return LayoutError(path, reason_of(error), expected, hint)
    if isinstance(error, OSError):
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        where = named if named.startswith("/") else path
        return LayoutError(where, reason_of(error), expected)
    return LayoutError(
        path, f"{type(error).__name__}: {error}", expected, "this is a fault of layout, please report it"
    )


def report(channel: socket.socket, error: LayoutError) -> None:
    """Send an error to the caller's process."""
    kind = "usage" if isinstance(error, UsageError) else "error"
    message = json.dumps(
        [kind, *(text[:1000] for text in (error.path, error.found, error.expected, error.hint))]
    )
    with contextlib.suppress(OSError):  # nobody is left to be told
        channel.send(message.encode())


def first_process(
    session: Session, standard: tuple[Standard, ...], keeper: int, channel: socket.socket
) -> int:
    """Be process 1: returns the exit status of the command."""
    try:
        slave = _confine(session, standard, keeper, channel)
        if channel.recv(len(GO)) != GO:
            return 1
        variables = environment(session, os.environ.get("TERM"))
        child = forked.fork(
            lambda: become(
                session.name, session.command or _shell(), standard, slave, variables, channel, _execute_file
            )
        )
    except BaseException as error:  # all of them: a traceback helps nobody on the other side of a fork
        report(channel, failure(error, "a confined session"))
        return 1
    # The slave stays open: without it the relay would take a command that closes its terminal for the end.
    process.close_descriptors({slave}, first=0)
    return attend(child, hang_up=slave >= 0)


@contextlib.contextmanager
def _expecting(expected: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failure(error, expected, path) from error


def _confine(session: Session, standard: tuple[Standard, ...], keeper: int, channel: socket.socket) -> int:
    """Do everything up to the point where the command can be started; returns the terminal's slave, or -1."""
    wanted = {keeper, channel.fileno()}
    # First of all: the lock that the caller holds on the jail must not live on in here.
    process.close_descriptors(wanted | {item.fd for item in standard} | set(session.descriptors))
    close_standard(standard)
    os.setsid()
    _become_root()
    process.forbid_inspection()  # this process holds the administrator's environment and memory
    process.set_name(b"layout-session")
    process.die_with_parent(keeper)
    with _expecting("mount, IPC and UTS namespaces of its own", "the session"):
        # The network stays the host's: package tools need it.
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS)
        # slave, not private: a private copy would pin mounts that the host takes away (facts/linux.md 2.2).
        syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        process.sethostname(session.name.encode())
    try:
        session.attach()
    except Exception as error:
        raise failure(error, "the writable view attached", session.mountpoint) from error
    forked.load_nothing_more()
    _change_root(session.mountpoint)
    process.leave_keyrings()
    process.forbid_core_dumps()
    namespaces_filter.apply()
    # no_new_privs is not set: su, sudo and file capabilities of the base are part of what package tools
    # use, and none gives more than the bounding set leaves. What comes from the jail's t is kept off by
    # nosuid there.
    process.keep_capabilities(session.keep)
    process.die_with_parent(keeper)
    os.umask(0o022)
    return offer_terminal(standard, channel)


def close_standard(standard: tuple[Standard, ...]) -> None:
    """Put /dev/null in the place of those of descriptors 0, 1 and 2 that the command does not get."""
    null = devices.null(os.O_RDWR)
    for fd, item in enumerate(standard):
        if item.fd != fd:
            os.dup2(null, fd)
    os.close(null)


def offer_terminal(standard: tuple[Standard, ...], channel: socket.socket) -> int:
    """Say that all is ready, with the master of a new terminal if one is wanted; returns its slave, or -1."""
    if not any(item.is_terminal for item in standard):
        channel.send(READY)
        return -1
    master, slave = pts.open_pair()
    channel.sendmsg([READY], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
    os.close(master)
    return slave


def _become_root() -> None:
    if os.getresgid() != (0, 0, 0):
        os.setresgid(0, 0, 0)
    if os.getresuid() != (0, 0, 0):
        os.setresuid(0, 0, 0)
    if set(os.getgroups()) <= {0}:
        return
    try:
        os.setgroups([])
    except PermissionError:
        # A user namespace of an ordinary user cannot: those groups are the user's own, and give root nothing.
        with open("/proc/self/setgroups", encoding="ascii") as file:
            if file.read().strip() != "deny":
                raise


def _change_root(mountpoint: str) -> None:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    with _expecting("the session's root, a mount point", mountpoint):
        root = os.open(mountpoint, flags | os.O_NOFOLLOW)
        os.fchdir(root)
    # Before the old root goes: a user namespace may mount proc only while it sees one whole.
    with _expecting("a proc of the session's own", os.path.join(mountpoint, "proc")):
        _mount_proc(mountpoint)
    with _expecting("a mount point that can be made the root", mountpoint):
        old = os.open("/", flags)
        os.fchdir(root)
        process.pivot_root(b".", b".")  # the old root lies above the new one now, and is taken off it
        os.fchdir(old)
        syscalls.umount(b".", syscalls.MNT_DETACH)
        os.chdir("/")
    here, there = os.stat("/"), os.fstat(root)
    if os.getcwd() != "/" or (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
        raise LayoutError(mountpoint, f"working directory {os.getcwd()!r}", "the root of the session")
    os.close(old)
    os.close(root)


def _mount_proc(mountpoint: str) -> None:
    """Mount proc on ./proc, with what speaks for the whole host read-only or masked.

    mount(2) and not the calls by descriptor: it is there on every kernel, and nothing else runs in here that
    could use the moment between a bind and its flags.
    """
    if not stat.S_ISDIR(os.lstat("proc").st_mode):  # a link would be followed
        raise NotADirectoryError(20, "not a directory", os.path.join(mountpoint, "proc"))
    if not os.path.exists("dev/null") or os.stat("dev/null").st_rdev != os.makedev(1, 3):
        path = os.path.join(mountpoint, "dev/null")
        raise LayoutError(
            path, "no null device", "a /dev of the session's own", "the writable view has to bring it"
        )
    syscalls.mount(b"proc", b"proc", b"proc", _PROC_FLAGS)
    os.chdir("proc")
    for name in READ_ONLY:
        _cover(name, name)
    for name in MASKED:
        _cover("../dev/null", name)


def _cover(source: str, name: str) -> None:
    if not os.path.lexists(name):
        return
    target = name.encode()
    syscalls.mount(source.encode(), target, None, syscalls.MS_BIND)
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | _PROC_FLAGS
    syscalls.mount(b"none", target, None, flags)


def _shell() -> tuple[str, ...]:
    """Return the shell inside, as a command.

    bash without its files: Debian's /etc/bash.bashrc sets a prompt of its own, and the one that names the
    jail is a promise. sh reads no file unless it is a login shell.
    """
    if os.access("/bin/bash", os.X_OK):
        return ("/bin/bash", "--noprofile", "--norc")
    return ("/bin/sh",)


def become(
    name: str,
    command: tuple[str, ...],
    standard: tuple[Standard, ...],
    slave: int,
    variables: dict[str, str],
    channel: socket.socket,
    execute: Callable[[str, tuple[str, ...], dict[str, str]], None],
    dev: str = "/dev",
) -> int:
    """Become the command, by `execute` of its path; returns an exit status only when that fails.

    `dev` is where its devices are, "" where there are none.
    """
    try:
        take(standard, slave, dev)
    except OSError as error:
        report(channel, failure(error, "the descriptors 0, 1 and 2 of the command"))
        return 1
    process.close_descriptors()
    forked.restore_default_signals()
    problem = _execute(command, variables, execute)
    status = 127 if isinstance(problem, FileNotFoundError | NotADirectoryError) else 126
    found = "not found" if status == 127 else reason_of(problem)
    os.write(2, f"layout: {printable(command[0])}: {found} in {name}\n".encode())
    return status


def _execute(
    command: tuple[str, ...],
    variables: dict[str, str],
    execute: Callable[[str, tuple[str, ...], dict[str, str]], None],
) -> OSError:
    """execvp(3) in the session: returns the error that says most."""
    name = command[0]
    directories = variables.get("PATH", PATH).split(":")
    problem: OSError = FileNotFoundError(2, "not found", name)
    for path in [name] if "/" in name else [os.path.join(directory, name) for directory in directories]:
        try:
            execute(path, command, variables)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # as a shell does: one that is there but cannot be executed is remembered
            problem = error
    return problem


def _execute_file(path: str, command: tuple[str, ...], variables: dict[str, str]) -> None:
    os.execve(path, command, variables)  # noqa: S606 - running a command is the purpose


def attend(child: int, *, hang_up: bool) -> int:
    """Reap every process that ends in here until it is the command; returns its exit status.

    Returning ends this process, and with it the kernel ends whatever the command has left behind.
    """
    while True:
        number = signal.sigwait((signal.SIGCHLD, *_FORWARDED))
        if number != signal.SIGCHLD:
            _pass_on(child, number)
            if hang_up and number == signal.SIGTERM:
                _pass_on(child, signal.SIGHUP)  # a shell on a terminal ignores SIGTERM
            continue
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                return exit_status(status)
            if pid == 0:
                break


def _pass_on(child: int, number: int) -> None:
    """Signal the command's process group, as the keys of a terminal do."""
    try:
        os.kill(-child, number)
    except ProcessLookupError:  # it has not yet made the group
        os.kill(child, number)
