"""A thin jail's root is there while it runs, holds what its program needs, and is gone whatever ends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from busybox_yard import eventually, processes
from thin_yard import Daemon, thin_yard
from yard import clear_mounts, mount, umount

from layout.actions.verifying import directories, registry
from layout.host import forked
from layout.host.linux import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from yard import Yard

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]


@pytest.fixture(name="daemon")
def _daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path / "app")


@pytest.fixture(name="yard")
def _yard(tmp_path: Path, daemon: Daemon) -> Iterator[Yard]:
    before = processes()
    yard = thin_yard(tmp_path / "yard", daemon)
    yield yard
    yard.run("stop", "a")
    assert eventually(lambda: not processes() - before), processes() - before
    gone(yard)
    clear_mounts(yard.top)


def gone(yard: Yard) -> None:
    """Nothing is left of a root where a jail was."""
    assert yard.mounts() == []
    assert os.listdir(yard.root / "j/a") == []


def pid_of(yard: Yard) -> int:
    found = json.loads(yard.run("--json", "status", "a").out)["jails"]["a"]["running"]
    assert found["pid"]
    return int(found["pid"])


def roots(yard: Yard) -> list[str]:
    place = yard.root / ".layout/thin"
    return (
        [name for name in os.listdir(place) if len(name) == 64 or name.startswith(".")]
        if place.exists()
        else []
    )


def test_a_daemon_answers_from_a_root_with_nothing_but_what_it_needs(yard: Yard, daemon: Daemon) -> None:
    gone(yard)
    yard.ok("start", "a")
    gone(yard)  # what is mounted, only the jail sees
    assert daemon.ask() == {
        "answer": "42",
        "user": "root",
        "root": "known",
        "etc": "0",
        "lib": "0",
        "log": "1",
        "conf": "0",
        "sh": "0",
        "config": "of the host",
    }
    assert (daemon.top / "log/x").exists()
    (root,) = roots(yard)
    top = yard.root / ".layout/thin" / root
    assert (top / "etc/passwd").read_text() == "root:*:0:0:root:/root:/nonexistent\n"
    assert yard.verify("a") == []
    seen = Path(f"/proc/{pid_of(yard)}/root")
    names = {str(p.relative_to(seen)) for p in seen.rglob("*") if p.is_file() and not p.is_symlink()}
    beyond = ("proc/", "dev/", "run/", "etc/app/", "var/log/app/")
    kept = {str(p.relative_to(top)) for p in top.rglob("*") if p.is_file() and not p.is_symlink()}
    assert {name for name in names if not name.startswith(beyond)} == kept
    # It has no shell; and its own program runs in there, with its own arguments.
    assert yard.run("exec", "a", "--", "/bin/sh", "-c", "true").code == 127
    with yard.process("exec", "a", "--", daemon.program, "1", "fail", stdin=subprocess.DEVNULL) as done:
        assert done.wait(60) == 3
    assert yard.ok("start", "a").startswith("a: already running, process ")
    assert yard.ok("stop", "a") == "a: stopped\n"
    gone(yard)
    assert yard.verify("a") == []


def test_another_user_and_his_entry_alone(yard: Yard, daemon: Daemon) -> None:
    more = 'user = "nobody"\n[linux.thin]\ncertificates = false\n'
    text = daemon.profile().replace("stop_timeout = 30\n", f"stop_timeout = 30\n{more}", 1)
    (yard.root / "etc/profiles/a.toml").write_text(text, encoding="utf-8")
    yard.ok("start", "a")
    found = daemon.ask()
    assert (found["user"], found["root"], found["sh"]) == ("nobody", "unknown", "0")
    assert [code for _, code, severity in yard.verify("a") if severity == "error"] == []


@pytest.mark.parametrize("whom", ["daemon", "engine"])
def test_a_killed_daemon_leaves_nothing(yard: Yard, daemon: Daemon, whom: str) -> None:
    yard.ok("start", "a")
    record = (yard.root / ".layout/run/a.toml").read_text(encoding="utf-8")
    engine = int(record.partition("pid = ")[2].split()[0])
    before = pid_of(yard)
    os.kill(before if whom == "daemon" else engine, signal.SIGKILL)
    assert eventually(lambda: not Path(f"/proc/{engine}/root").exists())
    gone(yard)
    assert eventually(lambda: ("a", "S5-service", "warning") in yard.verify("a"))
    yard.ok("start", "a")
    assert daemon.ask()["answer"] == "42"


def test_a_killed_layout_leaves_nothing_half_started(yard: Yard) -> None:
    """Whenever it is killed: before, while or after it starts the jail."""
    for delay in (0.15, 0.25, 0.35, 0.45):
        with yard.process("start", "a", start_new_session=True) as starting:
            time.sleep(delay)
            os.killpg(starting.pid, signal.SIGKILL)
            starting.wait()
        gone(yard)
        yard.ok("start", "a")
        yard.ok("stop", "a")
        assert len(roots(yard)) == 1


def test_a_failed_start_leaves_nothing(yard: Yard, daemon: Daemon) -> None:
    (yard.root / "etc/profiles/a.toml").write_text(daemon.profile(words=', "fail"'), encoding="utf-8")
    done = yard.run("start", "a")
    assert done.code == 1
    assert "told to fail" in done.err
    gone(yard)
    (daemon.top / "log").rename(daemon.top / "elsewhere")
    done = yard.run("start", "a")
    assert done.code == 1
    assert f"{daemon.top}/log" in done.err
    gone(yard)


def test_a_changed_library_makes_a_new_root_and_a_warning_before(yard: Yard, daemon: Daemon) -> None:
    yard.ok("start", "a")
    before = roots(yard)
    os.utime(daemon.top / "lib/libanswer.so")  # a new time, and the same content
    assert "T4-stale" not in {code for _, code, _ in yard.verify("a")}
    daemon.library(43)
    assert daemon.ask()["answer"] == "42"
    assert ("a", "T4-stale", "warning") in yard.verify("a")
    yard.ok("restart", "a")
    assert daemon.ask()["answer"] == "43"
    assert "T4-stale" not in {code for _, code, _ in yard.verify("a")}
    assert len(roots(yard)) == 1
    assert roots(yard) != before


def test_verify_sees_what_was_changed_behind_its_back(yard: Yard) -> None:
    yard.ok("start", "a")
    (root,) = roots(yard)
    library = next((yard.root / ".layout/thin" / root).rglob("libanswer.so"))
    kept = library.rename(library.with_name(".kept"))  # what is mapped must not be cut short
    library.write_bytes(kept.read_bytes() + b"x")
    assert ("a", "T3-content", "error") in yard.verify("a")
    assert ("a", "T3-content", "error") not in yard.verify("--quick", "a")
    kept.rename(library)
    assert yard.verify("a") == []
    extra = library.with_name("more")
    extra.write_bytes(b"")
    assert ("a", "T3-content", "error") in yard.verify("a")
    extra.unlink()
    # The same files, but not those that the jail has.
    place = yard.root / ".layout/thin"
    (place / root).rename(place / "own")
    subprocess.run(["cp", "-a", place / "own", place / root], check=True)
    assert ("a", "T2-root", "error") in yard.verify("a")
    subprocess.run(["rm", "-r", place / root], check=True)
    (place / "own").rename(place / root)
    record = place / "a.toml"
    record.rename(place / "kept")
    assert ("a", "T2-root", "error") in yard.verify("a")
    (place / "kept").rename(record)
    assert yard.verify("a") == []
    yard.ok("stop", "a")
    (yard.root / "j/a/left").write_bytes(b"")
    assert ("a", "T1-left", "error") in yard.verify("a")
    (yard.root / "j/a/left").unlink()
    assert yard.verify("a") == []


def test_a_directory_of_the_host_that_all_users_reach_is_warned_of(
    yard: Yard, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only that: closed anywhere above, or on a file system without setuid files, it is nobody's way."""
    log = daemon.top / "log"
    finding = ("a", "S4-open", "warning")
    way = [path for path in (log, *log.parents) if path.is_relative_to("/tmp/pytest")]
    before = {path: path.stat().st_mode & 0o7777 for path in way}
    assert yard.verify("a") == []
    try:
        for path in way:
            path.chmod(0o755)
        assert yard.verify("a") == yard.verify("--quick", "a") == [finding]
        with monkeypatch.context() as patch:
            others = tuple(check for check in registry.JAIL if check.look is not directories.closed)
            patch.setattr(registry, "JAIL", others)
            assert yard.verify("a") == []
        log.chmod(0o750)
        assert yard.verify("a") == []
        log.chmod(0o755)
        way[-1].chmod(0o700)
        assert yard.verify("a") == []
        way[-1].chmod(0o755)
        mount("-o", "bind", log, log)
        mount("-o", "remount,bind,nosuid", log)
        assert yard.verify("a") == []
        umount(log)
        assert yard.verify("a") == [finding]
    finally:
        for path, mode in before.items():
            path.chmod(mode)


