"""umount(8), with its dangerous ways of finding out what NAME means (facts 1.4)."""

from __future__ import annotations

import errno
import os
import re
import sys

import fstab
import options as getopt
import state as kept
import vfs
from mount_cmd import usage, warn

USAGE = "usage: umount [-fNnv] special | node | fsid ...\n       umount -a | -A [-F fstab] [-fnv] [-t type]"


def find(entries: list[vfs.Entry], name: str) -> vfs.Entry | None:
    """By fsid, by exact mountpoint, then by exact SOURCE, newest first."""
    newest = list(reversed(entries))
    if re.fullmatch(r"[0-9a-f]{16}", name):
        for entry in newest:
            if vfs.fsid_text(entry) == name:
                return entry
    for key in ("on", "from"):
        for entry in newest:
            if entry[key] == name:
                return entry
    return None


def resolve(entries: list[vfs.Entry], name: str) -> vfs.Entry | str:
    entry = find(entries, name)
    stripped = name.rstrip("/") or "/"
    if entry is None and stripped != name:
        entry = find(entries, stripped)
    if entry is not None:
        return entry
    try:
        real = os.path.realpath(name, strict=True)
    except OSError as error:
        print(f"umount: {name}: statfs: {vfs.strerror(error)}", file=sys.stderr)
        return f"{name}: unknown file system"
    for entry in reversed(entries):
        if entry["on"] == real:
            return entry
    if not os.path.isdir(real):
        return f"{name}: not a file system root directory"
    return f"{name}: not a file system root directory"


def unmount(name: str, types: str | None, flags: set[str]) -> int:
    with kept.locked() as state:
        entries = vfs.table(state)
        entry = resolve(entries, name)
        if isinstance(entry, str):
            return warn("umount", entry)
        if not fstab.chosen(entry["type"], types):
            return 1
        try:
            vfs.unmount(state, entry)
        except vfs.VfsError as error:
            if error.errno == errno.EBUSY and "f" in flags:
                # The real one would tear the files away; here nothing is ever lazy or forced.
                return warn(
                    "umount", f"unmount of {entry['on']} failed", "Device busy (force is not played here)"
                )
            return warn("umount", f"unmount of {entry['on']} failed", error)
    if "v" in flags:
        print(f"{entry['from']}: unmount from {entry['on']}")
    return 0


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "AaF:fnNt:v")
    except getopt.GetoptError as error:
        return usage(f"umount: illegal option -- {error.opt}\n{USAGE}")
    flags = {flag[1] for flag, _ in given}
    values = {flag[1]: value for flag, value in given}
    types = values.get("t")
    if {"f", "n"} <= flags:
        return warn("umount", "-f and -n are mutually exclusive")
    if "N" in flags:
        return warn("umount", "-N is only for NFS, of which there is none here")
    if flags & {"a", "A"}:
        if rest or {"a", "A"} <= flags:
            return usage(USAGE)
        names = []
        if "a" in flags:
            try:
                lines = fstab.load(values.get("F"))
            except OSError as error:
                return warn("umount", error.filename, vfs.strerror(error))
            for line in reversed(lines):
                known = line.kind in ("rw", "ro", "rq") and line.type in (*vfs.OWN, "zfs", "ufs")
                if line.file != "/" and known and fstab.chosen(line.type, types):
                    names.append(line.file)
        else:
            with kept.locked() as state:
                names = [entry["on"] for entry in reversed(vfs.table(state))]
            names = [name for name in names if name not in ("/", "/dev")]
        return max([unmount(name, types, flags) for name in names], default=0)
    if not rest or "F" in flags:
        return usage(USAGE)
    return max(unmount(name, types, flags) for name in rest)
