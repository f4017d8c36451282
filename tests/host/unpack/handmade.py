"""Archives made by hand, byte by byte, where no tool would make them; and a desk to unpack them on."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layout.core.mtree import ManifestEntry, parse_manifest
from layout.host.unpack import Unpacked, unpack

END = bytes(1024)


def header(
    name: bytes,
    size: int = 0,
    flag: bytes = b"0",
    *,
    link: bytes = b"",
    mode: bytes = b"0000644",
    uid: bytes = b"0000000",
    mtime: bytes = b"14000000000",
    size_field: bytes = b"",
) -> bytes:
    """One ustar header with a right checksum, whatever else is wrong with it."""
    block = (
        name.ljust(100, b"\0")[:100]
        + (mode + b"\0" + uid + b"\0" + b"0000000\0")
        + (size_field or b"%011o\0" % size)
        + (mtime + b"\0" + b" " * 8 + flag)
        + link.ljust(100, b"\0")[:100]
        + b"ustar\00000"
    ).ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def member(name: bytes, data: bytes = b"", flag: bytes = b"0", **more: bytes) -> bytes:
    """A header with its content and padding."""
    return header(name, len(data), flag, **more) + data + bytes(-len(data) % 512)


def pax(records: dict[bytes, bytes], flag: bytes = b"x") -> bytes:
    """An extended header."""
    out = b""
    for key, value in records.items():
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        while length != len(rest) + len(str(length)):
            length = len(rest) + len(str(length))
        out += b"%d" % length + rest
    return member(b"PaxHeaders/x", out, flag)


def long_name(name: bytes, flag: bytes = b"L") -> bytes:
    """GNU tar's long name."""
    return member(b"././@LongLink", name + b"\0", flag)


def listing(top: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything about everything in a tree that an archive can carry; times of directories included."""
    found: dict[bytes, tuple[object, ...]] = {}
    root = os.fsencode(top)
    for where, dirs, files in os.walk(root):
        for name in (*dirs, *files, b"."):
            path = os.path.normpath(os.path.join(where, name))
            stat = os.lstat(path)
            link = os.path.islink(path)
            content: object = os.readlink(path) if link else None
            if os.path.isfile(path) and not link:
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in _xattrs(path)}
            nlink = 0 if os.path.isdir(path) else stat.st_nlink
            found[os.path.relpath(path, root)] = (
                oct(stat.st_mode),
                stat.st_uid,
                stat.st_gid,
                stat.st_mtime_ns,
                nlink,
                content,
                xattrs,
            )
    return found


def _xattrs(path: bytes) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


@dataclass
class Desk:
    """Where one test unpacks, beside something that must not change."""

    top: Path
    tree: Path
    manifest: Path
    victim: Path

    def unpack(self, archive: bytes | Path, **more: Any) -> Unpacked:
        """Unpack into the tree; the victim is compared by the fixture."""
        if isinstance(archive, bytes):
            (self.top / "made.tar").write_bytes(archive)
            archive = self.top / "made.tar"
        self.tree.mkdir(mode=0o700, exist_ok=True)
        fds = [os.open(archive, os.O_RDONLY), os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY)]
        fds.append(os.open(self.manifest, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        try:
            return unpack(fds[0], "base.tar", fds[1], fds[2], **more)
        finally:
            for fd in fds:
                os.close(fd)

    def entries(self) -> dict[str, ManifestEntry]:
        """The manifest, by path."""
        return {entry.path: entry for entry in parse_manifest(self.manifest.read_bytes(), str(self.manifest))}
