"""rcorder(8) (facts 3.2)."""

from __future__ import annotations

import re
import sys

import options as getopt
import state as kept

_HEADER = re.compile(r"^# (PROVIDE|REQUIRE|BEFORE|KEYWORD): *(.*)$")


class Script:
    """A file of rc.d and what its header says."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.words: dict[str, list[str]] = {"PROVIDE": [], "REQUIRE": [], "BEFORE": [], "KEYWORD": []}


def parse(path: str) -> Script:
    """The contiguous block of header lines; what follows it does not count."""
    script, seen = Script(path), False
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            header = _HEADER.match(line.rstrip("\n"))
            if header:
                script.words[header[1]] += header[2].split()
                seen = True
            elif seen:
                break
    return script


def order(paths: list[str], say: bool = True) -> list[Script]:
    scripts = [parse(path) for path in paths]
    providers: dict[str, list[Script]] = {}
    for script in scripts:
        for name in script.words["PROVIDE"]:
            providers.setdefault(name, []).append(script)
    after: dict[str, list[Script]] = {script.path: [] for script in scripts}
    for script in scripts:
        for name in script.words["REQUIRE"]:
            if name not in providers and say:
                print(
                    f"rcorder: requirement `{name}' in file `{script.path}' has no providers.",
                    file=sys.stderr,
                )
            after[script.path] += providers.get(name, [])
        for name in script.words["BEFORE"]:
            for other in providers.get(name, []):
                after[other.path].append(script)
    done: list[Script] = []

    def visit(script: Script, chain: tuple[str, ...]) -> None:
        if script.path in chain:
            if say:
                print(f"rcorder: Circular dependency on file `{script.path}'.", file=sys.stderr)
            return
        if script not in done:
            for earlier in after[script.path]:
                visit(earlier, (*chain, script.path))
            if script not in done:
                done.append(script)

    for script in scripts:
        visit(script, ())
    return done


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, paths = getopt.getopt(argv, "k:s:")
    except getopt.GetoptError:
        paths = []
    if not paths:
        print("usage: rcorder [-k keyword] [-s keyword] file ...", file=sys.stderr)
        return 1
    keep = {value for flag, value in given if flag == "-k"}
    skip = {value for flag, value in given if flag == "-s"}
    for script in order(paths):
        keywords = set(script.words["KEYWORD"])
        if not keywords & skip and (not keep or keywords & keep):
            print(script.path)
    return 0
