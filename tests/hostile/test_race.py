"""A real race: a program in C exchanges a directory with a link while the door below ROOT works."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from layout.core.errors import LayoutError
from layout.host.beneath import Dir, open_root, resolve
from tests.hostile.house import tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.box

ROUNDS = int(os.environ.get("LAYOUT_RACE_ROUNDS", "400000"))
"""As many as in the kernel's own test of openat2(2)."""


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Iterator[Path]:
    """A t with a directory and a link to the victim's, which are exchanged."""
    top = tmp_path.resolve()
    for name in ("t/var/log", "victim/log"):
        (top / name).mkdir(parents=True)
    (top / "victim/log/file").write_text("VICTIM", encoding="utf-8")
    (top / "t/other").symlink_to(top / "victim")
    yield top


@contextlib.contextmanager
def swapping(swapper: Path, place: Path, rounds: int) -> Iterator[subprocess.Popen[str]]:
    words = [swapper, str(rounds), "0", place / "t/var", place / "t/other"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as attacker:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "ready\n"
        try:
            yield attacker
        finally:
            attacker.terminate()


def race(
    swapper: Path, place: Path, work: Callable[[], object], rounds: int, seconds: float = 400
) -> tuple[int, int, int]:
    """Work while the attacker swaps; return its rounds, our tries and how many of them succeeded."""
    tries = honest = 0
    end = time.monotonic() + seconds
    with swapping(swapper, place, rounds) as attacker:
        while attacker.poll() is None and time.monotonic() < end:
            for _ in range(50):
                tries += 1
                with contextlib.suppress(OSError, LayoutError):
                    work()
                    honest += 1
        attacker.terminate()
        assert attacker.stdout is not None
        done = int(attacker.stdout.read().split()[-1])
    return done, tries, honest


def doings(top: Dir) -> Callable[[], object]:
    """Return one that writes, makes, changes, reads and removes in turn, always through what is swapped."""
    turn = 0

    def write() -> None:
        top.write_whole("var/log/file", b"mine", 0o600, durable=False)

    def make() -> None:
        with contextlib.suppress(FileExistsError):
            top.make_dir("var/log/new", 0o700)

    def give() -> None:
        top.chown_chmod("var/log", 0o711, 80, 80)

    def read() -> None:
        assert top.read("var/log/file") != b"VICTIM"

    def gone() -> None:
        top.unlink("var/log/file")

    each = (write, make, give, read, gone)

    def work() -> None:
        nonlocal turn
        turn += 1
        each[turn % len(each)]()

    return work


@pytest.mark.parametrize("way", ["openat2", "walk"])
def test_no_exchange_at_any_moment_leads_out(
    swapper: Path, place: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "_chosen", [resolve._openat2_to if way == "openat2" else resolve.walk_to])
    before, found = tree(place / "victim"), sorted(os.listdir("/proc/self/fd"))
    rounds = ROUNDS // 2  # both ways together make the whole
    with open_root(str(place / "t")) as top:
        done, tries, honest = race(swapper, place, doings(top), rounds)
    print(f"{way}: {done} rounds, {tries} tries, {honest} honest successes, 0 wins")
    assert tree(place / "victim") == before
    assert sorted(os.listdir("/proc/self/fd")) == found  # a walk that leaks would stop, and win nothing
    assert done == rounds
    assert honest > 100
    assert tries > honest  # the attacker was in the way


@pytest.mark.parametrize("naive", ["open", "islink, then open"])
def test_the_attacker_wins_against_a_path(swapper: Path, place: Path, naive: str) -> None:
    """The control. A check first makes the window small, not shut; so only the open without one must lose."""
    file, wins = str(place / "t/var/log/file"), 0

    def work() -> None:
        nonlocal wins
        if naive != "open" and os.path.islink(place / "t/var"):
            return
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            wins += "/victim/" in os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    done, tries, _ = race(swapper, place, work, 40_000)
    print(f"{naive}: {done} rounds, {tries} tries, {wins} wins of the attacker")
    assert wins > 0 or naive != "open"
