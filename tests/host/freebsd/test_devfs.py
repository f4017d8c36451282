"""Rulesets of devfs are read as devfs(8) prints them, and holders as fstat(1) and jls(8) do."""

from __future__ import annotations

import json

import pytest

from layout.core.errors import LayoutError
from layout.host.freebsd import devfs, holders
from layout.host.run import Done

RULES = {
    "1": "100 hide\n",
    "2": "100 path null unhide\n200 path 'pts/*' unhide\n300 path pts unhide\n",
    "4": "100 include 1\n200 include 2\n300 path zfs unhide mode 666\n400 path null mode 600\n",
    "5": "100 include 5\n",
    "6": "100 type disk hide\n200 path da0 hide\n",
    "7": "100 path ada* hide\n",
}


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    def show(*words: str, ok: object = None) -> Done:
        assert words[:3] == ("devfs", "rule", "-s") and words[4] == "show"
        return Done(0, RULES.get(words[3], ""), "")

    monkeypatch.setattr(devfs, "run", show)


@pytest.mark.parametrize(
    ("path", "ruleset", "shown"),
    [
        ("null", 4, True),
        ("zfs", 4, True),
        ("pts/0", 4, True),
        ("mem", 4, False),
        ("zfs0", 4, False),
        ("da0", 6, False),
        ("ada0", 6, True),
        ("ada0", 7, False),
        ("mem", 7, True),
    ],
)
def test_a_node_is_shown_as_the_last_rule_for_it_says(path: str, ruleset: int, shown: bool) -> None:
    assert devfs.is_shown(path, devfs.require(ruleset, "/dev")) is shown


@pytest.mark.parametrize("ruleset", [2, 5, 9])
def test_a_ruleset_that_hides_nothing_is_refused(ruleset: int) -> None:
    with pytest.raises(LayoutError, match="not loaded or hides nothing"):
        devfs.require(ruleset, "/dev")
    devfs.require(4, "/dev")


def test_who_holds_a_mount_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "jls": json.dumps({"jail-information": {"jail": [{"jid": 7, "name": "in", "path": "/j/a"}]}}),
        "fstat": "USER     CMD    PID   FD MOUNT  INUM MODE  SZ|DV R/W NAME\n"
        "root     sh    1234   wd /j/a      4 drwxr-xr-x  24  r\n"
        "root     sh    1234    3 /j/a      5 -rw-r--r--  24  r\n",
    }
    monkeypatch.setattr(holders, "which", lambda program: program)
    monkeypatch.setattr(holders, "run", lambda *words, **_: Done(0, said[words[0]], ""))
    assert holders.of("/j/a") == ["jail in", "sh (process 1234)"]
    assert holders.describe([f"jail {n}" for n in range(7)]).endswith("jail 4 and 2 more")
    assert holders.below(["/j/ab", "/t/a"]) == []
    said["jls"] = "{}"
    with pytest.raises(LayoutError, match="a list of jails"):
        holders.below(["/j/a"])
