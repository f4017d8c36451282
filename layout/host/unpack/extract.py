"""Write an archive's entries below the root of a confined child: by descriptor, never through a symlink.

The staging directory must be empty and nobody else's: then all that is below it came from this archive, and
what is known of it here is so on disk. O_NOFOLLOW stays all the same. Sources: openat(2), link(2), xattr(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from layout.core.errors import LayoutError, reason_of
from layout.core.mtree import HARDLINK, HEADER, encode_name, encode_path
from layout.host.unpack.chain import Chain
from layout.host.unpack.digests import Aside
from layout.host.unpack.report import ArchiveError, Done
from layout.host.unpack.tarstream import Entry, TarReader

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Extractor"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = b"security.capability"
_DIRECTORY = b""  # in Extractor._lines, until the end tells its mode and owner
_ASIDE = 1 << 13  # files from this size on are worth handing to the hashing thread


class _Metadata:
    """What a directory gets at the end, when nothing is written into it any more."""

    __slots__ = ("entry", "gid", "mode", "mtime", "uid")

    def __init__(self, entry: Entry | None = None) -> None:
        self.mode = entry.mode if entry else 0o755
        self.uid = entry.uid if entry else 0
        self.gid = entry.gid if entry else 0
        self.mtime = entry.mtime if entry else None
        self.entry = entry if entry and entry.extra else None


class Extractor:
    """One run over one archive, in a process whose root is the staging directory and whose umask is 0."""

    def __init__(self, reader: TarReader, *, thread: bool) -> None:
        """`thread` is for an archive that comes in faster than one processor hashes."""
        self._reader = reader
        self._thread = thread
        self._dirs: dict[bytes, _Metadata] = {b".": _Metadata()}
        # Everything made, in the archive's order: the path, and its manifest line without the name. A hash
        # that still runs stands for its digest.
        self._lines: dict[bytes, bytes | tuple[bytes, _Hash]] = {b".": _DIRECTORY}
        self._hardlinks: dict[bytes, tuple[bytes, int]] = {}
        self._replaced: Counter[bytes] = Counter()
        self._left_out: Counter[str] = Counter()
        self._setuid: dict[bytes, tuple[Literal["file", "dir"], int, int, int, bool]] = {}
        self._flags: dict[bytes, bytes] = {}
        self._unmapped = 0
        self._entries = 0
        self._bytes = 0

    def run(self, manifest_fd: int) -> Done:
        """Make everything, then write the manifest. Raise LayoutError with the entry's name as path."""
        current = b""
        try:
            self._chain = Chain(self._implied)
            self._sources = Chain(None)  # hard links lead elsewhere: they must not disturb the current path
            self._prepare_root()
            with Aside(thread=self._thread) as self._aside:
                for entry in self._reader.entries():
                    current = entry.path
                    self._entries += 1
                    match entry.kind:
                        case "file":
                            self._file(entry)
                        case "link":
                            self._link(entry)
                        case "dir":
                            self._directory(entry)
                        case "hardlink":
                            self._hardlink(entry)
                        case _:
                            self._left_out[entry.kind] += 1
                for current in sorted(self._dirs, reverse=True):
                    if current != b".":
                        self._finish_directory(current)
                self._finish_directory(b".")
            current = b""
            self._write_manifest(manifest_fd)
        except ArchiveError:
            raise
        except OSError as error:
            raise _failed(current, error) from None
        return Done(
            self._entries,
            self._bytes,
            dict(self._left_out),
            [(path, *rest) for path, rest in self._setuid.items()],
            self._unmapped,
            list(self._flags.items()),
        )

    def _prepare_root(self) -> None:
        """See that new files get the owner and mode we ask for, whatever the staging directory came with."""
        root = self._chain.root
        if os.listdir(root):
            raise LayoutError("", "a staging directory with something in it", "an empty one")
        os.fchown(root, 0, 0)
        os.fchmod(root, 0o700)
        if hasattr(os, "removexattr"):
            # A default ACL is inherited and beats the umask.
            with contextlib.suppress(OSError):
                os.removexattr(root, b"system.posix_acl_default")

    def _file(self, entry: Entry) -> None:
        path = entry.path
        parent, _, name = path.rpartition(b"/")
        chain = self._chain
        dir_fd = chain.fd if parent == chain.path else chain.open(parent, path)
        if path in self._lines:
            self._replace(path, dir_fd, name)
        mode = entry.mode
        fd = os.open(name, _CREATE, mode & 0o777, dir_fd=dir_fd)
        try:
            data = self._reader.content()
            digest: str | _Hash
            if data is None:
                digest = self._big(fd)
            else:
                size = len(data)
                if size and os.write(fd, data) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                digest = self._aside.whole(data) if size >= _ASIDE else sha256(data).hexdigest()
            uid, gid = entry.uid, entry.gid
            if uid or gid or mode > 0o777 or entry.extra is not None:
                mode, uid, gid = self._attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)
        self._bytes += entry.size
        line = b" type=file mode=%04o uid=%d gid=%d size=%d sha256digest=" % (mode, uid, gid, entry.size)
        self._lines[path] = line + digest.encode() if isinstance(digest, str) else (line, digest)

    def _big(self, fd: int) -> _Hash:
        """Write a file that does not fit the reader's buffer; return its hash, which may still run."""
        stream = self._aside.stream()
        for piece in self._reader.chunks():
            rest = piece
            while rest:
                rest = rest[os.write(fd, rest) :]
            stream.update(piece)
        return stream.hash

    def _attributes(self, fd: int, entry: Entry | _Metadata, *, path: bytes = b"") -> tuple[int, int, int]:
        """Set owner, then mode, then attributes: each change undoes later ones. Return what came of it."""
        mode, uid, gid = entry.mode, entry.uid, entry.gid
        if uid or gid:
            uid, gid, lost = self._chown(fd, uid, gid)
            if lost:
                mode &= 0o1777  # setuid to somebody else must not become setuid root
        directory = isinstance(entry, _Metadata)
        if directory or mode > 0o777:
            os.fchmod(fd, mode)
        source = entry.entry if isinstance(entry, _Metadata) else entry
        capability = False
        if source is not None and source.extra is not None:
            self._left_out.update(self._uncopied(source))
            if source.extra.flags:
                self._flags[path or source.path] = source.extra.flags
            for key, value in source.extra.xattrs.items():
                try:
                    os.setxattr(fd, key, value)
                except (OSError, AttributeError):
                    self._left_out["xattr"] += 1
                else:
                    capability = capability or key == _CAPABILITY
        if mode & 0o6000 or capability:
            name = path or (source.path if source is not None else b"")
            self._setuid[name] = ("dir" if directory else "file", mode, uid, gid, capability)
        return mode, uid, gid

    @staticmethod
    def _uncopied(entry: Entry) -> Counter[str]:
        extra = entry.extra
        found: Counter[str] = Counter()
        if extra is not None and extra.acls:
            found["acl"] = 1
        if extra is not None and extra.flags:
            found["flags"] = 1
        return found

    def _chown(self, fd: int, uid: int, gid: int, name: bytes | None = None) -> tuple[int, int, bool]:
        """Give a file, or the symbolic link `name` in a directory, its owner; 0:0 if that is not mapped."""
        try:
            if name is None:
                os.fchown(fd, uid, gid)
            else:
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            # EINVAL is user_namespaces(7) for an id that this user namespace does not map.
            if error.errno != errno.EINVAL:
                raise
            self._unmapped += 1
            return 0, 0, True
        return uid, gid, False

    def _link(self, entry: Entry) -> None:
        path = entry.path
        parent, _, name = path.rpartition(b"/")
        dir_fd = self._chain.open(parent, path)
        if path in self._lines:
            self._replace(path, dir_fd, name)
        os.symlink(entry.target, name, dir_fd=dir_fd)
        uid, gid = entry.uid, entry.gid
        if uid or gid:
            uid, gid, _ = self._chown(dir_fd, uid, gid, name)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=dir_fd, follow_symlinks=False)
        if entry.extra is not None:
            self._left_out.update(self._uncopied(entry))
            self._left_out["xattr"] += len(entry.extra.xattrs)
        self._lines[path] = b" type=link mode=0777 uid=%d gid=%d link=%s" % (
            uid,
            gid,
            encode_name(entry.target),
        )

    def _hardlink(self, entry: Entry) -> None:
        path, target = entry.path, entry.target
        line = self._lines.get(target)
        if line is None or path == target or not _is_file(line):
            found = "nothing" if line is None else "itself" if path == target else "something that is no file"
            raise ArchiveError(
                os.fsdecode(path),
                f"a hard link to {os.fsdecode(target[:255])!r}, where there is {found}",
                "a file that the archive had before",
            )
        source, _, old = target.rpartition(b"/")
        source_fd = self._sources.open(source, path)
        parent, _, name = path.rpartition(b"/")
        dir_fd = self._chain.open(parent, path)
        if path in self._lines:
            self._replace(path, dir_fd, name)
        os.link(old, name, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        self._lines[path] = line
        self._hardlinks[path] = (target, self._replaced[target])
        if target in self._setuid:
            self._setuid[path] = self._setuid[target]

    def _directory(self, entry: Entry) -> None:
        path = entry.path
        known = self._lines.get(path)
        if known is None:
            parent, _, name = path.rpartition(b"/")
            os.mkdir(name, 0o700, dir_fd=self._chain.open(parent, path))
            self._lines[path] = _DIRECTORY
        elif known is not _DIRECTORY:
            found = "a directory where the archive had something else"
            raise ArchiveError(os.fsdecode(path), found, "one kind of entry")
        self._dirs[path] = _Metadata(entry)

    def _implied(self, path: bytes) -> None:
        """Make a directory that no entry named, as GNU tar does."""
        self._lines[path] = _DIRECTORY
        self._dirs[path] = _Metadata()

    def _replace(self, path: bytes, dir_fd: int, name: bytes) -> None:
        """Remove what a later entry stands in for; never a directory."""
        if self._lines[path] is _DIRECTORY:
            raise ArchiveError(
                os.fsdecode(path), "something else where the archive had a directory", "one kind of entry"
            )
        os.unlink(name, dir_fd=dir_fd)
        del self._lines[path]
        self._replaced[path] += 1
        self._hardlinks.pop(path, None)
        self._setuid.pop(path, None)
        self._flags.pop(path, None)

    def _finish_directory(self, path: bytes) -> None:
        metadata = self._dirs[path]
        fd = self._chain.open(b"" if path == b"." else path, path)
        mode, uid, gid = self._attributes(fd, metadata, path=path)
        if metadata.mtime is not None:
            os.utime(fd, ns=(metadata.mtime, metadata.mtime))
        self._lines[path] = b" type=dir mode=%04o uid=%d gid=%d" % (mode, uid, gid)

    def _write_manifest(self, fd: int) -> None:
        out = [HEADER]
        for path, line in self._lines.items():
            name = b"." if path == b"." else b"./" + encode_path(path)
            if path in self._hardlinks:
                target, generation = self._hardlinks[path]
                if self._replaced[target] == generation:
                    out.append(HARDLINK + name + b" ./" + encode_path(target) + b"\n")
            digest = b"" if isinstance(line, bytes) else line[1].hexdigest().encode()
            out.append(name + (line if isinstance(line, bytes) else line[0]) + digest + b"\n")
            if len(out) >= 8192:
                _write(fd, b"".join(out))
                out.clear()
        _write(fd, b"".join(out))


def _is_file(line: bytes | tuple[bytes, _Hash]) -> bool:
    return isinstance(line, tuple) or line.startswith(b" type=file")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _failed(path: bytes, error: OSError) -> LayoutError:
    reason = reason_of(error)
    hint = "free some space and run it again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return LayoutError(
        os.fsdecode(path), f"{reason} while writing it", "a file system that takes the archive", hint
    )
