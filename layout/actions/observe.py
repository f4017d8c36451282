"""Compare planned entries with what is there: present, missing, with another mode, or in conflict."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from enum import Enum
from types import TracebackType
from typing import assert_never

import msgspec

from layout.core.errors import LayoutError
from layout.core.model import BaseTree, Copy, Directory, Entry, File, Identity, Symlink, World
from layout.host.beneath import Dir
from layout.host.beneath.directory import kind_of


class Is(Enum):
    """How an entry compares with what is there."""

    PRESENT = "present"
    MISSING = "missing"
    MODE = "another mode or owner"
    CONFLICT = "in conflict"


class Step(msgspec.Struct, frozen=True):
    """One thing that init would do."""

    action: str
    path: str
    reason: str


class Observation(msgspec.Struct, frozen=True):
    """One entry and what was found in its place."""

    entry: Entry
    state: Is
    found: str = ""
    expected: str = ""


class Observer:
    """Looks below ROOT; keeps the directories it passes open, so that each is opened once."""

    def __init__(self, root: Dir) -> None:
        self.root = root
        self._open: dict[str, Dir | LayoutError | None] = {"": root}

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget()

    def forget(self) -> None:
        """Close what was opened: the next look is a fresh one."""
        for found in self._open.values():
            if isinstance(found, Dir) and found is not self.root:
                found.close()
        self._open = {"": self.root}

    def directory(self, path: str) -> Dir | None:
        """Return directory `path` below ROOT, None when it is missing. Raises LayoutError when it is none."""
        found = self._open.get(path)
        if isinstance(found, Dir):
            return found
        if path not in self._open:
            head, _, name = path.rpartition("/")
            try:
                parent = self.directory(head)
                self._open[path] = None if parent is None else parent.open(name)
            except FileNotFoundError:
                self._open[path] = None
            except LayoutError as error:
                self._open[path] = error
        found = self._open[path]
        if isinstance(found, LayoutError):
            raise found
        return found

    def open(self, path: str) -> Dir:
        """Open directory `path` below ROOT for the caller, who closes it. Raises as Dir.open."""
        head, _, name = path.rpartition("/")
        parent = self.directory(head)
        if parent is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.root.show(path))
        return parent.open(name)

    def look(self, entry: Entry) -> Observation:
        """Compare one entry. Raises OSError when it could not be looked at."""
        if entry.path == ".":
            return self._compare(entry, os.fstat(self.root.fd), self.root, "")
        head, _, name = entry.path.rpartition("/")
        try:
            parent = self.directory(head)
        except LayoutError as error:
            return Observation(entry, Is.CONFLICT, error.found, error.expected)
        if parent is None:
            return Observation(entry, Is.MISSING)
        found = parent.lstat(name)
        if found is None:
            return Observation(entry, Is.MISSING)
        return self._compare(entry, found, parent, name)

    def _compare(self, entry: Entry, found: os.stat_result, parent: Dir, name: str) -> Observation:
        kind = stat.S_IFMT(found.st_mode)
        match entry:
            case Directory():
                if kind != stat.S_IFDIR:
                    return _conflict(entry, found, "a directory")
                mode = stat.S_IMODE(found.st_mode)
                # A state directory is the jail's own once it is made; a skeleton is as its base was.
                if (
                    entry.owner == "root"
                    and not entry.path.startswith(("t/", "skel/"))
                    and (mode != entry.mode or found.st_uid)
                ):
                    owner = "root" if not found.st_uid else f"user {found.st_uid}"
                    return Observation(
                        entry, Is.MODE, f"mode {mode:04o}, {owner}", f"mode {entry.mode:04o}, root"
                    )
            case Symlink():
                if kind != stat.S_IFLNK:
                    return _conflict(entry, found, f"a symbolic link to {entry.target}")
                target = parent.readlink(name)
                if target != entry.target:
                    return Observation(
                        entry,
                        Is.CONFLICT,
                        f"a symbolic link to {target}",
                        f"a symbolic link to {entry.target}",
                    )
            case File() | Identity():
                # What the administrator makes of his files, links included, is his; but not a directory.
                if kind not in {stat.S_IFREG, stat.S_IFLNK}:
                    return _conflict(entry, found, "a file")
            case Copy() | BaseTree() | World():
                if kind != stat.S_IFDIR:
                    return _conflict(entry, found, "a directory")
            case _:
                assert_never(entry)
        return Observation(entry, Is.PRESENT)


def _conflict(entry: Entry, found: os.stat_result, expected: str) -> Observation:
    return Observation(entry, Is.CONFLICT, f"a {kind_of(found.st_mode)}", expected)


def observe(root: Dir | None, entries: Iterable[Entry]) -> list[Observation]:
    """Compare entries with what is below `root`; None means that there is no ROOT yet."""
    if root is None:
        return [Observation(entry, Is.MISSING) for entry in entries]
    with Observer(root) as observer:
        return [observer.look(entry) for entry in entries]


def steps(observed: Iterable[Observation]) -> list[Observation]:
    """Return what has to be done, without what comes along with a whole tree that is made anyway."""
    todo = []
    whole: list[str] = []
    for one in observed:
        if one.state is Is.PRESENT or any(one.entry.path.startswith(path) for path in whole):
            continue
        if one.state is Is.MISSING and isinstance(one.entry, Copy | BaseTree):
            whole.append(one.entry.path + "/")
            if isinstance(one.entry, BaseTree):
                whole.append("skel/")
        todo.append(one)
    return todo
