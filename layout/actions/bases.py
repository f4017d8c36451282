"""`layout base verify` and `list`: mroot and skel against their manifests, and where they came from."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from layout.actions import merging
from layout.actions.context import Context
from layout.actions.manage import path_of_s
from layout.actions.populate import capable, skeleton_entries
from layout.actions.telling import Progress
from layout.core import findings, mtree
from layout.core.errors import LayoutError, reason_of
from layout.core.findings import Finding, Report, error, warning
from layout.core.model import Site
from layout.core.mtree import ManifestEntry
from layout.host import records
from layout.host.beneath import Dir, open_root
from layout.host.beneath.hashed import Hashed, Known, hashed
from layout.host.beneath.walk import Print
from layout.host.records import BASE_RECORD, MANIFEST, SKELETON, BaseRecord, CapabilityRecord, SetuidRecord

_SPECIAL = "S9-special"
_PENDING = "S9-pending"
_LARGEST = 1 << 30
_TREES = ((MANIFEST, "j/mroot"), (SKELETON, "skel"))
_UPDATE = "layout base verify --update writes one of what is there now, once you trust it"


@dataclass(slots=True)
class Verified:
    """What came of a comparison."""

    report: Report
    bytes: int = 0
    """How much was read and hashed."""
    written: list[str] = field(default_factory=list)
    """Manifests that were written anew."""


class BaseSummary(msgspec.Struct):
    """The base of a ROOT, for people and programs."""

    record: BaseRecord
    manifest: bool
    """There is one to verify it against."""


def base_of(context: Context) -> BaseSummary | None:
    """Return the base of ROOT, or None when there is none yet. Raises LayoutError, OSError."""
    try:
        with open_root(context.site.root) as root, root.open(".layout") as state:
            record = records.read(state, BASE_RECORD, BaseRecord)
            return BaseSummary(record, state.lstat(MANIFEST) is not None) if record is not None else None
    except FileNotFoundError:
        return None


def verify_base(context: Context, tell: Progress, *, update: bool = False) -> Verified:
    """Compare mroot and skel with their manifests: each type, mode, owner, size, link and content.

    With `update` the manifests are written anew where they differ, the report says what they accepted, and
    the caller holds the lock. Raises LayoutError when ROOT has no base, or when what is there cannot be
    accepted; else what cannot be looked at is a finding.
    """
    found: list[Finding] = []
    fresh: dict[str, dict[str, ManifestEntry]] = {}
    checks = size = 0
    with context.open() as root, opened_state(context, root) as state:
        for manifest, path in _TREES:
            top = f"{context.site.root}/{path}"
            try:
                seen, special, read = _look(root, path, tell)
                wanted = _read(state, manifest)
            except (OSError, LayoutError) as problem:
                found.append(_unseen(top, problem))
                continue
            checks += len(seen)
            size += read
            if wanted is None:
                found.append(error("S9-manifest", state.show(manifest), "nothing", "a manifest", _UPDATE))
            else:
                found += mtree.differences(wanted, seen, top)
            if wanted != seen:
                fresh[manifest] = seen
            found += [
                error(
                    _SPECIAL,
                    f"{top}/{below}",
                    f"a {kind}",
                    "none in a base",
                    f"rm {shlex.quote(f'{top}/{below}')}",
                )
                for below, kind in special
            ]
        found += behind(context.site, state)
        if update:
            _refuse_unacceptable(found)
            for manifest, entries in fresh.items():
                write_manifest(state, manifest, entries)
    return Verified(findings.report(found, {}, checks), size, list(fresh) if update else [])


def behind(site: Site, state: Dir, names: Collection[str] | None = None) -> list[Finding]:
    """Return a finding for each jail, of `names` if given, that lacks what sessions in the base changed."""
    found = "as an older skeleton made it"
    return [
        warning(
            _PENDING,
            f"{site.root}/s/{jail}",
            found,
            "the changes of the base merged",
            f"layout base merge {jail}",
        )
        for jail in sorted(merging.pending(state))
        if names is None or jail in names
    ]


def _refuse_unacceptable(found: list[Finding]) -> None:
    for one in found:
        if one.code in {"S8-unseen", _SPECIAL}:
            raise LayoutError(one.path, one.found, one.expected, one.hint)


def write_manifest(state: Dir, manifest: str, entries: dict[str, ManifestEntry]) -> None:
    """Write a manifest whole. Raises OSError."""
    text = mtree.text(entries.values()).encode("utf-8", "surrogateescape")
    state.write_whole(manifest, text, 0o600)


def opened_state(context: Context, root: Dir) -> Dir:
    """Open layout's state of a ROOT that has a base. Raises LayoutError when it has none."""
    try:
        state = root.open(".layout")
        if records.read(state, BASE_RECORD, BaseRecord) is not None:
            return state
        state.close()
    except FileNotFoundError:
        pass
    path = f"{context.site.root}/.layout/{BASE_RECORD}"
    raise LayoutError(path, "nothing", "the record of a base", "layout init NAME makes one")


