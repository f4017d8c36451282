"""Kind osless: one static program that answers, in a jail where there is nothing else, on Linux."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from busybox_yard import eventually, processes
from net_yard import OUTSIDE, Outside
from osless_yard import NAME, PROGRAM, Finger, finger, fingerd, move_program, remove_stranger
from yard import mount, mounts, umount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]


@pytest.fixture(name="jail")
def _jail(tmp_path: Path) -> Iterator[Finger]:
    """ROOT with the jail made and mounted; nothing of it may be left running."""
    tmp_path.chmod(0o755)
    before = processes()
    found = Finger(tmp_path.resolve())
    found.profile()
    found.ok("init", NAME)
    yield found
    found.clear()
    assert eventually(lambda: not processes() - before)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


# --- what there is ----------------------------------------------------------------------------------------


def test_there_is_one_program_and_its_configuration_and_nothing_else(jail: Finger) -> None:
    tree = jail.root / "s" / NAME
    files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    assert files == ["etc/finger.conf", PROGRAM]
    assert (tree / PROGRAM).stat().st_mode & 0o7777 == 0o555
    assert not (jail.root / "j/mroot").exists()
    assert jail.codes() == set()


def test_a_second_init_has_nothing_to_do(jail: Finger) -> None:
    assert "0 changes" in jail.ok("init", NAME)


def test_its_mounts_are_read_only_or_not_executable_and_never_setuid(jail: Finger) -> None:
    found = {one.target.removeprefix(f"{jail.root}/j/{NAME}"): one.options for one in mounts(jail.root / "j")}
    assert set(found) == {"", "/log", "/home"}
    assert all({"nosuid", "nodev"} <= options for options in found.values())
    assert "ro" in found[""]
    assert {"ro", "noexec"} <= found["/home"]
    assert {"rw", "noexec"} <= found["/log"]


def test_plan_says_what_init_would_do_and_does_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    one = Finger(tmp_path.resolve())
    one.profile()
    said = one.ok("plan", NAME)
    assert f"s/{NAME}/{PROGRAM}" in said
    assert f"s/{NAME}/etc/finger.conf" in said
    assert said == one.ok("init", "--dry-run", NAME)
    assert not (one.root / "s").exists()


# --- what runs --------------------------------------------------------------------------------------------


def test_a_client_outside_gets_its_answer(jail: Finger) -> None:
    jail.ok("start", NAME)
    assert finger("alice", 1079) == "fingerd one\r\nAlice plans.\r\n"
    assert finger("/W alice", 1079).endswith("Alice plans.\r\n")
    assert "no such user" in finger("bob", 1079)
    assert jail.codes() == set()
    # What it writes is its own; what it prints is kept by the host.
    log = jail.root / "t" / NAME / "queries"
    assert "finger alice\n" in log.read_text(encoding="utf-8")
    assert log.stat().st_uid == 65534
    assert "finger bob" in (jail.root / f".layout/log/{NAME}.log").read_text(encoding="utf-8")
    jail.ok("stop", NAME)
    with pytest.raises(ConnectionRefusedError):
        finger("alice", 1079)


def test_it_runs_as_nobody_without_a_capability(jail: Finger) -> None:
    jail.ok("start", NAME)
    found = status_of(jail.pid())
    assert set(found["Uid"].split()) == set(found["Gid"].split()) == {"65534"}
    assert found["Groups"] == ""
    assert {int(found[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == "1"


def test_a_low_port_takes_one_capability_and_no_more(jail: Finger) -> None:
    jail.profile(79, service='capabilities = ["net_bind_service"]')
    jail.ok("start", NAME)
    assert "Alice plans." in finger("alice", 79)
    found = status_of(jail.pid())
    assert {int(found[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {1 << 10}
    assert set(found["Uid"].split()) == {"65534"}
    assert jail.codes() == set()


def test_there_are_no_devices_no_proc_and_no_shell(jail: Finger) -> None:
    jail.ok("start", NAME)
    root = f"/proc/{jail.pid()}/root"
    assert sorted(os.listdir(root)) == ["etc", "home", "log", "srv"]
    table = Path(f"/proc/{jail.pid()}/mountinfo").read_text(encoding="utf-8").splitlines()
    assert sorted(line.split()[4] for line in table) == ["/", "/home", "/log"]
    assert jail.run("exec", NAME, "--", "/bin/sh", "-c", "id").code == 127


ESCAPE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
static void told(const char *what, long pid) {
    if (pid == 0) _exit(0);
    printf("%s: %d\n", what, pid < 0 ? errno : 0);
    fflush(stdout);
}
int main(void) {
    unsigned long arguments[8] = {CLONE_NEWUSER};
    told("clone", syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0));
    told("clone3", syscall(435, arguments, sizeof arguments));
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) return printf("unshare: %s\n", strerror(errno)), 1;
    if (mount("none", "/home", "tmpfs", 0, 0)) return printf("mount: %s\n", strerror(errno)), 2;
    return printf("a writable and executable place\n"), 0;
}
"""


