"""Killed at any moment, interrupted, or two at once: what has its final name is whole, and init goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_base import archive, build

from layout.cli.main import run

pytestmark = pytest.mark.box
WHOLE = ("j/mroot", "skel/s", "skel/t", "s/a", "t/a")
"""What is either complete or not there."""


@pytest.fixture(name="base", scope="module")
def _base(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("base").resolve()
    top.chmod(0o755)
    base = build(top / "base")
    # Whatever is imported on the way is imported now: the events of all runs are the same then.
    for name, source in (("x", base), ("y", archive(base, top, "tar.zst"))):
        assert run(["--root", str(top / name), "-q", "init", "--base", str(source), "a"]) == 0
        assert run(["--root", str(top / name), "-q", "umount"]) == 0
    return base


def child(words: list[str], at: Callable[[int, str], None] | None = None, output: int = -1) -> int:
    """Start layout in a forked process; `at` is called with the number and words of each audited event."""
    pid = os.fork()
    if pid:
        return pid
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(output if output >= 0 else null, 2)
        os.dup2(null, 1)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        if at is not None:
            count, own = 0, os.getpid()

            def hook(event: str, arguments: tuple[object, ...]) -> None:
                nonlocal count
                # The children that unpack inherit the hook, but are not what is killed.
                if (event.startswith(("os.", "fcntl.")) or event == "open") and os.getpid() == own:
                    count += 1
                    at(count, f"{event} {arguments[1]}" if event == "os.rename" else event)

            sys.addaudithook(hook)
        code = run(words)
        sys.stderr.flush()
        os._exit(code)
    finally:
        os._exit(99)


def end(pid: int) -> int:
    """Wait for a child; negative is the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def events(words: list[str]) -> list[str]:
    """The audited events of a whole run, which this makes."""
    receive, send = os.pipe()
    pid = child(words, lambda _, event: os.write(send, f"{event}\n".encode()) and None)
    os.close(send)
    with os.fdopen(receive) as pipe:
        found = pipe.read().splitlines()
    assert end(pid) == 0
    return found


def paths(root: Path) -> dict[str, set[str]]:
    return {
        top: {str(p.relative_to(root)) for p in (root / top).rglob("*")}
        for top in WHOLE
        if (root / top).exists()
    }


def unfinished(root: Path) -> list[Path]:
    return [p for p in root.rglob(".*") if p.name.startswith(".new-") or p.name.count(".") > 2]


def assert_goes_on(root: Path, words: list[str], wanted: dict[str, set[str]]) -> None:
    """What is there is whole; another run makes the rest, verifies, and leaves nothing unfinished."""
    for top, found in paths(root).items():
        assert found == wanted[top], top
    assert run(words) == 0
    assert paths(root) == wanted
    assert unfinished(root) == []
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [target for target in targets if target.startswith(f"{root}/")]
    assert sorted(ours) == sorted(f"{root}/j/a{below}" for below in ("", "/s", "/t"))
    assert run([*words[:2], "-q", "umount"]) == 0


