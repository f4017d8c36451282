"""`layout init`: make what is missing, then mount and verify. A second run has nothing to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from layout.actions import booting_freebsd, mounting, packages
from layout.actions.context import Choice, Context
from layout.actions.kinds import design_of
from layout.actions.make import Maker, clean, ensure_state
from layout.actions.observe import Is, Observation, Step, observe, steps
from layout.actions.populate import finish_commit, source_kind, source_path
from layout.actions.telling import Progress
from layout.actions.verify import verify
from layout.core.errors import LayoutError, UsageError
from layout.core.findings import Report
from layout.core.model import BaseTree, Below, Entry, HostFile, Jail, JailPlan, Plan
from layout.core.names import check_name
from layout.core.plan import host_files, needs_base
from layout.core.tables import hand_edited
from layout.host import hostfiles, locks, privilege, records, table
from layout.host.beneath import Dir, open_root
from layout.host.records import BASE_RECORD, COMMIT, BaseRecord, CommitRecord, JailRecord
from layout.host.site import check_parents, running_platform

_ALONE = "to be the only run that changes ROOT"


@dataclass(slots=True)
class Outcome:
    """What init did."""

    changes: list[str] = field(default_factory=list)
    mounted: list[str] = field(default_factory=list)
    base: BaseRecord | None = None
    report: Report | None = None
    missing: dict[str, list[str]] = field(default_factory=dict)
    """Packages that jails need and the base does not have."""
    plans: tuple[JailPlan, ...] = ()


@dataclass(slots=True)
class Part:
    """What is missing of one jail, or of what all jails share."""

    entries: tuple[Entry, ...]
    todo: list[Observation]
    files: list[HostFile] = field(default_factory=list)
    record: JailRecord | None = None
    """To be written, last of all; None when it is as it should be."""
    is_new: bool = False


@dataclass(slots=True)
class Survey:
    """The plan, and how the host compares with it."""

    plan: Plan
    shared: Part
    jails: list[Part]
    mounts: list[str]
    rc_conf: dict[str, str] = field(default_factory=dict)
    """FreeBSD: what the host's rc.conf(5) lacks, so that these jails start at boot as planned."""

    @property
    def parts(self) -> list[Part]:
        """All parts in the order in which they are made."""
        return [self.shared, *self.jails]


def survey(context: Context, names: Sequence[str], choice: Choice, *, mount: bool) -> Survey:
    """Compare the plan with the host. Writes nothing.

    Raises UsageError for a choice that cannot be, LayoutError for something that stands in the way.
    """
    wanted = [check_name(name) for name in dict.fromkeys(names)]
    if choice.base is not None:
        choice = msgspec.structs.replace(choice, base=source_path(choice.base))
    check_parents(context.site.root)
    root = _open_existing(context.site.root)
    try:
        base, known, jails = _decide(context, root, wanted, choice)
        shares = any(map(needs_base, jails))
        source = (choice.base if shares else None) or (
            base.source if base is not None else source_path(context.config.base)
        )
        plan = context.plan(jails, source, base)
        if base is None and plan.mroot:
            source_kind(source, context.site.platform, running_platform(), context.site.root)
        if mount:
            mounting.require_platform(context.site)
        for one in plan.jails:
            design_of(one.jail.kind).check(context, one)
        found = _parts(root, plan, base)
        _refuse_conflicts(context.site.root, found)
        for part, jail in zip(found[1:], plan.jails, strict=True):
            part.files = [file for file in host_files(jail, context.site) if _stale(file)]
            part.record = _stale_record(_record(jail.jail), known.get(jail.jail.name))
            part.is_new = jail.jail.name not in known
        booting_freebsd.refuse_running(context.site, plan.jails)
        rc_conf = booting_freebsd.check(context.site, plan.jails) if mount else {}
    finally:
        if root is not None:
            root.close()
    for part in found:
        part.todo = steps(part.todo)
    return Survey(plan, found[0], found[1:], _unmounted(plan.jails) if mount else [], rc_conf)


