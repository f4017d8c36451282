"""What a devfs shows: the nodes of a small FreeBSD host, and the rules that hide them (facts 1.9)."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shlex
import stat

# Everything but the harmless handful is /dev/null in disguise: visible, never dangerous.
_NODES = {
    "null": (1, 3, 0o666),
    "zero": (1, 5, 0o666),
    "full": (1, 7, 0o666),
    "random": (1, 8, 0o666),
    "urandom": (1, 9, 0o666),
    "tty": (5, 0, 0o666),
}
_DISGUISED = [
    "ada0",
    "ada0p1",
    "bpf",
    "console",
    "crypto",
    "fuse",
    "io",
    "klog",
    "kmem",
    "mem",
    "pci",
    "pf",
    "ptmx",
    "ttyv0",
    "zfs",
    "devctl",
    "consolectl",
]
_LINKS = {"stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
ALL = (*_NODES, *_DISGUISED, *_LINKS, "fd", "fd/0", "fd/1", "fd/2", "pts", "pts/0")


class BadRules(ValueError):
    """A line of devfs.rules(5) that is not understood."""


def parse(text: str, names: dict[str, str]) -> dict[str, list[str]]:
    """Rulesets by number; `names` collects [name=number] for $name."""
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        header = re.fullmatch(r"\[([A-Za-z_][A-Za-z0-9_]*)=(\d+)\]", line)
        if header:
            names[header[1]] = header[2]
            current = found[header[2]] = []
            continue
        if current is None or not line.startswith("add "):
            raise BadRules(f"line {number}: {raw}")
        words = shlex.split(line)[1:]
        for index, word in enumerate(words):
            if word.startswith("$"):
                if word[1:] not in names:
                    raise BadRules(f"line {number}: {word}: no such ruleset")
                words[index] = names[word[1:]]
        if re.search(r"path\s+[^'\"\s]*[*?\[]", line):
            raise BadRules(f"line {number}: a glob in a rule path needs quotes")
        if not (
            words in (["hide"], ["unhide"])
            or (len(words) == 2 and words[0] == "include" and words[1].isdigit())
            or (
                len(words) >= 3
                and words[0] == "path"
                and words[2] in ("hide", "unhide", "mode", "group", "user")
            )
        ):
            raise BadRules(f"line {number}: {raw}")
        current.append(shlex.join(words))
    return found


def visible(rules: list[str], rulesets: dict[str, list[str]], shown: set[str] | None = None) -> set[str]:
    """The names left to be seen after the rules; without rules, all."""
    seen = set(ALL) if shown is None else shown
    for rule in rules:
        words = shlex.split(rule)
        if words[0] == "include":
            seen = visible(rulesets.get(words[1], []), rulesets, seen)
        elif words[0] in ("hide", "unhide"):
            seen = set() if words[0] == "hide" else set(ALL)
        elif words[2] in ("hide", "unhide"):
            matching = {name for name in ALL if fnmatch.fnmatchcase(name, words[1])}
            seen = seen - matching if words[2] == "hide" else seen | matching
    return seen


def populate(on: str, names: set[str]) -> None:
    for name in sorted(names):
        path = os.path.join(on, name)
        with contextlib.suppress(FileExistsError):
            os.makedirs(os.path.dirname(path), mode=0o555, exist_ok=True)
            if name in ("fd", "pts"):
                os.makedirs(path, mode=0o555, exist_ok=True)
            elif name in _LINKS:
                os.symlink(_LINKS[name], path)
            elif name.startswith("fd/"):
                os.symlink(f"/proc/self/{name}", path)
            else:
                major, minor, mode = _NODES.get(name, (1, 3, 0o600))
                _node(path, major, minor, mode)


def _node(path: str, major: int, minor: int, mode: int) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | mode, os.makedev(major, minor))
    except PermissionError:  # a user namespace: the name is there, the device is not
        with open(path, "xb"):
            pass
    os.chmod(path, mode)
