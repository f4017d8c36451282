"""verify finds nothing in fifty layouts that are whole, whatever daemons and administrators made of them."""

from __future__ import annotations

import os
import random
import socket
import string
from contextlib import chdir
from typing import TYPE_CHECKING

import pytest
from yard import Yard, make_base, yard_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.box

LAYOUTS = 50
CHOSEN = {"exec": "S2-writable-exec", "suid": "S2-suid"}
ODD = ["\x1b[2J", "a\nb", os.fsdecode(b"\xff\x80"), "-rf", " ", "*", "n" * 255, "'; reboot;'", "..x"]


def name(rng: random.Random) -> str:
    rest = "".join(rng.choices(string.ascii_lowercase + string.digits + "_-", k=rng.randint(0, 30)))
    return rng.choice(string.ascii_lowercase) + rest


# --- what daemons leave in var and tmp ----------------------------------------------------------------------


def sockets_and_fifos(rng: random.Random, t: Path) -> None:
    for number in range(rng.randint(1, 4)):
        os.mkfifo(t / f"var/fifo{number}", 0o666)
    with chdir(t / "tmp"), socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind("socket")


def deep(rng: random.Random, t: Path) -> None:
    (t / "var" / "/".join(["d"] * rng.randint(20, 240))).mkdir(parents=True)


def odd_names(rng: random.Random, t: Path) -> None:
    for odd in rng.sample(ODD, 4):
        (t / "var" / odd).mkdir()
        (t / "var" / odd / odd).touch()


def links(rng: random.Random, t: Path) -> None:
    for number, target in enumerate(("/etc/passwd", "nowhere", "../../../..", "/", "loop", ".")):
        (t / "tmp" / ("loop" if target == "loop" else f"link{number}")).symlink_to(target)
    (t / "tmp/file").touch()
    os.link(t / "tmp/file", t / "tmp/second")
    del rng


def owners(rng: random.Random, t: Path) -> None:
    directory = t / "var/spool-of-a-daemon"
    directory.mkdir()
    for number in range(rng.randint(3, 20)):
        file = directory / str(number)
        file.touch()
        os.chown(file, rng.randint(1, 60000), rng.randint(0, 60000))
        file.chmod(rng.choice((0o600, 0o666, 0o000, 0o777, 0o1777)))
    os.chown(directory, 100, 100)
    directory.chmod(0o2777)


def sparse_and_many(rng: random.Random, t: Path) -> None:
    with (t / "var/sparse").open("wb") as file:
        file.truncate(1 << 40)
    (t / "var/many").mkdir()
    for number in range(rng.randint(50, 300)):
        (t / f"var/many/{number}").touch()


def empty_tables(rng: random.Random, t: Path) -> None:
    for path in rng.sample(["spool/cron/crontabs", "spool/cron/atjobs", "spool/at", "spool/anacron"], 2):
        (t / "var" / path).mkdir(parents=True)
    (t / "var/spool/cron/atjobs").mkdir(parents=True, exist_ok=True)
    (t / "var/spool/cron/atjobs/.SEQ").write_text("1\n", encoding="utf-8")


# --- what an administrator makes of s -----------------------------------------------------------------------


def edits(rng: random.Random, s: Path) -> None:
    (s / "etc/hosts").write_text(f"127.0.0.1 localhost\n# {rng.random()}\n", encoding="utf-8")
    (s / "etc/resolv.conf").unlink()
    (s / "etc/resolv.conf").symlink_to("/var/run/resolv.conf")
    (s / "usr-local/etc").mkdir()
    (s / "usr-local/etc/daemon.conf").write_text("on\n", encoding="utf-8")
    (s / "usr-local/etc/daemon.conf").chmod(rng.choice((0o600, 0o640, 0o644, 0o400)))


CLUTTER: list[Callable[[random.Random, Path], None]] = [
    sockets_and_fifos,
    deep,
    odd_names,
    links,
    owners,
    sparse_and_many,
    empty_tables,
]


def profile(rng: random.Random, yard: Yard, *, opens: bool) -> tuple[str, set[str]]:
    """Write a random profile; return its name and what it opts out of."""
    if rng.random() < 0.4:
        return "default", set()
    opened = {key for key in CHOSEN if opens and rng.random() < 0.5}
    lines = ['kind = "shared"', 'description = "random"', *(f"{key} = true" for key in sorted(opened))]
    for path in rng.sample(["var/lib/x", "var/cache/y", "tmp/z", "var/log/w"], rng.randint(0, 3)):
        mode = rng.choice(("0700", "0755", "0775", "1777"))
        lines += ["[[linux.state]]", f'path = "{path}"', f'mode = "{mode}"']
    called = f"p{rng.randint(0, 10**9)}"
    where = yard.root / "etc/profiles"
    where.mkdir(parents=True, exist_ok=True)
    (where / f"{called}.toml").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return called, opened


def make(rng: random.Random, yard: Yard, *, opens: bool) -> set[tuple[str, str, str]]:
    """Make random jails in ROOT; return the warnings that were asked for."""
    expected = set()
    for jail in {name(rng) for _ in range(rng.randint(1, 2))} - set(yard.names):
        called, opened = profile(rng, yard, opens=opens)
        preset = rng.choice(("hardened", "classic")) if opens else "hardened"
        words = ["--profile", called, "--preset", preset, "--manage", rng.choice(("session", "boot"))]
        yard.ok("init", "--no-mount", *words, jail)
        if preset == "classic":
            opened = set(CHOSEN)
        expected |= {(jail, CHOSEN[key], "warning") for key in opened}
        for clutter in rng.sample(CLUTTER, rng.randint(2, len(CLUTTER))):
            clutter(rng, yard.root / "t" / jail)
        if rng.random() < 0.7:
            edits(rng, yard.root / "s" / jail)
    return expected


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory):
    top = tmp_path_factory.mktemp("clean")
    with yard_at(top, "--base", make_base(top / "base"), names=("first",)) as yard:
        yield yard


@pytest.mark.parametrize("seed", range(LAYOUTS))
def test_a_random_layout_that_is_whole_has_no_findings(whole: Yard, seed: int) -> None:
    rng = random.Random(seed)
    whole.renew()
    assert make(rng, whole, opens=False) == set()
    whole.ok("mount")
    if rng.random() < 0.3:
        whole.ok("fstab", "--install")
    assert whole.verify("--probe") == []


@pytest.mark.parametrize("seed", range(LAYOUTS, LAYOUTS + 10))
def test_one_that_opts_out_has_the_warnings_that_it_asked_for(whole: Yard, seed: int) -> None:
    whole.renew()
    expected = make(random.Random(seed), whole, opens=True)
    whole.ok("mount")
    assert set(whole.verify()) == expected
