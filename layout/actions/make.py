"""Make what is missing: entries below ROOT, jails from the skeleton, tables and records."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable
from typing import assert_never

from layout.actions.observe import Is, Observation
from layout.actions.populate import clear_staging, populate
from layout.actions.split import make_parents
from layout.actions.telling import Progress
from layout.core.errors import LayoutError
from layout.core.model import BaseTree, Copy, Directory, Entry, File, Identity, Platform, Symlink, World
from layout.host.beneath import Dir, Item, load_tree, open_root, put_flags, remove_tree, write_items
from layout.host.records import COMMIT

NEW = ".new-"
_DIGITS = 9
"""So many at most: a number that every chown(2) takes."""
_NO_ID = 0xFFFFFFFF
"""(uid_t)-1 means "leave it" to chown(2): nobody can have it."""


class Maker:
    """Makes entries in the order of the plan. Trees appear under their final names only when complete."""

    def __init__(self, root: Dir, state: Dir, platform: Platform, base_kind: str, tell: Progress) -> None:
        self.root = root
        self.state = state
        self.platform = platform
        self.base_kind = base_kind
        self.tell = tell
        self._skeletons: dict[str, tuple[Dir, list[Item]]] = {}
        self._ids: dict[tuple[str, str], dict[str, int]] = {}
        self._undo: list[Entry] = []

    def close(self) -> None:
        """Let go of the skeletons."""
        for directory, _ in self._skeletons.values():
            directory.close()
        self._skeletons.clear()

    def make(self, todo: Iterable[Observation], entries: Iterable[Entry]) -> list[str]:
        """Make what `todo` says; `entries` is the whole plan, for what comes along with a tree.

        Returns the paths of what was made. Raises LayoutError, OSError.
        """
        made: list[str] = []
        every = list(entries)
        for one in todo:
            if one.state is Is.MODE and isinstance(one.entry, Directory):
                self.root.chown_chmod(one.entry.path, one.entry.mode, 0, 0)
            else:
                self._undo.append(one.entry)  # before: an interrupt may come right after the mkdir
                self._one(one.entry, every)
            made.append(one.entry.path)
        return made

    def settle(self) -> None:
        """Keep what was made so far, whatever happens next."""
        self._undo.clear()

    def undo(self) -> None:
        """Take away what was made since `settle`: nobody has seen it yet, and nothing is mounted there."""
        for entry in reversed(self._undo):
            head, _, name = entry.path.rpartition("/")
            with contextlib.suppress(OSError, LayoutError), self.root.open(head or ".") as parent:
                match entry:
                    case Directory():
                        parent.rmdir(name)
                    case Copy() | World():
                        remove_tree(parent, name)
                    case Symlink() | File() | Identity():
                        parent.unlink(name)
                    case BaseTree():
                        pass
                    case _:
                        assert_never(entry)
        self._undo.clear()

    def _one(self, entry: Entry, every: list[Entry]) -> None:
        match entry:
            case BaseTree(path=path, source=source):
                if self.root.lstat(path) is None:  # one population makes mroot and both skeletons
                    populate(self.root, self.state, source, self.platform, self.base_kind, self.tell)
            case Copy():
                self._tree(entry, every)
            case World():
                from layout.actions.kinds.world import make_world

                make_world(self.root, self.state, entry, self.tell)
            case Directory() | Symlink() | File() | Identity():
                self._small(self.root, entry, entry.path)
            case _:
                assert_never(entry)

    def _small(self, top: Dir, entry: Directory | Symlink | File | Identity, path: str) -> None:
        match entry:
            case Directory():
                make_parents(top, path)
                top.make_dir(path, entry.mode)
                if (entry.owner, entry.group) != ("root", "root"):
                    self._own(top, entry, path)
            case Symlink(target=target):
                make_parents(top, path)
                top.make_link(path, target)
            case File(text=text, mode=mode):
                self._write(top, path, text, mode)
            case Identity():
                self._write(top, path, f"{secrets.token_hex(16)}\n", 0o444)
            case _:
                assert_never(entry)

    def _write(self, top: Dir, path: str, text: str, mode: int) -> None:
        make_parents(top, path)
        head, _, name = path.rpartition("/")
        with top.open(head or ".") as parent:
            parent.sweep(name)
            # A tree that is being made is on disk, all of it, before it gets its name.
            parent.write_whole(name, text.encode(), mode, durable=top is self.root)

    def _own(self, top: Dir, entry: Directory, path: str) -> None:
        """Give a state directory its owner by the jail's own passwd and group; root where they have none."""
        jail = entry.path.split("/")[1]
        uid = self._id(jail, "passwd", entry.owner)
        gid = self._id(jail, "group", entry.group)
        try:
            top.chown_chmod(path, entry.mode, uid, gid)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EINVAL}:  # a user namespace that does not map them
                raise

    def _id(self, jail: str, database: str, name: str) -> int:
        known = self._ids.get((jail, database))
        if known is None:
            known = self._ids[jail, database] = ids_of(self.root, jail, database)
        # A jail without accounts has its owners by number.
        return known.get(name, int(name) if name.isdigit() and len(name) <= _DIGITS else 0)

    def _tree(self, entry: Copy, every: list[Entry]) -> None:
        """Copy a skeleton beside its final place, with all that belongs into it, then give it its name."""
        half, _, rest = entry.path.partition("/")
        new = f"{NEW}{rest.replace('/', '.')}"
        with self.root.open(half) as parent:
            remove_tree(parent, new)
            self.tell(f"making {entry.path}", 0, 0)
            parent.make_dir(new, 0o700)
            try:
                with parent.open(new) as staged:
                    written = write_items(self._skeleton(entry.origin), staged, clone=True, hold_flags=True)
                    self._belongings(entry, staged, every)
                    put_flags(staged, [(path, flags) for path, flags in written.flags if path])
                    parent.sync()
                    parent.rename(new, rest)
                    # The top's own come last: what is immutable cannot be renamed.
                    put_flags(staged, [(path, flags) for path, flags in written.flags if not path])
            except BaseException:
                remove_tree(parent, new)
                raise

    def _belongings(self, entry: Copy, staged: Dir, every: list[Entry]) -> None:
        prefix = entry.path + "/"
        for other in every:
            if not other.path.startswith(prefix) or isinstance(other, Copy | BaseTree | World):
                continue
            path = other.path[len(prefix) :]
            if staged.lstat(path) is None:
                self._small(staged, other, path)

    def _skeleton(self, origin: str) -> list[Item]:
        held = self._skeletons.get(origin)
        if held is None:
            directory = self.root.open(origin)
            try:
                held = self._skeletons[origin] = (directory, load_tree(directory))
            except BaseException:
                directory.close()
                raise
        return held[1]