def test_it_cannot_make_a_user_namespace_and_mount_what_it_likes(jail: Finger) -> None:
    source = jail.top / "build/escape.c"
    source.write_text(ESCAPE, encoding="utf-8")
    subprocess.run(["gcc", "-static", "-w", "-o", jail.program, source], check=True)
    jail.ok("update", NAME, jail.program)
    said = jail.fails("start", NAME)
    assert "unshare: Operation not permitted" in said
    assert "clone: 1 " in said
    assert "clone3: 38" in said
    # The positive control: the same user outside the jail can.
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(jail.program)]
    free = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    if "clone: 0" not in free:
        pytest.skip(f"this kernel gives nobody a user namespace: {free}")
    assert "a writable and executable place" in free


def test_exec_runs_the_program_as_its_user(jail: Finger, capfd: pytest.CaptureFixture[str]) -> None:
    jail.ok("start", NAME)
    assert jail.run("exec", NAME, "--", f"/{PROGRAM}", "-version").code == 0
    assert "one" in capfd.readouterr().out
    assert "no shell" in jail.fails("exec", NAME, code=2)


def test_what_does_not_heed_its_signal_as_process_1_is_ended_at_once(jail: Finger) -> None:
    shutil.copy(fingerd("-DDEAF"), jail.program)
    profile = jail.root / f"etc/profiles/{NAME}.toml"
    profile.write_text(profile.read_text().replace("stop_timeout = 30\n", "stop_timeout = 600\n"))
    jail.ok("update", NAME, jail.program)
    jail.ok("start", NAME)
    begin = time.monotonic()
    jail.ok("stop", NAME)
    assert time.monotonic() - begin < 60
    with pytest.raises(ConnectionRefusedError):
        finger("alice", 1079)


def test_an_engine_of_the_host_is_refused_and_manage_says_what_to_do(jail: Finger) -> None:
    assert "layout itself starts" in jail.fails("start", "--engine", "bwrap", NAME, code=2)
    said = jail.fails("manage", NAME, code=2)
    assert "without a shell" in said
    assert f"layout update {NAME} FILE" in said


def test_show_and_status_know_it(jail: Finger) -> None:
    shown = jail.ok("show", NAME)
    assert "mroot" not in shown
    assert "log" in shown
    jail.ok("start", NAME)
    assert "direct" in jail.ok("status", NAME)


def test_a_redirect_leads_the_low_port_to_one_for_everybody(jail: Finger, client: Outside) -> None:
    own = 'ip4 = ["10.79.0.2/30"]\nip6 = ["disable"]\ngateway = ["10.79.0.1"]\napply = true'
    network = f'{own}\nexternal = "{OUTSIDE}"\n[[linux.redirect]]\nport = 79\nto = 1079'
    jail.profile(network=network, address="10.79.0.2")
    jail.ok("start", NAME)
    assert client.ask(79, say="alice\r\n") == "fingerd one\nAlice plans.\n"
    found = status_of(jail.pid())
    assert (int(found["CapBnd"], 16), found["Uid"].split()[0]) == (0, "65534")
    assert jail.codes() == set()
    jail.ok("stop", NAME)
    jail.profile()


# --- deploys ----------------------------------------------------------------------------------------------


def new(jail: Finger, *flags: str, static: bool = True) -> Path:
    """Return a new program, as a build leaves it."""
    place = jail.top / "build/new"
    shutil.copy(fingerd(*flags, static=static), place)
    return place


TWO = '-DVERSION="two"'


def test_a_deploy_replaces_the_program_and_it_runs_again(jail: Finger) -> None:
    jail.ok("start", NAME)
    before = jail.pid()
    said = jail.ok("update", NAME, new(jail, TWO))
    assert f"/{PROGRAM} replaced; running" in said
    assert finger("alice", 1079).startswith("fingerd two")
    assert jail.pid() != before
    assert jail.codes() == set()
    again = jail.run("update", NAME, new(jail, TWO))
    assert "is that file already; running, process" in again.out
    assert again.err == ""


def test_a_deploy_that_does_not_come_up_is_taken_back(jail: Finger) -> None:
    jail.ok("start", NAME)
    said = jail.fails("update", NAME, new(jail, "-DBROKEN"))
    assert "broken on purpose" in said
    assert "the file from before is back and runs" in said
    assert "not running" not in said
    assert finger("alice", 1079).startswith("fingerd one")
    assert jail.codes() == set()


