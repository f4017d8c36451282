"""A disk without room: nothing starts by halves, and whatever runs can still be stopped and unmounted."""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING

import pytest
from busybox_yard import BUSYBOX, busybox_yard, fetch, profile, web
from yard import mount, umount

if TYPE_CHECKING:
    from pathlib import Path

    from yard import Yard

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
]


def fill(path: Path) -> None:
    """Write until nothing more goes in."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def running(yard: Yard) -> bool:
    return json.loads(yard.ok("--json", "status", "a"))["jails"]["a"]["running"] is not None


def test_a_full_disk_keeps_a_service_from_starting_not_from_stopping(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount("-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", small)
    try:
        with busybox_yard(small / "yard") as yard:
            profile(yard, "default", web(8080))
            yard.ok("mount", "a")
            fill(small / "fill")
            refused = yard.run("start", "a")
            assert refused.code == 1
            assert "no space left" in refused.err
            assert "hint: free some space" in refused.err
            assert not running(yard)
            assert yard.verify("a") == [("host", "S10-space", "error")]

            (small / "fill").unlink()
            yard.ok("start", "a")
            assert fetch(8080).endswith("hello\n")
            fill(small / "fill")
            assert running(yard)
            assert yard.ok("stop", "a") == "a: stopped\n"
            assert not running(yard)
            yard.ok("umount", "a")
            assert yard.mounts() == []
            (small / "fill").unlink()
    finally:
        umount(small)
