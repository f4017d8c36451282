"""Bring what changed in the skeletons to the jails: snapshots of the old ones, and each jail's merge."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from layout.actions.manage import path_of_s
from layout.actions.telling import Progress
from layout.core import mtree
from layout.core.errors import LayoutError, printable, reason_of
from layout.core.merge import Change, Conflict, Side, Tree, merge, seeds
from layout.core.mtree import ManifestEntry
from layout.host import locks, records
from layout.host.beneath import Dir, Item, load_tree, remove_tree, write_items
from layout.host.beneath.hashed import hashed

_HOME = "merge"
"""Below layout's state: one directory for each skeleton that some jail has yet to leave behind."""
_NEW = ".new-"
_JAILS = "jails.toml"
_T = "t.mtree"
_LARGEST = 256 << 20


class PendingRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which jails still are as an older skeleton made them."""

    created: str
    jails: tuple[str, ...]


class Done(msgspec.Struct, frozen=True):
    """One thing that was done to a jail."""

    kind: str
    path: str
    """As the jail sees it."""


class JailMerge(msgspec.Struct):
    """What came of the merge of one jail."""

    changes: list[Done] = []
    conflicts: list[Conflict] = []
    """When there are any, the jail is as it was, and still to be merged."""
    error: str = ""
    """What kept it from being merged, other than a conflict."""

    @property
    def ok(self) -> bool:
        """It has all of the new skeleton."""
        return not self.conflicts and not self.error


def begin(root: Dir, state: Dir, names: Sequence[str]) -> str:
    """Keep the skeletons as they are now, for jails that are not behind already; return the snapshot's name.

    Call it before the skeletons change. Raises LayoutError, OSError.
    """
    with contextlib.suppress(FileExistsError):
        state.make_dir(_HOME, 0o700)
    with state.open(_HOME) as home:
        for name in home.names():
            if name.startswith(_NEW):
                remove_tree(home, name)
        known = _snapshots(home)
        behind = {jail for one in known.values() for jail in one.jails}
        name = f"{max(map(int, known), default=0) + 1:06d}"
        home.make_dir(f"{_NEW}{name}", 0o700)
        with home.open(f"{_NEW}{name}") as made:
            made.make_dir("s", 0o755)
            with root.open("skel/s") as s, made.open("s") as kept:
                write_items(load_tree(s), kept, clone=True)
            with root.open("skel/t") as t:
                text = mtree.text(hashed(t).entries.values())
            made.write_whole(_T, text.encode("utf-8", "surrogateescape"), 0o600)
            pending = tuple(jail for jail in names if jail not in behind)
            records.write(made, _JAILS, PendingRecord(records.now(), pending))
            made.sync()
        home.rename(f"{_NEW}{name}", name)
    return name


def forget(state: Dir, snapshot: str) -> None:
    """Drop a snapshot after all: nothing has changed since."""
    with state.open(_HOME) as home:
        remove_tree(home, snapshot)


def pending(state: Dir) -> dict[str, str]:
    """Return the snapshot that each jail with something to merge is still at. Raises LayoutError."""
    try:
        with state.open(_HOME) as home:
            return {jail: name for name, one in _snapshots(home).items() for jail in one.jails}
    except FileNotFoundError:
        return {}


def merge_jails(
    root: Dir, state: Dir, wanted: Iterable[str] | None, tell: Progress, known: Iterable[str]
) -> dict[str, JailMerge]:
    """Merge these jails, all that are behind when None; `known` are the jails that there are.

    The caller holds the lock. Raises LayoutError, OSError for what concerns all of them.
    """
    behind = pending(state)
    there = set(known)
    done: dict[str, JailMerge] = {}
    if not behind:
        return done
    with state.open(_HOME) as home, contextlib.ExitStack() as stack:
        skeletons = _Skeletons(root, home, stack)
        for jail, snapshot in sorted(behind.items()):
            if jail in there and (wanted is None or jail in wanted):
                tell(f"merging {jail}", len(done), len(behind))
                done[jail] = _merge_jail(root, state, skeletons, snapshot, jail)
            if jail not in there or (jail in done and done[jail].ok):
                _settle(home, snapshot, jail)
        for name, one in _snapshots(home).items():
            if not one.jails:
                remove_tree(home, name)
    return done


def _snapshots(home: Dir) -> dict[str, PendingRecord]:
    found = {}
    for name in home.names():
        if name.isdigit():
            with home.open(name) as snapshot:
                record = records.read(snapshot, _JAILS, PendingRecord)
            if record is None:
                raise LayoutError(f"{home.show(name)}/{_JAILS}", "nothing", "the jails that are behind")
            found[name] = record
    return found


def _settle(home: Dir, snapshot: str, jail: str) -> None:
    with home.open(snapshot) as here:
        record = records.read(here, _JAILS, PendingRecord)
        assert record is not None
        left = tuple(name for name in record.jails if name != jail)
        records.write(here, _JAILS, msgspec.structs.replace(record, jails=left))


class _Skeletons:
    """The new skeletons and the old ones, each read once."""

    def __init__(self, root: Dir, home: Dir, stack: contextlib.ExitStack) -> None:
        self.home = home
        self.stack = stack
        self.s = stack.enter_context(root.open("skel/s"))
        self.t = stack.enter_context(root.open("skel/t"))
        self.new_s = hashed(self.s).entries
        self.new_t = hashed(self.t).entries
        self._items: dict[str, dict[str, Item]] = {}
        self._old: dict[str, tuple[Dir, Tree, Tree]] = {}

    def old(self, snapshot: str) -> tuple[Dir, Tree, Tree]:
        """Return an old s, open, and the entries of that s and its t."""
        if snapshot not in self._old:
            s = self.stack.enter_context(self.home.open(f"{snapshot}/s"))
            path = f"{snapshot}/{_T}"
            lines = mtree.parse_manifest(self.home.read(path, _LARGEST), self.home.show(path))
            self._old[snapshot] = (s, hashed(s).entries, {entry.path: entry for entry in lines})
        return self._old[snapshot]

    def items(self, half: str) -> dict[str, Item]:
        """Return what is needed to write the entries of a new skeleton, by path."""
        if half not in self._items:
            items = {item.path: item for item in load_tree(self.s if half == "s" else self.t)}
            for path, item in items.items():
                if stat.S_ISREG(item.mode) and item.target:  # a further hard link
                    items[path] = items[item.target]
            self._items[half] = items
        return self._items[half]


def _merge_jail(root: Dir, state: Dir, skeletons: _Skeletons, snapshot: str, jail: str) -> JailMerge:
    try:
        with locks.held(state, f"manage-{jail}.lock", f"no manage session of {jail}"):
            return _merge_locked(root, skeletons, snapshot, jail)
    except (OSError, LayoutError) as problem:
        if isinstance(problem, OSError):
            return JailMerge(error=reason_of(problem))
        return JailMerge(error=str(problem))


def _merge_locked(root: Dir, skeletons: _Skeletons, snapshot: str, jail: str) -> JailMerge:
    old_s, old, old_t = skeletons.old(snapshot)
    with root.open(f"s/{jail}") as s, root.open(f"t/{jail}") as t:
        sides = {"old": old_s, "new": skeletons.s, "ours": s}

        def read(side: Side, path: str) -> bytes:
            return sides[side].read(path)

        ours = hashed(s).entries
        found = merge(old, skeletons.new_s, ours, read)
        if found.conflicts:
            return JailMerge(conflicts=[_shown(one) for one in found.conflicts])
        given = seeds(old_t, skeletons.new_t, _there(t, skeletons.new_t.keys() - old_t.keys()))
        with root.open("s") as half:
            _apply(half, jail, s, found.changes, skeletons.items("s"), ours)
        with root.open("t") as half:
            _apply(half, jail, t, given, skeletons.items("t"), {})
    return JailMerge([*(_told(one, "s") for one in found.changes), *(_told(one, "t") for one in given)])


def _shown(conflict: Conflict) -> Conflict:
    return Conflict(_seen(conflict.path), printable(conflict.reason))


def _told(change: Change, half: str) -> Done:
    return Done(change.kind, _seen(change.path) if half == "s" else printable(f"/{change.path}"))


def _seen(path: str) -> str:
    return printable(path_of_s(path))


def _there(t: Dir, paths: Iterable[str]) -> dict[str, ManifestEntry]:
    """Return what a t has of these paths and of the directories that they are in: t may be hostile."""
    found: dict[str, ManifestEntry] = {}
    for path in {*paths, *(path.rpartition("/")[0] for path in paths)} - {"", "."}:
        try:
            status = t.lstat(path)
        except (OSError, LayoutError):  # something else in a directory's place
            status = None
        if status is not None:
            is_directory = stat.S_ISDIR(status.st_mode)
            found[path] = ManifestEntry(path, "dir" if is_directory else "file", 0, 0, 0)
    return found


def _apply(
    half: Dir,
    jail: str,
    top: Dir,
    changes: Sequence[Change],
    items: Mapping[str, Item],
    ours: Mapping[str, ManifestEntry],
) -> None:
    """Carry out changes: first everything is written beside the jail's tree, then it gets its names.

    After a crash the merge, done again, finds what is left to do. Raises OSError, LayoutError.
    """
    if not changes:
        return
    staging = f"{_NEW}{jail}.merge"
    remove_tree(half, staging)
    half.make_dir(staging, 0o700)
    try:
        with half.open(staging) as staged:
            written = {
                change.path: str(number) for number, change in enumerate(changes) if _is_staged(change, ours)
            }
            write_items(
                (_item(change, written, items) for change in changes if change.path in written), staged
            )
            staged.sync()
            for change in sorted(changes, key=lambda change: change.path, reverse=True):
                before = ours.get(change.path)
                if change.entry is None or (before is not None and before.kind != change.entry.kind):
                    _remove(top, change.path)
            for change in changes:
                if change.path in written:
                    head, _, name = change.path.rpartition("/")
                    with top.open(head or ".") as parent:
                        staged.replace(written[change.path], parent, name)
                elif change.entry is not None:
                    _attributes(top, change.path, change.entry)
            top.sync()
    finally:
        remove_tree(half, staging)


def _is_staged(change: Change, ours: Mapping[str, ManifestEntry]) -> bool:
    if change.entry is None:
        return False
    before = ours.get(change.path)
    if change.entry.kind == "link":
        return True
    return change.kind != "mode" or before is None or before.kind != change.entry.kind


def _item(change: Change, written: Mapping[str, str], items: Mapping[str, Item]) -> Item:
    entry = change.entry
    assert entry is not None
    name = written[change.path]
    model = items[change.path]
    match entry.kind:
        case "dir":
            return Item(name, stat.S_IFDIR | entry.mode, entry.uid, entry.gid, xattrs=model.xattrs)
        case "link":
            return Item(name, stat.S_IFLNK | 0o777, entry.uid, entry.gid, model.mtime_ns, target=entry.target)
        case _:
            made = Item(name, stat.S_IFREG | entry.mode, entry.uid, entry.gid, xattrs=model.xattrs)
            if change.source == "data":
                made.data, made.size = change.data, len(change.data)
            else:
                made.data, made.size, made.mtime_ns = model.data, model.size, model.mtime_ns
                made.reopen = model.reopen
            return made


def _remove(top: Dir, path: str) -> None:
    found = top.lstat(path)
    if found is None:
        return
    if stat.S_ISDIR(found.st_mode):
        top.rmdir(path)
    else:
        top.unlink(path)


def _attributes(top: Dir, path: str, entry: ManifestEntry) -> None:
    if entry.kind == "dir":
        top.chown_chmod(path, entry.mode, entry.uid, entry.gid)
        return
    fd = top.open_file(path)
    try:
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
    finally:
        os.close(fd)
