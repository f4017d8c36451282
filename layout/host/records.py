"""layout's own records: one TOML file for each jail and base below ROOT/.layout, mode 0600."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

import msgspec

from layout.core.errors import LayoutError
from layout.core.model import Boot, Kind, Manage, Platform, Preset
from layout.core.names import is_name
from layout.host.beneath import Dir
from layout.host.hostfiles import parse_toml

R = TypeVar("R", bound=msgspec.Struct)

_PLAIN = re.compile(r'([a-z]+) = "([^"\\\x00-\x1f\x7f]*)"\n')

BASE_RECORD = "bases/mroot.toml"
"""Where the base's record is, in the directory of layout's state."""
MANIFEST = "bases/mroot.mtree"
"""Where the manifest of mroot is."""
SKELETON = "bases/skel.mtree"
"""Where that of skel is."""
COMMIT = "commit.toml"
"""Where a CommitRecord is while a base appears."""


class JailRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was decided when a jail was made. Everything else follows from its profile."""

    name: str
    profile: str
    preset: Preset
    manage: Manage
    platform: Platform
    created: str
    """RFC 3339, UTC."""
    boot: Boot = Boot.JAIL
    kind: Kind = Kind.SHARED
    """Never changes: another design is another jail."""
    source: str = ""
    """Kind full: what its world was made from."""
    state: Literal["ready", "destroying"] = "ready"
    """'destroying' while its trees go: such a jail is only there to be destroyed."""
    example: str = ""
    """How many commands of its example were run, or 'done'; empty when not even its files are written."""


class SetuidRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the base that is setuid or setgid."""

    path: str
    mode: str
    uid: int
    gid: int


class CapabilityRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the base with capabilities (capabilities(7))."""

    path: str
    value: str
    """As the file system has it, in hexadecimal."""


class BaseRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where mroot came from and what it holds."""

    source: str
    platform: Platform
    created: str
    entries: int
    bytes: int
    sys_directory: bool = False
    """The base has a real directory sys."""
    removed: tuple[str, ...] = ()
    """Secrets and identities taken out of the skeleton."""
    left_out: dict[str, int] = {}
    """Device nodes, FIFOs, sockets ... that were not taken over, by kind."""
    setuid: tuple[SetuidRecord, ...] = ()
    capable: tuple[CapabilityRecord, ...] = ()
    sha256: str = ""
    """Of the archive, in hexadecimal; "" where it was not looked at."""
    notes: tuple[str, ...] = ()
    """What is to be known of the source: what its digest was compared with, or that it was not."""


class CommitRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A base that is complete in its staging directories and about to appear: what `recover` finishes."""

    base: BaseRecord
    keep: tuple[str, ...] = ()
    """Those of j/mroot, skel/s and skel/t that were there before and stay."""


def read(state: Dir, path: str, kind: type[R]) -> R | None:
    """Return a record, or None when there is none. Raises LayoutError for one that cannot be understood."""
    try:
        text = state.read(path, 4 << 20).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    try:
        return msgspec.convert(_plain(text) or parse_toml(text, state.show(path)), kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise LayoutError(
            state.show(path),
            str(error),
            "a record written by layout",
            "restore it from a backup, or move it aside",
        ) from None


def _plain(text: str) -> dict[str, str] | None:
    """Parse TOML that is nothing but lines of the form `key = "text"`; None for any other.

    Records of jails are such, there may be thousands of them, and tomllib takes ten times as long.
    """
    lines = _PLAIN.findall(text)
    data = dict(lines)
    # All of the text, and no key twice?
    if len(data) != len(lines) or sum(len(key) + len(value) + 6 for key, value in lines) != len(text):
        return None
    return data


def write(state: Dir, path: str, record: msgspec.Struct) -> None:
    """Write a record whole. Raises OSError."""
    import tomli_w

    fields: dict[str, Any] = msgspec.to_builtins(record)
    data = {key: value for key, value in fields.items() if value is not None}  # TOML has no null
    state.write_whole(path, tomli_w.dumps(data).encode("utf-8", "surrogateescape"), 0o600)


def jails(state: Dir) -> list[JailRecord]:
    """Return all jails' records, sorted by name. Raises LayoutError."""
    try:
        directory = state.open("jails")
    except FileNotFoundError:
        return []
    with directory:
        found = []
        for name in directory.names():
            if name.endswith(".toml") and is_name(name[:-5]):
                record = read(directory, name, JailRecord)
                if record is not None:
                    found.append(record)
        return found


def jail(state: Dir, name: str) -> JailRecord | None:
    """Return one jail's record, or None."""
    try:
        return read(state, f"jails/{name}.toml", JailRecord)
    except FileNotFoundError:
        return None


def jail_names(root: Dir) -> list[str]:
    """Return the names of all jails that have a record; cheap."""
    try:
        with root.open(".layout/jails") as directory:
            return [n[:-5] for n in directory.names() if n.endswith(".toml") and is_name(n[:-5])]
    except FileNotFoundError:
        return []


def now() -> str:
    """Return the time as records hold it."""
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
