"""What a running process really has: its mounts, capabilities and no_new_privs, by /proc."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from layout.core import mountinfo
from layout.core.errors import LayoutError
from layout.core.model import Mount
from layout.host.linux import process, procs, table

_CHECKED = ("ro", "nosuid", "nodev", "noexec")


def drift(
    pid: int, mounts: Iterable[Mount], capabilities: Iterable[str], *, setuid: bool = False
) -> Iterator[tuple[str, str, str]]:
    """Yield path, what is found and what is expected where the service of a jail has more than it should.

    `mounts` are the jail's planned ones, the first its root; `capabilities` what it may keep. A process that
    has ended meanwhile has nothing. `setuid`: setuid programs may work in it.
    """
    status = procs.status(pid)
    if not status:
        return
    allowed = process.capability_mask(name.upper() for name in capabilities)
    for key in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        more = int(status.get(key, "0"), 16) & ~allowed
        if more:
            names = ", ".join(name.lower() for name, bit in process.CAPABILITIES.items() if more >> bit & 1)
            yield f"process {pid}", f"{key} with {names}", "the capabilities of the profile"
    if status.get("NoNewPrivs") != "1" and not setuid:
        yield f"process {pid}", "no no_new_privs", "no_new_privs"
    try:
        found = mountinfo.parse(table.read_bytes(f"/proc/{pid}/mountinfo"))
    except (LayoutError, OSError):
        return
    planned = list(mounts)
    top = planned[0].target
    for mount in planned:
        inside = mount.target[len(top) :] or "/"
        seen = [one for one in found if one.target == inside]
        lacking = [
            word for word in _CHECKED if word in mount.options and (not seen or word not in seen[-1].options)
        ]
        if lacking:
            where = f"{inside} of process {pid}"
            yield where, f"without {', '.join(lacking)}" if seen else "no mount", ",".join(mount.options)