def remounted(pid: int, path: str, *, to_set: int = 0, clear: int = 0) -> None:
    """Change the flags of a mount that a jail sees, as somebody with all rights could."""

    def change() -> int:
        root = os.open(f"/proc/{pid}/root", os.O_PATH)
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        syscalls.setns(namespace, syscalls.CLONE_NEWNS)
        fd = syscalls.openat2(root, path.lstrip("/").encode() or b".", os.O_PATH, 0)
        syscalls.mount_setattr(fd, attr_set=to_set, attr_clr=clear)
        return 0

    assert os.waitpid(forked.fork(change), 0)[1] == 0


def test_verify_sees_mounts_that_can_be_written(yard: Yard, daemon: Daemon) -> None:
    # On a low port it has no user namespace, which would lock the flags.
    daemon.port = 91
    text = daemon.profile().replace("stop_timeout = 30\n", 'capabilities = ["net_bind_service"]\n', 1)
    (yard.root / "etc/profiles/a.toml").write_text(text, encoding="utf-8")
    yard.ok("start", "a")
    assert [code for _, code, severity in yard.verify("a") if severity == "error"] == []
    pid = pid_of(yard)
    remounted(pid, "/", clear=syscalls.ATTR_RDONLY)
    assert {("a", "S3-running", "error"), ("a", "T5-writable", "error")} <= set(yard.verify("a"))
    remounted(pid, "/", to_set=syscalls.ATTR_RDONLY)
    remounted(pid, "/var/log/app", clear=syscalls.ATTR_NOEXEC)
    assert ("a", "T5-exec", "error") in yard.verify("a")
    remounted(pid, "/var/log/app", to_set=syscalls.ATTR_NOEXEC)
    assert [code for _, code, severity in yard.verify("a") if severity == "error"] == []


