"""A command in a running jail: joins its namespaces with no more rights than the jail has.

The same processes as for a session of the administrator (layout.host.linux.session), but instead of making
namespaces they join those of the jail. What a process of the jail could reach of ours is closed before:
memory and descriptors, and our own program through /proc/PID/exe (the mistake of CVE-2019-5736).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from layout.core.errors import LayoutError, reason_of
from layout.host import forked
from layout.host.linux import confined, launch, namespaces_filter, process, procs, syscalls
from layout.host.standard import Standard

_AT_LEAST = 1.0
"""Seconds that any session has: less, and on a busy host it could not even begin."""
_AGAIN = 1.0
"""Seconds between two requests to end."""
_JOINED = (
    ("user", syscalls.CLONE_NEWUSER),
    ("mnt", syscalls.CLONE_NEWNS),
    ("ipc", syscalls.CLONE_NEWIPC),
    ("uts", syscalls.CLONE_NEWUTS),
    ("net", syscalls.CLONE_NEWNET),
    ("cgroup", 0x02000000),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A running jail to be entered. Fields in common with layout.host.linux.session.Session mean the same."""

    name: str
    target: int
    """A pidfd of a process of the jail."""
    root: int
    """Descriptor of that process's root directory."""
    namespaces: int
    """Those that differ from ours, as flags of clone(2)."""
    command: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    terminal: bool | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user: tuple[int, int] | None = None
    """Numbers of the user and group to be in the jail, with no capability; its root when None."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Those that stay open until the jail has been entered."""
        return self.target, self.root

    def separate(self) -> None:
        """In the keeper: let its children be in the jail's pid namespace. Raises OSError."""
        process.forbid_inspection()
        syscalls.setns(self.target, syscalls.CLONE_NEWPID)

    def join(self) -> None:
        """Be in the jail's namespaces and its root, as root of its user namespace. Raises OSError."""
        syscalls.setns(self.target, self.namespaces)
        os.fchdir(self.root)
        os.chroot(".")
        os.chdir("/")
        if self.namespaces & syscalls.CLONE_NEWUSER:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)

    def first_process(self, standard: tuple[Standard, ...], keeper: int, channel: socket.socket) -> int:
        """Be the process in the jail that starts the command: returns the exit status of that."""
        try:
            slave = self._enter(standard, keeper, channel)
            if channel.recv(len(confined.GO)) != confined.GO:
                return 1
            variables = self._variables(os.environ.get("TERM"))
            own = os.pidfd_open(os.getpid())
            child = forked.fork(lambda: self._become(standard, slave, variables, channel, own))
        except BaseException as error:  # all of them: a traceback helps nobody on the other side of a fork
            confined.report(channel, confined.failure(error, "to enter the jail", self.name))
            return 1
        process.close_descriptors({slave}, first=0)
        return confined.attend(child, hang_up=slave >= 0)

    def _enter(self, standard: tuple[Standard, ...], keeper: int, channel: socket.socket) -> int:
        """Join the jail and give up what it does not have; returns the terminal's slave, or -1."""
        wanted = {keeper, channel.fileno(), *self.descriptors, *(item.fd for item in standard)}
        process.close_descriptors(wanted)
        process.die_with_parent(keeper)  # a jail whose root is the host's may stop it here already
        confined.close_standard(standard)
        os.setsid()
        forked.load_nothing_more()
        self.join()
        process.forbid_inspection()
        process.leave_keyrings()
        process.forbid_core_dumps()
        if self.user is None:
            process.keep_capabilities(self.keep)
        else:
            process.become_user(*self.user, ())
        process.forbid_new_privileges()
        namespaces_filter.apply()
        process.die_with_parent(keeper)
        for fd in self.descriptors:
            os.close(fd)
        os.umask(0o022)
        return confined.offer_terminal(standard, channel)

    def _variables(self, terminal: str | None) -> dict[str, str]:
        usable = terminal is not None and re.fullmatch(r"[A-Za-z0-9._+-]{1,64}", terminal)
        return {
            "PATH": confined.PATH,
            "HOME": "/root",
            "USER": "root",
            "LOGNAME": "root",
            "TERM": terminal if terminal is not None and usable else "dumb",
            "LANG": "C.UTF-8",
            "LAYOUT_JAIL": self.name,
            "PS1": f"[jail:{self.name}] $PWD # ",
            **self.environment,
        }

    def _become(
        self,
        standard: tuple[Standard, ...],
        slave: int,
        variables: dict[str, str],
        channel: socket.socket,
        parent: int,
    ) -> int:
        # The jail goes on, and so would the command in it when layout is killed.
        process.die_with_parent(parent)
        return confined.become(
            self.name,
            self.command or ("/bin/sh",),
            standard,
            slave,
            variables,
            channel,
            _execute_file,
            "/dev" if self.user is None else "",
        )


