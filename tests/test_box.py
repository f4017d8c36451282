"""The box itself: nothing that a test does in it can reach the host, or outlive it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

BOX = str(Path(__file__).resolve().parent / "box")


def box(*args: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run tests/box and return how it ended; without namespaces there is nothing to test."""
    done = subprocess.run([BOX, *args], capture_output=True, text=True, timeout=120, **more)  # type: ignore[call-overload]
    if done.returncode == 77 and done.stderr.startswith("box: no box here"):
        pytest.skip(done.stderr.strip())
    return done


@pytest.mark.parametrize("status", [0, 1, 42])
def test_exit_status_passes_through(status: int) -> None:
    assert box("sh", "-c", f"exit {status}").returncode == status


def test_stdin_and_odd_arguments_pass_through() -> None:
    done = box("sh", "-c", 'cat; printf "[%s]" "$@"', "sh", "a b", "", "*", "'", input="from outside\n")
    assert done.stdout == "from outside\n[a b][][*][']"


@pytest.mark.parametrize(
    "args", [["-w", "/"], ["-w", "/dev"], ["-w", "/proc/self"], ["-w", "/no such"], ["-z", "true"], []]
)
def test_wrong_usage_is_status_2_and_one_line(args: list[str]) -> None:
    done = box(*args)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_only_the_named_directories_stay_writable(tmp_path: Path) -> None:
    for name in ("kept one", "kept two", "other"):
        (tmp_path / name).mkdir()
    script = "touch 'kept one/a' 'kept two/b'; touch other/c"
    done = box("-w", "kept one", "-w", str(tmp_path / "kept two"), "sh", "-c", script, cwd=tmp_path)
    assert "Read-only file system" in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("?")) == ["a", "b"]


def test_terminating_it_leaves_nothing_behind() -> None:
    box("true")
    for number in (signal.SIGTERM, signal.SIGKILL):
        label = f"{os.getpid()}.{number.value}"
        with subprocess.Popen(
            [BOX, "sh", "-c", f"echo up; sleep 9{label}"], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(number)
            assert process.wait(60) == -number
        # The last of the process tree goes a moment after the first.
        for _ in range(600):
            if not (left := running(f"9{label}")):
                break
            time.sleep(0.05)
        assert not left


def running(word: str) -> list[str]:
    """Return the processes that have `word` in their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if word.encode() in line:
            found.append(str(path))
    return found


def test_forged_variable_does_not_let_box_tests_loose(tmp_path: Path) -> None:
    if os.environ.get("LAYOUT_BOX") == "1":
        pytest.skip("inside the box the variable is true")
    env = {name: value for name, value in os.environ.items() if not name.startswith("LAYOUT_")}
    python = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'inner'}",
    ]
    done = subprocess.run(
        [*python, "-m", "box", __file__],
        env=env | {"LAYOUT_BOX": "1"},
        capture_output=True,
        text=True,
        cwd=Path(BOX).parent.parent,
        timeout=240,
    )
    assert done.returncode == 1
    assert "LAYOUT_BOX=1 without tests/box" in done.stdout
    assert " passed" not in done.stdout


@pytest.mark.box
@pytest.mark.parametrize("path", ["/", "/usr", "/etc", "/var"])
def test_the_host_is_read_only(path: str) -> None:
    with pytest.raises(OSError, match="Read-only") as caught:
        Path(path, "layout-box-test").write_text("")
    assert caught.value.errno == errno.EROFS


@pytest.mark.box
@pytest.mark.parametrize("path", ["/tmp", "/run", "/mnt", "/dev/shm"])
def test_its_own_folders_are_writable(path: str) -> None:
    Path(path, "layout-box-test").write_text("")


@pytest.mark.box
def test_root_is_shared(shared: Callable[..., None]) -> None:
    shared()
    shared("/tmp")


@pytest.mark.box
def test_it_runs_as_root_over_no_devtmpfs() -> None:
    assert os.geteuid() == 0
    whole = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - devtmpfs " in line]
    assert not [line for line in whole if line.split(" ")[3] == "/"]


@pytest.mark.box
def test_devices_and_terminals_work() -> None:
    with open("/dev/urandom", "rb") as random, open("/dev/zero", "rb") as zero:
        assert random.read(8) != zero.read(8) == bytes(8)
    Path("/dev/null").write_text("gone")
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "w") as full:
        full.write("x" * 100_000)
    for descriptor in os.openpty():
        os.close(descriptor)


@pytest.mark.box
def test_it_works_inside_itself() -> None:
    done = box("sh", "-c", "id -u; touch /usr/x || mount -t tmpfs none /mnt && exit 7")
    assert (done.returncode, done.stdout) == (7, "0\n")
