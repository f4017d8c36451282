"""Lets the tests here import small_base, and run layout in this process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parent))


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended in this process, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture(name="layout")
def _layout(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run layout in this process: as a user does, only faster. Nothing may be a mistake of the program."""
    from layout.cli.main import run

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert "mistake in layout" not in err
        return Said(code, out, err)

    return call