def test_a_stopped_jail_stays_stopped(jail: Finger) -> None:
    assert "not running" in jail.ok("update", NAME, new(jail, TWO))
    assert jail.pid() == 0
    jail.ok("start", NAME)
    assert finger("alice", 1079).startswith("fingerd two")


def test_what_is_not_static_is_refused_before_anything_changes(jail: Finger) -> None:
    jail.ok("start", NAME)
    before = jail.pid()
    assert "ld-linux" in jail.fails("update", NAME, new(jail, static=False))
    script = jail.top / "build/script"
    script.write_text("#!/bin/sh\n", encoding="utf-8")
    assert "a script for /bin/sh" in jail.fails("update", NAME, script)
    assert jail.pid() == before


def test_its_configuration_is_replaced_the_same_way(jail: Finger) -> None:
    jail.ok("start", NAME)
    before = jail.pid()
    text = jail.top / "build/finger.conf"
    text.write_text("root:alice\n", encoding="utf-8")
    assert "/etc/finger.conf replaced" in jail.ok("update", NAME, text, "etc/finger.conf")
    assert (jail.root / "s" / NAME / "etc/finger.conf").read_text(encoding="utf-8") == "root:alice\n"
    assert jail.pid() != before
    assert "one of: etc/finger.conf" in jail.fails("update", NAME, text, "etc/other", code=2)
    assert "a program" in jail.fails("update", NAME, new(jail, TWO), "etc/finger.conf")


@pytest.mark.parametrize("phase", ["before the file is there", "while it starts"])
def test_a_deploy_that_was_killed_is_undone(
    jail: Finger, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layout.actions import running
    from layout.actions.kinds import osless_tree

    jail.ok("start", NAME)

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if phase == "while it starts":
        monkeypatch.setattr(running, "restart", die)
    else:
        monkeypatch.setattr(osless_tree, "install", die)
    file = new(jail, TWO)
    pid = os.fork()
    if pid == 0:
        jail.run("update", NAME, file)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    monkeypatch.undo()
    assert "O8-update" in jail.codes()
    assert "layout recover" in jail.fails("update", NAME, file)
    assert "a deploy undone" in jail.ok("recover")
    jail.ok("restart", NAME)
    assert finger("alice", 1079).startswith("fingerd one")
    assert jail.codes() == set()
    jail.ok("update", NAME, file)
    assert finger("alice", 1079).startswith("fingerd two")


# --- nothing can be written, nothing can be executed ------------------------------------------------------


def notes(jail: Finger) -> set[str]:
    return {code for code, severity, _ in jail.findings() if severity == "note"}


def test_without_a_log_nothing_at_all_can_be_written_and_verify_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    jail = Finger(tmp_path.resolve())
    jail.profile(osless="log = false", log=False)
    try:
        jail.ok("init", NAME)
        jail.ok("start", NAME)
        assert "Alice plans." in finger("alice", 1079)
        assert all("ro" in one.options for one in mounts(jail.root / "j"))
        assert not (jail.root / "t" / NAME).exists()
        assert (jail.codes(), notes(jail)) == (set(), {"O6-nothing-writable"})
        assert "nothing in it can be written to" in jail.ok("verify")
        # The positive control: with a writable mount it does not say so.
        mount("-o", "remount,bind,rw", jail.root / "j" / NAME)
        assert "O6-writable" in jail.codes()
        assert notes(jail) == set()
        mount("-o", "remount,bind,ro", jail.root / "j" / NAME)
    finally:
        jail.clear()


def test_a_program_of_the_host_runs_in_a_jail_where_nothing_can_be_executed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    jail = Finger(tmp_path.resolve())
    jail.profile(osless="log = false\nself_jailing = true", log=False)
    try:
        jail.ok("init", NAME)
        jail.ok("start", NAME)
        assert "Alice plans." in finger("alice", 1079)
        root = f"/proc/{jail.pid()}/root"
        assert sorted(os.listdir(root)) == ["etc", "home"]
        assert not os.path.exists(f"{root}/{PROGRAM}")
        assert all({"ro", "noexec"} <= one.options for one in mounts(jail.root / "j"))
        assert (jail.codes(), notes(jail)) == (set(), {"O6-nothing-writable", "O6-nothing-executable"})
        assert "replace" in jail.fails("update", NAME, jail.program, code=2)
        mount("-o", "remount,bind,ro,exec", jail.root / "j" / NAME)
        assert "O6-executable" in jail.codes()
        jail.program.chmod(0o757)
        assert "O1-static" in jail.codes()
    finally:
        jail.clear()


# --- sabotage ---------------------------------------------------------------------------------------------


def _dynamic(tree: Path) -> None:
    (tree / PROGRAM).unlink()
    shutil.copy("/bin/true", tree / PROGRAM)


def _library(tree: Path) -> None:
    (tree / "lib").mkdir()
    shutil.copy("/bin/true", tree / "lib/libc.so.6")
    (tree / "lib/libc.so.6").chmod(0o644)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


SABOTAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a dynamic program": (_dynamic, "O1-static"),
    "no program": (lambda tree: (tree / PROGRAM).unlink(), "O1-static"),
    "a program that others can write": (lambda tree: (tree / PROGRAM).chmod(0o757), "O1-static"),
    "a script instead": (lambda tree: _write(tree / PROGRAM, "#!/bin/sh\n", 0o555), "O1-static"),
    "a link instead": (
        lambda tree: ((tree / PROGRAM).unlink(), (tree / PROGRAM).symlink_to("/bin/true")),
        "O1-static",
    ),
    "a shell": (lambda tree: _write(tree / "bin/sh", "x", 0o755), "O2-program"),
    "a second program": (lambda tree: shutil.copy(tree / PROGRAM, tree / "etc/helper"), "O2-program"),
    "a library": (_library, "O2-program"),
    "a script": (lambda tree: _write(tree / "etc/run", "#!/bin/sh\n", 0o644), "O2-program"),
    "an executable file": (lambda tree: (tree / "etc/finger.conf").chmod(0o755), "O2-program"),
    "a setuid program": (lambda tree: (tree / PROGRAM).chmod(0o4555), "O3-setuid"),
    "a setgid file": (lambda tree: (tree / "etc/finger.conf").chmod(0o2644), "O3-setuid"),
    "no configuration": (lambda tree: (tree / "etc/finger.conf").unlink(), "O4-content"),
    "a loose directory": (lambda tree: (tree / "etc").chmod(0o777), "O4-content"),
}