def ids_of(root: Dir, jail: str, database: str) -> dict[str, int]:
    """Return the numbers in the passwd or group of a jail, by name; nothing of one that cannot be read."""
    try:
        text = root.read(f"s/{jail}/etc/{database}").decode("utf-8", "replace")
    except (FileNotFoundError, LayoutError):
        return {}
    fields = (line.split(":") for line in text.splitlines())
    return {
        f[0]: int(f[2])
        for f in fields
        if len(f) > 2 and f[2].isascii() and f[2].isdigit() and len(f[2]) <= 10 and int(f[2]) < _NO_ID
    }


def clean(root: Dir, state: Dir, etc: str) -> list[str]:
    """Remove what a run that was killed left unfinished, nothing under a final name; say what, in words.

    The caller holds the lock, so what looks unfinished is not being worked on. Raises LayoutError, OSError.
    """
    done = []
    if state.lstat(COMMIT) is None and (removed := clear_staging(root, state)):
        done.append(f"base: {removed} entries of an unfinished population removed")
    for half in ("s", "t"):
        with contextlib.suppress(FileNotFoundError), root.open(half) as parent:
            for name in parent.names():
                if name.startswith(NEW):
                    remove_tree(parent, name)
                    done.append(f"{half}/{name[5:]}: an unfinished copy removed; layout init makes it anew")
    count = 0
    for top, path in ((state, "."), (state, "jails"), (state, "bases"), (None, f"{etc}/fstab.d")):
        with (
            contextlib.suppress(FileNotFoundError),
            top.open(path) if top is not None else open_root(path) as directory,
        ):
            count += directory.sweep()
    if count:
        done.append(f"{count} half-written files removed")
    return done


def ensure_state(path: str) -> tuple[Dir, Dir, list[str]]:
    """Open ROOT and layout's state below it, making both when they are missing; mode 0700.

    Returns them with the entries that were made. Raises LayoutError, OSError.
    """
    made = []
    head, _, name = path.rpartition("/")
    with open_root(head or "/") as parent:
        with contextlib.suppress(FileExistsError):
            parent.make_dir(name, 0o700)
            made.append(".")
        root = parent.open(name)
    root.path = path
    try:
        with contextlib.suppress(FileExistsError):
            root.make_dir(".layout", 0o700)
            made.append(".layout")
        os.fchmod(root.fd, os.fstat(root.fd).st_mode & 0o7777)  # read-only file systems are found out here
        state = root.open(".layout")
    except BaseException:
        root.close()
        raise
    return root, state, made
