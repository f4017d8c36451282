"""What is looked at in a process that runs may be gone a moment later, which is no fault of the jail."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from layout.core.accounts import Account
from layout.core.model import Mount
from layout.host import forked
from layout.host.linux import probe, procs, standing

if TYPE_CHECKING:
    from pathlib import Path

ROOT = Mount("/j/mroot", "/j/a", "bind", ("ro",))
PLENTY = {"NoNewPrivs": "1", "Seccomp": "2", "Uid": "0 0 0 0", "Gid": "0 0 0 0", "Groups": ""}


def test_a_file_outside_counts_when_it_is_open_for_writing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    disks = {(tmp_path / "file").stat().st_dev}
    for flags, said in ((os.O_RDWR, "a file outside, open for writing,"), (os.O_RDONLY, "")):
        fd = os.open(tmp_path / "file", flags)
        assert probe._outside(os.getpid(), f"fd/{fd}", set(), disks, ()) == said
        os.close(fd)


def test_a_file_that_is_closed_between_two_looks_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was closed before the first: held_outside() goes on with the next."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)

    def close(path: str) -> int:
        os.close(fd)
        return -1

    monkeypatch.setattr(probe, "_mount_of", close)
    with pytest.raises(FileNotFoundError):
        probe._outside(os.getpid(), f"fd/{fd}", set(), {tmp_path.stat().st_dev}, ())


def test_a_service_that_ends_while_its_user_is_asked_for_has_nothing_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pid = forked.fork(lambda: 0)
    os.waitpid(pid, 0)
    monkeypatch.setattr(procs, "status", lambda _: PLENTY)
    account = Account(80, 81, (), "/")
    assert list(standing.drift(pid, [ROOT], (), {}, account=account)) == []
    # The control: one that goes on, as another user than that.
    told = next(standing.drift(os.getpid(), [ROOT], (), {}, account=account))
    assert told == (f"process {os.getpid()}", "Uid 0", "Uid 80")
