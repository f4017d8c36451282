"""Names in archives: which are let through, and where a relative link may lead. Pure, bytes only."""

from __future__ import annotations

from layout.host.unpack.report import ArchiveError

__all__ = ["clean_name", "climbs"]

_NAME_MAX = 4095
_COMPONENT_MAX = 255
_DEPTH_MAX = 256
_INSIDE = "a name below the archive's root"


def clean_name(raw: bytes, entry: bytes) -> bytes:
    """Return a name without "./" in front, doubled or closing slashes; b"." for the root.

    Raise ArchiveError, naming `entry`, for an absolute, empty or overlong name, a ".." component or a NUL.
    """
    name = raw[2:] if raw[:2] == b"./" else raw
    if name[-1:] == b"/":
        name = name[:-1]
    # Nearly every name is harmless at first sight; below 256 bytes no limit can be exceeded either.
    if (
        len(name) <= _COMPONENT_MAX
        and name[:1] not in (b"", b"/", b".")
        and b"/." not in name
        and b"//" not in raw
        and b"\0" not in name
        and raw[:1] != b"/"
    ):
        return name
    return _clean_slowly(raw, entry)


def _clean_slowly(raw: bytes, entry: bytes) -> bytes:
    if not raw:
        raise _refused(entry, "an empty name")
    if b"\0" in raw:
        raise _refused(entry, "a NUL in the name")
    if raw[:1] == b"/":
        raise _refused(entry, f"the absolute name {_text(raw)}")
    if len(raw) > _NAME_MAX:
        raise _refused(entry, f"a name of {len(raw)} bytes", f"at most {_NAME_MAX}")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _refused(entry, f"a '..' component in {_text(raw)}")
    if len(parts) > _DEPTH_MAX:
        raise _refused(entry, f"a name {len(parts)} directories deep", f"at most {_DEPTH_MAX}")
    if any(len(part) > _COMPONENT_MAX for part in parts):
        raise _refused(entry, "a component that is too long", f"at most {_COMPONENT_MAX} bytes")
    return b"/".join(parts) or b"."


def climbs(depth: int, target: bytes) -> bool:
    """Whether a relative link in a directory `depth` levels below the root leads above it, read as text."""
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


def _text(name: bytes) -> str:
    return repr(name[:200].decode("utf-8", "surrogateescape"))


def _refused(entry: bytes, found: str, expected: str = _INSIDE) -> ArchiveError:
    shown = entry if len(entry) <= _COMPONENT_MAX else entry[:_COMPONENT_MAX] + b"..."
    return ArchiveError(shown.decode("utf-8", "surrogateescape"), found, expected)
