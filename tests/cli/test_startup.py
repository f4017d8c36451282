"""A command loads what it needs itself, and nothing of what other commands do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

LISTED = """
import sys
from layout.__main__ import main
sys.argv = ["layout", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
sys.stderr.write("\\nloaded: " + " ".join(sys.modules))
"""

HEAVY = {"asyncio", "concurrent.futures", "http", "logging", "multiprocessing", "rich", "ssl", "unittest"}
"""Each takes as long to import as a command takes to run."""
OTHERS = {
    "layout.actions.init",
    "layout.actions.manage",
    "layout.actions.selftest",
    "layout.actions.bases",
    "layout.core.attacks",
    "layout.host.inside",
    "layout.host.linux.session",
    "layout.host.unpack",
}
"""Commands that nobody asked for here, and what only they need."""


def loaded(*words: str) -> set[str]:
    command = [sys.executable, "-c", LISTED, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("loaded: ")[2].split(" "))


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("--root", "/nonexistent", "status"),
        ("--root", "/nonexistent", "show", "a"),
        ("--root", "/nonexistent", "verify", "--quick"),
        ("--root", "/nonexistent", "mount"),
    ],
    ids=lambda words: words[-1],
)
def test_a_command_loads_no_other(words: tuple[str, ...]) -> None:
    found = loaded(*words)
    assert "layout.cli.app" in found
    assert not found & (HEAVY | OTHERS)


def test_the_version_needs_no_command_line() -> None:
    found = loaded("--version")
    assert "layout" in found
    assert not {name for name in found if name.partition(".")[0] in {"typer", "msgspec", "click"}}
    assert "layout.cli.main" not in found


def test_what_a_command_does_need_is_seen_to_be_loaded() -> None:
    found = loaded("--root", "/nonexistent", "init", "a", "--base", "/nonexistent")
    assert "layout.actions.init" in found
    assert all(importlib.util.find_spec(name) for name in HEAVY | OTHERS)
