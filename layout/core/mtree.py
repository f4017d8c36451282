"""The manifest of a tree in mtree(5) format, as mtree(8) of NetBSD and FreeBSD reads it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, assert_never

import msgspec

from layout.core.errors import LayoutError
from layout.core.findings import Finding, error

HEADER = b"#mtree\n"
HARDLINK = b"# hardlink "
"""Starts a comment `# hardlink NAME TARGET` before a hard link's own line: mtree(5) has no word for it."""

_SAFE = bytes(set(range(0x21, 0x7F)) - set(b"#\\*?[]="))
_KINDS: dict[bytes, Literal["file", "dir", "link"]] = {b"file": "file", b"dir": "dir", b"link": "link"}
_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
_GLOB = re.compile(rb"[*?\[]")
_GLOB_OR_BACKSLASH = re.compile(rb"([\\*?\[])")
_BACKSLASHED = re.compile(rb"\\(.)", re.DOTALL)
_OCTAL = re.compile(rb"\\([0-7]{3})")
_LINE = re.compile(
    rb"(?P<path>\S+) type=(?P<kind>file|dir|link) mode=(?P<mode>[0-7]{4,5}) uid=(?P<uid>\d+) gid=(?P<gid>\d+)"
    rb"(?: size=(?P<size>\d+) sha256digest=(?P<digest>[0-9a-f]{64})| link=(?P<link>\S+))?"
)


class ManifestEntry(msgspec.Struct, frozen=True):
    """One line of a manifest, decoded."""

    path: str
    """Relative, "." for the root; surrogateescape for what is not UTF-8."""
    kind: Literal["file", "dir", "link"]
    mode: int
    uid: int
    gid: int
    size: int = 0
    digest: str = ""
    """SHA-256 of the content in hexadecimal digits; "" unless a file."""
    target: str = ""
    """Of a symbolic link, as written."""
    nlink_of: str = ""
    """The path of the archive's that this file was linked to when it was unpacked; both are the same file."""


def encode_name(name: bytes) -> bytes:
    """Write a name as vis(3) does in octal mode: \\ooo for what is special, a glob or unprintable."""
    if not name.translate(None, _SAFE):
        return name
    return b"".join(b"%c" % byte if byte in _SAFE else b"\\%03o" % byte for byte in name)


def decode_name(text: bytes) -> bytes:
    """Undo encode_name."""
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), text)


def encode_path(path: bytes) -> bytes:
    """Write a path so that mtree finds this file and no other.

    mtree decodes a name and then takes it for a pattern of fnmatch(3) when it has one of `*?[`: such a name
    gets its backslashes first.
    """
    if not path.translate(None, _SAFE):
        return path
    return b"/".join(
        encode_name(_GLOB_OR_BACKSLASH.sub(rb"\\\1", part) if _GLOB.search(part) else part)
        for part in path.split(b"/")
    )


def decode_path(text: bytes) -> bytes:
    """Undo encode_path."""
    parts = (decode_name(part) for part in text.split(b"/"))
    return b"/".join(_BACKSLASHED.sub(rb"\1", part) if _GLOB.search(part) else part for part in parts)


def parse_manifest(data: bytes, path: str) -> Iterator[ManifestEntry]:
    """Yield the entries of a manifest that layout wrote; `path` names it in errors.

    Raises LayoutError for any line that layout would not write.
    """
    lines = data.splitlines(keepends=True)
    if not lines or lines[0] != HEADER:
        raise LayoutError(path, "a file without #mtree in its first line", "a manifest")
    original = b""
    for number, line in enumerate(lines[1:], start=2):
        if line.startswith(HARDLINK):
            words = line.split(b" ")
            if original or len(words) != 4 or not line.endswith(b"\n"):
                raise LayoutError(path, f"{line[:80]!r} in line {number}", "a line of a manifest")
            original = words[3].rstrip(b"\n")
            continue
        match = _LINE.fullmatch(line.rstrip(b"\n"))
        if match is None or not line.endswith(b"\n"):
            raise LayoutError(path, f"{line[:80]!r} in line {number}", "a line of a manifest")
        kind = _KINDS[match["kind"]]
        if (kind == "file") != (match["size"] is not None) or (kind == "link") != (match["link"] is not None):
            raise LayoutError(path, f"{line[:80]!r} in line {number}", "a line of a manifest")
        yield ManifestEntry(
            path=_text(match["path"]),
            kind=kind,
            mode=int(match["mode"], 8),
            uid=int(match["uid"]),
            gid=int(match["gid"]),
            size=int(match["size"] or 0),
            digest=(match["digest"] or b"").decode(),
            target=decode_name(match["link"] or b"").decode("utf-8", "surrogateescape"),
            nlink_of=_text(original) if original else "",
        )
        original = b""


