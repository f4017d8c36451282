"""pfctl(8): fill, flush and list the rules of anchors (facts 6.3); nothing is translated by them."""

from __future__ import annotations

import os
import re
import sys

import options as getopt
import pf_rules
import state as kept

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any

USAGE = "usage: pfctl [-denqv] [-a anchor] [-F modifier] [-f file] [-s modifier]"
_FLUSH, _SHOW = ("all", "nat", "rules"), ("nat", "rules", "Anchors", "info")


def warn(text: str) -> int:
    sys.stdout.flush()
    print(f"pfctl: {text}", file=sys.stderr)
    return 1


def _usage() -> int:
    print(USAGE, file=sys.stderr)
    return 1


def _load(anchor: str, path: str) -> list[pf_rules.Rule] | None:
    """Read and check a file; None, after saying why, if it cannot be loaded."""
    shown = "stdin" if path == "-" else path
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except OSError as error:
        warn(f"{shown}: {error.strerror}")
        warn("cannot open the main config file!: " + str(error.strerror))
        return None
    try:
        return pf_rules.parse(text, kept.read()["interfaces"], main=not anchor)
    except pf_rules.Bad as error:
        number, what = error.args
        print(f"{shown}:{number}: {what}", file=sys.stderr)
        warn("Syntax error in config file: pf rules not loaded")
        return None


def _files(anchor: str, path: str) -> dict[str, list[pf_rules.Rule]] | None:
    """The rules of the file and of all that it loads, by anchor."""
    rules = _load(anchor, path)
    if rules is None:
        return None
    found = {anchor: [rule for rule in rules if rule.kind not in ("load", "option")]}
    for rule in rules:
        if rule.kind == "load":
            more = _load(rule.anchor, rule.file)
            if more is None:
                return None
            found[rule.anchor] = more
    return found


def _names(pf: dict[str, Any], anchor: str) -> list[str]:
    """All anchors, with their parents, and those that rules attach; without the pattern."""
    names = set()
    for name, rules in pf["anchors"].items():
        attached = [re.sub(r"/?\*$", "", rule["anchor"]) for rule in rules if rule["anchor"]]
        for one in [name, *(f"{name}/{more}".strip("/") for more in attached)]:
            parts = one.split("/")
            names |= {"/".join(parts[: length + 1]) for length in range(len(parts))}
    prefix = f"{anchor}/" if anchor else ""
    return sorted(name for name in names if name and name.startswith(prefix))


def _show(pf: dict[str, Any], what: str, anchor: str, *, verbose: bool) -> int:
    if what == "info":
        print(f"Status: {'Enabled' if pf['state'] == 'enabled' else 'Disabled'}")
        return 0
    if what == "Anchors":
        depth = len(anchor.split("/")) if anchor else 0
        for name in _names(pf, anchor):
            if verbose or name.count("/") == depth:
                print(f"  {name}")
        return 0
    if anchor and anchor not in _names(pf, ""):
        return warn("Anchor or Ruleset does not exist.")
    for rule in pf["anchors"].get(anchor, []):
        if rule["translates"] == (what == "nat"):
            print(rule["text"])
    return 0


def _flush(pf: dict[str, Any], what: str, anchor: str) -> None:
    rules = pf["anchors"].get(anchor, [])
    left = [rule for rule in rules if what != "all" and rule["translates"] != (what == "nat")]
    if left:
        pf["anchors"][anchor] = left
    else:
        pf["anchors"].pop(anchor, None)
    print(
        {"all": "rules cleared\nnat cleared", "nat": "nat cleared", "rules": "rules cleared"}[what],
        file=sys.stderr,
    )


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "a:deF:f:nqs:v")
    except getopt.GetoptError as error:
        print(f"pfctl: illegal option -- {error.opt}", file=sys.stderr)
        return _usage()
    values, flags = dict(given), {flag for flag, _ in given}
    anchor = values.get("-a", "")
    if (
        rest
        or not flags - {"-a", "-n", "-q", "-v"}
        or ("-a" in values and not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", anchor))
    ):
        return _usage()
    if values.get("-F", "all") not in _FLUSH:
        return warn(f"Unknown flush modifier '{values['-F']}'")
    if values.get("-s", "nat") not in _SHOW:
        return warn(f"Unknown show modifier '{values['-s']}'")
    if os.geteuid() != 0:
        return warn("/dev/pf: Permission denied")
    if kept.read()["pf"]["state"] == "absent" and "-n" not in flags:
        return warn("/dev/pf: No such file or directory")
    loaded: dict[str, list[pf_rules.Rule]] | None = None
    if "-f" in values:
        loaded = _files(anchor, values["-f"])
        if loaded is None:
            return 1
        if "-v" in flags:
            for rules in loaded.values():
                print("".join(f"{rule.text}\n" for rule in rules), end="")
        if "-n" in flags:
            return 0
    with kept.locked() as state:
        pf = state["pf"]
        if "-F" in values:
            _flush(pf, values["-F"], anchor)
        for name, rules in (loaded or {}).items():
            pf["anchors"][name] = [
                {"text": rule.text, "translates": rule.translates, "anchor": rule.anchor} for rule in rules
            ]
        for flag, word in (("-e", "enabled"), ("-d", "disabled")):
            if flag in flags:
                if pf["state"] == word:
                    return warn(f"pf {'already enabled' if word == 'enabled' else 'not enabled'}")
                pf["state"] = word
                print(f"pf {word}", file=sys.stderr)
        if "-s" in values:
            return _show(pf, values["-s"], anchor, verbose="-v" in flags)
    return 0