@pytest.mark.parametrize("source", ["directory", "tar.zst"])
def test_killed_at_any_event_the_next_run_goes_on(tmp_path: Path, base: Path, source: str) -> None:
    """SIGKILL before a spread of audited events, and before and after every rename."""
    top = tmp_path.resolve()
    given = base if source == "directory" else archive(base, top, source)

    def words(name: str) -> list[str]:
        return ["--root", str(top / name), "-q", "init", "--base", str(given), "a"]

    seen = events(words("whole"))
    wanted = paths(top / "whole")
    assert set(wanted) == set(WHOLE)
    renames = [number for number, event in enumerate(seen, 1) if event.startswith("os.rename")]
    assert len(renames) > 8
    spread = range(1, len(seen), len(seen) // (12 if source == "directory" else 4))
    after = [number + 1 for number in renames[::2]] if source == "directory" else []
    points = sorted({*spread, *renames, *after})
    killed = 0
    for point in points:
        root = top / f"at-{point}"

        def kill(number: int, event: str, point: int = point) -> None:
            if number == point:
                os.kill(os.getpid(), signal.SIGKILL)

        killed += end(child(words(root.name), kill)) == -signal.SIGKILL
        assert_goes_on(root, words(root.name), wanted)
    assert killed == len(points)


def test_killed_at_any_time_with_the_host_as_base(tmp_path: Path) -> None:
    top = tmp_path.resolve()

    def words(name: str) -> list[str]:
        return ["--root", str(top / name), "-q", "init", "a"]

    start = time.monotonic()
    assert end(child(words("whole"))) == 0
    took = time.monotonic() - start
    wanted = paths(top / "whole")
    killed = 0
    # A host that was busy a moment ago may be quicker now, and done before it is killed.
    for number in range(30):
        if number >= 6 and killed >= 3:
            break
        pid = child(words(str(number)))
        time.sleep(took * (number % 6 + 0.5) / 6)
        os.kill(pid, signal.SIGKILL)
        killed += end(pid) == -signal.SIGKILL
        assert_goes_on(top / str(number), words(str(number)), wanted)
    assert killed >= 3


def test_recover_finishes_what_is_complete_and_removes_the_rest(tmp_path: Path, base: Path, layout) -> None:
    """In the middle of the commit, the base is complete: it is finished without its source."""
    root = tmp_path.resolve() / "root"
    words = ["--root", str(root), "-q", "init", "--no-mount", "--base", str(base), "a"]

    def kill(number: int, event: str) -> None:
        if event == "os.rename mroot":
            os.kill(os.getpid(), signal.SIGKILL)

    assert end(child(words, kill)) == -signal.SIGKILL
    assert (root / ".layout/commit.toml").exists()
    (root / "s/.new-b").mkdir()
    (root / "s/.new-b/etc").mkdir()
    (root / ".layout/jails/.b.toml.0123456789ab").write_text("half")
    said = layout("--root", root, "recover")
    assert said.code == 0
    assert "base: finished" in said.out
    assert "s/b: an unfinished copy removed" in said.out
    assert unfinished(root) == []
    assert not (root / ".layout/commit.toml").exists()
    assert set(paths(root)) >= {"j/mroot", "skel/s", "skel/t"}
    assert layout("--root", root, "init", "--no-mount", "a").code == 0


# --- an interrupt --------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["directory", "tar"])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, base: Path, source: str) -> None:
    """Exit 130, one clean message; the staging goes, and so does ROOT when it was made by that run."""
    top = tmp_path.resolve()
    given = base if source == "directory" else archive(base, top, source)
    words = ["--root", str(top / "root"), "init", "--no-mount", "--base", str(given), "a"]
    seen = events(["--root", str(top / "whole"), *words[2:]])
    made = seen.index("os.mkdir") + 30  # ROOT and the lock
    populated = next(i for i, event in enumerate(seen) if event == "os.rename etc")  # the split
    for point in range(made, populated + 5, (populated - made) // 5):

        def interrupt(number: int, event: str, point: int = point) -> None:
            if number == point:
                os.kill(os.getpid(), signal.SIGINT)

        log = top / f"log-{point}"
        with log.open("wb") as file:
            assert end(child(words, interrupt, file.fileno())) == 130
        assert log.read_text().startswith("layout: init: found an interrupt")
        assert log.read_text().count("\n") <= 2
        assert not (top / "root").exists(), (point, seen[point - 3 : point + 3])


def test_ctrl_c_while_the_second_jail_is_made_leaves_the_first(tmp_path: Path, base: Path) -> None:
    root = tmp_path.resolve() / "root"
    words = ["--root", str(root), "-q", "init", "--no-mount", "--base", str(base), "a"]
    assert run(words) == 0
    words = [*words[:-2], str(base), "a", "b"]

    sent = []

    def interrupt(number: int, event: str) -> None:
        if not sent and (root / "t/b").exists():
            sent.append(number)
            os.kill(os.getpid(), signal.SIGINT)

    with (tmp_path / "log").open("wb") as file:
        code = end(child(words, interrupt, file.fileno()))
    assert code == 130, (tmp_path / "log").read_text()
    for place in ("j", "manage", "s", "t"):
        assert sorted(set(os.listdir(root / place)) - {"mroot"}) == ["a"]
    assert run(words) == 0


# --- two at once ---------------------------------------------------------------------------------------


def test_of_two_runs_at_once_one_wins(tmp_path: Path, base: Path) -> None:
    """The other is told who holds the lock, by process and command, or has nothing left to do."""
    told = 0
    for number in range(20):
        root = tmp_path.resolve() / str(number)
        words = ["--root", str(root), "-q", "init", "--base", str(base), "a"]
        logs = [tmp_path / f"{number}-{which}" for which in "xy"]
        receive, send = os.pipe()
        pids = []
        for log in logs:
            with log.open("wb") as file:

                def wait(count: int, event: str, receive: int = receive) -> None:
                    if count == 1:
                        os.read(receive, 1)

                pids.append(child(words, wait, file.fileno()))
        os.write(send, b"go")
        codes = [end(pid) for pid in pids]
        os.close(receive)
        os.close(send)
        texts = [log.read_text() for log in logs]
        assert 0 in codes, texts
        for code, text in zip(codes, texts, strict=True):
            if code:
                told += 1
                other = pids[1 - codes.index(code)]
                assert f"found a lock held by process {other} (layout " in text
                assert "hint: wait for it to end" in text
        table = Path("/proc/self/mountinfo").read_text()
        assert table.count(f" {root}/j/a ") == table.count(f" {root}/j/a/t ") == 1
        assert run(["--root", str(root), "-q", "verify"]) == 0
        assert run(["--root", str(root), "-q", "umount"]) == 0
    assert told > 0


def holders(path: Path) -> set[int]:
    """Processes that have a file open, this one left out."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if any(os.readlink(fd) == str(path) for fd in (entry / "fd").iterdir()):
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def test_children_that_unpack_do_not_hold_the_lock(
    root: Path, tmp_path: Path, base: Path, monkeypatch
) -> None:
    from layout.host.unpack import children

    watch, seen = children.watch, []

    def look_then_watch(family, tick) -> None:
        deadline = time.monotonic() + 60
        while holders(root / ".layout/lock") and time.monotonic() < deadline:
            time.sleep(0.01)  # a child closes everything first
        seen.append(holders(root / ".layout/lock"))
        watch(family, tick)

    monkeypatch.setattr(children, "watch", look_then_watch)
    packed = archive(base, tmp_path, "tar.gz")
    assert run(["--root", str(root), "-q", "init", "--no-mount", "--base", str(packed), "a"]) == 0
    assert seen == [set()]


def test_a_session_holds_its_own_lock_only(root: Path) -> None:
    """While an administrator works in a jail, others can be made; and nothing of the session has its lock."""
    words = ["--root", str(root), "-q"]
    assert run([*words, "init", "a"]) == 0
    command = [sys.executable, "-m", "layout", *words, "manage", "a", "--", "sh", "-c", "echo up; cat"]
    session = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert session.stdout is not None
        assert session.stdout.readline().strip() == b"up"
        assert holders(root / ".layout/lock") == set()
        assert holders(root / ".layout/manage-a.lock") == {session.pid}
        assert run([*words, "init", "b"]) == 0
    finally:
        session.communicate()
    assert session.returncode == 0
    record = json.loads(json.dumps(sorted(os.listdir(root / ".layout/jails"))))
    assert record == ["a.toml", "b.toml"]