def refresh(
    root: Dir, state: Dir, before: Mapping[str, Print], after: Mapping[str, Print], tell: Progress
) -> list[str]:
    """Let manifests and record follow what a session changed, and nothing else.

    The prints are by the paths that the session saw; those of the skeleton of t begin with /t/. What was not
    changed keeps its line, so that what had been tampered with before is still found. Returns the files that
    are setuid now and were not in the record. Raises LayoutError, OSError.
    """
    changed = {
        path for path in before.keys() | after.keys() if _is_changed(before.get(path), after.get(path))
    }
    setuid: list[SetuidRecord] = []
    for manifest, tree in _TREES:
        setuid += _refresh_manifest(root, state, manifest, tree, changed, tell)
    with root.open("j/mroot") as mroot, root.open("skel/s") as s:
        capabilities = capable(mroot, s)
    return _record(state, setuid, capabilities, changed)


def _refresh_manifest(
    root: Dir, state: Dir, manifest: str, tree: str, changed: set[str], tell: Progress
) -> list[SetuidRecord]:
    """Let one manifest follow what a session changed; return the setuid files among that."""
    wanted = _read(state, manifest)
    kept = {path: entry for path, entry in (wanted or {}).items() if _session_path(path, tree) not in changed}
    known = {path: (entry.size, entry.digest) for path, entry in kept.items() if entry.kind == "file"}
    seen, _, _ = _look(root, tree, tell, known)
    new = {path: entry for path, entry in seen.items() if _session_path(path, tree) in changed}
    entries = {**kept, **new}
    if wanted is not None and entries != wanted:
        order = sorted(entries, key=lambda path: path.replace("/", "\0") if path != "." else "")
        write_manifest(state, manifest, {path: entries[path] for path in order})
    return [
        SetuidRecord(_session_path(path, tree)[1:], f"{entry.mode:04o}", entry.uid, entry.gid)
        for path, entry in new.items()
        if entry.kind == "file" and entry.mode & 0o6000 and not path.startswith("t/")
    ]


def _is_changed(old: Print | None, new: Print | None) -> bool:
    if old is None or new is None:
        return old is not new
    return old != new and not (stat.S_ISDIR(old.mode) and old.same_but_times(new))


def _session_path(path: str, tree: str) -> str:
    """Return how a session in the base sees a path of mroot or skel."""
    if tree != "skel":
        return f"/{path}"
    half, _, below = path.partition("/")
    return path_of_s(below) if half == "s" else f"/t/{below}"


def _record(
    state: Dir, found: list[SetuidRecord], capabilities: tuple[CapabilityRecord, ...], changed: set[str]
) -> list[str]:
    """Let the base's record follow what a session changed; return what is setuid now and was not."""
    record = records.read(state, BASE_RECORD, BaseRecord)
    if record is None:
        return []
    kept = [one for one in record.setuid if f"/{one.path}" not in changed]
    setuid = tuple(sorted([*kept, *found], key=lambda one: one.path))
    capable_now = tuple(
        sorted(
            [one for one in record.capable if f"/{one.path}" not in changed]
            + [one for one in capabilities if f"/{one.path}" in changed],
            key=lambda one: one.path,
        )
    )
    new = msgspec.structs.replace(record, setuid=setuid, capable=capable_now)
    if (setuid, capable_now) != (tuple(sorted(record.setuid, key=lambda one: one.path)), record.capable):
        records.write(state, BASE_RECORD, new)
    before = {one.path for one in record.setuid}
    return [f"/{one.path}" for one in found if one.path not in before]


def _look(
    root: Dir, path: str, tell: Progress, known: Known | None = None
) -> tuple[dict[str, ManifestEntry], list[tuple[str, str]], int]:
    def progress(count: int) -> None:
        tell(f"hashing {path}", count, 0)

    if path != "skel":
        with root.open(path) as top:
            tree = hashed(top, known, tell=progress)
        return tree.entries, tree.special, tree.bytes
    halves: dict[str, Hashed] = {}
    for half in ("s", "t"):
        with root.open(f"skel/{half}") as top:
            start = f"{half}/"
            ours = {path[2:]: value for path, value in (known or {}).items() if path.startswith(start)}
            halves[half] = hashed(top, ours, tell=progress)
    entries = {entry.path: entry for entry in skeleton_entries(halves["s"], halves["t"])}
    special = [(f"{half}/{below}", kind) for half, tree in halves.items() for below, kind in tree.special]
    return entries, special, sum(tree.bytes for tree in halves.values())


def _read(state: Dir, manifest: str) -> dict[str, ManifestEntry] | None:
    try:
        data = state.read(manifest, _LARGEST)
    except FileNotFoundError:
        return None
    return {entry.path: entry for entry in mtree.parse_manifest(data, state.show(manifest))}


def _unseen(path: str, problem: OSError | LayoutError) -> Finding:
    if isinstance(problem, LayoutError):
        return error("S8-unseen", problem.path, problem.found, problem.expected, problem.hint)
    return error("S8-unseen", path, reason_of(problem), "to look at it")
