"""The selftest on FreeBSD, as far as a stand-in can tell the truth: attacks from a jail and in sessions are
made and blocked, nothing is left of it, and what it could not run it does not call blocked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from layout.core.attacks_freebsd import JAIL, SESSION, TRAPS, patch_level
from tests.freebsd_host import FreeBSD, _freebsd  # noqa: F401

START = """
import sys
from layout.host.freebsd import arena
arena._RESCUE = sys.argv.pop(1)
{weaker}
from layout.__main__ import main
main()
"""
TABLES = "mount -p; jls; ls -d /tmp/layout-selftest-* 2>/dev/null || true"
UNKNOWN = {"kernel", "jail", "flags", "ptrace"}
"""What the stand-in has no call for."""


@pytest.mark.parametrize(
    ("kernel", "verdict"),
    [
        ("15.1-RELEASE-p4", "blocked"),
        ("15.1-RELEASE-p3", "worked"),
        ("15.0-RELEASE-p14", "blocked"),
        ("15.0-RELEASE", "worked"),
        ("14.4-RELEASE-p10", "blocked"),
        ("14.3-RELEASE-p20", "worked"),
        ("16.0-RELEASE", "blocked"),
        ("15.0-STABLE", "not run"),
    ],
)
def test_a_kernel_is_judged_by_its_patch_level(kernel: str, verdict: str) -> None:
    assert patch_level(kernel).verdict == verdict


def command(freebsd: FreeBSD, *words: str, weaker: str = "") -> str:
    """Return the command of a selftest on a host that has a static shell in /rescue, or nearly."""
    freebsd.ok("mkdir rescue; cp /bin/busybox rescue/sh")
    freebsd.write("start.py", START.format(weaker=weaker))
    return freebsd.python(freebsd.work / "start.py", freebsd.work / "rescue/sh", *words, "selftest")


def places(out: str) -> dict[str, dict[str, Any]]:
    return {
        place["name"]: {one["id"]: one for one in place["results"]} for place in json.loads(out)["places"]
    }


@pytest.mark.box
def test_all_is_blocked_but_what_the_stand_in_cannot_do_and_nothing_is_left(freebsd: FreeBSD) -> None:
    before = freebsd.ok(TABLES)
    done = freebsd(command(freebsd, "--json"))
    assert done.code == 1, done
    assert freebsd.ok(TABLES) == before
    document = json.loads(done.out)
    assert (document["ok"], document["platform"]) == (False, "freebsd")
    assert [one["name"] for one in document["not_tried"]] == ["thin, osless, full"]
    found = places(done.out)
    assert found.keys() == {"jail(8)", "manage", "manage --sealed"}
    assert found["jail(8)"].keys() == {*(one.id for one in JAIL), "patch-level"}
    level = found["jail(8)"].pop("patch-level")["verdict"]
    assert level == patch_level(freebsd.ok("uname -r").strip()).verdict
    for name, results in found.items():
        bad = {i: (r["verdict"], r["found"]) for i, r in results.items() if r["must_be_blocked"]}
        # What was not run, and that alone, keeps it from passing.
        assert {i for i, r in bad.items() if r[0] in {"not run", "not shown"}} == UNKNOWN & results.keys()
        assert {i: r for i, r in bad.items() if r[0] != "blocked" and i not in UNKNOWN} == {}, name
    for name in ("manage", "manage --sealed"):
        assert found[name].keys() == {one.id for one in (*TRAPS, *SESSION)}
    left = {i for i, one in found["manage"].items() if one["verdict"] == "residue"}
    assert left == {"script", "fifo-log"}
    assert {one["verdict"] for one in found["manage --sealed"].values()}.isdisjoint({"residue", "worked"})
    # The tools did their work, with what is the administrator's own.
    assert found["manage"]["package-script"]["found"] == "what ran was not the attacker's"
    assert found["manage"]["build-options"]["found"] == "what ran was not the attacker's"
    assert found["manage"]["merge-base"]["found"] == "the edit was seen, and kept"
    assert found["manage"]["terminal"]["found"] == "the session's own terminal only"


@pytest.mark.box
def test_a_session_with_the_jails_own_t_is_found_out(freebsd: FreeBSD) -> None:
    """The control: without its guards, its own directories and variables, most of what was planted works."""
    weaker = """
from layout.actions import manage_freebsd
manage_freebsd._GUARDS, manage_freebsd.COVERED, manage_freebsd._ENVIRONMENT = (), (), {}
"""
    done = freebsd(command(freebsd, "--json", weaker=weaker))
    assert done.code == 1, done
    found = places(done.out)
    assert {i for i, one in found["manage"].items() if one["verdict"] == "worked"} >= {
        "linker-hints",
        "package-script",
        "build-options",
        "merge-base",
        "script-in-tmp",
    }
    assert "worked" not in {one["verdict"] for one in found["manage --sealed"].values()}


@pytest.mark.box
def test_without_a_shell_sessions_are_not_run_and_nothing_is_passed(freebsd: FreeBSD) -> None:
    weaker = "arena._RESCUE = '/nowhere'"
    done = freebsd(command(freebsd, "--json", weaker=weaker))
    assert done.code == 1, done
    found = places(done.out)
    assert {one["verdict"] for one in found["manage"].values()} == {"not run"}
    notes = {place["name"]: place["note"] for place in json.loads(done.out)["places"]}
    assert "/rescue/sh" in notes["manage"]


@pytest.mark.box
@pytest.mark.parametrize("how", ["KILL", "INT"])
def test_a_selftest_that_is_killed_leaves_nothing(freebsd: FreeBSD, how: str) -> None:
    before = freebsd.ok(TABLES)
    # A shell lets what it starts in the background ignore an interrupt.
    weaker = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"""
{command(freebsd, weaker=weaker)} >/dev/null 2>&1 &
pid=$!
until jls name | grep -q layout-manage-selftest; do kill -0 $pid || exit 1; sleep 0.05; done
kill -{how} $pid
wait $pid
for try in $(seq 300); do
    test -z "$(ls -d /tmp/layout-selftest-* 2>/dev/null)" && exit 0
    sleep 0.1
done
exit 2
"""
    freebsd.ok(script)
    assert freebsd.ok(TABLES) == before
