"""chflags(1): file flags, as Linux's immutable attribute where the file system has one."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import stat
import sys

import options as getopt
import state as kept

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any


NAMES = [
    "arch",
    "archived",
    "nodump",
    "opaque",
    "sappnd",
    "sappend",
    "schg",
    "schange",
    "simmutable",
    "sunlnk",
    "sunlink",
    "uappnd",
    "uappend",
    "uarch",
]
NAMES += ["uchg", "uchange", "uimmutable", "uunlnk", "uunlink"]
_SAME = {
    "schange": "schg",
    "simmutable": "schg",
    "uchange": "uchg",
    "uimmutable": "uchg",
    "sunlink": "sunlnk",
}
_GET, _SET, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


def attribute(path: str, *, on: bool | None) -> bool:
    """Read the immutable attribute, after setting it; False where there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        value = array.array("l", [0])
        fcntl.ioctl(fd, _GET, value)
        if on is not None:
            value[0] = value[0] | _IMMUTABLE if on else value[0] & ~_IMMUTABLE
            fcntl.ioctl(fd, _SET, value)
        return bool(value[0] & _IMMUTABLE)
    finally:
        os.close(fd)


def change(state: dict[str, Any], path: str, add: set[str], remove: set[str], *, clear: bool) -> None:
    info = os.lstat(path)
    key = f"{info.st_dev}:{info.st_ino}"
    old = set(state["flags"].get(key, []))
    new = (set() if clear else old - remove) | add
    system = {"schg", "sappnd", "sunlnk"}
    if system & (old - new) and int(state["sysctl"].get("kern.securelevel", "-1")) > 0:
        raise PermissionError(1, "Operation not permitted", path)
    if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
        wanted = bool({"schg", "uchg"} & new)
        try:
            if attribute(path, on=None) != wanted:
                attribute(path, on=wanted)
        except OSError as error:
            if error.errno not in (25, 95, 1):  # no such attribute here, or a user namespace: remembered only
                raise
    if os.statvfs(os.path.dirname(path) if stat.S_ISLNK(info.st_mode) else path).f_flag & os.ST_RDONLY:
        raise OSError(30, "Read-only file system", path)
    if new:
        state["flags"][key] = sorted(new)
    else:
        state["flags"].pop(key, None)


def main(argv: list[str]) -> int:
    kept.guard()
    usage = "usage: chflags [-fhv] [-R [-H | -L | -P]] flags file ..."
    try:
        given, rest = getopt.getopt(argv, "fhHLPRv")
    except getopt.GetoptError:
        rest = []
    if len(rest) < 2:
        print(usage, file=sys.stderr)
        return 1
    flags = {flag for flag, _ in given}
    words, *paths = rest
    add: set[str] = set()
    remove: set[str] = set()
    if words != "0":
        for word in words.split(","):
            negative = word.startswith("no") and word != "nodump"
            plain = word[2:] if negative else word
            if plain == "dump" and negative is False and word == "dump":
                remove.add("nodump")
            elif plain in NAMES:
                (remove if negative else add).add(_SAME.get(plain, plain))
            else:
                print(f"chflags: invalid flags: {words}", file=sys.stderr)
                return 1
    status = 0
    with kept.locked() as state:
        for top in paths:
            everything = [top]
            if "-R" in flags:
                for directory, names, files in os.walk(top):
                    everything += [os.path.join(directory, name) for name in [*names, *files]]
            for path in everything:
                try:
                    follow = not {"-h", "-R"} & flags
                    change(
                        state,
                        os.path.realpath(path, strict=True) if follow else path,
                        add,
                        remove,
                        clear=words == "0",
                    )
                    if "-v" in flags:
                        print(path)
                except OSError as error:
                    if "-f" not in flags:
                        print(f"chflags: {path}: {os.strerror(error.errno or 1)}", file=sys.stderr)
                        status = 1
    return status


def quietly(paths: list[str]) -> None:
    """Set schg on each, for mtree -U."""
    with kept.locked() as state, contextlib.suppress(OSError):
        for path in paths:
            change(state, path, {"schg"}, set(), clear=False)
