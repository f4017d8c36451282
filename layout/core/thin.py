"""Thin jails: what a profile says of their root, and that root as data.

The root is the closure of one program: it is made before the daemon starts and gone after it has stopped.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from layout.core.errors import UsageError


class Thin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the root of a thin jail is made from, besides the service's program and what that needs."""

    root: str = "host"
    """Where the files come from: 'host', 'mroot' (the shared base), or a directory with a system in it."""
    programs: tuple[str, ...] = ()
    """Further programs that the service runs, by absolute path."""
    modules: tuple[str, ...] = ()
    """Patterns of what the program loads by name while it runs: /usr/lib/ldap/back_mdb*."""
    files: tuple[str, ...] = ()
    """Patterns of further files that it reads, neither programs nor libraries: /usr/share/dns/*."""
    users: tuple[str, ...] = ()
    """Users besides service.user that have an entry in passwd(5): one that the daemon changes to itself."""
    certificates: bool = True
    """The certificate authorities that the root trusts."""
    timezone: bool = True
    """The time zone."""


class ThinDirectory(msgspec.Struct, frozen=True):
    """A directory. Paths are relative to the root, here and below; everything belongs to root."""

    path: str
    mode: int


class ThinLink(msgspec.Struct, frozen=True):
    """A symbolic link with exactly this target."""

    path: str
    target: str


class ThinFile(msgspec.Struct, frozen=True):
    """A file with the content of another one, as that was when it was looked at."""

    path: str
    source: str
    """Canonical path in the tree that it comes from, relative to its top."""
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    """Nobody but the kernel sets it: a file that was changed and given its old time back has a new one."""
    inode: int
    device: int


class ThinText(msgspec.Struct, frozen=True):
    """A file with this text."""

    path: str
    text: str
    mode: int


ThinItem = ThinDirectory | ThinLink | ThinFile | ThinText


class ThinRoot(msgspec.Struct, frozen=True):
    """Everything that a root consists of: parents first, and no path twice or below a link."""

    origin: str
    """Absolute path of the tree that the files come from."""
    items: tuple[ThinItem, ...]

    @property
    def files(self) -> int:
        """Number of files."""
        return sum(isinstance(item, ThinFile | ThinText) for item in self.items)

    @property
    def size(self) -> int:
        """Bytes of the files that are copied."""
        return sum(item.size for item in self.items if isinstance(item, ThinFile))

    def key(self) -> str:
        """Return what changes whenever a file it is made from changes: of paths, sizes, times and inodes."""
        lines = "\n".join(map(repr, self.items))  # names and text are quoted in it
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


class ThinEntry(msgspec.Struct, frozen=True):
    """What a root has at a path."""

    path: str
    kind: str
    """'dir', 'file' or 'link'."""
    mode: int
    """Permission bits; 0 for links."""
    content: str
    """SHA-256 of a file, target of a link."""


DATABASES = frozenset({"etc/pwd.db", "etc/spwd.db"})
"""What pwd_mkdb(8) of FreeBSD makes of master.passwd(5): the C library reads nothing else."""


def identity(entries: list[ThinEntry]) -> str:
    """Return the name of a root by its content: equal roots have one, whatever they were made from.

    Without the databases: nobody promises that pwd_mkdb(8) makes the same of the same.
    """
    counted = (e for e in entries if e.path not in DATABASES)
    lines = sorted(f"{e.path}\0{e.kind}\0{e.mode:o}\0{e.content}\n" for e in counted)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


class ThinRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The root that a jail was started with last: ROOT/.layout/thin/NAME.toml."""

    key: str
    """ThinRoot.key when it was made."""
    digest: str
    """Its identity, and its name below ROOT/.layout/thin."""
    files: int
    size: int
    """Bytes."""
    made: str
    """RFC 3339, UTC."""


_ABSOLUTE = re.compile(r"/[^\0-\x1f]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")


def check_thin(thin: Thin, where: str) -> None:
    """Make sure that the values make sense. Raises UsageError that names the key."""
    if thin.root not in {"host", "mroot"} and not _is_path(thin.root):
        raise UsageError(f"{where}.root", repr(thin.root), "'host', 'mroot' or an absolute path")
    for key in ("programs", "modules", "files"):
        for one in getattr(thin, key):
            if not _is_path(one):
                raise UsageError(f"{where}.{key}", repr(one), "an absolute path, without '.' or '..'")
    for user in thin.users:
        if not _USER.fullmatch(user):
            raise UsageError(f"{where}.users", repr(user), "a name of passwd(5)")


def _is_path(text: str) -> bool:
    return bool(_ABSOLUTE.fullmatch(text)) and not {"", ".", ".."} & set(text[1:].split("/"))


def accounts_of(users: tuple[str, ...], passwd: str, group: str) -> tuple[str, str, tuple[str, ...]]:
    """Return passwd(5) and group(5) with these users and their groups only, and who was not found.

    No password comes along, and no shell: there is none in a thin root.
    """
    found: dict[str, list[str]] = {}
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 7 and fields[0] in users and fields[2].isdigit() and fields[3].isdigit():
            found.setdefault(fields[0], fields)
    people = [":".join((f[0], "*", f[2], f[3], f[4], f[5], "/nonexistent")) for f in found.values()]
    wanted = {fields[3] for fields in found.values()}
    groups = []
    for line in group.splitlines():
        fields = line.split(":")
        if len(fields) < 4:
            continue
        members = [one for one in fields[3].split(",") if one in found]
        if fields[2] in wanted or members:
            groups.append(f"{fields[0]}:*:{fields[2]}:{','.join(members)}")
    missing = tuple(user for user in users if user not in found)
    return _lines(people), _lines(groups), missing


def master(passwd: str) -> str:
    """Return the master.passwd(5) of a passwd(5): without class, and nothing of it expires."""
    rows = [line.split(":") for line in passwd.splitlines()]
    return _lines([":".join((*row[:4], "", "0", "0", *row[4:])) for row in rows])


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
