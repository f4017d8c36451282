"""What .ci/test says of a run of pytest that was kept in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPORT = Path(__file__).resolve().parents[1] / ".ci" / "report.py"

BROKEN = """
import sys
import pytest

def test_one_that_says_much():
    print(*range(500), sep="\\n")
    print("last words", file=sys.stderr)
    assert {"a": [1] * 200, "b": "found"} == {"a": [1] * 199, "b": "expected"}

def test_what_passes():
    print("of no interest")

@pytest.fixture
def without():
    raise ValueError("no ground to stand on")

def test_that_cannot_start(without):
    pass

@pytest.mark.skip(reason="not on a Monday")
def test_left_out():
    pass
"""


def report(*words: object) -> list[str]:
    command = [sys.executable, REPORT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(name="log", scope="module")
def _log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    (place / "test_it.py").write_text(BROKEN)
    (place / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-ra",
        "--tb=short",
        "--color=yes",
        "-p",
        "no:cacheprovider",
        ".",
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    log = place / "box"
    log.write_text(done.stdout)
    return log


def test_a_failure_is_told_with_its_values_in_few_lines(log: Path) -> None:
    told = report("trouble", 1, log)
    first = next(number for number, line in enumerate(told) if "_ test_one_that_says_much _" in line)
    block = told[first:-1]
    assert 20 < len(block) <= 42
    assert any(line.startswith("E ") and "'found'} != {'b': 'expected'" in line for line in block)
    assert "last words" in block
    assert {"498", "499"} < set(block)
    assert "of no interest" not in told
    assert any("no ground to stand on" in line for line in told)
    assert any("ERROR at setup of test_that_cannot_start" in line for line in told)


def test_what_failed_and_what_was_left_out_has_a_line_each(log: Path) -> None:
    errors, failures = ([line for line in report("failed", log) if line.startswith(w)] for w in ("E", "F"))
    assert [line.split()[1] for line in errors] == ["test_it.py::test_that_cannot_start"]
    assert [line.split()[1] for line in failures] == ["test_it.py::test_one_that_says_much"]
    assert [line.partition(": ")[2] for line in report("skipped", log)] == ["not on a Monday"]


def test_a_run_that_was_ended_shows_how_far_it_came(log: Path, tmp_path: Path) -> None:
    cut = tmp_path / "box2"
    cut.write_text("tests/core/test_names.py ...\ntests/test_box.py ..\nbox: no pivot_root\n")
    told = report("trouble", 137, cut)
    assert "137" in told[0]
    assert "box: no pivot_root" in told
    assert told[-1].endswith("tests/core/test_names.py tests/test_box.py")
    assert report("failed", tmp_path / "none") == ["none: found no output of it"]


@pytest.mark.parametrize("status", [0, 5])
def test_what_passed_has_nothing_to_tell(log: Path, status: int) -> None:
    assert report("trouble", status, log) == []
