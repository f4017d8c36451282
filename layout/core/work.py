"""What is to be done, as data: the missing part of a plan with everything from the host that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from layout.core.model import Entry, HostFile, Mount, Plan

TREES = ("j/mroot", "skel/s", "skel/t")
"""What a base consists of."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the base `host`; `content` is a link's target, a text, or the host's file to copy."""

    kind: Literal["dir", "link", "copy", "text"]
    path: str
    mode: int = 0
    content: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the base comes from."""

    kind: Literal["host", "directory", "archive", "installer"]
    path: str
    """Absolute, so that the script may be run from anywhere."""
    toml: str
    """As it was given, as a value of TOML."""
    trees: tuple[str, ...] = TREES
    """What of the base is missing: one population makes all, and what is there stays."""
    items: tuple[Item, ...] = ()
    sha256: str = ""
    """Of the archive, when its digest was looked at."""
    notes: tuple[str, ...] = ()
    """What the base's record says of the source, each a value of TOML."""
    commands: tuple[tuple[str, ...], ...] = ()
    """Of an installer: what fills the base."""
    configuration: str = ""
    """Of an installer's package repository."""
    keys: str = ""
    """A directory of the host that goes into the base first."""


@dataclass(frozen=True, slots=True)
class Written:
    """A generated text with the text that it replaces; None where there is none."""

    file: HostFile
    former: str | None


@dataclass(frozen=True, slots=True)
class Node:
    """What a minimal /dev has: 'node' with major and minor, 'link' with a target, 'dir' with a mode."""

    kind: Literal["node", "link", "dir"]
    name: str
    first: str
    second: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What is to be done for one jail, or for what all jails share."""

    entries: tuple[Entry, ...]
    """All of its entries, for what comes along with a tree."""
    steps: tuple[tuple[Entry, bool], ...]
    """What is missing; True for a directory that only has another mode."""
    files: tuple[Written, ...] = ()
    record: Written | None = None
    """A new one holds a line `created = ...`, which gets the time of the run."""


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that is to be done, in order."""

    version: str
    plan: Plan
    source: Source | None
    """Of the base, when it is to be populated."""
    parts: tuple[Part, ...]
    mounts: tuple[tuple[Mount, ...], ...]
    """Trees of mounts, each to be attached as a whole."""
    devices: tuple[Node, ...] = ()

    @property
    def steps(self) -> list[tuple[Entry, bool]]:
        """Entries of all parts that are missing."""
        return [step for part in self.parts for step in part.steps]

    @property
    def records(self) -> list[Written]:
        """Records of all parts."""
        return [part.record for part in self.parts if part.record is not None]