def _parts(root: Dir | None, plan: Plan, base: BaseRecord | None) -> list[Part]:
    """Observe everything; the parts have all observations yet, not only what is to do."""
    shared = (*plan.host, *plan.mroot)
    observed = observe(root, [*shared, *(entry for jail in plan.jails for entry in jail.entries)])
    skeletons = _whole_base(root, observed, plan.base, base) if root is not None and plan.mroot else []
    parts = []
    start = 0
    for entries in (shared, *(jail.entries for jail in plan.jails)):
        parts.append(Part(entries, observed[start : start + len(entries)]))
        start += len(entries)
    after_mroot = len(plan.host) + 1
    parts[0].todo[after_mroot:after_mroot] = skeletons
    return parts


def _whole_base(
    root: Dir, observed: list[Observation], source: str, base: BaseRecord | None
) -> list[Observation]:
    """Take a base for whole when it has its record, a skeleton when it has all its directories.

    Changes what was observed accordingly. The skeletons come with mroot; returns those that are gone alone
    and are to be populated again, or are in conflict.
    """
    trees = [
        BaseTree(Below(f"skel/{half}"), source, f"the pristine {half} that jails are made from")
        for half in ("s", "t")
    ]
    halves = observe(root, trees)
    for index, one in enumerate(observed):
        if isinstance(one.entry, BaseTree) and one.state is Is.PRESENT and base is None:
            observed[index] = _unrecorded(one.entry)
        half = next((h for h in halves if one.entry.path.startswith(f"{h.entry.path}/")), None)
        if half is not None and half.state is Is.PRESENT and base is not None and one.state is Is.MISSING:
            observed[index] = Observation(one.entry, Is.CONFLICT, "nothing", f"the {one.entry.reason}")
    extra = []
    for half in halves:
        if half.state is Is.PRESENT and base is None:
            extra.append(_unrecorded(half.entry))
        elif half.state is Is.CONFLICT or (half.state is Is.MISSING and base is not None):
            extra.append(half)
    return extra


def _unrecorded(entry: Entry) -> Observation:
    return Observation(entry, Is.CONFLICT, "a directory without a base's record", "a base or nothing")


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
) -> tuple[BaseRecord | None, dict[str, JailRecord], list[Jail]]:
    """Decide each jail: as recorded, changed by what was chosen now; or new."""
    state = _state(root)
    known: dict[str, JailRecord] = {}
    if state is None:
        return None, known, [context.choose(name, choice) for name in names]
    with state:
        base = records.read(state, BASE_RECORD, BaseRecord)
        interrupted = records.read(state, COMMIT, CommitRecord) if base is None else None
        if interrupted is not None:  # complete, and finished before anything else
            base = interrupted.base
        if base is not None and base.platform is not context.site.platform:
            raise UsageError(
                context.site.root,
                f"a base for {base.platform}",
                f"a base for {context.site.platform}",
                "another platform needs a ROOT of its own",
            )
        jails = []
        for name in names:
            record = records.jail(state, name)
            if record is None:
                jails.append(context.choose(name, choice))
                continue
            known[name] = record
            if record.state != "ready":
                raise LayoutError(
                    name, "a jail that is half destroyed", "a whole one or none", f"layout destroy {name}"
                )
            changed = msgspec.structs.replace(
                record,
                profile=choice.profile or record.profile,
                preset=choice.preset or record.preset,
                manage=choice.manage or record.manage,
                boot=choice.boot or record.boot,
            )
            jails.append(context.recorded(changed))
            _refuse_other_source(name, record.source, choice.base)
        if base is not None and any(map(needs_base, jails)):
            _refuse_other_source(context.site.root, base.source, choice.base)
        return base, known, jails


def _refuse_other_source(path: str, source: str, wanted: str | None) -> None:
    """Make sure that nobody asks for another source of what is there already. Raises UsageError."""
    if source and wanted is not None and wanted != source:
        raise UsageError(
            f"--base {wanted}",
            f"a base from {source} in {path}",
            "no base yet, or the same",
            "leave --base out, or use another --root",
        )


def _refuse_conflicts(root: str, parts: Sequence[Part]) -> None:
    conflicts = [one for part in parts for one in part.todo if one.state is Is.CONFLICT]
    if conflicts:
        one = conflicts[0]
        more = f"; {len(conflicts) - 1} more conflicts" if len(conflicts) > 1 else ""
        raise LayoutError(
            f"{root}/{one.entry.path}",
            one.found,
            f"{one.expected}{more}",
            "nothing was changed; move skel aside, then run init again: it is populated anew"
            if one.entry.path.startswith("skel/")
            else "nothing was changed; move it aside, then run init again",
        )


