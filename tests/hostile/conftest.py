"""Lets the tests here use the yards of tests/actions, and the attacker that swaps without end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "actions"))


@pytest.fixture(name="swapper", scope="session")
def _swapper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attacker of races, as a program: in Python it would be too slow to be one."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    program = tmp_path_factory.mktemp("swapper") / "swap"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / "swap.c"], check=True)
    return program
