"""Datasets of jails: their names, properties and command lines, and what zfs(8) says, read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from layout.core.errors import LayoutError, UsageError

_QUIET = (("setuid", "off"), ("devices", "off"), ("atime", "off"), ("utf8only", "on"))
"""What every dataset of a jail has. utf8only can be said only while it is made (zfsprops(7))."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.:-]*)*")
_LONGEST = 160
"""Bytes of a parent's name: with those of a jail it stays below 256 (MAXNAMELEN of ZFS)."""

CHECKED = ("setuid", "devices", "exec", "atime", "utf8only", "readonly", "mountpoint", "mounted", "canmount")
"""Properties that are looked at."""

CHANGEABLE = ("setuid", "devices", "exec", "atime", "mountpoint")
"""Properties that can be set again at any time; readonly has its own moment."""

_PASSING = "temporary"
"""Source of a property that an option of the mount gives (zfsprops(7))."""


class Dataset(msgspec.Struct, frozen=True):
    """A file system of ZFS that one half of a jail is."""

    name: str
    mountpoint: str
    """Absolute path; below ROOT."""
    half: Literal["s", "t"]
    exec: bool
    """Whether programs on it may be started."""

    @property
    def properties(self) -> tuple[tuple[str, str], ...]:
        """What it is made with. `readonly` comes last of all, once it has its content."""
        return (
            ("mountpoint", self.mountpoint),
            *_QUIET,
            ("exec", "on" if self.exec else "off"),
        )

    @property
    def readonly(self) -> bool:
        """Whether nobody may write to it, root of the host included."""
        return self.half == "s"

    @property
    def flags(self) -> tuple[str, ...]:
        """Mount flags that say the same, for a ZFS that does not enforce its properties (zfs-fuse)."""
        words = ["ro"] if self.readonly else []
        words += ["nosuid", "nodev"]
        return tuple(words) if self.exec else (*words, "noexec")


def check_parent(name: str, where: str) -> str:
    """Return the name of a dataset that others are made below. Raises UsageError."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or "/" not in name:
        raise UsageError(where, repr(name), "POOL/NAME, a file system of its own for jails")
    return name


def datasets(parent: str, root: str, jail: str, *, writable: bool, exec_: bool) -> tuple[Dataset, ...]:
    """Return the datasets of one jail below `parent`: what it reads and, if anything, what it writes.

    They lie as ROOT does, s and t apart, so that no name of a jail can meet another dataset.
    """
    found = [Dataset(f"{parent}/s/{jail}", f"{root}/s/{jail}", "s", exec_)]
    if writable:
        found.append(Dataset(f"{parent}/t/{jail}", f"{root}/t/{jail}", "t", exec=False))
    return tuple(found)


def groups(parent: str) -> tuple[str, ...]:
    """Return the datasets that only hold others, and are mounted nowhere."""
    return (f"{parent}/s", f"{parent}/t")


# --- command lines -----------------------------------------------------------------------------------------


def create(name: str, properties: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the command that makes a dataset."""
    options = [word for key, value in properties for word in ("-o", f"{key}={value}")]
    return ("zfs", "create", *options, name)


def change(name: str, key: str, value: str) -> tuple[str, ...]:
    """Return the command that sets a property."""
    return ("zfs", "set", f"{key}={value}", name)


def look(name: str, keys: Sequence[str] = CHECKED) -> tuple[str, ...]:
    """Return the command whose output `values` reads."""
    return ("zfs", "get", "-H", "-p", "-o", "name,property,value,source", ",".join(keys), name)


def listing(name: str) -> tuple[str, ...]:
    """Return the command whose output `names` reads: a dataset with all below it, snapshots included.

    Without -p, which older ones lack here: no numbers are asked for.
    """
    return ("zfs", "list", "-H", "-r", "-o", "name", "-t", "all", name)


# --- what they say ------------------------------------------------------------------------------------------


def values(text: str, name: str) -> dict[str, str]:
    """Return the properties of one dataset from the output of `look`. Raises LayoutError.

    What is so only until it is mounted anew, by an option of mount(8), is marked: it is not kept.
    """
    found = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 4 or fields[0] != name:
            raise LayoutError(f"zfs get {name}", repr(line[:80]), "name, property, value and source")
        found[fields[1]] = f"{fields[2]} ({_PASSING})" if fields[3] == _PASSING else fields[2]
    return found


def names(text: str) -> list[str]:
    """Return what `listing` lists, one name a line."""
    return [line for line in text.splitlines() if line]


def differences(
    dataset: Dataset, found: Mapping[str, str], *, readonly: bool | None = None
) -> list[tuple[str, str, str]]:
    """Return property, value and planned value where a dataset is not as planned.

    A property that this ZFS does not know is left out. `readonly`: during a deploy it is another.
    """
    on = dataset.readonly if readonly is None else readonly
    wanted = {**dict(dataset.properties), "readonly": "on" if on else "off", "mounted": "yes"}
    return [(key, found[key], value) for key, value in wanted.items() if found.get(key, value) != value]
