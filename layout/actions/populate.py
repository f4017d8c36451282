"""Populate mroot and the skeletons from a source: beside their final names, which they get when complete."""

from __future__ import annotations

import functools
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, assert_never

from layout.actions.split import Split, check_base, split
from layout.core import mtree
from layout.core.errors import LayoutError, UsageError
from layout.core.model import Platform
from layout.core.plan import SPLIT
from layout.host import records
from layout.host.beneath import Dir, Item, open_root, read_tree, remove_tree, write_items
from layout.host.records import BaseRecord, CommitRecord, SetuidRecord

if TYPE_CHECKING:
    from layout.host import closure

Tell = Callable[[str, int, int], None]
"""Progress: what is going on, how much is done, out of how much (0: not known)."""

BASE_RECORD = "bases/mroot.toml"
MANIFEST = "bases/mroot.mtree"
COMMIT = "commit.toml"
_STAGED = (("skel", "s"), ("skel", "t"), ("j", "mroot"))
_NEW = ".new-"


def source_kind(source: str, platform: Platform, running: Platform) -> str:
    """Return 'host', 'directory' or 'archive'. Raises UsageError for a source that cannot be one."""
    if source == "host":
        if platform is not running:
            raise UsageError(
                "--base host",
                f"a {running} host",
                f"a {platform} host",
                "give a directory or archive of the other",
            )
        return "host"
    try:
        found = os.stat(source)
    except OSError as error:
        raise UsageError(
            source, error.strerror or "an error", "a directory, an archive, or 'host'", "check --base"
        ) from None
    if stat.S_ISDIR(found.st_mode):
        with open_root(os.path.realpath(source)) as base:
            check_base(base, source)
        return "directory"
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(
            source, "neither a directory nor a regular file", "a directory, an archive, or 'host'"
        )
    return "archive"


def populate(root: Dir, state: Dir, source: str, platform: Platform, kind: str, tell: Tell) -> BaseRecord:
    """Populate the base from `source`. Raises LayoutError, UsageError, OSError; nothing has appeared then."""
    clear_staging(root, state)
    try:
        for parent, name in _STAGED:
            root.make_dir(f"{parent}/{_NEW}{name}", 0o755)
        with root.open(f"j/{_NEW}mroot") as base, root.open("skel") as halves:
            record, lines = _fill(base, state, source, platform, kind, tell)
            tell("splitting the base", 0, 0)
            check_base(base, source)
            done = split(base, halves, {half: f"{_NEW}{half}" for half in ("s", "t")}, platform)
            record = _complete(record, done)
            state.write_whole(
                f"bases/{_NEW}mroot.mtree", _manifest(lines).encode("utf-8", "surrogateescape"), 0o600
            )
            tell("writing to disk", 0, 0)
            base.sync()
    except BaseException:
        clear_staging(root, state)
        raise
    records.write(state, COMMIT, CommitRecord(record))
    commit(root, state, record)
    return record


def commit(root: Dir, state: Dir, record: BaseRecord) -> None:
    """Give what is complete its final names, the record last. Done again after a crash, it goes on."""
    for parent, name in _STAGED:
        if root.lstat(f"{parent}/{_NEW}{name}") is not None:
            root.rename(f"{parent}/{_NEW}{name}", f"{parent}/{name}")
    if state.lstat(f"bases/{_NEW}mroot.mtree") is not None:
        if state.lstat(MANIFEST) is not None:
            state.unlink(MANIFEST)
        state.rename(f"bases/{_NEW}mroot.mtree", MANIFEST)
    records.write(state, BASE_RECORD, record)
    state.unlink(COMMIT)


def clear_staging(root: Dir, state: Dir) -> int:
    """Remove what an interrupted population left, nothing under a final name; return how many entries."""
    count = 0
    for parent, name in _STAGED:
        try:
            with root.open(parent) as directory:
                count += remove_tree(directory, f"{_NEW}{name}")
        except FileNotFoundError:
            continue
    if state.lstat(f"bases/{_NEW}mroot.mtree") is not None:
        state.unlink(f"bases/{_NEW}mroot.mtree")
        count += 1
    return count


def _fill(
    base: Dir, state: Dir, source: str, platform: Platform, kind: str, tell: Tell
) -> tuple[BaseRecord, Iterable[str]]:
    match kind:
        case "archive":
            return _fill_from_archive(base, state, source, platform, tell)
        case "directory":
            left_out: Counter[str] = Counter()
            with open_root(os.path.realpath(source)) as tree:
                return _fill_from_items(base, read_tree(tree, left_out), left_out, source, platform, tell)
        case _:
            from layout.host.closure import host_base

            made = host_base(platform)
            items = sorted(_host_items(made.items), key=lambda item: item.path.split("/"))
            return _fill_from_items(base, items, Counter(), source, platform, tell, len(items))


