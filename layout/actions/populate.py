"""Populate mroot and the skeletons from a source: beside their final names, which they get when complete."""

from __future__ import annotations

import functools
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from msgspec import structs

from layout.actions import installed
from layout.actions.distribution import Checked, check_archive, check_open
from layout.actions.freebsd_base import check_userland, complete_var, flags_of
from layout.actions.split import Split, check_base, put_split_flags, split
from layout.actions.telling import Progress
from layout.core import mtree
from layout.core.errors import UsageError, reason_of
from layout.core.model import Platform
from layout.core.skeleton import base_path
from layout.host import hostfiles, records, table
from layout.host.beneath import Dir, Item, open_root, read_tree, remove_tree, walk, write_items
from layout.host.freebsd import sets
from layout.host.records import (
    BASE_RECORD,
    COMMIT,
    MANIFEST,
    SKELETON,
    BaseRecord,
    CapabilityRecord,
    CommitRecord,
    SetuidRecord,
)
from layout.host.site import running_platform

if TYPE_CHECKING:
    from layout.core.mtree import ManifestEntry
    from layout.host import closure
    from layout.host.beneath.hashed import Hashed


_FETCH = (
    "fetch base.txz and its MANIFEST from https://download.freebsd.org/releases/ and give --base PATH, "
    "or on FreeBSD 15 and later --base pkgbase"
)
_STAGED = (("skel", "s"), ("skel", "t"), ("j", "mroot"))
_NEW = ".new-"
_TREES = ("j", "s", "t", "skel", "manage", ".layout")


@dataclass(slots=True)
class Filled:
    """What came out of a source: its record, the hashes of its files, file flags yet to be set."""

    record: BaseRecord
    known: dict[str, tuple[int, str]]
    """Size and SHA-256 by path."""
    flags: list[tuple[str, int]] = field(default_factory=list)


def source_path(source: str) -> str:
    """Return a source as it is recorded: absolute, unless it is 'host'; 'dist' is what the installer left."""
    if source == "dist" or (source == "host" and running_platform() is Platform.FREEBSD):
        return sets.DIST
    if installed.is_installer(source):
        return installed.absolute(source)
    return source if source == "host" else hostfiles.absolute(source)


def source_kind(source: str, platform: Platform, running: Platform, root: str = "") -> str:
    """Return 'host', 'directory', 'archive' or 'installer'.

    Raises UsageError for a source that cannot be one, LayoutError for an archive that is not what its
    MANIFEST says.

    `root` is ROOT, which a directory must not contain: it would be copied into itself.
    """
    if source == "host":
        if platform is not running:
            raise UsageError(
                "--base host",
                f"a {running} host",
                f"a {platform} host",
                "give a directory or archive of the other",
            )
        return "host"
    if installed.is_installer(source):
        installed.installer(source, platform, running, root)
        return "installer"
    try:
        found = hostfiles.source(source)
    except (OSError, ValueError) as error:
        raise UsageError(
            source.replace("\0", "\\0"),
            reason_of(error) if isinstance(error, OSError) else "a path with a NUL",
            "a directory, an archive, or 'host'",
            "check --base" if source != sets.DIST else _FETCH,
        ) from None
    if stat.S_ISDIR(found.st_mode):
        path = hostfiles.canonical(source)
        _refuse_own_trees(source, path, root)
        _refuse_mounts(source, path)
        with open_root(path) as base:
            check_base(base, source)
            if platform is Platform.FREEBSD:
                check_userland(base, source)
        return "directory"
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(
            source, "neither a directory nor a regular file", "a directory, an archive, or 'host'"
        )
    if platform is Platform.FREEBSD:
        check_archive(source)
    return "archive"


def _refuse_own_trees(source: str, path: str, root: str) -> None:
    below = path.rstrip("/") + "/"
    if root and (
        root == path
        or root.startswith(below)
        or any(f"{path}/".startswith(f"{root}/{tree}/") for tree in _TREES)
    ):
        raise UsageError(
            source,
            f"a directory that holds {root} or is part of it",
            "a base of its own",
            "copy it elsewhere, or give the archive that it was made from",
        )


def _refuse_mounts(source: str, path: str) -> None:
    """Refuse mounts inside, of single files as well: what they hide or show is not the base's own."""
    for mount in table.read(path):
        if mount.target != path:
            raise UsageError(
                source,
                f"a mount inside, at {mount.target}",
                "a tree without mounts",
                f"umount {mount.target}, or give a copy",
            )


