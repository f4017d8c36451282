"""Read a tar archive in one pass from anything that can be read. Pure parsing: nothing here touches a file.

ustar, GNU long names and numbers, pax headers; sparse, incremental and multi-volume archives are refused.
Hand-written because tarfile costs 3.5 times GNU tar's time. Sources: POSIX.1-2017 pax, tar(5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple
from zlib import adler32

import msgspec

from layout.host.unpack.fields import Fields
from layout.host.unpack.names import clean_name, climbs
from layout.host.unpack.pax import Attributes, Records, apply_records, entry_name, parse_records, sparse
from layout.host.unpack.report import ArchiveError, NotAnArchive

__all__ = ["MAX_BYTES", "MAX_ENTRIES", "Entry", "Kind", "TarReader"]

Kind = Literal["file", "dir", "link", "hardlink", "device", "fifo"]

MAX_BYTES = 64 << 30
MAX_ENTRIES = 5_000_000
_BUFFER = 2 << 20
_WHOLE = 1 << 18  # files up to this size are handed out in one piece
_HEADER_MAX = 1 << 20  # of one extended header
_TRAILER_MAX = 64 << 20  # zeros up to the end of a record, of any blocking factor that is in use
_NAME_MAX = 4095
_ID_MAX = (1 << 32) - 2  # 2^32-1 is chown(2)'s "leave it"
_BLOCK = 512
_ZERO_SUM = bytes(8)

#                        name mode+uid+gid size mtime sum type linkname magic, names and devices, prefix
_HEADER = struct.Struct("100s 24s 12s 12s 8s c 100s 6s 82x 155s 12x")
_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "link",
    b"3": "device",
    b"4": "device",
    b"5": "dir",
    b"6": "fifo",
}
_REFUSED = {
    b"M": "a part of a multi-volume archive",
    b"D": "an incremental dump",
    b"N": "a GNU name table of before 1990",
}


class Entry(msgspec.Struct, gc=False):
    """One member of an archive, names checked and cleaned."""

    path: bytes
    """Without "./" in front; b"." is the root. At most 256 components of at most 255 bytes, none is ".."."""
    kind: Kind
    mode: int
    """Permission bits, 07777."""
    uid: int
    gid: int
    size: int
    """Bytes of content; 0 unless a file."""
    mtime: int
    """Nanoseconds since the epoch."""
    target: bytes = b""
    """Of a link: as written. Of a hard link: cleaned like path."""
    extra: Attributes | None = None
    """Extended attributes, and whether there were ACLs and file flags."""


class _Header(NamedTuple):
    """A header block as it is written."""

    name: bytes
    owner: bytes
    """Mode, user and group."""
    size: bytes
    mtime: bytes
    sum: bytes
    flag: bytes
    link: bytes
    magic: bytes
    prefix: bytes

    @property
    def path(self) -> bytes:
        """The name, with the part in front that POSIX has for long ones."""
        name = self.name.partition(b"\0")[0]
        if self.prefix[0] and self.magic == b"ustar\0":
            return self.prefix.partition(b"\0")[0] + b"/" + name
        return name


class _Extended(msgspec.Struct, gc=False):
    """What extended headers say of the next entry."""

    records: Records | None = None
    name: bytes | None = None
    link: bytes | None = None


class TarReader:
    """Iterate over the entries of an archive; the content of a file is read between two steps.

    `readinto` fills a memoryview from its start and returns how many bytes it got, 0 at the end, as
    io.RawIOBase.readinto. `max_bytes` bounds the archive as it is read, headers and padding included, and
    is checked before an entry is handed out. Everything that is wrong raises ArchiveError, or NotAnArchive
    for a first block that is no header; so does an archive without its end marker, or with more than zeros
    after it.
    """

    def __init__(
        self,
        readinto: Callable[[memoryview], int],
        *,
        max_bytes: int = MAX_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._readinto = readinto
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._view = memoryview(bytearray(_BUFFER))
        self._pos = 0  # next byte to hand out
        self._end = 0  # end of what was read into the buffer
        self._read = 0  # bytes that left the buffer's front for good
        self._left = 0  # content and padding of the current entry still in the stream
        self._padding = 0
        self._entry = b""
        self._next: _Extended | None = None
        self._global: Records = {}
        self._fields = Fields(self._broken)

    def content(self) -> memoryview | None:
        """Return the whole content of the current file until the next step; None when big: use chunks()."""
        padded = self._left
        if padded > _WHOLE:
            return None
        if self._end - self._pos < padded:
            self._fill(padded)
        pos = self._pos
        self._pos = pos + padded
        self._left = 0
        return self._view[pos : pos + padded - self._padding]

    def chunks(self) -> Iterator[memoryview]:
        """Yield the content of the current file in pieces, each valid until the next."""
        while (size := self._left - self._padding) > 0:
            if self._pos == self._end:
                self._fill(1)
            size = min(size, self._end - self._pos)
            pos = self._pos
            self._pos += size
            self._left -= size
            yield self._view[pos : pos + size]

    def entries(self) -> Iterator[Entry]:
        """Yield every entry up to the end marker, then make sure that nothing but zeros follows."""
        count = 0
        while (header := self._header()) is not None:
            size = self._size(header)
            kind = _KINDS.get(header.flag)
            if kind is None and header.flag in b"xgXLKVA":
                self._extend(header.flag, self._header_data(header.flag, size))
                continue
            count += 1
            if count > self._max_entries:
                raise self._broken(f"more than {self._max_entries} entries")
            if kind is None:
                raise self._refused(header.flag)
            yield self._member(header, kind, size)
        if self._next is not None:
            raise self._broken("the end of the archive after an extended header")
        self._entry = b""
        self._finish()

    def _header(self) -> _Header | None:
        """Return the next header, its checksum compared; None for the end marker."""
        if self._left:
            self._skip()
        first = not self._read and not self._pos
        if self._end - self._pos < _BLOCK:
            self._entry = b""
            self._fill(_BLOCK, first=first)
        pos = self._pos
        self._pos = pos + _BLOCK
        block = bytes(self._view[pos : pos + _BLOCK])
        header = _Header._make(_HEADER.unpack(block))
        # adler32's low half is 1 + the sum of the bytes modulo 65521, exact for 256; sum() is slow.
        # The field itself counts as 8 spaces, which are 256 together.
        total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) + 254 - sum(header.sum)
        if total == 256 and header.sum == _ZERO_SUM:
            return None
        self._entry = header.path if self._next is None or self._next.name is None else self._next.name
        # As nearly everybody writes it; else as a number.
        if header.sum != b"%06o\0 " % total and not self._fields.matches(header.sum, total):
            if first and header.magic[:5] != b"ustar":
                raise NotAnArchive("", "no tar header in the first 512 bytes", "a tar archive")
            self._entry = b""
            raise self._broken(f"a header with a wrong checksum at byte {self._read + pos}")
        return header

    def _size(self, header: _Header) -> int:
        size = self._fields.number(header.size)
        if size < 0:
            raise self._broken(f"a size of {size} bytes")
        if size > self._max_bytes - (self._read + self._pos - _BLOCK):
            raise self._too_big(size)
        return size

    def _extend(self, flag: bytes, data: bytes) -> None:
        """Keep what an extended header says: of the next entry, or of all that follow."""
        following = self._next or _Extended()
        match flag:
            case b"g":
                self._set_global(parse_records(data, self._entry))
                return
            case b"x" | b"X":
                following.records = parse_records(data, self._entry)
            case b"L":
                following.name = self._long(data)
            case b"K":
                following.link = self._long(data)
            case _:
                return  # V is a volume's label; A an ACL of Solaris, which belongs to no member
        self._next = following

    def _member(self, header: _Header, kind: Kind, size: int) -> Entry:
        """Return the entry of a header, with what the headers before it say."""
        own, self._next = self._next, None
        name = self._entry
        link = header.link.partition(b"\0")[0] if own is None or own.link is None else own.link
        mode, uid, gid = self._fields.owner(header.owner)
        mtime = self._fields.number(header.mtime) * 1_000_000_000
        extra = None
        records = own.records if own is not None else None
        if records is not None or self._global:
            extra = self._attributes(records or {})
            name = extra.path if extra.path is not None else name
            self._entry = name
            link = extra.linkpath if extra.linkpath is not None else link
            size = extra.size if extra.size is not None else size
            uid = extra.uid if extra.uid is not None else uid
            gid = extra.gid if extra.gid is not None else gid
            mtime = extra.mtime if extra.mtime is not None else mtime
            if not (extra.xattrs or extra.acls or extra.flags):
                extra = None
        path = clean_name(name, name)
        kind, size = self._content_of(kind, size, path, is_directory=name[-1:] == b"/")
        link = self._target(kind, path, link, name)
        if not (0 <= uid <= _ID_MAX and 0 <= gid <= _ID_MAX):
            raise self._broken(f"the owner {uid}:{gid}")
        if not -(1 << 34) < mtime // 1_000_000_000 < 1 << 34:
            raise self._broken(f"the time {mtime // 1_000_000_000}")
        return Entry(path, kind, mode, uid, gid, size, mtime, link, extra)

    def _attributes(self, records: Records) -> Attributes:
        """Return what pax headers say of an entry: its own over the global ones."""
        found = Attributes()
        apply_records(self._global, found, self._entry)
        apply_records(records, found, self._entry)
        if found.size is not None and found.size > self._max_bytes - (self._read + self._pos - _BLOCK):
            self._entry = self._entry if found.path is None else found.path
            raise self._too_big(found.size)
        return found

    def _content_of(self, kind: Kind, size: int, path: bytes, *, is_directory: bool) -> tuple[Kind, int]:
        """Return kind and size as they are meant; the content of a file is what comes next."""
        if kind == "file":
            if is_directory or path == b".":
                return "dir", self._no_content(size, "a directory written as a file")
            self._padding = -size % _BLOCK
            self._left = size + self._padding
            return kind, size
        if path == b"." and kind != "dir":
            raise self._broken(f"the root as a {kind}")
        if kind == "dir":
            return kind, 0  # POSIX lets it be a quota here; no content follows
        return kind, self._no_content(size, f"a {kind}")

    def _target(self, kind: Kind, path: bytes, link: bytes, name: bytes) -> bytes:
        """Return where a link leads, b"" for anything else."""
        if kind == "link":
            self._check_link(path, link)
            return link
        return clean_name(link, name) if kind == "hardlink" else b""

    def _fill(self, need: int, *, first: bool = False) -> None:
        """Read until `need` bytes are in the buffer."""
        view = self._view
        have = self._end - self._pos
        if self._pos:
            # Whatever is left is less than one small file: moving it is cheaper than a ring.
            view[:have] = view[self._pos : self._end]
            self._read += self._pos
            self._pos, self._end = 0, have
        while have < need:
            got = self._readinto(view[have:])
            if not got:
                if first and not have:
                    raise NotAnArchive("", "an empty file", "a tar archive")
                if first:
                    raise NotAnArchive("", f"a file of {have} bytes", "a tar archive")
                where = self._read + have
                raise self._broken(
                    f"the end of the file at byte {where}, in the middle of the archive", cut=True
                )
            have += got
            self._end = have
        if self._read + self._pos + need > self._max_bytes:
            raise self._too_big(need)

    def _skip(self) -> None:
        """Pass over what is left of the current entry."""
        while self._left:
            have = self._end - self._pos
            if have >= self._left:
                self._pos += self._left
                self._left = 0
                return
            self._left -= have
            self._pos = self._end
            self._fill(1)

    def _finish(self) -> None:
        """Read to the end of the file: only zeros may follow, and the decompressor wants to finish."""
        start = self._read + self._pos
        while True:
            rest = self._view[self._pos : self._end].tobytes()
            if rest.strip(b"\0"):
                raise self._broken(
                    f"more data after the end of the archive at byte {start}",
                    "if archives were joined, unpack one only",
                )
            self._read += self._end
            if self._read > self._max_bytes:
                raise self._too_big(self._read - start)
            if self._read - start > _TRAILER_MAX:
                raise self._broken(
                    f"more than {_TRAILER_MAX} bytes of zeros after the end of the archive",
                    "a sparse file can have any number of them",
                )
            self._pos = self._end = 0
            self._end = self._readinto(self._view)
            if not self._end:
                return

    def _header_data(self, flag: bytes, size: int) -> bytes:
        """Return the content of an extended header, with its padding passed over."""
        if size > _HEADER_MAX:
            raise self._broken(f"an extended header ({flag.decode()}) of {size} bytes")
        padded = size + -size % _BLOCK
        if self._end - self._pos < padded:
            self._fill(padded)
        data = self._view[self._pos : self._pos + size].tobytes()
        self._pos += padded
        return data

    def _long(self, data: bytes) -> bytes:
        """Return a GNU long name: up to its NUL, and nothing behind it that another reader might see."""
        name, _, rest = data.partition(b"\0")
        if not name or rest.strip(b"\0"):
            raise self._broken("a long name that is empty or has a NUL inside")
        return name

    def _set_global(self, records: Records) -> None:
        for key in (b"path", b"linkpath", b"size"):
            if key in records:
                raise self._broken(f"a global header with {key.decode()}")
        self._global = {**self._global, **records}
        if sum(map(len, self._global.values())) > _HEADER_MAX:
            raise self._broken("global headers without end")

    def _check_link(self, path: bytes, target: bytes) -> None:
        if not target or b"\0" in target or len(target) > _NAME_MAX:
            raise self._broken("a symbolic link with an empty target, a NUL in it, or more than 4095 bytes")
        if target[:1] != b"/" and b".." in target and climbs(path.count(b"/"), target):
            raise self._broken(f"a symbolic link to {entry_name(target)!r}, above the archive's root")

    def _no_content(self, size: int, what: str) -> int:
        if size:
            raise self._broken(f"{what} with {size} bytes of content")
        return 0

    def _refused(self, flag: bytes) -> ArchiveError:
        if flag == b"S":
            return sparse(self._entry)
        return self._broken(_REFUSED.get(flag, f"an entry of unknown type {flag!r}"))

    def _too_big(self, size: int) -> ArchiveError:
        return self._broken(
            f"{size} bytes that would take the archive beyond {self._max_bytes}",
            "the limit is there against bombs",
        )

    def _broken(self, found: str, hint: str = "", *, cut: bool = False) -> ArchiveError:
        expected = "the rest of the archive" if cut else "a whole and harmless archive"
        return ArchiveError(entry_name(self._entry), found, expected, hint)
