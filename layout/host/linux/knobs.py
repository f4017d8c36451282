"""What of the kernel and of a running process decides how far root of a jail gets: sysctl, /proc, /dev."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from layout.core.errors import reason_of
from layout.host.linux import ports, process, procs, syscalls

_AT_MOST = 64
"""Names of a jail's /dev that are looked at; it may be writable."""


def settings(names: Iterable[str]) -> dict[str, str]:
    """Return what /proc/sys says, for those names that this kernel has."""
    found = {}
    for name in names:
        path = f"/proc/sys/{name.replace('.', '/')}"
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                found[name] = file.read(100).strip()
        except FileNotFoundError:
            continue
        except OSError as error:
            found[name] = reason_of(error)
    return found


class Powers(NamedTuple):
    """What a process holds."""

    capabilities: tuple[str, ...]
    """In lower case, without 'cap_': what it has or can get."""
    no_new_privileges: bool
    filtered: bool
    """It has a filter of system calls (seccomp(2))."""
    root_is: int
    """User of the host that its uid 0 is."""


def powers(pid: int) -> Powers | None:
    """Return what a process holds; None when it has ended."""
    status = procs.status(pid)
    if not status:
        return None
    closed = status.get("NoNewPrivs") == "1"
    mask = 0
    # The bounding set counts only where execve(2) can still give something.
    for key in ("CapPrm", "CapEff", "CapInh", "CapAmb", *(() if closed else ("CapBnd",))):
        mask |= int(status.get(key, "0"), 16)
    names = tuple(name.lower() for name, bit in process.CAPABILITIES.items() if mask >> bit & 1)
    mapped = procs.uid_map(pid)
    root = mapped[1] if mapped is not None and mapped[0] == 0 else 0
    return Powers(names, closed, status.get("Seccomp") == "2", root)


def devices(pid: int) -> list[tuple[str, str, int]]:
    """Return name, kind with numbers, and mode of each node in the /dev of a process. Raises OSError."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
        try:
            top = syscalls.openat2(root, b"dev", flags, resolve)
        except FileNotFoundError:
            return []  # a jail with nothing but its program has no /dev
    finally:
        os.close(root)
    found = []
    try:
        with os.scandir(top) as entries:
            for entry, _ in zip(entries, range(_AT_MOST), strict=False):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                        found.append((entry.name, numbers(status), stat.S_IMODE(status.st_mode)))
    finally:
        os.close(top)
    return sorted(found)


def numbers(status: os.stat_result) -> str:
    """Return what a node stands for: 'character 1:3'."""
    kind = "block" if stat.S_ISBLK(status.st_mode) else "character"
    return f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def listening(engine: int) -> list[str]:
    """Return 'ADDRESS PORT/tcp' of each socket of this network that processes below an engine listen on."""
    ours = {engine, *procs.descendants(engine)}
    found = set()
    for kind in ("tcp", "udp"):
        for one in ports.listeners(kind):
            holder = ports.owner(one.inode)
            if holder is not None and holder[0] in ours:
                found.add(f"{one.address} {one.port}/{kind}")
    return sorted(found)