def populate(root: Dir, state: Dir, source: str, platform: Platform, kind: str, tell: Progress) -> BaseRecord:
    """Populate what is missing of the base from `source`: mroot, skel/s, skel/t.

    Raises LayoutError, UsageError, OSError; nothing has appeared then.
    """
    clear_staging(root, state)
    keep = tuple(path for path in map("/".join, _STAGED) if root.lstat(path) is not None)
    try:
        for parent, name in _STAGED:
            root.make_dir(f"{parent}/{_NEW}{name}", 0o755)
        with root.open(f"j/{_NEW}mroot") as base, root.open("skel") as halves:
            if kind == "installer":
                filled = fill_from_installer(root, base, state, source, platform, tell)
            else:
                filled = fill(base, state, source, platform, kind, tell)
            # Whoever owned the top of the source: in the jail it is /.
            os.fchown(base.fd, 0, 0)
            os.fchmod(base.fd, 0o755)
            tell("splitting the base", 0, 0)
            check_base(base, source)
            if platform is Platform.FREEBSD:
                check_userland(base, source)
            done = split(base, halves, {half: f"{_NEW}{half}" for half in ("s", "t")}, platform)
            with halves.open(f"{_NEW}s") as s, halves.open(f"{_NEW}t") as t:
                if platform is Platform.FREEBSD:
                    flags = complete_var(s, t)
                    filled.flags += flags if running_platform() is platform else []
                lost = put_split_flags(base, s, t, filled.flags)
            record = _complete(filled.record, done, lost)
            tell("writing the manifest", 0, 0)
            with halves.open(f"{_NEW}s") as s, halves.open(f"{_NEW}t") as t:
                record = structs.replace(record, capable=capable(base, s))
                _write_manifests(state, base, s, t, filled.known)
            tell("writing to disk", 0, 0)
            base.sync()
    except BaseException:
        clear_staging(root, state)
        raise
    complete = CommitRecord(record, keep)
    records.write(state, COMMIT, complete)
    commit(root, state, complete)
    return record


def commit(root: Dir, state: Dir, complete: CommitRecord) -> None:
    """Give what is complete its final names, the record last. Done again after a crash, it goes on."""
    for parent, name in _STAGED:
        staged = f"{parent}/{_NEW}{name}"
        if f"{parent}/{name}" in complete.keep:
            with root.open(parent) as directory:
                remove_tree(directory, f"{_NEW}{name}")
        elif root.lstat(staged) is not None:
            root.rename(staged, f"{parent}/{name}")
    _commit_manifest(state, MANIFEST, keep="j/mroot" in complete.keep)
    _commit_manifest(state, SKELETON, keep=not {"skel/s", "skel/t"}.isdisjoint(complete.keep))
    if "j/mroot" not in complete.keep:
        records.write(state, BASE_RECORD, complete.base)
    state.unlink(COMMIT)


def _commit_manifest(state: Dir, path: str, *, keep: bool) -> None:
    staged = _staged(path)
    if state.lstat(staged) is None:
        return
    if keep:
        state.unlink(staged)
        return
    if state.lstat(path) is not None:
        state.unlink(path)
    state.rename(staged, path)


def _staged(path: str) -> str:
    head, _, name = path.rpartition("/")
    return f"{head}/{_NEW}{name}"


def finish_commit(root: Dir, state: Dir) -> bool:
    """Finish a base whose population was complete when it was interrupted; say whether there was one."""
    complete = records.read(state, COMMIT, CommitRecord)
    if complete is None:
        return False
    commit(root, state, complete)
    return True


def clear_staging(root: Dir, state: Dir) -> int:
    """Remove what an interrupted population left, nothing under a final name; return how many entries."""
    count = 0
    for parent, name in _STAGED:
        try:
            with root.open(parent) as directory:
                count += remove_tree(directory, f"{_NEW}{name}")
        except FileNotFoundError:
            continue
    for manifest in map(_staged, (MANIFEST, SKELETON)):
        if state.lstat(manifest) is not None:
            state.unlink(manifest)
            count += 1
    return count + installed.clear(state)


def fill(base: Dir, state: Dir, source: str, platform: Platform, kind: str, tell: Progress) -> Filled:
    """Fill an empty directory from a source that is no installer. Raises LayoutError, OSError."""
    match kind:
        case "archive":
            return _fill_from_archive(base, state, source, platform, tell)
        case "directory":
            left_out: Counter[str] = Counter()
            with open_root(hostfiles.canonical(source)) as tree:
                return _fill_from_items(base, read_tree(tree, left_out), left_out, source, platform, tell)
        case _:
            items = host_items(platform)
            return _fill_from_items(base, items, Counter(), source, platform, tell, len(items))


def fill_from_installer(
    root: Dir,
    base: Dir,
    state: Dir,
    source: str,
    platform: Platform,
    tell: Progress,
    place: str = installed.PLACE,
) -> Filled:
    """Let a program of the host fill an empty directory, `place` below ROOT. Raises LayoutError."""
    tell(f"installing {source}", 0, 0)
    made = installed.installer(source, platform, running_platform(), root.path, place)
    found = installed.install(made, base, state)
    setuid = tuple(SetuidRecord(path, f"{mode:04o}", uid, gid) for path, mode, uid, gid in found.setuid)
    record = BaseRecord(source, platform, records.now(), found.entries, found.bytes, setuid=setuid)
    return Filled(record, {}, found.flags)


