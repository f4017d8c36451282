"""A device of a jail is taken for descriptor 0, 1 or 2 only if it is one, and never through a link."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TAKE = """
import sys
from layout.host.standard import Standard, take
try:
    take((Standard(device="null"), Standard(device="null")), -1, sys.argv[1])
except OSError as error:
    sys.exit(f"refused: {error.filename}")
"""


def taken(dev: Path) -> subprocess.CompletedProcess[str]:
    """Take the null device in a directory as descriptors 0 and 1, in a process of its own."""
    words = [sys.executable, "-c", TAKE, str(dev)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("kind", ["link to a device", "file"])
def test_what_root_of_a_jail_put_in_the_place_of_a_device_is_refused(tmp_path: Path, kind: str) -> None:
    assert taken(Path("/dev")).returncode == 0  # the control
    null = tmp_path / "null"
    if kind == "file":
        null.touch()
    else:
        null.symlink_to("/dev/null")
    done = taken(tmp_path)
    assert (done.returncode, done.stderr) == (1, f"refused: {null}\n")
