"""Archives made from a directory or the host: a base made from one is the base made from the tree itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from small_base import archive, build, look
from yard import layout

pytestmark = pytest.mark.box


@pytest.fixture(scope="module", name="top")
def _top(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("packing")
    build(top / "base")
    return top


def test_a_base_from_the_archive_is_that_of_the_directory(top: Path) -> None:
    packed = top / "packed.tar.zst"
    done = layout("--root", top / "r", "--json", "base", "build", "dir", top / "base", "--output", packed)
    assert done.code == 0, done.err
    assert json.loads(done.out)["left_out"]["FIFO"] == 1
    assert packed.stat().st_mode & 0o777 == 0o600
    for name, source in (("one", packed), ("two", top / "base")):
        made = layout("--root", top / name, "init", "--no-mount", "--base", source, "a")
        assert made.code == 0, made.err
    for tree in ("j/mroot", "skel"):
        one, two = look(top / "one" / tree, times=False), look(top / "two" / tree, times=False)
        assert one == two
    assert (top / "one/skel/s/etc/ssh/sshd_config").stat().st_mtime == 1_000_000_000


def test_an_archive_is_packed_anew_without_what_a_base_does_not_take(top: Path, tmp_path: Path) -> None:
    given, packed = archive(top / "base", tmp_path, "tar"), tmp_path / "again.tar.zst"
    done = layout("--root", top / "r", "base", "build", "archive", given, "--output", packed)
    assert done.code == 0, done.err
    assert sorted(os.listdir(tmp_path)) == sorted([given.name, packed.name])
    for name, source in (("three", packed), ("four", given)):
        made = layout("--root", top / name, "init", "--no-mount", "--base", source, "a")
        assert made.code == 0, made.err
    assert look(top / "three/j/mroot", times=False) == look(top / "four/j/mroot", times=False)


def test_the_same_tree_gives_the_same_archive(top: Path) -> None:
    for name in ("x", "y"):
        words = ("base", "build", "dir", top / "base", "--output", top / f"{name}.tar.zst")
        assert layout("--root", top / "r", *words).code == 0
    assert (top / "x.tar.zst").read_bytes() == (top / "y.tar.zst").read_bytes()


def test_the_hosts_own_programs_can_be_taken_elsewhere(top: Path) -> None:
    packed = top / "host.tar.zst"
    assert layout("--root", top / "r", "base", "build", "host", "--output", packed).code == 0
    assert layout("--root", top / "h", "init", "--no-mount", "--base", packed, "a").code == 0
    assert os.access(top / "h/j/mroot/bin/sh", os.X_OK)


def test_what_is_no_base_or_would_replace_something_is_refused(top: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.tar.zst"
    mine.write_text("mine")
    tar = archive(top / "base", tmp_path, "tar")
    for source, output in (
        (top / "base", mine),
        (tmp_path, tmp_path / "x.tar.zst"),
        (tar, tmp_path / "x.tar.zst"),
        (top / "base", tmp_path / "none/x.tar.zst"),
        (top / "base", tmp_path / "x.zip"),
    ):
        done = layout("--root", top / "r", "base", "build", "dir", source, "--output", output)
        assert done.code == 2, done.err
    assert sorted(os.listdir(tmp_path)) == ["base.tar", "mine.tar.zst"]
    assert mine.read_text() == "mine"
