"""Prove that ro is ro and rw is rw: the live system against the plan. Only looks, changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import assert_never

from layout.actions import booting_freebsd, hostfstab, mounting
from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.actions.observe import Is, Observer
from layout.actions.running import drift, running
from layout.core import compare, findings
from layout.core.compare import Live, is_below
from layout.core.errors import LayoutError
from layout.core.findings import Finding, Report, error, named, warning
from layout.core.model import Copy, Entry, File, Identity, JailPlan, Kind, Mount, Platform, Preset
from layout.core.names import check_name
from layout.core.plan import SPLIT, host_files, needs_base, plan_host, plan_mroot
from layout.core.tables import hand_edited
from layout.host import hostfiles, locks, records, table
from layout.host.beneath import Dir, Seen, walk
from layout.host.beneath.directory import kind_of
from layout.host.records import BASE_RECORD, COMMIT, BaseRecord, SetuidRecord
from layout.host.site import check_parents, running_platform

Tell = Callable[[str, int, int], None]

_INIT = "layout init NAME"
_HELD = 50
"""Jails whose directories are held open at once: the usual limit of a process is 1024 descriptors."""
_TOPS = ("j", "s", "t", "manage")
"""Where each jail has a directory."""


def verify(context: Context, plans: Sequence[JailPlan], *, quick: bool, tell: Tell) -> Report:
    """Verify these jails. Raises LayoutError when ROOT cannot be looked at: not looked is not passed."""
    return _Verifier(context, plans, quick=quick, tell=tell).run()


def verify_named(context: Context, names: Iterable[str], *, quick: bool, tell: Tell) -> Report:
    """Verify jails by name, all of them when none is named.

    What keeps a jail or ROOT from being looked at is a finding too. Raises LayoutError for a name without a
    jail.
    """
    wanted = [check_name(name) for name in dict.fromkeys(names)]
    try:
        plans, broken = _plans(context, wanted)
        verifier = _Verifier(context, plans, quick=quick, tell=tell)
        for name, finding in broken.items():
            verifier.jails[name] = [finding]
        return verifier.run()
    except (OSError, LayoutError) as problem:
        if isinstance(problem, _NoSuchJail):
            raise
        return findings.report([_unseen(context.site.root, problem)], {}, 1)


class _NoSuchJail(LayoutError):
    pass


def _plans(context: Context, wanted: Sequence[str]) -> tuple[list[JailPlan], dict[str, Finding]]:
    """Return the plans of jails, and a finding for each that has no plan."""
    plans = []
    broken: dict[str, Finding] = {}
    with context.open() as root, root.open(".layout") as state:
        known = dict.fromkeys(records.jail_names(root))
        for name in wanted or known:
            if name not in known:
                words = ", ".join(known) or "none yet"
                raise _NoSuchJail(name, "no such jail", f"one of: {words}", f"layout init {name}")
            code, path = "S5-record", state.show(f"jails/{name}.toml")
            try:
                record = records.jail(state, name)
                if record is None:
                    broken[name] = error(code, path, "nothing", "the jail's record")
                elif record.name != name:
                    broken[name] = error(code, path, f"the record of {record.name}", f"that of {name}")
                elif record.state != "ready":
                    hint = f"layout recover, or layout destroy {name}"
                    broken[name] = error("S5-destroying", path, "half destroyed", "a whole jail", hint)
                else:
                    code = "S5-profile"
                    plans.append(context.plan_jail(context.recorded(record)))
            except (OSError, LayoutError) as problem:
                if isinstance(problem, LayoutError):
                    broken[name] = error(code, problem.path, problem.found, problem.expected, problem.hint)
                else:
                    broken[name] = _unseen(path, problem)
    return plans, broken


def _unseen(path: str, problem: OSError | LayoutError) -> Finding:
    """What could not be looked at: that is a failure, not a pass."""
    if isinstance(problem, LayoutError):
        return error("S8-unseen", problem.path, problem.found, problem.expected, problem.hint)
    return error("S8-unseen", path, (problem.strerror or str(problem)).lower(), "to look at it")


class _Verifier:
    """One run over some jails."""

    def __init__(self, context: Context, plans: Sequence[JailPlan], *, quick: bool, tell: Tell) -> None:
        self.context = context
        self.site = context.site
        self.plans = plans
        self.quick = quick
        self.tell = tell
        self.checks = 0
        self.host: list[Finding] = []
        self.jails: dict[str, list[Finding]] = {plan.jail.name: [] for plan in plans}
        self.base: BaseRecord | None = None
        self.locks: frozenset[str] = frozenset()

    def run(self) -> Report:
        """Look at everything. Raises LayoutError, OSError when ROOT itself cannot be looked at."""
        live = Live(table.read())
        with self.context.open() as root, Observer(root) as observer, root.open(".layout") as state:
            names = records.jail_names(root)
            self.locks = frozenset(state.names())
            self._base(state, observer)
            self._stray(root, names, live)
            self._views(names, live)
            for index, plan in enumerate(self.plans):
                self.tell(f"looking at {plan.jail.name}", index, len(self.plans))
                if index % _HELD == 0:
                    observer.forget()
                self._jail(root, state, observer, plan, live)
            if not self.quick:
                self._host_fstab(names)
                self.host += booting_freebsd.host_findings(self.site, self.plans)
                self.tell("looking through mroot", 0, 0)
                self._walk(root, "j/mroot", "", self.host)
        return findings.report(self.host, dict(sorted(self.jails.items())), self.checks)

    # -- what all jails share ---------------------------------------------------------------------

    def _base(self, state: Dir, observer: Observer) -> None:
        self.checks += 1
        root = self.site.root
        try:
            check_parents(root)
        except LayoutError as problem:
            self.host.append(error("S4-parent", problem.path, problem.found, problem.expected, problem.hint))
        path = state.show(BASE_RECORD)
        try:
            self.base = records.read(state, BASE_RECORD, BaseRecord)
            if self.base is None and self._shares():
                self.host.append(error("S5-base", path, "no record", "the base's record", _INIT))
        except (OSError, LayoutError) as problem:
            found = problem.found if isinstance(problem, LayoutError) else str(problem)
            hint = "restore it from a backup"
            self.host.append(error("S5-base", path, found, "the base's record", hint))
        if state.lstat(COMMIT) is not None:
            hint = "layout recover"
            self.host.append(error("S5-interrupted", state.show(COMMIT), "an interrupted init", "none", hint))
        source = self.base.source if self.base is not None else ""
        has_sys = self.base is not None and self.base.sys_directory
        shared = plan_mroot(self.site.platform, source, sys_directory=has_sys) if self._shares() else ()
        self._entries(observer, [*plan_host(), *shared], self.host)

    def _shares(self) -> bool:
        """Say whether there is, or ought to be, a base."""
        return self.base is not None or any(needs_base(plan.jail) for plan in self.plans)

    def _stray(self, root: Dir, names: Sequence[str], live: Live) -> None:
        """Look for directories and mounts in the places of jails that belong to none."""
        known = {*names, "mroot"}
        for top in _TOPS:
            self.checks += 1
            try:
                with root.open(top) as directory:
                    there = directory.names()
            except (OSError, LayoutError):
                continue  # reported by its entry
            for name in there:
                path = f"{self.site.root}/{top}/{name}"
                if name.startswith(".new-"):
                    found, expected = "what an interrupted init left", "nothing"
                    self.host.append(error("S5-interrupted", path, found, expected, "layout recover"))
                elif name not in known or (name == "mroot" and top != "j"):
                    hint = "restore its record from a backup, or look at it and remove it"
                    self.host.append(error("S5-stray", path, "no jail's", "only jails with a record", hint))
        allowed = {f"{self.site.root}/{top}/{name}" for top in ("j", "manage") for name in names}
        for top in ("j", "manage", ".layout"):
            for target in live.below(f"{self.site.root}/{top}"):
                inside = target.removeprefix(f"{self.site.root}/").split("/")
                jail = "/".join([self.site.root, *inside[:2]])
                if len(inside) > 1 and jail not in allowed and inside != ["j", "mroot"]:
                    found = f"a mount of {live.at(target)[-1].source}"
                    self.host.append(
                        error("S1-stray", target, found, "no mount that is no jail's", f"umount {target}")
                    )

    def _views(self, names: Sequence[str], live: Live) -> None:
        """Look for mounts elsewhere that show mroot or an s writable, or a t beyond ROOT's mode."""
        self.checks += 1
        root = self.site.root

        def places(paths: Iterable[str]) -> dict[compare.Place, str]:
            return {at: f"{root}/{p}" for p in paths if (at := live.place(f"{root}/{p}")) is not None}

        own = {f"{root}/{top}/{name}" for top in ("j", "manage") for name in names}
        depth = root.count("/") + 3
        elsewhere = [m for m in live.mounts if "/".join(m.target.split("/", depth)[:depth]) not in own]
        tops = places(["j", "s"])
        here = live.place(root)
        if here is not None:
            tops[here] = root
        shared = places(["j/mroot", *(f"s/{name}" for name in names)])
        for mount, path in compare.views(shared, tops, elsewhere):
            if "ro" not in mount.options:
                hint = f"what is written there is in the jails at once: umount {mount.target}"
                found = f"a writable view of {path}"
                self.host.append(error("S3-view", mount.target, found, "no second writable view", hint))
        for mount, path in compare.views(places(f"t/{name}" for name in names), places(["t"]), elsewhere):
            if "nosuid" not in mount.options:
                hint = f"a setuid file that a jail makes works there: umount {mount.target}"
                found = f"a view of {path} without nosuid"
                self.host.append(error("S4-reachable", mount.target, found, "none outside ROOT", hint))

    def _host_fstab(self, names: Sequence[str]) -> None:
        """Compare the block in the host's fstab, if there is one, with what would be installed now."""
        self.checks += 1
        path = self.site.host_fstab
        try:
            stale = hostfstab.stale(self.site, self.plans, names)
        except (OSError, LayoutError) as problem:
            self.host.append(_unseen(path, problem))
            return
        if stale:
            hint = "layout fstab --install (--force, if it was edited by hand)"
            self.host.append(error("S12-host-fstab", path, stale, "what layout would install now", hint))
        if running_platform() is Platform.FREEBSD:
            try:
                hostfstab.refuse_others(self.site, self.plans)
            except LayoutError as other:
                self.host.append(error("S12-host-fstab", other.path, other.found, other.expected, other.hint))

    # -- one jail -----------------------------------------------------------------------------------

    def _service(self, state: Dir, plan: JailPlan, into: list[Finding]) -> None:
        """Say what the engine of a running service cannot guarantee, and what is left of one that ended."""
        name = plan.jail.name
        self.checks += 1
        found = running(self.context, plan)
        path = f"run/{name}.toml"
        if found is None and state.lstat(path) is not None:
            hint = f"layout stop {name}, or layout recover"
            what = "what is left of a service that ended by itself"
            into.append(warning("S5-service", state.show(path), what, "a service that runs, or none", hint))
        for where, is_, wanted in drift(self.context, plan) if found is not None else ():
            hint = f"layout restart {name}; if that does not help, please report it"
            into.append(error("S3-running", where, is_, wanted, hint))
        for note in found.notes if found is not None and found.grade == "weak" else ():
            hint = "a port from 1024 on, or another engine: docs/reference.md"
            into.append(warning("S3-weak", name, note, "all guarantees from the engine", hint))

    def _jail(self, root: Dir, state: Dir, observer: Observer, plan: JailPlan, live: Live) -> None:
        jail = plan.jail
        into = self.jails[jail.name]
        top = f"{self.site.root}/j/{jail.name}"
        if jail.platform is running_platform():
            self.checks += sum(len(tree) for tree in mounting.wanted(plan))
            into += mounting.findings(plan, self.site, live)
            self._identity(observer, plan, live, into)
        else:
            hint = "its mounts cannot be looked at here"
            into.append(
                warning(
                    "S1-platform", top, f"a jail for {jail.platform}", f"one for {running_platform()}", hint
                )
            )
        self._entries(observer, plan.entries, into)
        self.checks += 1
        lock = f"manage-{jail.name}.lock"
        holder = locks.holder(state, lock) if lock in self.locks else None
        if holder is not None:
            path = f"{self.site.root}/manage/{jail.name}"
            hint = "end the session, then verify again"
            into[:] = [finding for finding in into if not _of_session(finding, path)]
            into.append(
                warning("S3-session", path, f"a manage session of {holder}", "none while it is proven", hint)
            )
        elif jail.platform is running_platform() is Platform.FREEBSD:
            from layout.actions import manage_freebsd

            into += manage_freebsd.findings(self.site, state, jail.name)
        if jail.platform is running_platform():
            self._service(state, plan, into)
        into += design_of(jail.kind).findings(self.context, root, plan, quick=self.quick)
        if jail.kind is not Kind.SHARED:
            pass  # what such a design gives up is for its own findings to say
        elif jail.suid:
            hint = "take suid = true out of the profile"
            into.append(warning("S2-suid", top, f"suid = true in profile {jail.profile}", "nosuid", hint))
        elif jail.preset is Preset.CLASSIC:
            hint = "use the preset hardened"
            into.append(warning("S2-suid", top, "setuid files that work, by preset classic", "nosuid", hint))
        if not self.quick:
            self._files(plan, into)
            into += booting_freebsd.findings(self.site, plan)
            self._walk(root, f"s/{jail.name}", "s/", into)
            self._walk(root, f"t/{jail.name}", "t/", into)
        into[:] = [named(finding, jail.name) for finding in into]

    def _identity(self, observer: Observer, plan: JailPlan, live: Live, into: list[Finding]) -> None:
        """Compare device and inode of source and target: the mount shows what it is planned to show."""
        told = {finding.path for finding in into}
        for tree in mounting.wanted(plan):
            if not live.at(tree[0].target):
                continue
            try:
                # Held open by nobody: somebody may want to unmount it.
                with observer.open(self._below(tree[0].target)) as top:
                    for mount in tree:
                        ours = compare.is_view(mount) and mount.source.startswith(f"{self.site.root}/")
                        if ours and live.at(mount.target) and mount.target not in told:
                            self._same(observer, mount, top, into)
            except (OSError, LayoutError) as problem:
                into.append(_unseen(tree[0].target, problem))

    def _same(self, observer: Observer, mount: Mount, top: Dir, into: list[Finding]) -> None:
        self.checks += 1
        parent, _, name = self._below(mount.source).rpartition("/")
        directory = observer.directory(parent)
        source = directory.lstat(name) if directory is not None else None
        inside = mount.target[len(top.path) + 1 :]
        target = top.lstat(inside) if inside else os.fstat(top.fd)
        if source is None or target is None:
            into.append(error("S8-unseen", mount.source, "nothing", "to look at it", _INIT))
        elif source.st_ino != target.st_ino or (
            # A nullfs has a device number of its own (mount_nullfs(8)); the table has told what it shows.
            source.st_dev != target.st_dev and mount.fstype != "nullfs"
        ):
            found = f"inode {target.st_ino} of device {target.st_dev}"
            wanted = f"inode {source.st_ino} of device {source.st_dev}, which is {mount.source}"
            hint = "layout umount NAME, then layout mount NAME"
            into.append(error("S1-source", mount.target, found, wanted, hint))

    def _below(self, path: str) -> str:
        return path[len(self.site.root) + 1 :]

    def _files(self, plan: JailPlan, into: list[Finding]) -> None:
        for file in host_files(plan, self.site):
            self.checks += 1
            try:
                text = hostfiles.read_text(file.path)
            except (OSError, LayoutError) as problem:
                into.append(_unseen(file.path, problem))
                continue
            if text == file.text:
                continue
            found = "an older one"
            if text is None or hand_edited(text):
                found = "nothing" if text is None else "one edited by hand"
            code = "S12-jail-conf" if file.path.endswith(".conf") else "S12-fstab"
            into.append(error(code, file.path, found, file.reason, _INIT))

    # -- trees ----------------------------------------------------------------------------------------

    def _entries(self, observer: Observer, entries: Sequence[Entry], into: list[Finding]) -> None:
        self.checks += len(entries)
        for entry in entries:
            try:
                one = observer.look(entry)
            except OSError as problem:
                into.append(_unseen(f"{self.site.root}/{entry.path}", problem))
                continue
            if one.state is Is.PRESENT:
                continue
            path = self.site.root if entry.path == "." else f"{self.site.root}/{entry.path}"
            # Below var and tmp a jail does what it likes.
            in_t = entry.path.startswith("t/") and not isinstance(entry, Copy)
            match one.state:
                case Is.MISSING:
                    # Files of s are the administrator's, to remove as well.
                    if not in_t and not isinstance(entry, File | Identity):
                        into.append(error("S5-missing", path, "nothing", entry.reason, _INIT))
                case Is.MODE:
                    code = "S4-mode" if entry.path == "." else "S5-mode"
                    into.append(error(code, path, one.found, one.expected, _INIT))
                case Is.CONFLICT:
                    if not in_t:
                        hint = f"look at it, move it aside, {_INIT}"
                        into.append(error("S5-link", path, one.found, one.expected, hint))
                case _:
                    assert_never(one.state)

    def _walk(self, root: Dir, path: str, half: str, into: list[Finding]) -> None:
        """Look at every entry of mroot (`half` is empty), of an s or of a t."""
        where = f"{self.site.root}/{path}"
        trusted = half != "t/"
        try:
            with root.open(path) as top:
                found = os.fstat(top.fd)
                if trusted and (found.st_mode & 0o022 or found.st_uid):
                    seen_mode = f"mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}"
                    hint = f"chown root {where}; chmod go-w {where}"
                    into.append(error("S6-loose", where, seen_mode, "root's, and closed", hint))
                seen = walk(top, loose=trusted)
        except FileNotFoundError:
            return  # reported as missing already
        except (OSError, LayoutError) as problem:
            into.append(_unseen(where, problem))
            return
        self.checks += seen.entries
        allowed = _allowed(self.base, half) if trusted else {}
        for below, status in seen.special:
            finding = _special(half, f"{where}/{below}", status, allowed.get(below))
            if finding is not None:
                into.append(finding)
        _unseen_and_loose(seen, where, into)


