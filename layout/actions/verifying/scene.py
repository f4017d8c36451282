"""What checks are and what they stand on: the system, opened and read once for all of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.actions.kinds.design import Design
from layout.actions.observe import Is, Observation, Observer
from layout.actions.running import running
from layout.actions.telling import Progress
from layout.core import mtree
from layout.core.compare import Live
from layout.core.errors import LayoutError, reason_of
from layout.core.findings import Finding, error
from layout.core.model import Entry, JailPlan, Mount
from layout.core.plan import needs_base, plan_host, plan_mroot
from layout.core.probing import inside as probed_path
from layout.core.running import Running
from layout.host import locks, privilege, records
from layout.host.beneath import Dir, Seen, walk
from layout.host.records import BASE_RECORD, MANIFEST, SKELETON, BaseRecord
from layout.host.site import running_platform

if TYPE_CHECKING:
    from layout.host.linux.holders import Holder

S = TypeVar("S")
_LARGEST = 1 << 30
"""Bytes of a manifest that are read."""


class When(Enum):
    """With which options a check is made."""

    ALWAYS = "always"
    FULL = "without --quick"
    PROBE = "with --probe"


class Check(NamedTuple, Generic[S]):
    """One thing that is proven: a function from what is there to what is wrong with it."""

    invariant: str
    """S1 to S12, A1 to A8: docs/findings.md."""
    name: str
    look: Callable[[S], Iterable[Finding]]
    """May raise OSError or LayoutError: what cannot be looked at becomes a finding S8-unseen."""
    codes: tuple[str, ...]
    """What it can find, besides S8-unseen."""
    when: When = When.ALWAYS
    here: bool = False
    """Only for a jail of the platform that runs: it asks the kernel."""


class Looked(NamedTuple):
    """One planned entry as it was found, or why it could not be looked at."""

    entry: Entry
    seen: Observation | None
    problem: OSError | None = None


class Walked(NamedTuple):
    """A tree after a walk; `seen` is None where there is none."""

    where: str
    seen: Seen | None
    top: tuple[int, int] = (0, 0)
    """Mode and owner of its top."""
    problem: OSError | LayoutError | None = None


class Scene:
    """A ROOT and its host, while they are verified."""

    def __init__(
        self,
        context: Context,
        plans: Sequence[JailPlan],
        root: Dir,
        state: Dir,
        live: Live,
        *,
        quick: bool,
        tell: Progress,
    ) -> None:
        self.context = context
        self.site = context.site
        self.plans = plans
        self.quick = quick
        self.tell = tell
        self.root = root
        self.state = state
        self.live = live
        self.observer = Observer(root)
        self.checks = 0
        """How much was looked at."""
        self.probes = 0
        """How much was really tried."""
        self.names = records.jail_names(root)
        """Of all jails with a record, verified now or not."""
        self.kept = frozenset(state.names())
        """Names of what layout keeps of ROOT: locks, records, unfinished work."""
        self.base: BaseRecord | None = None
        self.base_problem: OSError | LayoutError | None = None
        try:
            self.base = records.read(state, BASE_RECORD, BaseRecord)
        except (OSError, LayoutError) as problem:
            self.base_problem = problem

    @cached_property
    def mroot(self) -> Walked:
        """Every entry of mroot."""
        self.tell("looking through mroot", 0, 0)
        return self.walked("j/mroot", trusted=True, every=self.manifest is not None)

    @cached_property
    def manifest(self) -> dict[str, bytes] | None:
        """What mroot was when it was made, by path; None when nobody wrote that down."""
        return self._manifest(MANIFEST)

    @cached_property
    def skeleton(self) -> dict[str, bytes] | None:
        """The same of skel."""
        return self._manifest(SKELETON)

    def _manifest(self, path: str) -> dict[str, bytes] | None:
        try:
            return mtree.rests(self.state.read(path, _LARGEST))
        except FileNotFoundError:
            return None

    @cached_property
    def inhabitants(self) -> dict[str, list[Holder]]:
        """Who has a jail as his root directory, by its name: also in one that does not run."""
        from layout.host.linux import holders

        root = self.site.root
        trees = {name: [f"{root}/{top}/{name}" for top in ("j", "s", "t")] for name in self.names}
        return holders.living_in(trees, f"{root}/j/mroot")

    @property
    def shares_base(self) -> bool:
        """There is, or ought to be, a base."""
        return self.base is not None or any(needs_base(plan.jail) for plan in self.plans)

    @cached_property
    def observed(self) -> list[Looked]:
        """The entries that all jails share."""
        source = self.base.source if self.base is not None else ""
        has_sys = self.base is not None and self.base.sys_directory
        shared: tuple[Entry, ...] = ()
        if self.shares_base:
            shared = plan_mroot(self.site.platform, source, sys_directory=has_sys)
        return self.look([*plan_host(), *shared])

    def look(self, entries: Sequence[Entry]) -> list[Looked]:
        """Compare entries with what is there."""
        self.checks += len(entries)
        found = []
        for entry in entries:
            try:
                found.append(Looked(entry, self.observer.look(entry)))
            except OSError as problem:
                found.append(Looked(entry, None, problem))
        return [one for one in found if one.seen is None or one.seen.state is not Is.PRESENT]

    def walked(self, path: str, *, trusted: bool, every: bool = False) -> Walked:
        """Look at every entry of a tree below ROOT, of one that no jail can write to more closely."""
        where = f"{self.site.root}/{path}"
        try:
            with self.root.open(path) as top:
                found = os.fstat(top.fd)
                seen = walk(top, trusted=trusted, every=every)
        except FileNotFoundError:
            return Walked(where, None)  # reported as missing already
        except (OSError, LayoutError) as problem:
            return Walked(where, None, problem=problem)
        self.checks += seen.entries
        return Walked(where, seen, (found.st_mode, found.st_uid))

    def shown(self, entry: Entry) -> str:
        """Return the path of an entry."""
        return self.site.root if entry.path == "." else f"{self.site.root}/{entry.path}"


class JailScene:
    """One jail of a scene."""

    def __init__(self, scene: Scene, plan: JailPlan) -> None:
        self.scene = scene
        self.plan = plan
        self.jail = plan.jail
        self.name = plan.jail.name
        self.top = f"{scene.site.root}/j/{self.name}"
        """The root of the jail."""
        self.view = f"{scene.site.root}/manage/{self.name}"
        """Where a session sees it writable."""

    @cached_property
    def design(self) -> Design:
        """What its kind does in its own way."""
        return design_of(self.jail.kind)

    @cached_property
    def is_here(self) -> bool:
        """The jail is one for the platform that runs."""
        return self.jail.platform is running_platform()

    @cached_property
    def session(self) -> str | None:
        """Who is in a manage session of the jail."""
        lock = f"manage-{self.name}.lock"
        return locks.holder(self.scene.state, lock) if lock in self.scene.kept else None

    @cached_property
    def running(self) -> Running | None:
        """How its service stands. Raises LayoutError."""
        return running(self.scene.context, self.plan)

    @cached_property
    def mounts_of_running(self) -> tuple[Mount, ...]:
        """What is mounted only while it runs. Raises LayoutError."""
        return self.design.mounts_of_running(self.scene.context, self.plan)

    @cached_property
    def observed(self) -> list[Looked]:
        """The jail's entries that are not as planned."""
        return self.scene.look(self.plan.entries)

    @cached_property
    def s(self) -> Walked:
        """Every entry of the read-only half."""
        return self.scene.walked(f"s/{self.name}", trusted=True)

    @cached_property
    def t(self) -> Walked:
        """Every entry of the writable half: hostile."""
        return self.scene.walked(f"t/{self.name}", trusted=False)

    @cached_property
    def probed(self) -> list[Finding]:
        """What came of the probes: all attempts are made at once."""
        from layout.actions import probing  # which most runs do not do

        self.scene.tell(f"probing {self.name}", 0, 0)
        context, live = self.scene.context, self.scene.live
        found, count = probing.probe(context, self.plan, live, self._channels())
        self.scene.probes += count
        return found

    def _channels(self) -> list[str]:
        """Return the FIFOs and sockets that a walk has found in what the jail cannot write to."""
        if self.scene.quick:
            return []
        trees = {f"{self.scene.site.root}/j/mroot": "mroot", f"{self.scene.site.root}/s/{self.name}": "s"}
        found = []
        for mount in self.plan.tables.jail:
            tree = trees.get(mount.source)
            walked = self.scene.mroot if tree == "mroot" else self.s if tree else None
            top = probed_path(mount.target, self.plan.tables.jail[0].target).rstrip("/")
            for below, status in walked.seen.special if walked is not None and walked.seen else ():
                if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
                    found.append(f"{top}/{below}")
        return found


def unseen(path: str, problem: OSError | LayoutError) -> Finding:
    """What could not be looked at: that is a failure, not a pass."""
    if isinstance(problem, LayoutError):
        return error("S8-unseen", problem.path, problem.found, problem.expected, problem.hint)
    hint = "" if privilege.is_root() else privilege.AS_ROOT
    return error("S8-unseen", path, reason_of(problem), "to look at it", hint)
