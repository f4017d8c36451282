"""Places of t from which something is run, or read by what runs, without anybody asking: what a jail puts
there comes to life again after a restart, or in the hands of an administrator who shares its t.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from layout.core.model import Platform


class Place(NamedTuple):
    """A directory or file of t."""

    path: str
    """Below t/NAME."""
    reader: str
    """Who runs what is there."""
    files_only: bool = False
    """Directories in it are places of their own."""


_HINTS = "the run-time linker (ldconfig(8))"

PLACES = {
    Platform.FREEBSD: (
        Place("var/cron/tabs", "cron(8)"),
        Place("var/at/jobs", "at(1)"),
        Place("var/db/pkg", "pkg(8), by its scripts"),
        Place("var/db/ports", "make(1), by the options of ports(7)"),
        Place("var/db/etcupdate", "etcupdate(8), as its base of a merge"),
        Place("var/db/freebsd-update", "freebsd-update(8)"),
        Place("var/run/ld-elf.so.hints", _HINTS),
        Place("var/run/ld-elf32.so.hints", _HINTS),
        Place("var/yp", "yp(8), by its Makefile"),
    ),
    Platform.LINUX: (
        Place("var/spool/cron", "cron(8)", files_only=True),
        Place("var/spool/cron/crontabs", "cron(8)"),
        Place("var/spool/cron/atjobs", "at(1)"),
        Place("var/spool/at", "at(1)", files_only=True),
        Place("var/spool/anacron", "anacron(8)"),
        Place("var/lib/dpkg", "dpkg(1), by its scripts"),
        Place("var/lib/rpm", "rpm(8), by its scripts"),
        Place("var/lib/cloud/scripts", "cloud-init(1)"),
    ),
}

_MAGIC = 0x746E6845
_VERSION = 1
_HEADER = struct.Struct("6I")
"""Magic, version, offset and size of the strings, offset in them and length of the list (elf-hints.h)."""


def is_hints(path: str) -> bool:
    """Say whether a place is a file of hints, which each boot of a jail makes anew."""
    return path.endswith(".hints")


def hinted(data: bytes) -> list[str] | None:
    """Return the directories that a file of hints names, None when it is no such file (rtld(1))."""
    for order in ("<", ">"):
        if len(data) < _HEADER.size:
            return None
        magic, version, strings, size, at, length = struct.unpack_from(f"{order}6I", data)
        if magic == _MAGIC and version == _VERSION:
            start = strings + at
            if at + length > size or start + length > len(data):
                return None
            text = data[start : start + length].decode("utf-8", "surrogateescape")
            return [part for part in text.split(":") if part]
    return None


def is_writable(directory: str) -> bool:
    """Say whether a jail can write to a directory of libraries: below var or tmp, or not absolute."""
    parts = [part for part in directory.split("/") if part not in {"", "."}]
    return not directory.startswith("/") or ".." in parts or parts[:1] in (["var"], ["tmp"], ["t"])
