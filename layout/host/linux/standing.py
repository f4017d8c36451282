"""What a running process really has: its mounts, capabilities and no_new_privs, by /proc."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from layout.core import mountinfo
from layout.core.accounts import Account
from layout.core.errors import LayoutError
from layout.core.model import Mount
from layout.core.mountinfo import MountPoint
from layout.host.linux import intruders, namespaces_filter, process, procs, table

_CHECKED = ("ro", "nosuid", "nodev", "noexec")
_PATIENCE = 0.5
"""Seconds in which what changes the user of a service that has just been started is done with it."""
_STEP = 0.05


def drift(
    pid: int,
    mounts: Iterable[Mount],
    capabilities: Iterable[str],
    sources: Mapping[str, tuple[int, int]],
    *,
    account: Account | None = None,
    setuid: bool = False,
    by_unit: bool = False,
) -> Iterator[tuple[str, str, str]]:
    """Yield path, what is found and what is expected where the service of a jail has more than it should.

    `mounts` are the jail's planned ones, the first its root; `capabilities` what it may keep. A process that
    has ended meanwhile has nothing. `account`: the user that it is started as, by the jail's numbers; None
    for a service that drops root by itself, which is not judged. `setuid`: setuid programs may work in it.
    `sources`: device and inode of what targets show. `by_unit`: systemd keeps it, among the host's processes,
    with directories of the host's /run. Raises OSError when something could not be looked at.
    """
    status = procs.status(pid)
    if not status:
        return
    allowed = process.capability_mask(name.upper() for name in capabilities)
    yield from intruders.more_capabilities(f"process {pid}", status, allowed)
    if status.get("NoNewPrivs") != "1" and not setuid:
        yield f"process {pid}", "no no_new_privs", "no_new_privs"
    if namespaces_filter.is_known() and status.get("Seccomp") == "0":
        yield f"process {pid}", "Seccomp 0", "no user namespaces, no keys: Seccomp 2"
    if account is not None:
        with _unless_ended(pid):
            yield from _another_user(pid, account, frozenset(capabilities))
    try:
        found = mountinfo.parse(table.read_bytes(f"/proc/{pid}/mountinfo"))
    except (LayoutError, OSError):
        return
    planned = list(mounts)
    yield from _weaker(pid, planned, found)
    with _unless_ended(pid):
        if by_unit:
            yield from intruders.mounts(pid, planned, found, sources, ("/run",))
        else:
            yield from intruders.mounts(pid, planned, found, sources)
            # Process 1 of an engine starts setpriv(1), and keeps what that needs.
            starting = () if account is None else ("setuid", "setgid")
            yield from intruders.processes(pid, capabilities, setuid=setuid, starting=starting)


@contextlib.contextmanager
def _unless_ended(pid: int) -> Iterator[None]:
    """Take it for nothing that something of a process is gone which has ended."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError):
        if procs.identify(pid) is not None:
            raise


def _another_user(pid: int, account: Account, capabilities: frozenset[str]) -> list[tuple[str, str, str]]:
    """Return where a process is not the planned user, or not in his groups and no others.

    Whoever has setuid or setgid may change them. Raises OSError.
    """
    # His first group may be among the others or not.
    others = set(account.groups) - {account.gid}
    wanted = {"Uid": {account.uid}, "Gid": {account.gid}, "Groups": others}
    end = time.monotonic() + _PATIENCE
    while True:
        status = procs.status(pid)
        told = []
        for key, numbers in wanted.items():
            if key in status and ("setuid" if key == "Uid" else "setgid") not in capabilities:
                found = procs.inside(pid, "uid" if key == "Uid" else "gid", status[key].split())
                if key == "Groups":
                    found -= {account.gid}
                if found != numbers:
                    told.append((f"process {pid}", f"{key} {_words(found)}", f"{key} {_words(numbers)}"))
        if not told or time.monotonic() > end:
            return told
        time.sleep(_STEP)


def _words(numbers: Iterable[int | None]) -> str:
    words = sorted("of the host" if number is None else str(number) for number in numbers)
    return ", ".join(words) or "none"


def _weaker(
    pid: int, planned: Sequence[Mount], found: Sequence[MountPoint]
) -> Iterator[tuple[str, str, str]]:
    """Yield the planned mounts that are not in the process's namespace, or without options that they need."""
    top = planned[0].target
    for mount in planned:
        inside = mount.target[len(top) :] or "/"
        seen = [one for one in found if one.target == inside]
        have = seen[-1].options if seen else frozenset()
        lacking = [word for word in _CHECKED if word in mount.options and word not in have]
        if lacking:
            where = f"{inside} of process {pid}"
            yield where, f"without {', '.join(lacking)}" if seen else "no mount", ",".join(mount.options)
