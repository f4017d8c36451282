"""Every command against a hostile t: nothing outside changes, and it ends in time with a clear result."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from busybox_yard import BUSYBOX, busybox_yard, profile, web
from yard import Said, Yard, mounts

from layout.core.errors import printable
from tests.hostile.house import (
    CASES,
    ELSEWHERE,
    KINDS,
    NAMES,
    changed,
    commands,
    fill,
    is_clean,
    make_victim,
    replace,
    setuid,
    tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.box, pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")]
SECONDS = 60
STATE = """
[[linux.state]]
path = "var/lib/site"
mode = "0750"
owner = "web"
[[linux.state]]
path = "var/log/site"
owner = "web"
"""


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("hostile").resolve()) as yard:
        profile(yard, "default", web(8080) + STATE)
        yard.ok("init", "--no-mount", "a", "b")
        yard.keep()
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Iterator[Yard]:
    """Two jails of busybox with a service and state directories, and a victim beside ROOT."""
    whole.renew()
    make_victim(whole.top / "victim")
    (whole.top / "fstab").write_text("# the host's\n", encoding="utf-8")
    yield whole
    whole.run("stop", "a")
    assert mounts(whole.top / "victim") == []
    subprocess.run(["rm", "-rf", whole.top / "victim"], check=True)


class Slow(BaseException):
    """A command that did not end in time; no handler of errors may catch it."""


@contextlib.contextmanager
def in_time(words: object) -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise Slow(f"{words} takes more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def spelled(yard: Yard, words: tuple[str, ...]) -> list[str]:
    places = {"ROOT": str(yard.root), "TOP": str(yard.top)}
    return [re.sub(r"^(ROOT|TOP)(?=/)", lambda found: places[found[0]], word) for word in words]


def outside(yard: Yard, *, gone: bool = False) -> dict[str, dict[str, tuple[object, ...]]]:
    """Return what no command for jail a may change: the victim, the other jail, what all share."""
    places = ["victim", *(f"jails/{half}" for half in ("j/mroot", "skel", "s/a", "s/b", "t/b"))]
    # A session in the base has a file of its own in the skeleton's /etc for a while.
    return {
        name: tree(yard.top / name, dated=name != "jails/skel")
        for name in places
        if not (gone and name == "jails/s/a")
    }


def ran(yard: Yard, words: tuple[str, ...]) -> Said:
    with in_time(words):
        done = yard.run(*spelled(yard, words))
    said = f"{words}: {done}"
    assert done.code in {0, 1, 2}, said
    assert is_clean(done.err), said
    assert "Traceback" not in done.err + done.out, said
    # audit tells what it could not look at among its results.
    if done.code and "--json" not in words and words[0] != "audit":
        assert re.search(
            r"^(layout: |  error [AS]).*found .*, expected ", done.err + done.out, re.MULTILINE
        ), said
    return done


# What these print is generated, or the administrator's own file: nothing of t is in it.
GENERATED = {"render", "profile show", "profile schema", "completion", "fstab"}


def run_all(
    yard: Yard, names: tuple[str, ...] = tuple(CASES), *, json_too: bool = True
) -> dict[str, list[int]]:
    """Run every case of these commands, plain and with --json; return the exit statuses.

    After each: nothing outside has changed.
    """
    codes: dict[str, list[int]] = {}
    before = outside(yard)
    for name in names:
        for words in CASES[name]:
            for more in ((), ("--json",)) if json_too and name != "destroy" else ((),):
                done = ran(yard, (*more, *words))
                codes.setdefault(name, []).append(done.code)
                if name in GENERATED or "--script" in words:
                    continue
                assert is_clean(done.out), (words, done)
                if more and done.out:
                    json.loads(done.out)
            after = outside(yard, gone=name == "destroy")
            assert {place: found for place in after if (found := changed(before[place], after[place]))} == {}
    return codes


def test_every_command_has_a_case() -> None:
    """So a new command makes this fail until somebody has thought of it."""
    assert set(commands()) == {*CASES, *ELSEWHERE}


def test_against_a_t_full_of_everything(yard: Yard, swapper: Path) -> None:
    fill(yard.root / "t/a", yard.top / "victim")
    var = yard.root / "t/a/var"
    (var / "lib").mkdir(exist_ok=True)
    (var / "lib/aside").symlink_to(yard.top / "victim")
    (yard.root / "t/a/aside").symlink_to(yard.top / "victim")
    # Exchanged all the time: a state directory, the log directory, /tmp.
    pairs = [
        var / "lib/site",
        var / "lib/aside",
        var / "log",
        var / "to-victim",
        yard.root / "t/a/tmp",
        yard.root / "t/a/aside",
    ]
    with subprocess.Popen([swapper, "0", "200", *pairs], stdout=subprocess.PIPE, text=True) as attacker:
        try:
            codes = run_all(yard)
        finally:
            attacker.terminate()
            rounds = int(attacker.communicate()[0].split()[-1])
    assert rounds > 100
    print({name: code for name, code in codes.items() if any(code)})
    # While somebody swaps, a removal may stop in the middle and say so; afterwards it goes on.
    assert codes["destroy"] == [0] or ran(yard, ("destroy", "a")).code == 0
    assert not (yard.root / "t/a").exists()


TOGETHER = (("var",), ("tmp", "var/log", "var/lib"), ("var/lib/site", "var/tmp", "var/cache", "var/run"))
TOUCHING = ("verify", "init", "mount", "manage", "recover", "umount", "base merge", "destroy")
"""The commands that look into t, or make something there."""


@pytest.mark.parametrize("places", TOGETHER, ids=lambda places: places[0])
@pytest.mark.parametrize("kind", KINDS)
def test_against_something_else_in_the_place_of_a_directory(
    yard: Yard, kind: str, places: tuple[str, ...]
) -> None:
    for place in places:
        replace(yard.root / "t/a", place, kind, yard.top / "victim")
    codes = run_all(yard, TOUCHING, json_too=False)
    print({name: code for name, code in codes.items() if any(code)})
    assert codes["destroy"] == [0]


@pytest.mark.parametrize(
    "naive",
    [
        lambda t: os.chown(t / "var/lib/site", 80, 80),
        lambda t: (t / "var/log/site").write_text("x", encoding="utf-8"),
        lambda t: shutil.rmtree(f"{t}/tmp/"),
        lambda t: (t / "tmp/new").mkdir(),
    ],
    ids=["chown", "write", "rmtree", "mkdir"],
)
def test_what_goes_by_path_changes_the_victim(yard: Yard, naive: Callable[[Path], object]) -> None:
    """The control: what the tests above would see if a command did that."""
    t, before = yard.root / "t/a", outside(yard)
    for place, target in (("var/lib/site", ""), ("var/log/site", "etc/passwd"), ("tmp", "www")):
        replace(t, place, "nothing", yard.top / "victim")
        (t / place).symlink_to(yard.top / "victim" / target)
    with contextlib.suppress(OSError):  # the link itself stays when what it leads to is gone
        naive(t)
    after = outside(yard)
    assert changed(before["victim"], after["victim"])


def test_hostile_names_move_no_terminal_forge_no_line_and_their_hints_can_be_pasted(yard: Yard) -> None:
    """As many lines as with harmless names, and a shell reads each hint as one name."""
    t = yard.root / "t/a/var/lib/site"

    def lines(names: list[bytes]) -> list[int]:
        for name in names:
            setuid(bytes(t) + b"/" + name)
        counts = []
        for words in (("verify", "a"), ("-v", "verify", "a"), ("verify", "--quick", "a")):
            done = ran(yard, words)
            assert is_clean(done.out + done.err)
            counts.append(done.out.count("\n"))
        report = json.loads(ran(yard, ("--json", "verify", "a")).out)
        hints = [one["hint"] for one in report["jails"]["a"]["findings"] if one["code"] == "S7-setuid"]
        assert len(hints) == len(names)
        read = [shlex.split(hint) for hint in hints]
        assert {tuple(words[:-1]) for words in read} == {("layout", "manage", "a", "--", "chmod", "ug-s")}
        found = {words[-1].removeprefix("/var/lib/site/") for words in read}
        assert found == {printable(os.fsdecode(name)) for name in names}
        for name in names:
            os.unlink(bytes(t) + b"/" + name)
        return counts

    harmless = [b"x%d" % number for number in range(len(NAMES))]
    assert lines(harmless) == lines(list(NAMES))


def test_a_name_that_is_not_escaped_would_be_found() -> None:
    """The control: each hostile name as it is, is no clean output, but the few that a terminal may show."""
    shown = {b"-rf", b"x" * 255, b"%s%n{}\\", b"$(touch pwned)", b"`touch pwned`", b"; touch pwned"}
    assert [name for name in NAMES if is_clean(f"a: {os.fsdecode(name)}\n")] == [
        n for n in NAMES if n in shown
    ]
