"""Who keeps a mount busy: working directories, roots, open files and programs, by mount ID."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from layout.core.errors import printable
from layout.host.linux import syscalls


@dataclass(frozen=True, slots=True)
class Holder:
    """A process and what it holds."""

    pid: int
    command: str
    what: str


def of(target: str) -> list[Holder]:
    """Return the processes that hold something on the mount at `target`.

    Processes of other mount namespaces hold copies of their own and are not what makes this one busy.
    """
    try:
        fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        wanted = syscalls.statx_mount_id(fd)
    finally:
        os.close(fd)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            what = _held(name, wanted)
            if what:
                found.append(Holder(int(name), _command(name), what))
    return found


def below(paths: list[str]) -> list[Holder]:
    """Return the processes whose root, working directory or open files lie at or below one of the paths.

    By the names that /proc gives, for processes of any mount namespace: before something is removed, a
    process that still stands in it is to be found even where the mount is its own.
    """
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        for link in ("root", "cwd", "exe"):
            with contextlib.suppress(OSError):
                place = os.readlink(f"/proc/{name}/{link}")
                if any(place == path or place.startswith(path + "/") for path in paths):
                    found.append(Holder(int(name), _command(name), link))
                    break
    return found


def _held(pid: str, wanted: int) -> str:
    for link, what in (("cwd", "working directory"), ("root", "root"), ("exe", "program")):
        if _mount_of(f"/proc/{pid}/{link}") == wanted:
            return what
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            if _mount_of(f"/proc/{pid}/fd/{number}") == wanted:
                return f"open file {number}"
    return ""


def _mount_of(link: str) -> int:
    try:
        fd = os.open(link, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        return syscalls.statx_mount_id(fd)
    finally:
        os.close(fd)


def _command(pid: str) -> str:
    try:
        fd = os.open(f"/proc/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "?"
    try:
        return printable(os.read(fd, 64).strip())
    finally:
        os.close(fd)


def describe(found: list[Holder]) -> str:
    """Return holders as part of a sentence."""
    if not found:
        return "something that /proc does not show"
    words = [f"process {holder.pid} ({holder.command}, {holder.what})" for holder in found[:3]]
    more = len(found) - 3
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")
