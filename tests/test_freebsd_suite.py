"""tests/freebsd runs: on the pretended FreeBSD, which says that its tests are sound, not that FreeBSD is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.box

HERE = Path(__file__).resolve().parent


def test_what_is_asked_of_freebsd_holds_on_the_pretended_one(tmp_path: Path) -> None:
    """Those of the product are left out: tests/actions has them for the pretended host."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAYOUT_BOX")}
    environment |= {
        "PYTHONPATH": f"{HERE / 'freebsd_shim'}:{HERE.parent}",
        "LAYOUT_FREEBSD_THROW_AWAY": "1",
        "LC_ALL": "C.UTF-8",
    }
    modules = sorted(path for path in (HERE / "freebsd").glob("test_*.py") if path.stem != "test_product")
    # env: the pretended host has no LAYOUT_BOX, or this suite would be taken for one that needs the box.
    command = [HERE / "personality" / "enter", "env", sys.executable, "-m", "pytest", "-q", *modules]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--basetemp={tmp_path}/inside"],
        cwd=HERE.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 40