def _stale(file: HostFile) -> bool:
    """Say whether a generated file is to be written. Raises LayoutError for one that was edited by hand."""
    text = hostfiles.read_text(file.path)
    if text == file.text:
        return False
    if text is not None and hand_edited(text):
        is_ours = ", generated by layout;" in text.partition("\n")[0]
        raise LayoutError(
            file.path,
            "a file edited by hand" if is_ours else "a file that layout did not write",
            f"{file.reason}, as layout generated it, or nothing",
            "put the edit into the template in ETC/fstab.d or the profile, and remove this file"
            if is_ours
            else "nothing was changed; move it aside, then run init again",
        )
    return True


def _stale_record(wanted: JailRecord, known: JailRecord | None) -> JailRecord | None:
    if known is None:
        return wanted
    wanted = msgspec.structs.replace(wanted, created=known.created, example=known.example)
    return None if wanted == known else wanted


def _record(jail: Jail) -> JailRecord:
    return JailRecord(
        jail.name,
        jail.profile,
        jail.preset,
        jail.manage,
        jail.platform,
        records.now(),
        jail.boot,
        jail.kind,
        jail.source,
    )


def _unmounted(plans: Sequence[JailPlan]) -> list[str]:
    live = {mount.target for mount in table.read()}
    return [
        mount.target
        for plan in plans
        for tree in mounting.wanted(plan)
        for mount in tree
        if mount.target not in live
    ]


def describe(context: Context, found: Survey) -> list[Step]:
    """Return what init would do, in order, each step with its reason."""
    root = found.plan.site.root
    made: list[Step] = []
    for part in found.parts:
        made += [
            Step(
                {Is.MODE: "chmod"}.get(one.state, type(one.entry).__name__.lower()),
                root if one.entry.path == "." else f"{root}/{one.entry.path}",
                one.entry.reason,
            )
            for one in part.todo
        ]
        made += [Step("write", file.path, file.reason) for file in part.files]
        if part.record is not None:
            path = f"{root}/.layout/jails/{part.record.name}.toml"
            made.append(Step("record", path, "what was decided about it"))
    for jail in found.plan.jails:
        made += design_of(jail.jail.kind).steps(context, jail)
    made += [
        Step("sysrc", "/etc/rc.conf", f"{name}={value}: which jails start at boot")
        for name, value in found.rc_conf.items()
    ]
    by_target = {m.target: m for jail in found.plan.jails for tree in mounting.wanted(jail) for m in tree}
    made += [
        Step("mount", target, f"{by_target[target].source} {','.join(by_target[target].options)}")
        for target in found.mounts
    ]
    return made


def init(
    context: Context,
    names: Sequence[str],
    choice: Choice,
    *,
    mount: bool,
    tell: Progress,
    example: bool = False,
) -> Outcome:
    """Make what is missing for these jails, mount them, verify them.

    Raises UsageError or LayoutError. The base and each jail are made wholly or not at all; what was made
    before that is found by the next run.
    """
    found = _survey_first(context, names, choice, mount=mount)
    if mount:
        mounting.check(context.site, found.plan.jails)
    outcome = Outcome()
    try:
        with _at_work(context.site.root) as (root, state, made):
            if finish_commit(root, state):
                outcome.changes.append(BASE_RECORD)
            clean(root, state, context.site.etc)
            found = survey(context, names, choice, mount=mount)
            outcome.changes += made
            outcome.plans = found.plan.jails
            _make(context, found, root, state, outcome, tell)
            for jail in found.plan.jails:
                outcome.changes += design_of(jail.jail.kind).apply(context, root, state, jail)
            outcome.changes += booting_freebsd.apply(found.rc_conf)
            outcome.base = records.read(state, BASE_RECORD, BaseRecord)
            outcome.missing = packages.missing(root, [plan.jail for plan in found.plan.jails])
            if mount:
                tell("mounting", 0, 0)
                outcome.mounted = mounting.mount(context.site, found.plan.jails)
                outcome.changes += outcome.mounted
        if example:
            for name, lacking in outcome.missing.items():
                hint = f"{packages.hint(lacking)}, then run init again"
                raise LayoutError(
                    name, f"a base without {', '.join(lacking)}", "what its example needs", hint
                )
            from layout.actions.example import prepare

            outcome.changes += prepare(context, found.plan.jails, tell)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise LayoutError(
            context.site.root,
            "no space left",
            "room for the base and the jails",
            "free some, then run init again: it goes on where it stopped",
        ) from None
    if mount:
        outcome.report = verify(context, found.plan.jails, quick=False, tell=tell, probe=True)
    return outcome