def _fill_from_items(
    base: Dir,
    items: Iterable[Item],
    left_out: Counter[str],
    source: str,
    platform: Platform,
    tell: Tell,
    total: int = 0,
) -> tuple[BaseRecord, list[str]]:
    lines: list[str] = []
    digests: dict[str, str] = {}

    def counted() -> Iterator[Item]:
        for index, item in enumerate(items):
            if index % 64 == 0:
                tell(f"populating mroot from {source}", index, total)
            yield item
            if item.path:
                lines.append(_line(item, digests.pop(item.path, "")))

    written = write_items(
        counted(), base, digests=lambda item, digest: digests.__setitem__(item.path, digest)
    )
    os.fchmod(base.fd, 0o755)
    setuid = tuple(SetuidRecord(i.path, f"{stat.S_IMODE(i.mode):04o}", i.uid, i.gid) for i in written.setuid)
    record = BaseRecord(
        source,
        platform,
        records.now(),
        written.entries,
        written.bytes,
        left_out=dict(left_out + written.lost),
        setuid=setuid,
    )
    return record, lines


def _line(item: Item, digest: str) -> str:
    if stat.S_ISLNK(item.mode):
        return mtree.line(item.path, "link", target=item.target)
    if stat.S_ISDIR(item.mode):
        return mtree.line(item.path, "dir", stat.S_IMODE(item.mode), item.uid, item.gid)
    return mtree.line(item.path, "file", stat.S_IMODE(item.mode), item.uid, item.gid, item.size, digest)


def _host_items(items: Iterable[closure.BaseItem]) -> Iterator[Item]:
    from layout.host import closure

    for item in items:
        match item:
            case closure.BaseDirectory(path=path, mode=mode):
                yield Item(path, stat.S_IFDIR | mode)
            case closure.BaseLink(path=path, target=target):
                yield Item(path, stat.S_IFLNK | 0o777, target=target)
            case closure.BaseText(path=path, text=text, mode=mode):
                data = text.encode()
                yield Item(path, stat.S_IFREG | mode, size=len(data), data=data)
            case closure.BaseFile(path=path, source=source, mode=mode):
                reopen = functools.partial(closure.open_source, source)
                yield Item(path, stat.S_IFREG | mode, size=os.stat(source).st_size, reopen=reopen)
            case _:
                assert_never(item)


def _fill_from_archive(
    base: Dir, state: Dir, source: str, platform: Platform, tell: Tell
) -> tuple[BaseRecord, Iterable[str]]:
    from layout.host import unpack

    archive = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    manifest = state.scratch()
    try:
        label = f"unpacking {source}"
        found = unpack.unpack(
            archive, source, base.fd, manifest, progress=lambda done, total: tell(label, done, total)
        )
        os.lseek(manifest, 0, os.SEEK_SET)
        with os.fdopen(os.dup(manifest), "rb") as file:
            lines = file.read().decode("utf-8", "surrogateescape").split("\n")[1:]
    finally:
        os.close(archive)
        os.close(manifest)
    os.fchmod(base.fd, 0o755)
    left_out = dict(found.left_out)
    if found.unmapped:
        left_out["owner"] = found.unmapped
    record = BaseRecord(
        source,
        platform,
        records.now(),
        found.entries,
        found.bytes,
        left_out=left_out,
        setuid=tuple(SetuidRecord(f.path, f"{stat.S_IMODE(f.mode):04o}", f.uid, f.gid) for f in found.setuid),
    )
    return record, lines


def _complete(record: BaseRecord, done: Split) -> BaseRecord:
    import msgspec

    return msgspec.structs.replace(record, removed=done.removed, sys_directory=done.sys_directory)


def _manifest(lines: Iterable[str]) -> str:
    """Keep what stays in mroot: the skeletons belong to the jails and may change."""
    prefixes = tuple(f"./{mtree.encode(name)}" for name, _ in SPLIT)
    starts = tuple(f"{prefix}/" for prefix in prefixes)
    kept = [
        line
        for line in lines
        if line and not line.startswith(starts) and line.partition(" ")[0] not in prefixes
    ]
    return "#mtree\n" + "\n".join(kept) + "\n"


def require_base(state: Dir) -> BaseRecord:
    """Return the record of the base. Raises LayoutError when there is none."""
    record = records.read(state, BASE_RECORD, BaseRecord)
    if record is None:
        raise LayoutError(state.path, "no base", "one made by layout init", "layout init NAME")
    return record
