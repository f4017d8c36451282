"""Files of the places that the selftest makes for itself: new, root's own, and seen by nobody else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_PIECE = 1 << 20


def directories(path: str) -> None:
    """Make a directory, and those above it."""
    head = os.path.dirname(path)
    if head not in {path, ""} and not os.path.isdir(head):
        directories(head)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)


FILES = ("file", "other", "linked")
"""What `fill` makes."""


def fill(top: str) -> None:
    """Make a directory with files that attacks are aimed at."""
    directories(top)
    for name in FILES:
        with open(f"{top}/{name}", "w", encoding="ascii") as file:
            file.write("as it was\n")


def copy(source: str, target: str, mode: int) -> None:
    """Copy what is in a file to a new one, its directories made."""
    directories(os.path.dirname(target))
    with open(source, "rb") as old, open(target, "xb") as new:
        while piece := old.read(_PIECE):
            new.write(piece)
        os.fchmod(new.fileno(), mode)


def below(top: str) -> Iterator[str]:
    """Yield the paths of all regular files below a directory."""
    with os.scandir(top) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from below(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry.path
