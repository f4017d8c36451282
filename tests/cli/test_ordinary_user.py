"""What an ordinary user is told of a ROOT that only root may look into: the truth, and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layout.cli.main import run
from layout.host.beneath import directory

HINT = "hint: run it as root"


@pytest.fixture(name="closed")
def _closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ROOT of mode 0700 that is somebody else's, and a configuration beside it that anybody may read."""
    root = tmp_path.resolve() / "jails"
    root.mkdir()
    config = tmp_path / "layout.toml"
    config.write_text(f'root = "{root}"\n')
    really = directory.open_directory

    def refused(dir_fd: int, path: str, *, cross: bool = True) -> int:
        if path == "jails":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return really(dir_fd, path, cross=cross)

    monkeypatch.setattr(directory, "open_directory", refused)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return config


@pytest.mark.parametrize("words", ["status", "show", "plan a", "base list", "fstab", "render nft"])
def test_a_user_is_told_which_directory_is_closed_and_to_be_root(
    closed: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--config", str(closed), *words.split()]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"layout: {closed.parent.resolve()}/jails: found" in said.err and HINT in said.err


def test_verify_says_that_it_could_not_look(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--config", str(closed), "verify"]) == 1
    said = capsys.readouterr().out
    assert "S8-unseen" in said and HINT in said


def test_a_table_that_may_not_be_that_of_the_jail_is_told_as_such(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--config", str(closed), "fstab", "a"]) == 0
    said = capsys.readouterr()
    assert "jails/j/a" in said.out
    assert "no permission to look: told as layout init would make them" in said.err


def test_a_configuration_that_is_closed_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    really = os.open

    def refused(path: str, *rest: int, **more: int) -> int:
        if str(path).endswith("layout.toml"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return really(path, *rest, **more)

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "open", refused)
    assert run(["--root", str(tmp_path), "status"]) == 1
    assert HINT in capsys.readouterr().err


def test_verify_of_a_trial_says_in_one_line_that_only_root_can_prove_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file of it belongs to the user: told one by one, that is hundreds of errors."""
    root = tmp_path.resolve() / "jails"
    for name in ("j/mroot/bin", "s", "t", "skel", "manage", ".layout/jails"):
        (root / name).mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(["--root", str(root), "verify"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "host  FAILED",
        f"  error S8-unseen {root}: found user 1000, "
        "expected root: nobody else sees all of it, or can enter a jail",
        f"    {HINT}; as an ordinary user, for a trial: layout --root DIR init NAME --userns",
        "0 jails, 1 check: 1 error, 0 warnings",
    ]
