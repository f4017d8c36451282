"""Building a Debian base: what is kept, what is said when it fails, and that nothing is left of that.

A script is bound over mmdebstrap here that does what the suite's name says; tests/e2e has the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_base import archive, build
from yard import Said, layout, mount, umount

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="no mmdebstrap (Debian: mmdebstrap)"),
]

SCRIPT = """#!/bin/sh
# The last words are SUITE TARGET MIRROR...; the environment and all words are noted.
env >"$TMPDIR/../env"
echo "$@" >>"{calls}"
for word; do case $word in */base.tar.zst) target=$word ;; esac; done
echo "I: running apt-get update..." >&2
mkdir -p "$TMPDIR/mmdebstrap.x/usr" && : >"$TMPDIR/mmdebstrap.x/usr/half"
case "$*" in
    *" nowhere "*) echo "E: Unable to locate package nothing-like-it" >&2; exit 25 ;;
    *" full "*) head -c 100 "{archive}" >"$target"; echo "tar: No space left on device" >&2; exit 1 ;;
    *" odd "*) echo "E: something else" >&2; exit 3 ;;
    *" slow "*) mount -t tmpfs none "$TMPDIR/mmdebstrap.x"; touch "$TMPDIR/../started"; sleep 1000 & wait ;;
esac
cp "{archive}" "$target"
rm -r "$TMPDIR/mmdebstrap.x"
"""


@pytest.fixture(scope="module", name="top")
def _top(tmp_path_factory):
    """A folder in which mmdebstrap is a script of ours."""
    top = tmp_path_factory.mktemp("debian")
    packed = archive(build(top / "tree"), top, "tar.zst")
    script = top / "mmdebstrap"
    script.write_text(SCRIPT.format(archive=packed, calls=top / "calls"))
    script.chmod(0o755)
    real = Path(shutil.which("mmdebstrap") or "").resolve()
    mount("--bind", script, real)
    yield top
    umount(real)


@pytest.fixture
def root(top: Path, tmp_path: Path) -> Path:
    (top / "calls").write_text("")
    return tmp_path / "jails"


def made(root: Path, *words: object) -> Said:
    return layout("--root", root, "base", "build", "debian", *words)


def left(root: Path) -> list[str]:
    return sorted(os.listdir(root / ".layout/cache"))


def calls(top: Path) -> list[str]:
    return (top / "calls").read_text().splitlines()


def test_the_same_inputs_are_built_once(top: Path, root: Path) -> None:
    first = json.loads(made(root, "--json", "--packages", "bind9,slapd").out)
    again = json.loads(made(root, "--json", "--packages", "slapd,bind9,slapd").out)
    assert (first["cached"], again["cached"]) == (False, True)
    assert first["path"] == again["path"]
    assert "cached" in made(root, "--packages", "slapd,bind9").out
    other = json.loads(made(root, "--json", "--packages", "slapd").out)
    assert other["path"] != first["path"]
    assert json.loads(made(root, "--json", "--packages", "slapd", "--fresh").out)["cached"] is False
    assert len(calls(top)) == 3
    path = Path(first["path"])
    assert path.parent == root / ".layout/cache"
    assert path.stat().st_mode & 0o777 == 0o600  # keys made by maintainer scripts are in it
    listed = json.loads(layout("--root", root, "--json", "base", "list").out)
    assert sorted(listed["cache"]) == sorted([first["path"], other["path"]])
    assert listed["cache"][first["path"]]["inputs"]["packages"] == ["bind9", "slapd"]
    assert first["path"] in layout("--root", root, "base", "list").out


def test_jails_are_made_from_it(root: Path) -> None:
    path = json.loads(made(root, "--json").out)["path"]
    assert layout("--root", root, "init", "--no-mount", "--base", path, "a").code == 0
    assert layout("--root", root, "base", "verify").code == 0
    secrets = ("etc/ssh/ssh_host_rsa_key", "root/.ssh/id_rsa", "etc/machine-id")
    assert not any((root / "skel/s" / secret).exists() for secret in secrets)


def test_an_archive_that_was_damaged_is_built_anew(top: Path, root: Path) -> None:
    path = Path(json.loads(made(root, "--json").out)["path"])
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert json.loads(made(root, "--json").out)["cached"] is False
    assert json.loads(made(root, "--json").out)["cached"] is True
    assert len(calls(top)) == 2


def test_profiles_bring_their_packages(top: Path, root: Path, tmp_path: Path) -> None:
    (root / "etc/profiles").mkdir(parents=True)
    (root / "etc/profiles/web.toml").write_text(
        'kind = "shared"\ndescription = "web"\n[linux]\npackages = ["nginx-light"]\n'
    )
    done = made(root, "--profiles", "web", "--packages", "curl", "--mirror", "http://mirror.example/debian")
    assert done.code == 0, done.err
    (words,) = calls(top)
    assert "--include=curl,nginx-light" in words
    assert words.endswith("base.tar.zst http://mirror.example/debian")
    assert made(root, "--profiles", "none-like-it").code == 2


def test_the_build_works_in_a_folder_of_its_own(root: Path) -> None:
    assert made(root).code == 0
    environment = (root / ".layout/cache/env").read_text()
    assert f"TMPDIR={root}/.layout/cache/.new-" in environment
    assert "LC_ALL=C" in environment


def test_output_goes_where_it_was_told_and_replaces_nothing(top: Path, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "my base.tar.zst"
    assert made(root, "--output", target).out.startswith(str(target))
    assert "cached" in made(root, "--output", target).out
    refused = made(root, "--output", target, "--packages", "curl")
    assert (refused.code, target.exists()) == (2, True)
    mine = tmp_path / "mine.tar.zst"
    mine.write_text("mine")
    assert (made(root, "--output", mine).code, mine.read_text()) == (2, "mine")
    assert made(root, "--output", tmp_path / "none/x.tar.zst").code == 2
    assert made(root, "--output", tmp_path / "x.tar").code == 2
    assert len(calls(top)) == 1


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("nowhere", "nothing-like-it: found no such package in nowhere"),
        ("full", "no space left"),
        ("odd", "E: something else"),
    ],
)
def test_what_went_wrong_is_said_and_nothing_is_left(root: Path, suite: str, said: str) -> None:
    done = made(root, "--suite", suite)
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert left(root) == ["env"]


@pytest.mark.parametrize(
    "words",
    [
        ("--suite", "Book Worm"),
        ("--suite=--help",),
        ("--packages", "a b"),
        ("--packages", "--option"),
        ("--variant", "huge"),
        ("--mirror", "/etc/passwd"),
    ],
)
def test_words_that_cannot_be_are_refused(top: Path, root: Path, words: tuple[str, ...]) -> None:
    assert made(root, *words).code == 2
    assert calls(top) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_killed_leaves_nothing_running_and_the_next_one_cleans_up(
    root: Path, number: signal.Signals
) -> None:
    arguments = [sys.executable, "-m", "layout", "--root", root, "base", "build", "debian", "--suite", "slow"]
    process = subprocess.Popen(
        list(map(str, arguments)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    cache = root / ".layout/cache"
    deadline = time.monotonic() + 60
    while not (cache / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert made(root, "--suite", "slow").code == 1  # the first one has the lock
    process.send_signal(number)
    assert process.wait(60) == (130 if number == signal.SIGINT else -9)
    while "sleep\x001000" in running():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (cache / "started").unlink()
    if number == signal.SIGINT:
        assert left(root) == ["env"]
    assert made(root).code == 0
    assert not [name for name in left(root) if name.startswith(".new-")]


def running() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text())
        except OSError:
            continue
    return "\n".join(found)
