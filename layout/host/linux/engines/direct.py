"""No program of the host's: layout enters the jail and becomes its only program there, with no way back.

For a jail without devices, without /proc and without accounts: what bubblewrap would bring is what it must
not have. The program is process 1 of its pid namespace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from layout.core.errors import LayoutError, reason_of
from layout.host import forked
from layout.host.linux import namespaces_filter, process, stage, syscalls

NAME = "direct"
_CGROUP = 0x02000000
"""CLONE_NEWCGROUP."""


@dataclass(frozen=True, slots=True)
class Direct:
    """What is to run, and as whom."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    uid: int
    gid: int
    capabilities: tuple[str, ...]
    """In lower case, without 'cap_'."""
    hostname: str
    network: bool
    """It has the host's network; else none at all."""
    program: str = ""
    """A file of the host that is executed instead of one in the jail."""
    held: list[int] = field(default_factory=list)
    """Its descriptor, once it is open."""

    def open(self) -> None:
        """Open the host's file, while the host's files can be seen. Raises OSError."""
        if self.program:
            self.held.append(os.open(self.program, os.O_RDONLY | os.O_CLOEXEC))

    def become(self) -> NoReturn:
        """In the engine's own mount and pid namespace: enter the jail at stage.JAIL and be the program.

        Raises OSError, LayoutError.
        """
        flags = syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS | (0 if self.network else syscalls.CLONE_NEWNET)
        syscalls.unshare(flags)
        try:
            syscalls.unshare(_CGROUP)
        except OSError as error:
            if error.errno != 22:  # EINVAL: a kernel without it
                raise
        process.sethostname(self.hostname.encode())
        path = self.program or self.command[0]
        forked.load_nothing_more()
        _change_root()
        os.umask(0o022)
        try:
            process.become_user(self.uid, self.gid, [name.upper() for name in self.capabilities])
        except OSError as error:
            found = f"user {self.uid}, group {self.gid}: {reason_of(error)}"
            raise LayoutError(
                self.name, found, "to become this user", "is it one of this namespace?"
            ) from None
        process.forbid_new_privileges()
        namespaces_filter.apply()
        try:
            # By its descriptor, for the jail has no path that leads to it.
            target: int | str = self.held[0] if self.program else path
            os.execve(target, self.command, dict(self.environment))  # noqa: S606 - the purpose
        except OSError as error:
            found = reason_of(error)
            hint = f"layout verify {self.name} looks at the program"
            raise LayoutError(path, found, "the program of the jail", hint) from None


def _change_root() -> None:
    """Make stage.JAIL the root, and let go of the old one with all that is below it."""
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(stage.JAIL)
    process.pivot_root(b".", b".")
    os.fchdir(old)
    syscalls.umount(b".", syscalls.MNT_DETACH)
    os.close(old)
    os.chdir("/")
    if os.getcwd() != "/":
        raise LayoutError("/", f"working directory {os.getcwd()!r}", "the root of the jail")
