"""Split a populated base into mroot and the skeletons of s and t."""

from __future__ import annotations

import contextlib
import fnmatch
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from layout.core import skeleton
from layout.core.errors import LayoutError, UsageError
from layout.core.model import Directory, Platform, Symlink
from layout.core.plan import MODES, SPLIT, plan_mroot
from layout.host.beneath import Dir, put_flags, remove_tree, symlinks


@dataclass(frozen=True, slots=True)
class Split:
    """What the split did to a base."""

    removed: tuple[str, ...]
    """Secrets and identities taken out, as paths of the base."""
    sys_directory: bool


def check_base(base: Dir, source: str) -> None:
    """Make sure that a tree is a root file system that can be split. Raises UsageError."""
    for name in ("etc", "var", "root", "usr"):
        found = base.lstat(name)
        if found is not None and stat.S_ISLNK(found.st_mode):
            raise UsageError(
                source,
                f"{name} as a symbolic link to {base.readlink(name)}",
                f"a directory {name}",
                "an mroot that was split already is no base; use the tree or archive it was made from",
            )
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise UsageError(source, f"{name}, which is no directory", f"a directory {name}")
    for name in ("s", "t"):
        found = base.lstat(name)
        if found is not None and not _is_empty_directory(base, name, found.st_mode):
            raise UsageError(
                source,
                f"/{name} in use",
                f"nothing there: layout mounts the jail's own {name} at /{name}",
                "move it elsewhere in the base",
            )
    if base.lstat("etc") is None or not any(_exists(base, path) for path in ("bin/sh", "usr/bin/sh")):
        names = ", ".join(base.names()[:6]) or "nothing"
        raise UsageError(
            source,
            names,
            "a root file system with etc and bin/sh",
            "give a directory or archive of a whole base, or --base host",
        )


def _is_empty_directory(base: Dir, name: str, mode: int) -> bool:
    if not stat.S_ISDIR(mode):
        return False
    with base.open(name) as directory:
        return not directory.names()


def _exists(base: Dir, path: str) -> bool:
    try:
        return base.lstat(path) is not None
    except LayoutError:  # a link on the way: not this path then
        return False


def split(base: Dir, halves: Dir, names: dict[str, str], platform: Platform) -> Split:
    """Move what is not shared out of `base` and make links and mount points in it.

    `halves` holds the two skeleton directories that `names` maps 's' and 't' to. Raises UsageError, OSError.
    """
    _move_out(base, halves, names)
    with halves.open(names["s"]) as s, halves.open(names["t"]) as t:
        both = {"s": s, "t": t}
        removed = tuple(_scrub(both))
        _relocate(base, both)
        _keep_climbing_links(both)
    found = base.lstat("sys")
    sys_directory = platform is Platform.LINUX and found is not None and stat.S_ISDIR(found.st_mode)
    _shape(base, platform, sys_directory)
    return Split(removed, sys_directory)


def _move_out(base: Dir, halves: Dir, names: dict[str, str]) -> None:
    for name, place in SPLIT:
        half, _, below = place.partition("/")
        target = f"{names[half]}/{below}"
        found = base.lstat(name) if _parent_is_directory(base, name) else None
        if found is not None and stat.S_ISDIR(found.st_mode):
            source, _, last = name.rpartition("/")
            with base.open(source or ".") as parent:
                target_head, _, target_last = target.rpartition("/")
                with halves.open(target_head) as into:
                    parent.move(last, into, target_last)
        else:
            if found is not None:  # a link such as tmp -> var/tmp: it would lead back into t anyway
                base.unlink(name)
            halves.make_dir(target, MODES[place])


def _parent_is_directory(base: Dir, name: str) -> bool:
    head = name.rpartition("/")[0]
    if not head:
        return True
    found = base.lstat(head)
    return found is not None and stat.S_ISDIR(found.st_mode)


def tidy(s: Dir, t: Dir) -> tuple[str, ...]:
    """Treat skeletons that a session changed as the split treats new ones; return what was taken out."""
    both = {"s": s, "t": t}
    removed = tuple(_scrub(both))
    _keep_climbing_links(both)
    return removed