def _fill_from_items(
    base: Dir,
    items: Iterable[Item],
    left_out: Counter[str],
    source: str,
    platform: Platform,
    tell: Progress,
    total: int = 0,
) -> Filled:
    known: dict[str, tuple[int, str]] = {}

    def counted() -> Iterator[Item]:
        for index, item in enumerate(items):
            if index % 64 == 0:
                tell(f"copying {source}", index, total)
            yield item

    written = write_items(
        counted(),
        base,
        digests=lambda item, digest: known.__setitem__(item.path, (item.size, digest)),
        hold_flags=True,
    )
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
    return Filled(record, known, written.flags)


def host_items(platform: Platform) -> list[Item]:
    """Return the small base made of the host's own programs, parents first."""
    from layout.host.closure import host_base

    return sorted(_host_items(host_base(platform).items), key=lambda item: item.path.split("/"))


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
                size = hostfiles.source(source).st_size
                yield Item(path, stat.S_IFREG | mode, size=size, reopen=reopen)
            case _:
                assert_never(item)


def _fill_from_archive(base: Dir, state: Dir, source: str, platform: Platform, tell: Progress) -> Filled:
    from layout.host import unpack

    archive = hostfiles.open_regular(source)
    manifest = state.scratch()
    try:
        checked = check_open(archive, source) if platform is Platform.FREEBSD else Checked("")
        label = f"unpacking {source}"
        found = unpack.unpack(
            archive, source, base.fd, manifest, progress=lambda done, total: tell(label, done, total)
        )
        os.lseek(manifest, 0, os.SEEK_SET)
        with os.fdopen(os.dup(manifest), "rb") as file:
            known = mtree.digests(file.read())
    finally:
        os.close(archive)
        os.close(manifest)
    left_out = dict(found.left_out)
    flags = []
    if found.flags and running_platform() is Platform.FREEBSD:
        left_out["flags"] -= len(found.flags)
        flags = [
            ("" if path == "." else path, value)
            for path, names in found.flags
            if (value := flags_of(names.split(",")))
        ]
    if found.unmapped:
        left_out["owner"] = found.unmapped
    record = BaseRecord(
        source,
        platform,
        records.now(),
        found.entries,
        found.bytes,
        left_out={kind: count for kind, count in left_out.items() if count},
        setuid=tuple(
            SetuidRecord(f.path, f"{stat.S_IMODE(f.mode):04o}", f.uid, f.gid)
            for f in found.setuid
            if f.kind == "file" and f.mode & 0o6000  # not directories, whose setgid bit is about groups
        ),
        sha256=checked.sha256,
        notes=checked.notes,
    )
    return Filled(record, known, flags)


def _complete(record: BaseRecord, done: Split, lost_flags: int) -> BaseRecord:
    left_out = Counter(record.left_out) + Counter({"file flag": lost_flags})
    return structs.replace(
        record, removed=done.removed, sys_directory=done.sys_directory, left_out=dict(left_out)
    )


def capable(base: Dir, s: Dir) -> tuple[CapabilityRecord, ...]:
    """Return the programs with capabilities in mroot and in a half of a jail, by their paths in the base."""
    found = {path: value for path, _, value in walk(base, trusted=True).capable}
    for below, _, value in walk(s, trusted=True).capable:
        found[base_path(f"s/{below}")] = value
    return tuple(CapabilityRecord(path, value.hex()) for path, value in sorted(found.items()))


def _write_manifests(state: Dir, base: Dir, s: Dir, t: Dir, known: dict[str, tuple[int, str]]) -> None:
    """Write what mroot and skel are now, after the split: what every later look is compared with."""
    from layout.host.beneath.hashed import hashed

    trees = {
        MANIFEST: list(hashed(base, known).entries.values()),
        SKELETON: skeleton_entries(hashed(s), hashed(t)),
    }
    for path, entries in trees.items():
        text = mtree.text(entries).encode("utf-8", "surrogateescape")
        state.write_whole(_staged(path), text, 0o600)


def skeleton_entries(s: Hashed, t: Hashed) -> list[ManifestEntry]:
    """Return the entries of skel, from those of its two halves."""
    entries = [mtree.ManifestEntry(".", "dir", 0o755, 0, 0)]
    for half, tree in (("s", s), ("t", t)):
        for path, entry in tree.entries.items():
            below = half if path == "." else f"{half}/{path}"
            first = f"{half}/{entry.nlink_of}" if entry.nlink_of else ""
            entries.append(structs.replace(entry, path=below, nlink_of=first))
    return entries
