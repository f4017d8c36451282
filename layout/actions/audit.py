"""`layout audit`: what root of a jail can still write, execute and reach. Only looks, and judges nothing."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import assert_never

from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.core import audit
from layout.core.audit import Audit, Autorun, Capability, Reachable, Residue, Seen
from layout.core.autorun import PLACES
from layout.core.compare import Live
from layout.core.errors import LayoutError, printable, reason_of, some
from layout.core.model import JailPlan, Mount, Platform
from layout.core.running import Running
from layout.host import table
from layout.host.beneath import Dir, walk
from layout.host.beneath.directory import kind_of
from layout.host.site import running_platform

_SECONDS = 3.0
"""For a walk through one tree: t is hostile, and may be endless."""
_LOOKED = 1000
"""Names that are looked at in one directory."""
_NAMED = 3
_TWO_WAY = {stat.S_IFSOCK, stat.S_IFIFO}


def audit_jail(context: Context, plan: JailPlan) -> Audit:
    """Look at one jail. Raises LayoutError when ROOT cannot be looked at."""
    return _Audit(context, plan).made()


class _Audit:
    """One look at a jail; what cannot be seen is noted in `unseen`."""

    def __init__(self, context: Context, plan: JailPlan) -> None:
        self.context = context
        self.design = design_of(plan.jail.kind)
        self.plan = self.design.shown(context, plan)
        self.jail = plan.jail
        self.root = context.site.root
        self.top = f"{self.root}/j/{self.jail.name}"
        self.here = plan.jail.platform is running_platform()
        self.running: Running | None = None
        self.unseen: list[str] = []
        self.setuid: list[Reachable] = []
        self.devices: list[Reachable] = []
        self.sockets: list[Reachable] = []
        self.interpreters: list[str] = []
        self.sources = {one.target[len(self.top) :] or "/": one.source for one in self.plan.tables.jail}
        """By the jail's path: the kernel names a file system, which says little."""

    def made(self) -> Audit:
        kind, platform = self.jail.kind, self.jail.platform
        if self.here:
            with self._noting("the service"):
                self.running = self.design.running(self.context, self.plan)
        state, seen_by, mounts = self._mounts()
        with self.context.open() as root:
            for one in self._trees():
                self._look(root, one, mounts)
            autorun = tuple(self._autorun(root))
        capabilities, confinement, network = self._privileges()
        values = self._settings()
        return Audit(
            kind,
            platform,
            state,
            seen_by,
            self.running.grade if self.running is not None else "",
            audit.writable(mounts, kind, platform),
            tuple(self.setuid),
            tuple(self.devices),
            tuple(self.sockets),
            network,
            capabilities,
            confinement,
            tuple(self._beyond()),
            autorun,
            audit.knobs(platform, values) if self.here else (),
            tuple(self._residue(values)),
            tuple(dict.fromkeys(map(printable, self.unseen))),
        )

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except LayoutError as problem:
            self.unseen.append(f"{problem.path}: {problem.found}")
        except OSError as problem:
            self.unseen.append(f"{what}: {reason_of(problem)}")

    # -- mounts -------------------------------------------------------------------------------------

    def _mounts(self) -> tuple[str, str, list[Seen]]:
        """Return the state of the jail, where its mounts were read, and these."""
        if not self.here:
            return "unmounted", f"the plan: a jail of {self.jail.platform}", self._planned()
        if self.running is not None and self.running.pid is not None and running_platform() is Platform.LINUX:
            found = self._of_process(self.running.pid)
            if found:
                return "running", f"process {self.running.pid}", found
        live = Live(table.read())
        inside = live.below(self.top)
        if inside:
            found = [self._seen(target, live) for target in inside]
            return ("running" if self.running is not None else "mounted"), "the host's mount table", found
        state = "running" if self.running is not None else "unmounted"
        return state, "the plan", self._planned()

    def _seen(self, target: str, live: Live) -> Seen:
        mount = live.at(target)[-1]
        path = target[len(self.top) :] or "/"
        return Seen(path, self.sources.get(path, mount.source), mount.fstype, mount.options)

    def _planned(self) -> list[Seen]:
        if self.design.is_of_host:
            # No mount of its own says that it has the host's, all of them: the most that it may be.
            return [Seen("/", audit.HOSTS, "", frozenset())]
        return [
            Seen(one.target[len(self.top) :] or "/", one.source, one.fstype, frozenset(one.options))
            for one in self.plan.tables.jail
            if "noauto" not in one.options or not self.design.shares_root
        ]

    def _of_process(self, pid: int) -> list[Seen]:
        from layout.core import mountinfo
        from layout.host.linux import table as linux

        with self._noting(f"process {pid}"):
            live = mountinfo.parse(linux.read_bytes(f"/proc/{pid}/mountinfo"))
            return [
                Seen(one.target, self.sources.get(one.target, one.source), one.fstype, one.options)
                for one in live
            ]

    # -- trees ----------------------------------------------------------------------------------------

    def _trees(self) -> list[Mount]:
        """Return the mounts of the jail that show a tree below ROOT."""
        if self.design.is_made_at_start and self.running is None:
            return []
        return [one for one in self.plan.tables.jail if one.source.startswith(f"{self.root}/")]

    def _look(self, root: Dir, mount: Mount, mounts: list[Seen]) -> None:
        """Look through one tree for what has a power, and for interpreters."""
        inside = mount.target[len(self.top) :]
        options = next(
            (m.options for m in reversed(mounts) if m.path == (inside or "/")), frozenset(mount.options)
        )
        relative = mount.source[len(self.root) + 1 :]
        with self._noting(mount.source), root.open(relative) as tree:
            seen = walk(tree, seconds=_SECONDS)
            for below, status in seen.special:
                self._special(f"{inside}/{below}", status, options)
            for below, _, _ in seen.capable:
                what = "file capabilities"
                self.setuid.append(Reachable(self._named(f"{inside}/{below}"), what, "nosuid" not in options))
            self.unseen += [f"{self._named(f'{inside}/{below}')}: {why}" for below, why in seen.unseen]
            self._programs(tree, inside)

    def _named(self, path: str) -> str:
        return printable(audit.as_jail_has_it(path, self.jail.kind))

    def _special(self, path: str, found: os.stat_result, options: frozenset[str]) -> None:
        name, kind = self._named(path), stat.S_IFMT(found.st_mode)
        if kind in _TWO_WAY:
            self.sockets.append(Reachable(name, kind_of(found.st_mode), works=True))
        elif kind == stat.S_IFREG:
            what = f"mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}, group {found.st_gid}"
            self.setuid.append(Reachable(name, what, "nosuid" not in options))
        else:
            what = f"{kind_of(found.st_mode)} {os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
            self.devices.append(Reachable(name, what, "nodev" not in options))

    def _programs(self, tree: Dir, inside: str) -> None:
        """Note the interpreters of a tree, by name."""
        places = audit.PROGRAM_DIRECTORIES
        for place in (
            *places,
            *(f"usr-local/{one}" for one in places),
            *(f"usr/local/{one}" for one in places),
        ):
            try:
                with tree.open(place) as directory:
                    names = directory.names()
            except (FileNotFoundError, LayoutError):
                continue  # there is none, or it is a link to one that is looked at
            self.interpreters += [
                self._named(f"{inside}/{place}/{name}") for name in names if audit.is_interpreter(name)
            ]

    def _autorun(self, root: Dir) -> Iterator[Autorun]:
        """Yield the places of t from which something runs by itself, and that hold something."""
        try:
            t = root.open(f"t/{self.jail.name}")
        except (FileNotFoundError, LayoutError):
            return
        with t:
            for place in PLACES[self.jail.platform]:
                with contextlib.suppress(FileNotFoundError):
                    holds = self._holds(t, place.path, files_only=place.files_only)
                    if holds:
                        yield Autorun(f"/{place.path}", place.reader, holds)

    def _holds(self, t: Dir, path: str, *, files_only: bool) -> str:
        try:
            status = t.lstat(path)
            if status is None:
                return ""
            if not stat.S_ISDIR(status.st_mode):
                return f"a {kind_of(status.st_mode)}"
            with t.open(path) as directory:
                names = sorted(directory.some(_LOOKED))
                if files_only:
                    names = [name for name in names if not _is_directory(directory, name)]
        except LayoutError as problem:
            return printable(problem.found)
        return printable(some(names, _NAMED))

    # -- privileges ------------------------------------------------------------------------------------

    def _privileges(self) -> tuple[tuple[Capability, ...], tuple[str, ...], tuple[str, ...]]:
        """Return capabilities, what confines besides, and the network."""
        match self.jail.platform:
            case Platform.LINUX:
                from layout.actions import audit_linux

                found = audit_linux.privileges(self.plan, self.running, self._noting)
            case Platform.FREEBSD:
                from layout.actions import audit_freebsd

                found = audit_freebsd.privileges(self.context, self.plan, self.running, self._noting)
            case _:
                assert_never(self.jail.platform)
        self.devices += found.devices
        return found.capabilities, found.confinement, found.network

    def _beyond(self) -> Iterator[str]:
        """Yield what the jail has and its plan does not: somebody of the host has put it there."""
        if self.running is not None:
            with self._noting("the processes of the jail"):
                for where, found, expected in self.design.drift(self.context, self.plan):
                    yield printable(f"{where}: {found}, not {expected}")

    def _settings(self) -> dict[str, str]:
        if not self.here:
            return {}
        names = [one.name for one in audit.KNOBS[self.jail.platform]]
        if running_platform() is Platform.LINUX:
            from layout.host.linux import knobs

            return knobs.settings(names)
        from layout.host.freebsd import knobs as freebsd

        return freebsd.settings(names)

    def _residue(self, values: dict[str, str]) -> Iterator[Residue]:
        names = tuple(dict.fromkeys(self.interpreters))
        if self.design.is_of_host:
            yield Residue("interpreters", "all of the host, whose tree is the jail's as well")
            yield Residue(
                "files", "setuid files, devices and sockets of the host are there, and not listed here"
            )
        elif names:
            yield Residue("interpreters", "run whatever a file says, also one that can be written", names)
        if self.jail.platform is Platform.LINUX:
            if values.get("vm.memfd_noexec", "").isdigit():
                what = "memfd_create(2), then execve(2): refused while an engine of layout keeps the jail"
            else:
                what = "memfd_create(2), then execve(2) runs a program that is in no file"
            yield Residue("memory", f"{what}; anonymous memory can be executed")
        else:
            yield Residue("memory", "shm_open(2) and anonymous memory can be executed")
        if self.design.shares_root:
            what = "flock(2) and leases on files of mroot can be seen by other jails"
            yield Residue("shared base", what)


def _is_directory(directory: Dir, name: str) -> bool:
    found = directory.lstat(name)
    return found is not None and stat.S_ISDIR(found.st_mode)
