"""`layout init`: make what is missing, then mount and verify. A second run has nothing to do."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from layout.actions import mounting
from layout.actions.context import Choice, Context
from layout.actions.make import Maker, ensure_state
from layout.actions.observe import Is, Observation, observe, steps
from layout.actions.populate import BASE_RECORD, COMMIT, Tell, commit, source_kind
from layout.actions.verify import verify
from layout.core.errors import LayoutError, UsageError
from layout.core.findings import Report
from layout.core.model import BaseTree, Entry, HostFile, Jail, JailPlan, Plan
from layout.core.names import check_name
from layout.core.tables import hand_edited
from layout.host import hostfiles, locks, records
from layout.host.beneath import Dir, open_root
from layout.host.linux import table
from layout.host.records import BaseRecord, CommitRecord, JailRecord
from layout.host.site import check_parents, running_platform


class Step(msgspec.Struct, frozen=True):
    """One thing that init would do."""

    action: str
    path: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """What init did."""

    changes: list[str] = field(default_factory=list)
    mounted: list[str] = field(default_factory=list)
    base: BaseRecord | None = None
    report: Report | None = None


@dataclass(slots=True)
class Survey:
    """The plan, and how the host compares with it."""

    plan: Plan
    todo: list[Observation]
    files: list[HostFile]
    stale_records: list[JailRecord]
    mounts: list[str]

    @property
    def entries(self) -> list[Entry]:
        """All entries of the plan, in order."""
        plan = self.plan
        return [*plan.host, *plan.mroot, *(entry for jail in plan.jails for entry in jail.entries)]


def survey(context: Context, names: Sequence[str], choice: Choice, *, mount: bool) -> Survey:
    """Compare the plan with the host. Writes nothing.

    Raises UsageError for a choice that cannot be, LayoutError for something that stands in the way.
    """
    wanted = [check_name(name) for name in dict.fromkeys(names)]
    check_parents(context.site.root)
    root = _open_existing(context.site.root)
    try:
        base, jails = _decide(context, root, wanted, choice)
        source = choice.base or (base.source if base is not None else context.config.base)
        plan = context.plan(jails, source, base)
        if base is None:
            source_kind(source, context.site.platform, running_platform())
        if mount:
            mounting.require_platform(context.site)
        entries = [*plan.host, *plan.mroot, *(entry for jail in plan.jails for entry in jail.entries)]
        observed = observe(root, entries)
        if root is not None and base is None:
            _missing_base(observed)
        _refuse_conflicts(context.site.root, observed)
        files = [file for jail in plan.jails for file in jail.files if _stale(file)]
        stale = _stale_records(root, plan.jails)
    finally:
        if root is not None:
            root.close()
    return Survey(plan, steps(observed), files, stale, _unmounted(plan.jails) if mount else [])


def _open_existing(path: str) -> Dir | None:
    try:
        return open_root(path)
    except FileNotFoundError:
        return None


def _state(root: Dir | None) -> Dir | None:
    if root is None:
        return None
    try:
        return root.open(".layout")
    except FileNotFoundError:
        return None


def _decide(
    context: Context, root: Dir | None, names: Sequence[str], choice: Choice
) -> tuple[BaseRecord | None, list[Jail]]:
    """Decide each jail: as recorded, changed by what was chosen now; or new."""
    state = _state(root)
    if state is None:
        return None, [context.choose(name, choice) for name in names]
    with state:
        base = records.read(state, BASE_RECORD, BaseRecord)
        if base is not None and base.platform is not context.site.platform:
            raise UsageError(
                context.site.root,
                f"a base for {base.platform}",
                f"a base for {context.site.platform}",
                "another platform needs a ROOT of its own",
            )
        if base is not None and choice.base is not None and choice.base != base.source:
            raise UsageError(
                f"--base {choice.base}",
                f"a base from {base.source} in {context.site.root}",
                "no base yet, or the same",
                "leave --base out, or use another --root",
            )
        jails = []
        for name in names:
            record = records.jail(state, name)
            if record is None:
                jails.append(context.choose(name, choice))
                continue
            if record.state != "ready":
                raise LayoutError(
                    name, "a jail that is half destroyed", "a whole one or none", f"layout destroy {name}"
                )
            changed = msgspec.structs.replace(
                record,
                profile=choice.profile or record.profile,
                preset=choice.preset or record.preset,
                manage=choice.manage or record.manage,
            )
            jails.append(context.recorded(changed))
        return base, jails


def _missing_base(observed: list[Observation]) -> None:
    """Without its record a base is not complete, even where its directories are."""
    for index, one in enumerate(observed):
        if isinstance(one.entry, BaseTree) and one.state is Is.PRESENT:
            observed[index] = Observation(
                one.entry, Is.CONFLICT, "a directory without a base's record", "a base or nothing"
            )


def _refuse_conflicts(root: str, observed: Sequence[Observation]) -> None:
    conflicts = [one for one in observed if one.state is Is.CONFLICT]
    if conflicts:
        one = conflicts[0]
        more = f"; {len(conflicts) - 1} more conflicts" if len(conflicts) > 1 else ""
        raise LayoutError(
            f"{root}/{one.entry.path}",
            one.found,
            f"{one.expected}{more}",
            "nothing was changed; move it aside, then run init again",
        )


def _stale(file: HostFile) -> bool:
    """Say whether a generated file is to be written. Raises LayoutError for one that was edited by hand."""
    text = hostfiles.read_text(file.path)
    if text == file.text:
        return False
    if text is not None and hand_edited(text):
        raise LayoutError(
            file.path,
            "a table edited by hand",
            "one that layout generated",
            "put the edit into the template in ETC/fstab.d or the profile, and remove this file",
        )
    return True


def _stale_records(root: Dir | None, plans: Sequence[JailPlan]) -> list[JailRecord]:
    wanted = [_record(plan.jail) for plan in plans]
    state = _state(root)
    if state is None:
        return wanted
    with state:
        stale = []
        for record in wanted:
            known = records.jail(state, record.name)
            if known is None or msgspec.structs.replace(known, created=record.created) != record:
                stale.append(
                    record if known is None else msgspec.structs.replace(record, created=known.created)
                )
        return stale


def _record(jail: Jail) -> JailRecord:
    return JailRecord(jail.name, jail.profile, jail.preset, jail.manage, jail.platform, records.now())


def _unmounted(plans: Sequence[JailPlan]) -> list[str]:
    live = {mount.target for mount in table.read()}
    return [
        mount.target
        for plan in plans
        for tree in mounting.wanted(plan)
        for mount in tree
        if mount.target not in live
    ]


def describe(found: Survey) -> list[Step]:
    """Return what init would do, in order, each step with its reason."""
    made = [
        Step(
            {Is.MODE: "chmod"}.get(one.state, type(one.entry).__name__.lower()),
            found.plan.site.root if one.entry.path == "." else f"{found.plan.site.root}/{one.entry.path}",
            one.entry.reason,
        )
        for one in found.todo
    ]
    made += [Step("write", file.path, file.reason) for file in found.files]
    made += [
        Step(
            "record", f"{found.plan.site.root}/.layout/jails/{record.name}.toml", "what was decided about it"
        )
        for record in found.stale_records
    ]
    by_target = {m.target: m for jail in found.plan.jails for tree in mounting.wanted(jail) for m in tree}
    made += [
        Step("mount", target, f"{by_target[target].source} {','.join(by_target[target].options)}")
        for target in found.mounts
    ]
    return made


def init(context: Context, names: Sequence[str], choice: Choice, *, mount: bool, tell: Tell) -> Outcome:
    """Make what is missing for these jails, mount them, verify them.

    Raises UsageError or LayoutError; what was made until then is whole and is found by the next run.
    """
    found = survey(context, names, choice, mount=mount)  # refuses before ROOT is touched
    outcome = Outcome()
    root, state, made = _ensure_state(context.site.root)
    try:
        with locks.held(state, locks.ROOT, "to be the only run that changes ROOT"):
            if state.lstat(COMMIT) is not None:
                finish_commit(root, state)
                outcome.changes.append(BASE_RECORD)
            found = survey(context, names, choice, mount=mount)
            outcome.changes += made
            _make(context, found, root, state, outcome, tell)
            outcome.base = records.read(state, BASE_RECORD, BaseRecord)
            if mount:
                tell("mounting", 0, 0)
                outcome.mounted = mounting.mount(context.site, found.plan.jails)
                outcome.changes += outcome.mounted
    finally:
        state.close()
        root.close()
    if mount:
        outcome.report = verify(context, found.plan.jails, quick=False, tell=tell)
    return outcome


def _ensure_state(path: str) -> tuple[Dir, Dir, list[str]]:
    try:
        return ensure_state(path)
    except FileNotFoundError:
        head = path.rpartition("/")[0]
        raise UsageError(head, "no such directory", "the parent of ROOT", f"mkdir -p {head}") from None
    except PermissionError:
        raise LayoutError(
            path, "no permission to write", "root", "run it as root, or try: make demo"
        ) from None
    except OSError as error:
        if error.errno == errno.EROFS:
            raise LayoutError(
                path, "a read-only file system", "one that can be written", "choose another --root"
            ) from None
        raise


def _make(context: Context, found: Survey, root: Dir, state: Dir, outcome: Outcome, tell: Tell) -> None:
    base = next((one.entry for one in found.todo if isinstance(one.entry, BaseTree)), None)
    kind = source_kind(base.source, context.site.platform, running_platform()) if base is not None else ""
    maker = Maker(root, state, context.site.platform, kind, tell)
    try:
        outcome.changes += maker.make(found.todo, found.entries)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise LayoutError(
                context.site.root,
                "no space left",
                "room for the base and the jails",
                "free some, then run init again: it goes on where it stopped",
            ) from None
        raise
    finally:
        maker.close()
    for file in found.files:
        hostfiles.write_text(file.path, file.text, file.mode)
        outcome.changes.append(file.path)
    for record in found.stale_records:
        records.write(state, f"jails/{record.name}.toml", record)
        outcome.changes.append(f".layout/jails/{record.name}.toml")


def finish_commit(root: Dir, state: Dir) -> None:
    """Finish a base whose population was complete when it was interrupted."""
    found = records.read(state, COMMIT, CommitRecord)
    if found is not None:
        commit(root, state, found.base)
