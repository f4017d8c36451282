"""devfs(8): only what the fact sheet uses, looking at rulesets."""

from __future__ import annotations

import sys

import state as kept


def main(argv: list[str]) -> int:
    kept.guard()
    with kept.locked() as state:
        sets = state["rulesets"] if state["devfs_loaded"] else {}
    match argv:
        case ["rule", "showsets"]:
            for number in sorted(sets, key=int):
                print(number)
            return 0
        case ["rule", "-s", number, "show"] if number.isdigit():
            # A ruleset that nobody loaded is an empty one, not an error.
            for index, rule in enumerate(sets.get(number, []), 1):
                print(f"{index * 100} {rule}")
            return 0
    print("usage: devfs rule [-s ruleset] show | showsets", file=sys.stderr)
    return 1
