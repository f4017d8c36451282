"""Standard streams that are closed, full or gone, and terminals that know ASCII only, end in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layout.cli import streams


def layout(words: str, redirected: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line as a shell does, which can close descriptors."""
    return subprocess.run(
        ["sh", "-c", f'"$0" -m layout {words} {redirected}', sys.executable],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", ["profile list", "--version"])
def test_a_full_device_is_named_as_what_cannot_be_written(words: str, unbuffered: str) -> None:
    done = layout(words, ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == (
        "layout: standard output: found no space left on device, "
        "expected to be able to write the result there\n"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_who_is_gone_ends_the_run_without_a_word_and_as_sigpipe_would(unbuffered: str) -> None:
    """Not with 1, which says that something is not as promised."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "layout", "profile", "list"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_takes_what_is_printed_as_dev_null_does(redirected: str) -> None:
    done = layout("profile list", redirected)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("BIND" in done.stdout) == (redirected == "2>&-")


def test_an_error_keeps_its_status_where_nobody_can_read_it() -> None:
    assert layout("frobnicate", "2>&-").returncode == 2


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_an_error_keeps_its_status_where_its_words_cannot_be_written(unbuffered: str) -> None:
    done = layout("frobnicate", "2>/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (2, "")


def test_results_that_are_lost_after_an_error_leave_it_its_status_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "etc/profiles").mkdir(parents=True)
    (tmp_path / "etc/profiles/bad.toml").write_text("x", encoding="utf-8")
    words = f"--root {tmp_path} profile list"
    whole, lost = (layout(words, where, PYTHONUNBUFFERED="") for where in (">/dev/null", ">/dev/full"))
    assert "bad.toml" in whole.stderr
    assert (lost.returncode, lost.stderr) == (whole.returncode, whole.stderr) == (2, whole.stderr)


def test_remarks_that_cannot_be_written_end_nothing() -> None:
    done = layout("advise /bin/sh", "2>/dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == 0
    assert "kind = " in done.stdout


def test_where_a_terminal_knows_ascii_only_pictures_are_drawn_with_that() -> None:
    streams.settle()
    drawn = "├── j/a  €\n└── x".encode("ascii", "layout.drawn")
    assert drawn == b"|-- j/a  \\u20ac\n`-- x"