def digests(data: bytes) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of the files of a manifest just written, by path: quicker than to parse it."""
    found = {}
    for line in data.split(b"\n"):
        if b" type=file " in line:
            name, _, rest = line.partition(b" ")
            size = rest.rpartition(b" size=")[2].partition(b" ")[0]
            found[_text(name)] = (int(size), rest[-64:].decode())
    return found


def rests(data: bytes) -> dict[str, bytes]:
    """Return what a manifest says of each path, as it is written there: quicker than to parse it."""
    found = {}
    for line in data.split(b"\n"):
        if line[:1] == b".":
            name, _, rest = line.partition(b" ")
            path = _text(name) if b"\\" in name else name[2:].decode("utf-8", "surrogateescape")
            found[path or "."] = rest
    return found


def told(found: os.stat_result, target: str) -> bytes:
    """Return what the manifest of an entry as it is now would say, but for the digest of a file.

    Of what no manifest has, nothing.
    """
    mode = found.st_mode
    kind = _TYPES.get(stat.S_IFMT(mode))
    if kind is None:
        return b""
    text = f"type={kind} mode={mode & 0o7777:04o} uid={found.st_uid} gid={found.st_gid}"
    if kind == "link":
        return text.encode() + b" link=" + encode_name(os.fsencode(target))
    return f"{text} size={found.st_size} sha256digest=".encode() if kind == "file" else text.encode()


def _text(encoded: bytes) -> str:
    name = decode_path(encoded)
    if name[:2] == b"./":
        name = name[2:]
    return name.decode("utf-8", "surrogateescape")


def line(
    path: str,
    kind: Literal["file", "dir", "link"],
    mode: int = 0o777,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    digest: str = "",
    target: str = "",
) -> str:
    """Return the line of one entry. `path` is relative; `digest` is the SHA-256 of a file in hexadecimal."""
    name = "." if path == "." else f"./{encode_path(os.fsencode(path)).decode()}"
    match kind:
        case "dir":
            return f"{name} type=dir mode={mode:04o} uid={uid} gid={gid}"
        case "link":
            link = encode_name(os.fsencode(target)).decode()
            return f"{name} type=link mode={mode:04o} uid={uid} gid={gid} link={link}"
        case "file":
            return f"{name} type=file mode={mode:04o} uid={uid} gid={gid} size={size} sha256digest={digest}"
        case _:
            assert_never(kind)


def text(entries: Iterable[ManifestEntry]) -> str:
    """Return the manifest of these entries, parents before what is in them."""
    lines = [HEADER.decode().rstrip("\n")]
    for entry in entries:
        if entry.nlink_of:
            name, target = (encode_path(os.fsencode(path)).decode() for path in (entry.path, entry.nlink_of))
            lines.append(f"{HARDLINK.decode()}./{name} ./{target}")
        lines.append(line_of(entry))
    return "\n".join([*lines, ""])


def line_of(entry: ManifestEntry) -> str:
    """Return the line of one entry."""
    e = entry
    return line(e.path, e.kind, e.mode, e.uid, e.gid, e.size, e.digest, e.target)


def differences(
    wanted: Mapping[str, ManifestEntry], seen: Mapping[str, ManifestEntry], top: str
) -> Iterator[Finding]:
    """Yield what is not as in the manifest; `top` is the path of the tree, for messages."""
    for path in sorted(wanted.keys() | seen.keys()):
        old, new = wanted.get(path), seen.get(path)
        where = top if path == "." else f"{top}/{path}"
        if new is None and old is not None:
            yield error("S9-missing", where, "nothing", f"the {_WORDS[old.kind]} of the manifest", _RESTORE)
        elif old is None and new is not None:
            yield error("S9-extra", where, f"a {_WORDS[new.kind]}", "nothing: not in the manifest", _ACCEPT)
        elif old is not None and new is not None and (found := _changed(old, new)):
            yield error("S9-changed", where, *found, _RESTORE)


_WORDS = {"file": "file", "dir": "directory", "link": "symbolic link"}
_RESTORE = "restore it, or accept what is there now: layout base verify --update"
_ACCEPT = "remove it, or accept what is there now: layout base verify --update"


def _changed(old: ManifestEntry, new: ManifestEntry) -> tuple[str, str] | None:
    """Return what is found and what was expected, in the words of mtree(5), or None: the same."""
    if old.kind != new.kind:
        return f"a {_WORDS[new.kind]}", f"a {_WORDS[old.kind]}"
    found, expected = [], []
    for word, ours, theirs in (
        ("mode", f"{old.mode:04o}", f"{new.mode:04o}"),
        ("uid", old.uid, new.uid),
        ("gid", old.gid, new.gid),
        ("size", old.size, new.size),
        ("link", old.target, new.target),
        ("sha256", old.digest, new.digest),
    ):
        if ours != theirs:
            found.append(f"{word}={theirs}")
            expected.append(f"{word}={ours}")
    return (" ".join(found), " ".join(expected)) if found else None