def _scrub(both: dict[str, Dir]) -> Iterator[str]:
    """Remove secrets and identities; yield what was removed."""
    for pattern in skeleton.SECRETS:
        half, _, place = skeleton.place_of(pattern).partition("/")
        head, _, last = place.rpartition("/")
        try:
            directory = both[half].open(head)
        except (FileNotFoundError, LayoutError):  # none, or a link to elsewhere: nothing of the base's own
            continue
        with directory:
            for name in fnmatch.filter(directory.names(), last):
                remove_tree(directory, name)
                yield f"{pattern.rpartition('/')[0]}/{name}"


def _relocate(base: Dir, both: dict[str, Dir]) -> None:
    """Move the package database out of t, where a jail could poison what the administrator runs."""
    for old, new in skeleton.RELOCATED:
        half, _, place = skeleton.place_of(old).partition("/")
        try:
            found = both[half].lstat(place)
        except (FileNotFoundError, LayoutError):
            continue
        if found is None or not stat.S_ISDIR(found.st_mode):
            continue
        head, _, last = new.rpartition("/")
        make_parents(base, new)
        source_head, _, source_last = place.rpartition("/")
        with both[half].open(source_head) as source, base.open(head) as target:
            source.move(source_last, target, last)
            source.make_link(source_last, f"/{new}")
        for path, text in skeleton.CONFIGURED:
            half, _, place = skeleton.place_of(path).partition("/")
            with contextlib.suppress(FileNotFoundError, LayoutError):  # not there, or a link to elsewhere
                both[half].write_whole(place, text.encode(), 0o644)


def make_parents(top: Dir, path: str, mode: int = 0o755) -> None:
    """Make the directories above `path` that are missing. Raises LayoutError, OSError."""
    parts = path.split("/")[:-1]
    for index in range(len(parts)):
        with contextlib.suppress(FileExistsError):
            top.make_dir("/".join(parts[: index + 1]), mode)


def put_split_flags(base: Dir, s: Dir, t: Dir, flags: Iterable[tuple[str, int]]) -> int:
    """Set the file flags of a base where its files are now; return how many could not be kept.

    Last of all: an immutable directory could not be moved, nor a link in it be changed.
    """
    tops = {"": base, "s": s, "t": t}
    lost = 0
    for path, wanted in flags:
        if not path:  # of the top: mroot has to get its name yet
            lost += 1
            continue
        half, below = skeleton.half_of(path)
        with contextlib.suppress(FileNotFoundError, LayoutError):  # taken out of the skeleton
            lost += put_flags(tops[half], [(below, wanted)])
    return lost


def _keep_climbing_links(both: dict[str, Dir]) -> None:
    helpers: dict[str, str] = {}
    for path, target in list(_links(both)):
        helper = skeleton.helper_link(path, target)
        if helper is None:
            continue
        if isinstance(helper, tuple):
            name, to = helper
            if helpers.setdefault(name, to) == to:
                continue
            helper = f"/{skeleton.resolve(path.rpartition('/')[0], target)}"
        half, _, place = skeleton.place_of(path).partition("/")
        both[half].change_link(place, helper)
    for name, to in sorted(helpers.items()):
        half, _, place = name.partition("/")
        if both[half].lstat(place) is None:
            both[half].make_link(place, to)


def _links(both: dict[str, Dir]) -> Iterator[tuple[str, str]]:
    """Yield (path in the base, target) of every symbolic link of the skeletons."""
    for name, place in SPLIT:
        half, _, below = place.partition("/")
        with both[half].open(below) as top:
            for path, target in symlinks(top):
                yield f"{name}/{path}", target


def _shape(base: Dir, platform: Platform, sys_directory: bool) -> None:
    """Make the links and mount points of mroot exactly as planned."""
    for entry in plan_mroot(platform, "", sys_directory=sys_directory):
        name = entry.path.removeprefix("j/mroot/")
        if isinstance(entry, Directory) and name != entry.path:
            _empty_directory(base, name, entry.mode)
        elif isinstance(entry, Symlink):
            make_parents(base, name)
            parent, _, last = name.rpartition("/")
            with base.open(parent or ".") as directory:
                remove_tree(directory, last)
            base.make_link(name, entry.target)


def _empty_directory(base: Dir, name: str, mode: int) -> None:
    found = base.lstat(name)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        base.unlink(name)
        found = None
    if found is None:
        base.make_dir(name, mode)
        return
    with base.open(name) as directory:
        for inner in directory.names():
            remove_tree(directory, inner)
    base.chown_chmod(name, mode, 0, 0)
