"""ldd(1): what the loader of a program says it would load (facts 6.4); it is run, as by the real one."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys

import options as getopt
import state as kept

USAGE = "usage: ldd [-f format] program ..."
_LISTED = re.compile(r"\t(?P<name>\S+)(?: => (?P<path>/\S+|not found))?(?: \((?P<at>0x[0-9a-f]+)\))?")
_PLAIN, _OTHER = "\t%o => %p (%x)\n", "\t%o (%x)\n"


def interpreter(path: str) -> str | None:
    """The program's loader; "" for a static one, None if it is no ELF file at all. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:4] != b"\x7fELF" or head[4] != 2 or head[5] != 1:
            return None
        at, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        for number in range(count):
            file.seek(at + number * size)
            kind, _, offset, _, _, length = struct.unpack("<IIQQQQ", file.read(40))
            if kind == 3:
                file.seek(offset)
                return file.read(length).rstrip(b"\0").decode()
    return ""


def _said(text: str, values: dict[str, str]) -> str:
    """A format of rtld(1): the letters that facts 6.4 know, and \\n and \\t."""
    out = re.sub(r"\\([nt\\])", lambda found: {"n": "\n", "t": "\t", "\\": "\\"}[found[1]], text)
    unknown = set(re.findall(r"%([^oApx])", out))
    if unknown:
        sys.exit(f"ldd: %{min(unknown)}: the fact sheet does not know this")
    return re.sub(r"%([oApx])", lambda found: values[found[1]], out)


def _one(program: str, formats: list[str], *, named: bool) -> int:
    try:
        loader = interpreter(program)
    except OSError as error:
        print(f"ldd: {program}: {error.strerror}", file=sys.stderr)
        return 1
    if not loader:
        what = "not a dynamic executable" if loader is None else "not a dynamic ELF executable"
        print(f"ldd: {program}: {what}", file=sys.stderr)
        return 1
    if not os.access(program, os.X_OK):
        print(f"ldd: {program}: can't execute: Permission denied", file=sys.stderr)
        return 1
    env = dict(os.environ) | {"LD_TRACE_LOADED_OBJECTS": "1"}
    done = subprocess.run([os.path.abspath(program)], capture_output=True, text=True, env=env)
    if named:
        print(f"{program}:")
    status = 0 if done.returncode == 0 else 1
    for line in sorted(done.stdout.splitlines(), key=lambda line: "vdso" in line):
        found = _LISTED.fullmatch(line)
        if not found or found["name"] == loader:
            continue  # the loader itself is not listed
        name, at = found["name"], found["at"] or "0"
        if "vdso" in name:
            name = path = "[vdso]"
        else:
            path = found["path"] or name
        values = {"o": name, "A": program, "p": path, "x": at}
        # The first format is for names that start with lib, the second for the others.
        print(_said(formats[0] if name.startswith("lib") else formats[1], values), end="")
    sys.stdout.flush()
    return status


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, programs = getopt.getopt(argv, "f:")
    except getopt.GetoptError as error:
        print(f"ldd: illegal option -- {error.opt}\n{USAGE}", file=sys.stderr)
        return 1
    formats = [value for _, value in given]
    if not programs or len(formats) > 2:
        print(USAGE if not programs else "ldd: too many formats", file=sys.stderr)
        return 1
    both = [*formats, *[_PLAIN, _OTHER][len(formats) :]]
    return max(_one(program, both, named=not formats or len(programs) > 1) for program in programs)
