"""docs/designs.md tells the truth: it knows every design, and what it shows can be typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PAGE = (TOP / "docs/designs.md").read_text()
KINDS = ("shared", "osless", "full", "thin", "service")


def section(kind: str) -> str:
    """Return the text of a kind's own section."""
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[2 + KINDS.index(kind)]


def test_every_kind_has_its_section_in_the_order_of_the_table() -> None:
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert tuple(titles[1:]) == KINDS
    assert re.findall(r"`([a-z]+)`", PAGE.split("| |")[1].splitlines()[0]) == list(KINDS)
    for kind in KINDS:
        assert len(section(kind).split()) > 40, kind


def test_the_table_answers_every_question_for_every_kind() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    assert len(rows) >= 9
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 6, row
        assert all(cells), row


def test_the_readme_leads_to_it() -> None:
    assert "(docs/designs.md)" in (TOP / "README.md").read_text()


def examples(kind: str) -> list[str]:
    """Return the commands of a kind's section, without what they print."""
    blocks = re.findall(r"```console\n(.*?)```", section(kind), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("# ")]


@pytest.mark.box
def test_the_shared_example_does_what_it_says(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {"PATH": path, "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "LAYOUT_ROOT": str(tmp_path / "jails")}
    ended = {}
    for command in examples("shared"):
        done = subprocess.run(
            ["sh", "-c", command],
            env=os.environ | env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        ended[command.split()[1]] = done.stdout + done.stderr
    assert "/etc/hosts" in ended["manage"], "manage says what was changed"
    assert "0 errors" in ended["verify"]
    assert "web: destroyed" in ended["destroy"]