def _survey_first(context: Context, names: Sequence[str], choice: Choice, *, mount: bool) -> Survey:
    """Refuse what is to be refused before ROOT is touched, the lock file included.

    Without the lock: a conflict may be nothing but another run at work, which is then named instead.
    """
    try:
        return survey(context, names, choice, mount=mount)
    except UsageError:
        raise
    except LayoutError:
        with contextlib.suppress(OSError), open_root(f"{context.site.root}/.layout") as state:
            locks.refuse_held(state, locks.ROOT, _ALONE)
    # Nobody is at work, or no longer: what is in the way now, is.
    return survey(context, names, choice, mount=mount)


@contextlib.contextmanager
def _at_work(path: str) -> Iterator[tuple[Dir, Dir, list[str]]]:
    """Open ROOT and its state and hold the lock; what was made only for that goes again after an error."""
    while True:
        with contextlib.ExitStack() as stack:
            root, state, made = _ensure_state(path)
            stack.enter_context(root)
            stack.enter_context(state)
            try:
                stack.enter_context(locks.held(state, locks.ROOT, _ALONE))
            except FileNotFoundError:  # a run that failed has just taken its .layout away
                continue
            try:
                yield root, state, made
            except BaseException:
                _unmake(path, root, state, made)
                raise
            return


def _unmake(path: str, root: Dir, state: Dir, made: list[str]) -> None:
    """Remove ROOT and .layout if this run made them and nothing is in them but the lock, which we hold."""
    with contextlib.suppress(OSError, LayoutError):
        if ".layout" in made and state.names() == [locks.ROOT]:
            state.unlink(locks.ROOT)
            root.rmdir(".layout")
        if "." in made:
            head, _, name = path.rpartition("/")
            with open_root(head or "/") as parent:
                parent.rmdir(name)


def _ensure_state(path: str) -> tuple[Dir, Dir, list[str]]:
    try:
        return ensure_state(path)
    except FileNotFoundError:
        head = path.rpartition("/")[0]
        if not head:
            raise UsageError(path, "a directory that can hold none", "one that ROOT can be in") from None
        raise UsageError(head, "no such directory", "the parent of ROOT", f"mkdir -p {head}") from None
    except PermissionError:
        raise LayoutError(path, "no permission to write", "root", privilege.AS_ROOT) from None
    except OSError as error:
        if error.errno == errno.EROFS:
            raise LayoutError(
                path, "a read-only file system", "one that can be written", "choose another --root"
            ) from None
        raise


def _make(context: Context, found: Survey, root: Dir, state: Dir, outcome: Outcome, tell: Progress) -> None:
    base = next((one.entry for one in found.shared.todo if isinstance(one.entry, BaseTree)), None)
    site = context.site
    kind = source_kind(base.source, site.platform, running_platform(), site.root) if base is not None else ""
    maker = Maker(root, state, site.platform, kind, tell)
    try:
        for part in found.parts:
            written: list[str] = []
            try:
                made = maker.make(part.todo, part.entries)
                for file in part.files:
                    hostfiles.write_text(file.path, file.text, file.mode)
                    written.append(file.path)
                made += written
                if part.record is not None:
                    record = f"jails/{part.record.name}.toml"
                    records.write(state, record, part.record)
                    made.append(f".layout/{record}")
            except BaseException:
                if part.is_new or part is found.shared:
                    maker.undo()
                    for path in written:
                        hostfiles.remove(path)
                raise
            maker.settle()
            outcome.changes += made
    finally:
        maker.close()
