"""mtree(8): the real NetBSD program, refusing what facts 6.1 do not name; it sets schg, too."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import chflags_cmd
import options as getopt
import state as kept

KEYWORDS = {
    "cksum",
    "device",
    "flags",
    "gid",
    "gname",
    "ignore",
    "link",
    "md5",
    "md5digest",
    "mode",
    "nlink",
    "nochange",
    "optional",
    "rmd160",
    "rmd160digest",
    "sha1",
    "sha1digest",
    "sha256",
    "sha256digest",
    "sha384",
    "sha384digest",
    "sha512",
    "sha512digest",
    "size",
    "tags",
    "time",
    "type",
    "uid",
    "uname",
}
REAL = "/usr/bin/mtree"


def _flagged(spec: str, top: str) -> list[str]:
    """The directories that the specification wants schg."""
    found, path = [], []
    with open(spec, encoding="utf-8") as file:
        for line in file:
            words = line.split("#")[0].split()
            if not words or words[0].startswith("/"):
                continue
            if words[0] == "..":
                path = path[:-1]
                continue
            path = [*path, words[0]]
            if "flags=schg" in words[1:]:
                found.append(os.path.join(top, *path[1:]))
            if any(re.match(r"type=(?!dir)", word) for word in words[1:]):
                path = path[:-1]
    return found


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "cCdDeiK:k:mN:nPp:R:f:uUxX:")
    except getopt.GetoptError as error:
        print(f"mtree: illegal option -- {error.opt}", file=sys.stderr)
        print(
            "usage: mtree [-CcDdeimnPUux] [-f spec] [-Kk key] [-N dbdir] [-p path] [-R key] [-X file]",
            file=sys.stderr,
        )
        return 1
    values = dict(given)
    for flag, value in given:
        if flag in ("-K", "-k", "-R"):
            unknown = [word for word in re.split(r"[ ,]", value) if word not in KEYWORDS]
            if unknown:
                print(f"mtree: unknown keyword `{unknown[0]}'", file=sys.stderr)
                return 1
    if rest:
        print("mtree: no operands are taken", file=sys.stderr)
        return 1
    if not os.path.exists(REAL):
        print("mtree: mtree-netbsd is not installed here", file=sys.stderr)
        return 1
    flags = {flag for flag, _ in given}
    # The NetBSD program that Debian has: without -n, and content with what is there too much.
    words = [word for flag, value in given if flag != "-n" for word in ([flag, value] if value else [flag])]
    done = subprocess.run([REAL, *words], stdout=subprocess.PIPE)
    lines = done.stdout.splitlines(keepends=True)
    if "-n" in flags and "-c" in flags:
        lines = [line for line in lines if not line.startswith(b"#")]
    sys.stdout.buffer.write(b"".join(lines))
    sys.stdout.flush()
    status = done.returncode
    if status == 0 and lines and not flags & {"-c", "-C", "-D", "-u", "-U"}:
        status = 2
    left_out = {word for flag, value in given if flag == "-R" for word in re.split(r"[ ,]", value)}
    if {"-u", "-U"} & flags and "-f" in values and status != 1 and "flags" not in left_out:
        top = values.get("-p", ".")
        chflags_cmd.quietly([path for path in _flagged(values["-f"], top) if os.path.isdir(path)])
    return status
