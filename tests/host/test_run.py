"""The door for external programs: what it passes on, what it refuses, how it tells of failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from layout.core.errors import LayoutError
from layout.host.run import CommandError, require, run, which

if TYPE_CHECKING:
    from pathlib import Path


def children() -> set[str]:
    """Return the numbers of this thread's children, ended ones as well."""
    with open("/proc/thread-self/children", encoding="ascii") as file:
        return set(file.read().split())


def test_words_reach_the_program_unchanged() -> None:
    assert run("printf", "%s|", "a b", "$HOME", "*", "").stdout == "a b|$HOME|*||"


def test_bytes_that_are_no_text_come_back_as_they_went() -> None:
    assert run("cat", input="x\udcff\n").stdout == "x\udcff\n"


def test_the_environment_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYOUT_SECRET", "x")
    found = run("env", env={"A": "b"}).stdout.split()
    assert "A=b" in found
    assert "LC_ALL=C" in found
    assert not [word for word in found if word.startswith("LAYOUT_SECRET")]


def test_another_status_is_an_error_with_the_last_words() -> None:
    with pytest.raises(CommandError) as caught:
        run("sh", "-c", "echo 'bad \033[1m' >&2; exit 3", hint="try again")
    assert caught.value.status == 3
    assert caught.value.hint == "try again"
    assert "exit status 3: bad \\x1b[1m" in str(caught.value)
    assert run("sh", "-c", "exit 3", ok=(0, 3)).status == 3


def test_a_working_directory_that_cannot_be_entered_is_an_error(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(LayoutError, match="no such file or directory") as caught:
        run("true", cwd=str(tmp_path / "none"), hint="look again")
    assert caught.value.hint == "look again"
    assert children() <= before, "a child that nobody waits for"


def test_the_working_directory_is_that_of_the_program(tmp_path: Path) -> None:
    before = os.getcwd()
    assert run("pwd", cwd=str(tmp_path)).stdout == f"{tmp_path.resolve()}\n"
    assert os.getcwd() == before


def test_one_that_a_signal_ends_is_an_error() -> None:
    with pytest.raises(CommandError, match="signal 9"):
        run("sh", "-c", "kill -9 $$")


def test_one_that_does_not_end_is_ended() -> None:
    with pytest.raises(LayoutError, match="no end"):
        run("sleep", "60", timeout=0.2)


def test_a_program_that_is_not_there_is_an_error_that_names_its_package() -> None:
    assert which("no-such-program") is None
    with pytest.raises(LayoutError) as caught:
        require("no-such-program", "the package")
    assert "the package" in caught.value.hint
