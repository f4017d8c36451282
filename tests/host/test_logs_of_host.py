"""Logs of jails on the host, which jails fill: what a start has printed is read of any size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layout.core.errors import LayoutError
from layout.host import hostfiles


def test_what_was_written_since_is_read_behind_any_number_of_bytes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    os.truncate(log, hostfiles.LIMIT + 1)
    with pytest.raises(LayoutError):
        hostfiles.read_text(str(log))
    begin = hostfiles.size(str(log))
    with open(log, "ab") as file:
        file.write(b"it ends\xff\n")
    assert hostfiles.since(str(log), begin) == "it ends\udcff\n"


def test_of_much_the_end_is_read_and_of_a_log_begun_anew_all(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (1 << 20) + b"end")
    assert hostfiles.since(str(log), 0).endswith("xend")
    assert len(hostfiles.since(str(log), 0)) < 1 << 17
    log.write_text("anew", encoding="utf-8")
    assert hostfiles.since(str(log), 1 << 20) == "anew"
    assert (hostfiles.since(str(tmp_path / "none"), 5), hostfiles.size(str(tmp_path / "none"))) == ("", 0)
