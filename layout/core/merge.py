"""What a change of the skeleton means for one jail's tree: a three-way merge, all of it or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from layout.core.merge_text import DATABASES, Clash, merge_text
from layout.core.mtree import ManifestEntry

Tree = Mapping[str, ManifestEntry]
Side = Literal["old", "new", "ours"]
Read = Callable[[Side, str], bytes]
"""Return the content of a file of one of the trees."""

DERIVED = frozenset({"etc/ld.so.cache", *(f"{path}-" for path in DATABASES)})
"""What programs make from other files: a jail's own stays, for its own program makes it again."""
_VOLATILE = ("tmp/", "var/cache/", "var/lib/apt/", "var/log/", "var/tmp/", "var/run/")
"""Below these only directories are given to a jail's t."""


class Change(msgspec.Struct, frozen=True):
    """One entry of the jail's tree that is to become another."""

    kind: Literal["added", "updated", "merged", "removed", "mode"]
    path: str
    entry: ManifestEntry | None
    """As it shall be; None when it is removed."""
    source: Literal["new", "ours", "data"] = "new"
    """Where the content of a file comes from: the new skeleton, the jail's own file, or `data`."""
    data: bytes = b""


class Conflict(msgspec.Struct, frozen=True):
    """Why the jail cannot have the change."""

    path: str
    reason: str


class Merge(msgspec.Struct, frozen=True):
    """What the change means: nothing of it is to be done when there is a conflict."""

    changes: tuple[Change, ...]
    conflicts: tuple[Conflict, ...]


def merge(old: Tree, new: Tree, ours: Tree, read: Read) -> Merge:
    """Bring what changed from `old` to `new` into `ours`.

    What the jail's administrator did not touch becomes as in `new`; what was changed on both sides is
    merged where that is possible. Paths only `ours` has are the jail's own, and so is what was removed from
    it. Done again, or after a part of it was done, it gives what is left to do.
    """
    changes: dict[str, Change] = {}
    conflicts: dict[str, str] = {}
    for path in sorted(old.keys() | new.keys()):
        if path == ".":
            continue
        try:
            change = _one(path, old.get(path), new.get(path), ours.get(path), read)
        except Clash as clash:
            conflicts[path] = str(clash)
        else:
            if change is not None:
                changes[path] = change
    _keep_what_is_in_use(changes, ours)
    _check_parents(changes, conflicts, ours)
    return Merge(
        tuple(changes[path] for path in sorted(changes)),
        tuple(Conflict(path, conflicts[path]) for path in sorted(conflicts)),
    )


def seeds(old: Tree, new: Tree, ours: Tree) -> tuple[Change, ...]:
    """Return what `new` has and `old` had not, for a t: given once, where nothing is; never anything else."""
    given = []
    missing: set[str] = set()
    for path in sorted(new.keys() - old.keys(), key=lambda path: path.replace("/", "\0")):
        entry = new[path]
        parent = path.rpartition("/")[0]
        there = ours.get(parent) if parent else None
        reachable = not parent or parent in missing or (there is not None and there.kind == "dir")
        if path in ours or not reachable or path == ".":
            continue
        if entry.kind != "dir" and path.startswith(_VOLATILE):
            continue
        given.append(Change("added", path, entry))
        if entry.kind == "dir":
            missing.add(path)
    return tuple(given)


def _same(one: ManifestEntry | None, other: ManifestEntry | None) -> bool:
    return _state(one) == _state(other)


def _state(entry: ManifestEntry | None) -> tuple[object, ...] | None:
    if entry is None:
        return None
    e = entry
    return (e.kind, e.mode if e.kind != "link" else 0, e.uid, e.gid, e.digest, e.target)