def _execute_file(path: str, command: tuple[str, ...], variables: dict[str, str]) -> None:
    """execve(2) of a file of the jail, never of one that a link of /proc leads to."""
    fd = syscalls.openat2(
        syscalls.AT_FDCWD, os.fsencode(path), os.O_PATH | os.O_CLOEXEC, syscalls.RESOLVE_NO_MAGICLINKS
    )
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        # Nobody in the jail can put anything else in its place, and scripts need a path.
        with contextlib.suppress(FileNotFoundError):  # of a jail without /proc
            path = os.readlink(f"/proc/self/fd/{fd}")
            os.execve(path, command, variables)  # noqa: S606 - the purpose
    os.execve(fd, command, variables)  # noqa: S606 - as above


def forbid_programs(engine: int, paths: tuple[str, ...]) -> None:
    """Make these mounts of a jail noexec, and see that they are. Raises LayoutError."""
    first = procs.first_of_jail(engine)
    if not paths or first is None:  # it has ended, which is for others to tell
        return
    pid = forked.fork(lambda: _forbid(first, paths))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        found = os.strerror(status) if status > 0 else "an interrupt"
        raise LayoutError(" ".join(paths), found.lower(), "to forbid programs there")


def forbid_namespaces(engine: int) -> None:
    """Let nobody make a user namespace below that of a jail. Raises LayoutError."""
    first = procs.first_of_jail(engine)
    if first is None:  # it has ended, which is for others to tell
        return
    status = os.waitstatus_to_exitcode(os.waitpid(forked.fork(lambda: _limit(first)), 0)[1])
    if status:
        found = os.strerror(status) if status > 0 else "an interrupt"
        raise LayoutError("user.max_user_namespaces", found.lower(), "to set it to 0 in the jail")


def _limit(first: int) -> int:
    try:
        target = os.open(f"/proc/{first}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(target, syscalls.CLONE_NEWUSER)
        launch.forbid_namespaces()
    except OSError as error:
        return error.errno or 1
    return 0


def _forbid(first: int, paths: tuple[str, ...]) -> int:
    try:
        root = os.open(f"/proc/{first}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        target = os.open(f"/proc/{first}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(target, syscalls.CLONE_NEWNS)
        for path in paths:
            flags = syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
            fd = syscalls.openat2(root, os.fsencode(path[1:]), os.O_PATH | os.O_CLOEXEC, flags)
            syscalls.mount_setattr(fd, attr_set=syscalls.ATTR_NOEXEC)
            if not os.fstatvfs(fd).f_flag & os.ST_NOEXEC:
                return 1
    except OSError as error:
        return error.errno or 1
    return 0


@contextlib.contextmanager
def entry(
    name: str,
    process_inside: int | None,
    command: tuple[str, ...],
    keep: tuple[str, ...],
    environment: Mapping[str, str],
    user: tuple[int, int] | None = None,
) -> Iterator[Entry]:
    """Open the jail that a process is in, its process 1 if it has one. Raises LayoutError when it is gone."""
    with contextlib.ExitStack() as stack:
        try:
            first = process_inside
            if first is None:
                raise ProcessLookupError(3, "no such process")
            target = os.pidfd_open(first)
            stack.callback(os.close, target)
            root = os.open(f"/proc/{first}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            flags = 0
            for kind, flag in _JOINED:
                if procs.namespace(first, kind) != procs.namespace("self", kind):
                    flags |= flag
            if process.has_ended(target):
                raise ProcessLookupError(3, "no such process")
        except OSError as error:
            found = reason_of(error)
            raise LayoutError(name, found, "a running jail", f"layout start {name}") from None
        yield Entry(name, target, root, flags, command, keep, environment=environment, user=user)


@contextlib.contextmanager
def in_silence(seconds: float) -> Iterator[None]:
    """Let descriptors 0, 1 and 2 be /dev/null meanwhile, and end a session after so many, one at least."""
    kept = [os.dup(fd) for fd in range(3)]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    # On a busy host it may come before the session takes its signals: it must not end layout; it comes again.
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    try:
        for fd in range(3):
            os.dup2(null, fd)
        signal.setitimer(signal.ITIMER_REAL, max(_AT_LEAST, seconds), _AGAIN)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        for fd, copy in enumerate(kept):
            os.dup2(copy, fd)
            os.close(copy)
        os.close(null)