def test_there_is_nothing_to_manage_and_it_is_said_where_the_files_are(yard: Yard, daemon: Daemon) -> None:
    done = yard.run("manage", "a")
    assert done.code == 2
    assert f"{daemon.top}/etc" in done.err
    assert "layout restart a" in done.err


def test_show_and_plan_know_it_and_destroy_takes_its_root_along(yard: Yard) -> None:
    assert "j/a                     ro  a root of its closure  (while it runs)" in yard.ok("show", "a")
    assert "log/app" in yard.ok("show", "a")
    assert yard.ok("plan", "a") == ""
    yard.ok("start", "a")
    assert yard.run("destroy", "a").code == 1
    yard.ok("stop", "a")
    yard.ok("destroy", "a")
    assert os.listdir(yard.root / ".layout/thin") == []
    assert not (yard.root / "j/a").exists()
    yard.ok("init", "a")


def test_nothing_of_root_is_mounted_and_no_tree_of_others_is_executed(
    yard: Yard, daemon: Daemon, tmp_path: Path
) -> None:
    profile = yard.root / "etc/profiles/a.toml"
    for source in (yard.root / "t", yard.top):
        profile.write_text(daemon.profile().replace(f"{daemon.top}/log", str(source)), encoding="utf-8")
        done = yard.run("init", "a")
        assert (done.code, f"a mount of {source}" in done.err) == (2, True)
    tree = tmp_path / "tree"
    tree.mkdir()
    text = daemon.profile().replace("stop_timeout = 30\n", f'[linux.thin]\nroot = "{tree}"\n', 1)
    profile.write_text(text, encoding="utf-8")
    for place in (yard.root / "t/b", yard.top):
        profile.write_text(text.replace(str(tree), str(place)), encoding="utf-8")
        done = yard.run("start", "a")
        assert (done.code, f"thin.root: found {place}" in done.err) == (2, True)
    profile.write_text(text, encoding="utf-8")
    tree.chmod(0o777)
    assert "others can change" in yard.run("start", "a").err
    tree.chmod(0o755)
    assert "nothing by that name" in yard.run("start", "a").err
    tree.rmdir()
    assert f"{tree}: found no such directory" in yard.run("start", "a").err
    profile.write_text(daemon.profile(), encoding="utf-8")
    yard.ok("start", "a")
