"""Bases on a real FreeBSD: its mtree files are understood, its flags kept, and the script does the same."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from layout.core.mtree_spec import directories

from .conftest import PRETENDED, system

pytestmark = pytest.mark.freebsd

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = Path("/etc/mtree/BSD.var.dist")
KEYWORDS = "type,mode,uid,gid,link,flags,sha256digest"

Run = Callable[..., str]


@pytest.fixture(name="whole")
def _whole(base: Path, run: Run) -> Path:
    """The small base with the accounts and the mtree file of this host, and without /var."""
    run("rm", "-rf", base / "var")
    (base / "etc/mtree").mkdir()
    for name in ("master.passwd", "group"):
        run("cp", f"/etc/{name}", base / "etc" / name)
    run("cp", SPEC, base / "etc/mtree")
    return base


def test_mtree_makes_of_its_file_what_we_read_in_it(place: Path, run: Run) -> None:
    wanted = {one.path: one.mode for one in directories(SPEC.read_text(), str(SPEC))}
    top = place / "var"
    top.mkdir()
    done = system("mtree", "-deU", "-R", "flags", "-f", SPEC, "-p", top)
    assert done.returncode in {0, 2}, done
    made = {str(path.relative_to(top)): stat.S_IMODE(path.stat().st_mode) for path in top.rglob("*")}
    assert made | {"": wanted[""]} == wanted


def test_the_script_makes_what_init_makes_flags_included(place: Path, whole: Path, run: Run) -> None:
    root = place / "jails"
    words = ("--root", root, "plan", "a", "--profile", "default", "--no-mount", "--base", whole)
    layout = [sys.executable, "-m", "layout"]
    text = run(*layout, *words, "--script", cwd=REPOSITORY)
    run(*layout, "--root", root, "init", *words[3:], cwd=REPOSITORY)
    trees = [root / name for name in ("j/mroot", "skel", "s/a", "t/a")]
    specs = [run("mtree", "-c", "-n", "-k", KEYWORDS, "-p", tree) for tree in trees]
    empty = root / "t/a/var/empty"
    if not PRETENDED:  # there, fchflags(2) is Linux's
        assert os.stat(empty).st_flags & stat.SF_IMMUTABLE  # type: ignore[attr-defined, unused-ignore]
    root.rename(place / "of init")
    run("sh", "-s", input=text, stdin=None)
    assert [run("mtree", "-c", "-n", "-k", KEYWORDS, "-p", tree) for tree in trees] == specs
    system("chflags", "-R", "noschg", root)
