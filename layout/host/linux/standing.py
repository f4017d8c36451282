"""What a running process really has: its mounts, capabilities and no_new_privs, by /proc."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from layout.core import mountinfo
from layout.core.errors import LayoutError
from layout.core.model import Mount
from layout.core.mountinfo import MountPoint
from layout.host.linux import intruders, namespaces_filter, process, procs, table

_CHECKED = ("ro", "nosuid", "nodev", "noexec")


def drift(
    pid: int,
    mounts: Iterable[Mount],
    capabilities: Iterable[str],
    sources: Mapping[str, tuple[int, int]],
    *,
    setuid: bool = False,
    by_unit: bool = False,
) -> Iterator[tuple[str, str, str]]:
    """Yield path, what is found and what is expected where the service of a jail has more than it should.

    `mounts` are the jail's planned ones, the first its root; `capabilities` what it may keep. A process that
    has ended meanwhile has nothing. `setuid`: setuid programs may work in it. `sources`: device and inode of
    what targets show. `by_unit`: systemd keeps it, among the host's processes, with directories of the host's
    /run. Raises OSError when something could not be looked at.
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
    try:
        found = mountinfo.parse(table.read_bytes(f"/proc/{pid}/mountinfo"))
    except (LayoutError, OSError):
        return
    planned = list(mounts)
    yield from _weaker(pid, planned, found)
    try:
        if by_unit:
            yield from intruders.mounts(pid, planned, found, sources, ("/run",))
        else:
            yield from intruders.mounts(pid, planned, found, sources)
            yield from intruders.processes(pid, capabilities, setuid=setuid)
    except (FileNotFoundError, ProcessLookupError):
        if procs.identify(pid) is not None:
            raise


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