def _one(
    path: str, old: ManifestEntry | None, new: ManifestEntry | None, ours: ManifestEntry | None, read: Read
) -> Change | None:
    """Return what is to be done with one path, None for nothing. Raises Clash."""
    if _same(old, new) or _same(ours, new):
        return None
    if _same(ours, old):
        if new is None:
            return Change("removed", path, None)
        if ours is None:
            return Change("added", path, new)
        if ours.kind == new.kind == "dir" or (ours.digest, ours.target) == (new.digest, new.target):
            return Change("mode", path, new, "ours" if ours.kind == "file" else "new")
        return Change("updated", path, new)
    if ours is None:  # the jail's administrator took it out
        return None
    if path in DERIVED:
        return None
    if new is None:
        if ours.kind == "dir":
            return None
        raise Clash("changed in the jail and removed from the base")
    if not (new.kind == ours.kind and (old is None or old.kind == ours.kind)):
        raise Clash(f"a {_WORDS[ours.kind]} in the jail and a {_WORDS[new.kind]} in the base")
    return _both_changed(path, old, new, ours, read)


_WORDS = {"file": "file", "dir": "directory", "link": "symbolic link"}


def _both_changed(
    path: str, old: ManifestEntry | None, new: ManifestEntry, ours: ManifestEntry, read: Read
) -> Change | None:
    if new.kind == "link":
        return _both_links(path, old, new, ours)
    done = msgspec.structs.replace(
        ours,
        nlink_of="",
        mode=_either("mode", old.mode if old is not None else None, new.mode, ours.mode),
        uid=_either("uid", old.uid if old is not None else None, new.uid, ours.uid),
        gid=_either("gid", old.gid if old is not None else None, new.gid, ours.gid),
    )
    if new.kind == "dir":
        return None if _same(done, ours) else Change("mode", path, done)
    if new.digest == ours.digest or (old is not None and old.digest == new.digest):
        return None if _same(done, ours) else Change("mode", path, done, "ours")
    if old is not None and old.digest == ours.digest:
        done = msgspec.structs.replace(done, digest=new.digest, size=new.size)
        return Change("updated", path, done)
    before = read("old", path) if old is not None else b""
    mine = read("ours", path)
    data = merge_text(path, before, read("new", path), mine)
    if data == mine:
        return None if _same(done, ours) else Change("mode", path, done, "ours")
    return Change("merged", path, msgspec.structs.replace(done, size=len(data), digest=""), "data", data)


def _both_links(
    path: str, old: ManifestEntry | None, new: ManifestEntry, ours: ManifestEntry
) -> Change | None:
    if new.target != ours.target and (old is None or old.target not in (new.target, ours.target)):
        raise Clash(f"a link to {ours.target} in the jail and to {new.target} in the base")
    target = new.target if old is not None and ours.target == old.target else ours.target
    done = msgspec.structs.replace(new, target=target)
    return None if _same(done, ours) else Change("updated", path, done)


def _either(name: str, old: int | None, new: int, ours: int) -> int:
    """Return the one that changed of two numbers. Raises Clash when both did, differently."""
    if new in (old, ours):
        return ours
    if ours == old:
        return new
    raise Clash(f"{name} changed on both sides")


def _keep_what_is_in_use(changes: dict[str, Change], ours: Tree) -> None:
    """Take back the removal of directories in which something stays."""
    staying = {path for path in ours if path not in changes or changes[path].entry is not None}
    staying |= {path for path, change in changes.items() if change.entry is not None}
    needed = {path[:index] for path in staying for index, letter in enumerate(path) if letter == "/"}
    for path in needed:
        if path in changes and changes[path].entry is None:
            del changes[path]


def _check_parents(changes: Mapping[str, Change], conflicts: dict[str, str], ours: Tree) -> None:
    """Note what is added without its directory, and what replaces a directory that is in use."""
    for path, change in changes.items():
        parent = path.rpartition("/")[0]
        if change.entry is not None and parent:
            there = changes[parent].entry if parent in changes else ours.get(parent)
            if there is None or there.kind != "dir":
                conflicts.setdefault(path, "its directory was removed or replaced in the jail")
    replaced = [path for path, change in changes.items() if change.entry and change.entry.kind != "dir"]
    for path in replaced:
        if path in ours and ours[path].kind == "dir":
            below = [one for one in ours if one.startswith(f"{path}/")]
            if any(one not in changes or changes[one].entry is not None for one in below):
                conflicts.setdefault(path, "a directory in use, which is none any more in the base")