def _allowed(base: BaseRecord | None, half: str) -> Mapping[str, SetuidRecord]:
    """Return the setuid files that the base's record lists, by their path in mroot or in an s."""
    if base is None:
        return {}
    if not half:
        return {record.path: record for record in base.setuid}
    return {
        place[2:] + record.path[len(name) :]: record
        for record in base.setuid
        for name, place in SPLIT
        if place.startswith(half) and record.path.startswith(name + "/")
    }


def _special(half: str, path: str, found: os.stat_result, allowed: SetuidRecord | None) -> Finding | None:
    """Judge a special file. Daemons make sockets and FIFOs in t; elsewhere they have no business."""
    code = "S7" if half == "t/" else "S6"
    kind = stat.S_IFMT(found.st_mode)
    what = f"a {kind_of(found.st_mode)}"
    if kind in {stat.S_IFSOCK, stat.S_IFIFO}:
        if half == "t/":
            return None
        hint = "jails can talk to each other through it: remove it" if not half else f"rm {path}"
        return error("S6-special", path, what, "none in a read-only tree", hint)
    if kind != stat.S_IFREG:
        return error(f"{code}-device", path, what, "no device node", f"rm {path}")
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    if allowed is not None and (allowed.mode, allowed.uid, allowed.gid) == (mode, found.st_uid, found.st_gid):
        return None
    expected = "no setuid or setgid file" if half == "t/" else "only those that the base's record lists"
    seen = f"mode {mode}, user {found.st_uid}, group {found.st_gid}"
    return error(f"{code}-setuid", path, seen, expected, f"chmod ug-s {path}")


def _unseen_and_loose(seen: Seen, where: str, into: list[Finding]) -> None:
    for path, found in seen.loose:
        mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
        hint = f"chmod o-w {where}/{path}"
        into.append(error("S6-loose", f"{where}/{path}", mode, "nothing that anybody may write to", hint))
    for path, reason in seen.unseen:
        into.append(error("S8-unseen", f"{where}/{path}", reason, "to look at all of it"))


def _of_session(finding: Finding, view: str) -> bool:
    """Say whether a finding is about the mounts of an open session, which on FreeBSD the whole host sees."""
    return finding.code in {"S3-view", "S1-extra"} and is_below(finding.path, view)