@pytest.fixture(name="plain", scope="module")
def _plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finger]:
    top = tmp_path_factory.mktemp("osless").resolve()
    found = Finger(top)
    found.profile()
    found.ok("init", "--no-mount", NAME)
    found.ok("mount", NAME)
    assert found.codes() == set()
    yield found
    found.clear()


@pytest.mark.parametrize("what", SABOTAGES)
def test_verify_finds(plain: Finger, what: str) -> None:
    tree = plain.root / "s" / NAME
    kept = plain.top / "kept"
    subprocess.run(["cp", "-a", tree, kept], check=True)
    do, code = SABOTAGES[what]
    try:
        do(tree)
        assert code in plain.codes()
    finally:
        for name in set(os.listdir(tree)) - {"log", "home"}:  # mount points
            shutil.rmtree(tree / name)
        subprocess.run(["cp", "-a", f"{kept}/.", tree], check=True)
        shutil.rmtree(kept)
    assert plain.codes() == set()


def test_verify_finds_a_process_of_another_user(jail: Finger, monkeypatch: pytest.MonkeyPatch) -> None:
    jail.ok("start", NAME)
    jail.profile(osless="uid = 65533")
    assert "S3-running" in jail.codes()
    jail.profile()
    assert jail.codes() == set()


def test_verify_finds_a_log_that_can_be_executed(jail: Finger) -> None:
    place = jail.root / "j" / NAME / "log"
    mount("-o", "remount,bind,rw,exec,nosuid,nodev", place)
    assert "S2-options" in jail.codes()


# --- the end ----------------------------------------------------------------------------------------------


def test_destroy_takes_everything_and_nothing_of_the_host(jail: Finger) -> None:
    jail.ok("start", NAME)
    assert "layout stop" in jail.fails("destroy", NAME)
    jail.ok("stop", NAME)
    jail.ok("umount", NAME)
    jail.ok("destroy", NAME)
    left = [path for path in jail.root.rglob("*") if NAME in path.name and "profiles" not in str(path)]
    assert left == []
    assert (jail.homes / "alice/.plan").exists()
    assert jail.program.exists()


def test_a_program_that_is_not_static_makes_no_jail(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    one = Finger(tmp_path.resolve())
    one.profile()
    shutil.copy("/bin/true", one.program)
    assert "a program that needs /lib" in one.fails("init", NAME)
    assert not (one.root / "s").exists()
    one.program.unlink()
    assert "the static program of the jail" in one.fails("init", NAME)


def test_umount_is_clean(jail: Finger) -> None:
    jail.ok("umount", NAME)
    assert mounts(jail.root) == []
    assert umount is not None


def test_a_program_that_has_another_place_in_the_profile_by_now_is_taken_away_from_the_old_one(
    jail: Finger,
) -> None:
    move_program(jail)


def test_a_program_that_layout_has_not_put_there_stays_until_the_hint_is_typed(jail: Finger) -> None:
    remove_stranger(jail)
