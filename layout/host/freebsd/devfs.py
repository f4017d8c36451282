"""devfs(8): which rules a ruleset has, and which nodes a devfs mounted with it may show.

A number that nobody has loaded is no error for the kernel: it makes an empty ruleset, which hides nothing.
"""

from __future__ import annotations

import fnmatch
import stat
from collections.abc import Sequence

from layout.core.errors import LayoutError
from layout.host.beneath import Dir, open_root
from layout.host.run import run

_DEPTH = 8
"""Rulesets that include each other in a circle end here."""
_LEVELS = 4

Rule = tuple[str, ...]


def rules(number: int) -> list[Rule]:
    """Return the words of each rule of a ruleset, without its number; none for one that is not loaded."""
    done = run("devfs", "rule", "-s", str(number), "show", ok=range(256))
    if done.status != 0:
        return []
    lines = [line.split() for line in done.stdout.splitlines()]
    # A pattern is quoted where it came quoted from devfs.rules(5).
    return [tuple(word.strip("'\"") for word in words[1:]) for words in lines if words[1:]]


def require(number: int, path: str) -> list[Rule]:
    """Make sure that a ruleset is loaded and hides something; return its rules.

    Raises LayoutError, naming `path`.
    """
    found = _expand(number, 0)
    if not any("hide" in rule for rule in found):
        seen = f"devfs ruleset {number}, which is not loaded or hides nothing"
        hint = "service devfs restart, which loads /etc/defaults/devfs.rules and /etc/devfs.rules"
        raise LayoutError(path, seen, f"ruleset {number} loaded: an empty one shows every device", hint)
    return found


def _expand(number: int, depth: int) -> list[Rule]:
    if depth > _DEPTH:
        return []
    found: list[Rule] = []
    for rule in rules(number):
        if rule[0] != "include":
            found.append(rule)
        elif len(rule) > 1 and rule[1].isascii() and rule[1].isdigit():
            found += _expand(int(rule[1]), depth + 1)
        else:
            what = f"devfs ruleset {number}"
            raise LayoutError(what, repr(" ".join(rule)), "include with the number of a ruleset")
    return found


def is_shown(path: str, ruleset: Sequence[Rule]) -> bool:
    """Say whether a node may be seen by these rules. One that asks for more than a path may apply."""
    shown = True
    for rule in ruleset:
        if not {"hide", "unhide"} & set(rule):
            continue
        pattern = rule[rule.index("path") + 1] if "path" in rule else "*"
        sure = "type" not in rule
        if fnmatch.fnmatchcase(path, pattern) and (sure or "unhide" in rule):
            shown = "unhide" in rule
    return shown


def nodes(mount_point: str) -> list[str]:
    """Return every node in a mounted devfs, by its path there; directories only by what is in them."""
    with open_root(mount_point) as top:
        return sorted(_nodes(top, "", 0))


def _nodes(here: Dir, path: str, level: int) -> list[str]:
    found = []
    for name in here.names():
        status = here.lstat(name)
        if status is None:
            continue
        if not stat.S_ISDIR(status.st_mode):
            found.append(path + name)
        elif level < _LEVELS:
            with here.open(name) as below:
                found += _nodes(below, f"{path}{name}/", level + 1)
    return found
