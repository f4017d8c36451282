"""Make what is missing: entries below ROOT, jails from the skeleton, tables and records."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from typing import assert_never

from layout.actions.observe import Is, Observation
from layout.actions.populate import Tell, populate
from layout.actions.split import make_parents
from layout.core.errors import LayoutError
from layout.core.model import BaseTree, Copy, Directory, Entry, File, Identity, Platform, Symlink
from layout.host.beneath import Dir, Item, load_tree, remove_tree, write_items

NEW = ".new-"


class Maker:
    """Makes entries in the order of the plan. Trees appear under their final names only when complete."""

    def __init__(self, root: Dir, state: Dir, platform: Platform, base_kind: str, tell: Tell) -> None:
        self.root = root
        self.state = state
        self.platform = platform
        self.base_kind = base_kind
        self.tell = tell
        self._skeletons: dict[str, tuple[Dir, list[Item]]] = {}
        self._ids: dict[tuple[str, str], dict[str, int]] = {}

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
                self._one(one.entry, every)
            made.append(one.entry.path)
        return made

    def _one(self, entry: Entry, every: list[Entry]) -> None:
        match entry:
            case BaseTree(source=source):
                populate(self.root, self.state, source, self.platform, self.base_kind, self.tell)
            case Copy():
                self._tree(entry, every)
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
                top.write_whole(path, text.encode(), mode)
            case Identity():
                top.write_whole(path, f"{secrets.token_hex(16)}\n".encode(), 0o444)
            case _:
                assert_never(entry)

    def _own(self, top: Dir, entry: Directory, path: str) -> None:
        """Give a state directory its owner by the jail's own passwd and group; root where they have none."""
        jail = entry.path.split("/")[1]
        uid = self._id(jail, "passwd", entry.owner)
        gid = self._id(jail, "group", entry.group)
        with contextlib.suppress(PermissionError):  # a user namespace that does not map them
            top.chown_chmod(path, entry.mode, uid, gid)

    def _id(self, jail: str, database: str, name: str) -> int:
        known = self._ids.get((jail, database))
        if known is None:
            try:
                text = self.root.read(f"s/{jail}/etc/{database}").decode("utf-8", "replace")
            except (FileNotFoundError, LayoutError):
                text = ""
            fields = (line.split(":") for line in text.splitlines())
            known = self._ids[jail, database] = {
                f[0]: int(f[2]) for f in fields if len(f) > 2 and f[2].isdigit()
            }
        return known.get(name, 0)

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
                    write_items(self._skeleton(entry.origin), staged, clone=True)
                    self._belongings(entry, staged, every)
            except BaseException:
                remove_tree(parent, new)
                raise
            parent.sync()
            parent.rename(new, rest)

    def _belongings(self, entry: Copy, staged: Dir, every: list[Entry]) -> None:
        prefix = entry.path + "/"
        for other in every:
            if not other.path.startswith(prefix) or isinstance(other, Copy | BaseTree):
                continue
            path = other.path[len(prefix) :]
            if staged.lstat(path) is None:
                self._small(staged, other, path)

    def _skeleton(self, origin: str) -> list[Item]:
        held = self._skeletons.get(origin)
        if held is None:
            directory = self.root.open(origin)
            held = self._skeletons[origin] = (directory, load_tree(directory))
        return held[1]


def ensure_state(path: str) -> tuple[Dir, Dir, list[str]]:
    """Open ROOT and layout's state below it, making both when they are missing; mode 0700.

    Returns them with the entries that were made. Raises LayoutError, OSError.
    """
    from layout.host.beneath import open_root

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
