"""Prove that ro is ro and rw is rw: the live system against the plan. Only looks, changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import assert_never

from layout.actions import mounting
from layout.actions.context import Context
from layout.actions.observe import Is, Observer
from layout.actions.populate import BASE_RECORD, COMMIT
from layout.core import compare, findings
from layout.core.compare import Live
from layout.core.errors import LayoutError
from layout.core.findings import Finding, Report, error, warning
from layout.core.model import Copy, Entry, File, Identity, JailPlan, Platform, Preset
from layout.core.plan import SPLIT, plan_host, plan_mroot
from layout.core.tables import hand_edited
from layout.host import hostfiles, locks, records
from layout.host.beneath import Dir, Seen, walk
from layout.host.beneath.directory import kind_of
from layout.host.linux import table
from layout.host.records import BaseRecord
from layout.host.site import check_parents, running_platform

Tell = Callable[[str, int, int], None]


class Verifier:
    """One run of verify over some jails."""

    def __init__(self, context: Context, plans: Sequence[JailPlan], *, quick: bool, tell: Tell) -> None:
        self.context = context
        self.site = context.site
        self.plans = plans
        self.quick = quick
        self.tell = tell
        self.checks = 0
        self.host: list[Finding] = []
        self.jails: dict[str, list[Finding]] = {plan.jail.name: [] for plan in plans}

    def run(self) -> Report:
        """Look at everything. Raises LayoutError when ROOT itself cannot be looked at."""
        # mroot shown writable anywhere breaks every jail; --quick reads only what is below ROOT.
        live = Live(table.read() if running_platform() is Platform.LINUX else [])
        with self.context.open() as root, Observer(root) as observer, root.open(".layout") as state:
            base = self._base(root, state, observer)
            for index, plan in enumerate(self.plans):
                self.tell(f"looking at {plan.jail.name}", index, len(self.plans))
                self._jail(root, state, observer, plan, live)
            if not self.quick:
                self._views(live)
                self._walk_mroot(root, base)
        return findings.report(self.host, self.jails, self.checks)

    # -- what all jails share ---------------------------------------------------------------------

    def _base(self, root: Dir, state: Dir, observer: Observer) -> BaseRecord | None:
        self.checks += 1
        try:
            check_parents(self.site.root)
        except LayoutError as problem:
            self.host.append(error("S4-parent", problem.path, problem.found, problem.expected, problem.hint))
        base = records.read(state, BASE_RECORD, BaseRecord)
        if base is None:
            self.host.append(
                error(
                    "S5-base", state.show(BASE_RECORD), "no record", "the base's record", "layout init NAME"
                )
            )
        if state.lstat(COMMIT) is not None:
            self.host.append(
                error("S5-interrupted", state.show(COMMIT), "an interrupted init", "none", "layout recover")
            )
        entries = [
            *plan_host(),
            *plan_mroot(
                self.site.platform,
                base.source if base is not None else "",
                sys_directory=base is not None and base.sys_directory,
            ),
        ]
        self._entries(observer, entries, self.host)
        return base

    def _entries(self, observer: Observer, entries: Sequence[Entry], into: list[Finding]) -> None:
        for entry in entries:
            self.checks += 1
            path = self.site.root if entry.path == "." else f"{self.site.root}/{entry.path}"
            try:
                one = observer.look(entry)
            except OSError as problem:
                into.append(error("S8-unseen", path, problem.strerror or "an error", "to look at it"))
                continue
            match one.state:
                case Is.PRESENT:
                    continue
                case Is.MISSING if isinstance(entry, File | Identity) or entry.path.startswith("t/"):
                    # The administrator may remove his files, the jail its directories.
                    if entry.path.count("/") == 2 and isinstance(entry, Copy):
                        into.append(error("S5-missing", path, "nothing", entry.reason, "layout init NAME"))
                case Is.MISSING:
                    into.append(error("S5-missing", path, "nothing", entry.reason, "layout init NAME"))
                case Is.MODE:
                    code = "S4-mode" if entry.path == "." else "S5-mode"
                    into.append(error(code, path, one.found, one.expected, "layout init NAME"))
                case Is.CONFLICT:
                    into.append(
                        error(
                            "S5-link",
                            path,
                            one.found,
                            one.expected,
                            "look at it, move it aside, layout init NAME",
                        )
                    )
                case _:
                    assert_never(one.state)

    def _views(self, live: Live) -> None:
        self.checks += 1
        places: dict[tuple[str, str], str] = {}
        planned: set[str] = {self.site.root}
        for path in ("j/mroot", *(f"s/{plan.jail.name}" for plan in self.plans)):
            place = live.place(f"{self.site.root}/{path}")
            if place is not None:
                places[place] = f"{self.site.root}/{path}"
        for plan in self.plans:
            planned |= {mount.target for mount in (*plan.tables.jail, *plan.tables.manage)}
        planned |= set(places.values())
        self.host += compare.writable_views(places, planned, live)

    def _walk_mroot(self, root: Dir, base: BaseRecord | None) -> None:
        self.tell("looking through mroot", 0, 0)
        allowed = {record.path for record in base.setuid} if base is not None else set()
        try:
            with root.open("j/mroot") as top:
                seen = walk(top, loose=True)
        except (FileNotFoundError, LayoutError):
            return  # reported as missing already
        self.checks += seen.entries
        where = f"{self.site.root}/j/mroot"
        split = tuple(name for name, _ in SPLIT)
        for path, found in seen.special:
            if not stat.S_ISREG(found.st_mode):
                self.host.append(
                    error(
                        "S6-special",
                        f"{where}/{path}",
                        f"a {kind_of(found.st_mode)}",
                        "none in the shared base",
                        "jails can talk to each other through it: remove it",
                    )
                )
            elif path not in allowed and path not in split:
                self.host.append(
                    error(
                        "S6-setuid",
                        f"{where}/{path}",
                        f"mode {stat.S_IMODE(found.st_mode):04o}",
                        "no setuid file that the base's record does not list",
                        "remove it, or build the base anew",
                    )
                )
        self._unseen_and_loose(seen, where, self.host)

    def _unseen_and_loose(self, seen: Seen, where: str, into: list[Finding]) -> None:
        for path, found in seen.loose:
            into.append(
                error(
                    "S6-loose",
                    f"{where}/{path}",
                    f"mode {stat.S_IMODE(found.st_mode):04o}",
                    "nothing that anybody may write to",
                    f"chmod o-w {where}/{path}",
                )
            )
        for path, reason in seen.unseen:
            into.append(error("S8-unseen", f"{where}/{path}", reason, "to look at all of it"))

    # -- one jail -----------------------------------------------------------------------------------

    def _jail(self, root: Dir, state: Dir, observer: Observer, plan: JailPlan, live: Live) -> None:
        into = self.jails[plan.jail.name]
        name = plan.jail.name
        opted_out = plan.jail.exec or plan.jail.preset is Preset.CLASSIC
        if plan.jail.platform is running_platform():
            self.checks += len(plan.tables.jail)
            found = mounting.findings(plan, self.site, live, opted_out=opted_out)
            into += [_named(finding, name) for finding in found]
            self._identity(root, plan, live, into)
        else:
            into.append(
                warning(
                    "S1-platform",
                    f"{self.site.root}/j/{name}",
                    f"a jail for {plan.jail.platform}",
                    f"one for {running_platform()}",
                    "its mounts cannot be looked at here",
                )
            )
        self._entries(observer, plan.entries, into)
        holder = locks.holder(state, f"manage-{name}.lock")
        self.checks += 1
        if holder is not None:
            into.append(
                warning(
                    "S3-session",
                    f"{self.site.root}/manage/{name}",
                    f"a manage session of {holder}",
                    "none while it is proven",
                    "end the session, then verify again",
                )
            )
        if plan.jail.suid:
            into.append(
                warning(
                    "S2-suid",
                    f"{self.site.root}/j/{name}",
                    f"suid = true in profile {plan.jail.profile}",
                    "nosuid",
                    "take suid = true out of the profile",
                )
            )
        if self.quick:
            return
        self._files(plan, into)
        self._walk(root, plan, into)

    def _identity(self, root: Dir, plan: JailPlan, live: Live, into: list[Finding]) -> None:
        """Compare device and inode of source and target: the mount shows what it is planned to show."""
        for mount in plan.tables.jail:
            found = live.at(mount.target)
            if not found or mount.fstype != "none":
                continue
            self.checks += 1
            try:
                with root.open(mount.source[len(self.site.root) + 1 :]) as source:
                    expected = os.fstat(source.fd)
                with root.open(mount.target[len(self.site.root) + 1 :]) as target:
                    seen = os.fstat(target.fd)
            except (OSError, LayoutError) as problem:
                into.append(error("S8-unseen", mount.target, str(problem), "to look at it"))
                continue
            if (expected.st_dev, expected.st_ino) != (seen.st_dev, seen.st_ino):
                into.append(
                    error(
                        "S1-source",
                        mount.target,
                        f"inode {seen.st_ino} of device {seen.st_dev}",
                        f"inode {expected.st_ino} of device {expected.st_dev}, which is {mount.source}",
                        f"layout umount {plan.jail.name}, then layout mount {plan.jail.name}",
                    )
                )

    def _files(self, plan: JailPlan, into: list[Finding]) -> None:
        for file in plan.files:
            self.checks += 1
            text = hostfiles.read_text(file.path)
            if text == file.text:
                continue
            if text is None:
                found = "nothing"
            else:
                found = "an edited table" if hand_edited(text) else "an older table"
            into.append(error("S12-fstab", file.path, found, file.reason, f"layout init {plan.jail.name}"))

    def _walk(self, root: Dir, plan: JailPlan, into: list[Finding]) -> None:
        for half in ("s", "t"):
            path = f"{half}/{plan.jail.name}"
            where = f"{self.site.root}/{path}"
            try:
                with root.open(path) as top:
                    seen = walk(top, loose=half == "s")
            except FileNotFoundError:
                continue  # reported as missing already
            except LayoutError as problem:
                into.append(error("S8-unseen", where, problem.found, problem.expected))
                continue
            self.checks += seen.entries
            for below, found in seen.special:
                finding = _special(half, f"{where}/{below}", found)
                if finding is not None:
                    into.append(finding)
            self._unseen_and_loose(seen, where, into)


def _special(half: str, path: str, found: os.stat_result) -> Finding | None:
    """Judge a special file of s or t. Daemons make sockets and FIFOs in t; in s they have no business."""
    code = "S6" if half == "s" else "S7"
    kind = stat.S_IFMT(found.st_mode)
    if kind in {stat.S_IFSOCK, stat.S_IFIFO}:
        if half == "t":
            return None
        return error("S6-special", path, f"a {kind_of(found.st_mode)}", "none in s", "remove it")
    if kind == stat.S_IFREG:
        return error(
            f"{code}-setuid",
            path,
            f"mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}",
            "no setuid or setgid file",
            f"chmod ug-s {path}",
        )
    return error(f"{code}-device", path, f"a {kind_of(found.st_mode)}", "no device node", "remove it")


def _named(finding: Finding, name: str) -> Finding:
    """Put the jail's name into the hint."""
    return Finding(
        finding.code,
        finding.severity,
        finding.path,
        finding.expected,
        finding.found,
        finding.hint.replace("NAME", name),
    )


def verify(context: Context, plans: Sequence[JailPlan], *, quick: bool, tell: Tell) -> Report:
    """Verify these jails. Raises LayoutError when ROOT cannot be looked at: not looked is not passed."""
    return Verifier(context, plans, quick=quick, tell=tell).run()
