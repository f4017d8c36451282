"""The desk of the unpacking tests, which guards a victim beside the tree."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for handmade: pytest's importlib mode adds nothing

from handmade import Desk, listing


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk whose victim, in the way of every escape, is proven unchanged; so are our descriptors."""
    if os.geteuid() != 0:
        pytest.skip("chroot needs root, and these tests make no user namespace")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "passwd").write_text("root:x:0:0\n")
    before = listing(victim), sorted(os.listdir(tmp_path))
    fds = sorted(os.listdir("/proc/self/fd"))
    made = Desk(tmp_path, tmp_path / "tree", tmp_path / "tree.mtree", victim)
    yield made
    assert listing(victim) == before[0]
    extra = {"tree", "tree.mtree", "made.tar"}
    assert {name for name in os.listdir(tmp_path) if not name.startswith("in")} - extra == set(before[1])
    assert sorted(os.listdir("/proc/self/fd")) == fds
