"""Extended header records of pax archives, strictly read. Pure: bytes in, values out.

Source: POSIX.1-2017, pax, "pax Extended Header"; star(4), libarchive-formats(5) and the manual of GNU tar for
the vendors' keywords.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from layout.host.unpack.report import ArchiveError

__all__ = ["Attributes", "Records", "apply_records", "parse_records", "parse_time"]

Records = dict[bytes, bytes]

_TIME = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]*))?")
_NUMBER = re.compile(rb"[0-9]{1,20}")
_SECONDS_MAX = 1 << 34  # what ext4 can hold, the year 2446
_XATTR_MAX = 65536  # XATTR_SIZE_MAX of linux/limits.h
_XATTR_NAME_MAX = 255


class Attributes:
    """What extended headers say about one entry; None where they are silent."""

    __slots__ = ("acls", "flags", "gid", "linkpath", "mtime", "path", "size", "uid", "xattrs")

    def __init__(self) -> None:
        self.path: bytes | None = None
        self.linkpath: bytes | None = None
        self.size: int | None = None
        self.uid: int | None = None
        self.gid: int | None = None
        self.mtime: int | None = None
        """Nanoseconds since the epoch."""
        self.xattrs: dict[bytes, bytes] = {}
        self.flags = b""
        """Names as in chflags(1), separated by commas."""
        self.acls = False


def parse_records(data: bytes, entry: bytes) -> Records:
    """Split `LENGTH KEY=VALUE\\n` records; the last for a key wins. Raise ArchiveError for anything else."""
    records: Records = {}
    position = 0
    end = len(data)
    while position < end:
        space = data.find(b" ", position, position + 21)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise _broken(entry, "a record without a length")
        stop = position + int(digits)
        equals = data.find(b"=", space + 1, stop)
        if stop > end or equals < 0 or data[stop - 1] != 0x0A:
            raise _broken(entry, "a record that does not fit its length")
        records[data[space + 1 : equals]] = data[equals + 1 : stop - 1]
        position = stop
    return records


def parse_time(value: bytes, entry: bytes) -> int:
    """Read decimal seconds with any number of digits after the point as nanoseconds."""
    match = _TIME.fullmatch(value)
    if match is None or int(match[2]) >= _SECONDS_MAX:
        raise ArchiveError(
            entry_name(entry), f"the time {value[:40]!r}", "seconds between the years 1426 and 2513"
        )
    nanoseconds = int(match[2]) * 1_000_000_000 + int((match[3] or b"")[:9].ljust(9, b"0"))
    return -nanoseconds if match[1] else nanoseconds


def apply_records(records: Records, into: Attributes, entry: bytes) -> None:
    """Take over what is known; an empty value takes the keyword back, as POSIX wants."""
    for key, value in records.items():
        match key:
            case b"path":
                into.path = value or None
            case b"linkpath":
                into.linkpath = value or None
            case b"size":
                into.size = _number(value, key, entry)
            case b"uid":
                into.uid = _number(value, key, entry)
            case b"gid":
                into.gid = _number(value, key, entry)
            case b"mtime":
                into.mtime = parse_time(value, entry) if value else None
            case b"SCHILY.fflags":
                into.flags = value
            case b"SCHILY.realsize":
                raise sparse(entry)
            case _ if b"." in key:
                _vendor(key, value, into, entry)
            case _:
                pass  # atime, ctime, uname, gname, comment, hdrcharset, ...: names are numbers and bytes here


def _vendor(key: bytes, value: bytes, into: Attributes, entry: bytes) -> None:
    if key.startswith(b"SCHILY.xattr."):
        # GNU tar writes % and = in names so; nobody else has either in a name.
        name = key[13:].replace(b"%3D", b"=").replace(b"%25", b"%")
        _xattr(name, value, into, entry)
    elif key.startswith(b"LIBARCHIVE.xattr."):
        try:
            content = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            raise _broken(entry, "an extended attribute that is not base64") from None
        _xattr(unquote_to_bytes(key[17:]), content, into, entry)
    elif key.startswith(b"GNU.sparse."):
        raise sparse(entry)
    elif key.startswith((b"SCHILY.acl.", b"LIBARCHIVE.acl.")):
        into.acls = True


def _xattr(name: bytes, value: bytes, into: Attributes, entry: bytes) -> None:
    if not name or b"\0" in name or len(name) > _XATTR_NAME_MAX or len(value) > _XATTR_MAX:
        raise _broken(entry, f"the extended attribute {name[:40]!r} of {len(value)} bytes")
    if name.startswith(b"system.posix_acl_"):
        into.acls = True  # would change the mode behind everybody's back
        return
    into.xattrs[name] = value


def _number(value: bytes, key: bytes, entry: bytes) -> int | None:
    if not value:
        return None
    if _NUMBER.fullmatch(value) is None:
        raise _broken(entry, f"{key.decode()} {value[:40]!r}")
    return int(value)


def sparse(entry: bytes) -> ArchiveError:
    """Sparse members come in four formats, none of which a root file system needs."""
    return ArchiveError(
        entry_name(entry),
        "a sparse file",
        "files with all their content",
        "make the archive without tar --sparse",
    )


def _broken(entry: bytes, found: str) -> ArchiveError:
    return ArchiveError(
        entry_name(entry), f"an extended header with {found}", "records as POSIX pax has them"
    )


def entry_name(entry: bytes) -> str:
    """Return an entry's name as text that turns back into the same bytes."""
    return entry.decode("utf-8", "surrogateescape")
