"""tests/freebsd on the pretended FreeBSD: that shows its tests to be sound, not FreeBSD to be so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.box

HERE = Path(__file__).resolve().parent


def test_what_is_asked_of_freebsd_holds_on_the_pretended_one(tmp_path: Path) -> None:
    """Those of the product are left out: tests/actions has them for the pretended host."""
    plain = [
        *("-u", "LAYOUT_BOX", "-u", "LAYOUT_BOX_OUTSIDE", "LAYOUT_FREEBSD_THROW_AWAY=1", "LC_ALL=C.UTF-8"),
        f"PYTHONPATH={HERE / 'freebsd_shim'}:{HERE.parent}",
    ]
    modules = sorted(path for path in (HERE / "freebsd").glob("test_*.py") if path.stem != "test_product")
    # Without LAYOUT_BOX, or those tests would be taken for some that look for the box around them.
    command = [
        HERE / "personality" / "enter",
        "env",
        *plain,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=short",
        *modules,
    ]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:hypothesispytest", f"--basetemp={tmp_path}/inside"],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
    )
    # What a listing of all tests keeps of this one is short: what failed in there, with its values.
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))]
    told = "\n".join([*lines[-4:], *lines[:14]]) or done.stdout[-2000:] + done.stderr[-1000:]
    assert done.returncode == 0, told
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 40
