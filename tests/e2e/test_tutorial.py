"""docs/tutorial.md says what happens: each command prints what the page shows."""

from __future__ import annotations

import os
import re

import pytest

from tests.e2e.house import DAEMONS, processes
from tests.e2e.tutorial import PAGE, commands, play

pytestmark = pytest.mark.e2e

# What depends on the host, and on how long things take.
_VARIES = (
    (re.compile(r"\bcached\b|\bbuilt in [0-9]+ s\b"), "built"),
    (re.compile(r"\b(bwrap|nspawn|unit)\b"), "ENGINE"),
    (re.compile(r"\b(weak|full)\b"), "GRADE"),
    (re.compile(r"ok, with warnings"), "ok"),
    (re.compile(r"\b[0-9]+ warnings?"), "N warnings"),
    (re.compile(r"\b[0-9]{2,}\b(?!\.[0-9])|\b[0-9]+\.[0-9]+ MB|\b[0-9]+ (s|min)\b"), "N"),
    (re.compile(r" {2,}"), " "),
)
_REMARK = re.compile(r"  warning |    hint: |[a-z]+: uid 0 of the jail ")


def settled(output: str) -> list[str]:
    """Return the lines of an output without what varies."""
    lines = [line for line in output.splitlines() if not _REMARK.match(line)]
    for pattern, word in _VARIES:
        lines = [pattern.sub(word, line) for line in lines]
    return [line.rstrip() for line in lines]


def test_the_tutorial_prints_what_it_shows() -> None:
    page = commands(PAGE.read_text())
    outputs = play([command for command, _ in page], os.environ["LAYOUT_DEBIAN_BASE"])
    assert len(outputs) == len(page)
    for (command, shown), printed in zip(page, outputs, strict=True):
        assert settled(printed) == settled(shown), command
    assert processes(*DAEMONS) == []
