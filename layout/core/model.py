"""The nouns: what a tree, a mount table and a jail are made of. Frozen data, compared with ==.

Structures of msgspec: like frozen dataclasses, but quickly defined, and quickly made by the thousand.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

import msgspec

from layout.core.service import Settings

Below = NewType("Below", str)
"""A path relative to ROOT, with '/' between components and none of them '.' or '..'."""


class Platform(StrEnum):
    """Whose mounts are spelled: nullfs of FreeBSD or bind mounts of Linux."""

    FREEBSD = "freebsd"
    LINUX = "linux"


class Preset(StrEnum):
    """Mount options: those of the 2010 message, or with nosuid everywhere and noexec on t."""

    CLASSIC = "classic"
    HARDENED = "hardened"


class Manage(StrEnum):
    """When the writable half is mounted: during a session only, or always."""

    SESSION = "session"
    BOOT = "boot"


class Boot(StrEnum):
    """Who mounts a jail when the host starts: jail(8) or layout itself, the host's fstab, or nobody.

    Never two of them: mounted twice, a nullfs fails with EDEADLK and the jail does not start.
    """

    JAIL = "jail"
    FSTAB = "fstab"
    NONE = "none"


class Kind(StrEnum):
    """Which of the five designs a jail has (docs/designs.md)."""

    SHARED = "shared"
    OSLESS = "osless"
    FULL = "full"
    THIN = "thin"
    SERVICE = "service"


class Site(msgspec.Struct, frozen=True):
    """Where things live on this host."""

    root: str
    """ROOT: absolute, canonical, without a trailing slash."""
    etc: str
    """ETC: configuration and rendered tables."""
    platform: Platform
    host_fstab: str
    """The fstab of the host; ETC/fstab when ROOT was given explicitly: a trial touches nothing else."""
    trial: bool = False
    """ROOT was given explicitly: what is generated stays below ETC, and nothing starts at boot."""
    zfs: str = ""
    """The dataset that those of jails are made below; empty: their trees are directories."""


class State(msgspec.Struct, frozen=True):
    """A directory of t that a profile wants: made once, then the jail's own."""

    path: str
    mode: int
    owner: str
    group: str


class Jail(msgspec.Struct, frozen=True):
    """One jail with everything that was decided about it."""

    name: str
    profile: str
    preset: Preset
    manage: Manage
    platform: Platform
    boot: Boot = Boot.JAIL
    kind: Kind = Kind.SHARED
    suid: bool = False
    exec: bool = False
    state: tuple[State, ...] = ()
    source: str = ""
    """Kind full: what its world is made from."""
    settings: Settings = Settings()
    """What its profile says for its platform."""


class Directory(msgspec.Struct, frozen=True):
    """A real directory. Owners are names of the jail's own passwd(5) and group(5)."""

    path: Below
    mode: int
    reason: str
    owner: str = "root"
    group: str = "root"


class Symlink(msgspec.Struct, frozen=True):
    """A symbolic link with exactly this target, as written."""

    path: Below
    target: str
    reason: str


class File(msgspec.Struct, frozen=True):
    """A file that is written when it is absent and belongs to the administrator from then on."""

    path: Below
    text: str
    mode: int
    reason: str


class Identity(msgspec.Struct, frozen=True):
    """A file of 32 random hexadecimal digits, made once for each jail (machine-id(5))."""

    path: Below
    reason: str


class Copy(msgspec.Struct, frozen=True):
    """A tree that starts as a copy of `origin` and belongs to the administrator or the jail from then on."""

    path: Below
    origin: Below
    reason: str


class BaseTree(msgspec.Struct, frozen=True):
    """mroot and the skeletons, populated from a source."""

    path: Below
    source: str
    reason: str


class World(msgspec.Struct, frozen=True):
    """A complete system of a jail's own: unpacked once from its source, then the jail's."""

    path: Below
    jail: Jail
    reason: str


Entry = Directory | Symlink | File | Identity | Copy | BaseTree | World


class Mount(msgspec.Struct, frozen=True):
    """One line of fstab(5), decoded: paths as they are, options in the order written."""

    source: str
    target: str
    fstype: str
    options: tuple[str, ...]
    freq: int = 0
    passno: int = 0


class HostFile(msgspec.Struct, frozen=True):
    """A generated file outside the trees, by absolute path: a rendered table."""

    path: str
    text: str
    mode: int
    reason: str


class Tables(msgspec.Struct, frozen=True):
    """The paired mount tables of one jail: what it sees, and what its administrator sees."""

    jail: tuple[Mount, ...]
    manage: tuple[Mount, ...]


class JailPlan(msgspec.Struct, frozen=True):
    """Everything that must be so for one jail."""

    jail: Jail
    entries: tuple[Entry, ...]
    tables: Tables


class Plan(msgspec.Struct, frozen=True):
    """Everything that must be so for a set of jails: the host's part, the base's, then each jail's."""

    site: Site
    base: str
    """Source of mroot, as given to --base."""
    host: tuple[Entry, ...]
    mroot: tuple[Entry, ...]
    """Nothing when none of the jails shares a base."""
    jails: tuple[JailPlan, ...]
