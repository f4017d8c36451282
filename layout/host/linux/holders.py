"""Who keeps a mount or a tree in use: working directories, roots, open files and programs of processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from layout.core import mountinfo
from layout.core.compare import Live, Place, is_below
from layout.core.errors import LayoutError, printable, some
from layout.host.linux import syscalls, table

_LINKS = (("root", "root"), ("cwd", "working directory"), ("exe", "program"))
_NAMED = 3


class Holder(msgspec.Struct, frozen=True):
    """A process and what it holds."""

    pid: int
    command: str
    what: str


def of(target: str) -> list[Holder]:
    """Return the processes that hold something on the mount at `target`.

    Processes of other mount namespaces hold copies of their own and are not what makes this one busy.
    """
    try:
        fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        wanted = syscalls.statx_mount_id(fd)
    finally:
        os.close(fd)
    return _search(lambda link: _mount_of(link) == wanted, files=True)


def below(paths: list[str], shared: str) -> list[Holder]:
    """Return the processes whose root, working directory or program lies at or below one of the paths.

    In this mount namespace that is told by name. A jail in a namespace of its own keeps its trees when the
    host has unmounted them, under other names: there it is told by what is mounted where the process is.
    `shared` is mroot, the root of every jail: whose a process on it is, the other mounts that it sees tell.
    """
    live = Live(table.read())
    places = {place for path in paths if (place := live.place(path)) is not None}
    root_of_all = live.place(shared)
    here = _namespace("self")
    tables: dict[str, Mapping[int, Place]] = {}

    def holds(link: str) -> bool:
        pid = link.split("/")[2]
        namespace = _namespace(pid)
        if namespace == here:
            name = os.readlink(link)
            return any(is_below(name, path) for path in paths)
        if namespace not in tables:
            tables[namespace] = _places_of(pid)
        mounted = tables[namespace]
        found = mounted.get(_mount_of(link))
        if found is not None and found == root_of_all:
            return any(_is_one_of(other, places) for other in mounted.values())
        return found is not None and _is_one_of(found, places)

    return _search(holds, files=False)


def living_in(trees: Mapping[str, Iterable[str]], shared: str) -> dict[str, list[Holder]]:
    """Return the processes whose root directory is that of a jail, by the jail's name.

    `trees` are the directories that each jail alone has; `shared` is mroot, the root of them all. In a mount
    namespace of its own a process is known by what is mounted there, whatever that is called now. What
    systemd keeps as a machine or a unit of a jail (`layout render nspawn`, `render unit`) is left out.
    """
    live = Live(table.read())
    named = [(path, name) for name, paths in trees.items() for path in paths]
    root_of_all = live.place(shared)
    # Where a jail is mounted, its root is that of all: who has that alone, as a session, is in none of them.
    places = {place: name for path, name in named if (place := live.place(path)) not in {None, root_of_all}}
    here = _namespace("self")
    tables: dict[str, Mapping[int, Place]] = {}
    found: dict[str, list[Holder]] = {}

    def jails_of(pid: str) -> set[str]:
        link = f"/proc/{pid}/root"
        namespace = _namespace(pid)
        if namespace == here:
            root = os.readlink(link)
            return {name for path, name in named if root != "/" and is_below(root, path)}
        if namespace not in tables:
            tables[namespace] = _places_of(pid)
        mounted = tables[namespace]
        root_place = mounted.get(_mount_of(link))
        if root_place is None:
            return set()
        seen = mounted.values() if root_place == root_of_all else [root_place]
        return {name for one in seen for name in _names_of(one, places)}

    for pid in os.listdir("/proc"):
        if pid.isdigit():
            with contextlib.suppress(OSError, LayoutError):  # a kernel thread, or it has ended
                for name in jails_of(pid):
                    if _is_of_systemd(pid):
                        break
                    found.setdefault(name, []).append(Holder(int(pid), _command(pid), "root"))
    return found


def _is_of_systemd(pid: str) -> bool:
    groups = table.read_bytes(f"/proc/{pid}/cgroup").decode("utf-8", "replace").replace("\n", "/").split("/")
    return any(
        one.startswith(("systemd-nspawn@", "machine-", "layout-")) and one.endswith((".service", ".scope"))
        for one in groups
    )


def _names_of(place: Place, places: Mapping[Place, str]) -> Iterator[str]:
    """Yield the name of the jail to which a mounted directory belongs."""
    dev, path = place
    while path:
        if (dev, path) in places:
            yield places[dev, path]
            return
        path = path.rpartition("/")[0]


def _is_one_of(found: Place, places: Iterable[Place]) -> bool:
    return any(found[0] == dev and is_below(found[1], inside) for dev, inside in places)


def _places_of(pid: str) -> Mapping[int, Place]:
    try:
        data = table.read_bytes(f"/proc/{pid}/mountinfo")
    except (LayoutError, OSError):  # it has ended
        return {}
    return {mount.mount_id: (mount.dev, mount.root) for mount in mountinfo.parse(data)}


def _namespace(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")


def _search(holds: Callable[[str], bool], *, files: bool) -> list[Holder]:
    """Ask `holds` about the links in /proc/PID of every process: this one may have inherited a descriptor."""
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        for link, what in _links(pid, files=files):
            # Kernel threads have none of them, and a process may end at any time.
            with contextlib.suppress(OSError):
                if holds(link):
                    found.append(Holder(int(pid), _command(pid), what))
                    break
    return found


def _links(pid: str, *, files: bool) -> Iterator[tuple[str, str]]:
    for link, what in _LINKS:
        yield f"/proc/{pid}/{link}", what
    for directory, what in (("fd", "open file {}"), ("map_files", "mapped file")) if files else ():
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/{directory}"):
                yield f"/proc/{pid}/{directory}/{name}", what.format(name)


def _mount_of(link: str) -> int:
    """Return the ID of the mount that a link of /proc leads to. Raises OSError."""
    fd = os.open(link, os.O_PATH | os.O_CLOEXEC)
    try:
        return syscalls.statx_mount_id(fd)
    finally:
        os.close(fd)


def _command(pid: str) -> str:
    try:
        fd = os.open(f"/proc/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "?"
    try:
        return printable(os.read(fd, 64).strip())
    finally:
        os.close(fd)


def describe(found: list[Holder]) -> str:
    """Return holders as part of a sentence."""
    if not found:
        return "something that /proc does not show"
    return some([f"process {holder.pid} ({holder.command}, {holder.what})" for holder in found], _NAMED)
