"""The probes find what is broken, find nothing where nothing is, leave no trace and always end."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import stat
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from busybox_yard import BUSYBOX, busybox_yard, eventually, processes, profile
from probe_sabotage import remount
from yard import Yard, mounts, nest, yard_at

from layout.actions import probing
from layout.actions.context import Context
from layout.core.compare import Live
from layout.host import forked, table
from layout.host.beneath import open_root, remove_tree
from layout.host.linux import procs, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box

ENOUGH = 120
"""Attempts in one jail of the smallest base."""
LIMIT = 0.1
"""Seconds that the probes may take for each jail."""


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with yard_at(tmp_path_factory.mktemp("probing")) as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Yard:
    """Two jails, mounted, with nothing to find."""
    whole.renew()
    whole.ok("mount")
    return whole


def report(yard: Yard, *words: object) -> Any:
    return json.loads(yard.run("--json", "verify", *words).out)


def told(yard: Yard, *words: object) -> set[str]:
    """Return the codes of the probes' findings in jail a."""
    return {f["code"] for f in report(yard, *words)["jails"]["a"]["findings"] if f["code"][0] == "A"}


# --- what is broken is found, what is whole is not ----------------------------------------------------------


def test_a_whole_jail_has_nothing_and_much_was_tried(yard: Yard) -> None:
    found = report(yard)
    assert found["ok"]
    assert found["counts"]["errors"] == 0
    assert found["counts"]["probes"] > 2 * ENOUGH
    assert " probes: 0 errors" in yard.ok("verify")


def test_probes_are_made_unless_it_is_to_be_quick(yard: Yard) -> None:
    assert report(yard)["counts"]["probes"] > 0
    assert report(yard, "--quick")["counts"]["probes"] == 0
    assert report(yard, "--no-probe")["counts"]["probes"] == 0
    assert report(yard, "--quick", "--probe")["counts"]["probes"] > 0


def test_init_probes_what_it_has_made(tmp_path: Path) -> None:
    with yard_at(tmp_path / "y", names=("a",)) as yard:
        done = json.loads(yard.ok("--json", "init", "a"))
        assert done["verify"]["counts"]["probes"] > ENOUGH


@pytest.mark.parametrize("preset", ["classic", "hardened"])
@pytest.mark.parametrize("opened", ["", "exec = true", "suid = true", "exec = true\nsuid = true"])
def test_what_the_plan_allows_is_no_finding(yard: Yard, preset: str, opened: str) -> None:
    (yard.root / "etc/profiles").mkdir(parents=True, exist_ok=True)
    text = f'kind = "shared"\ndescription = "open"\npreset = "{preset}"\n{opened}\n'
    (yard.root / "etc/profiles/open.toml").write_text(text)
    yard.ok("init", "c", "--profile", "open")
    found = report(yard, "c")
    assert {f["code"] for f in found["jails"]["c"]["findings"]} <= {"S2-suid", "S2-writable-exec"}
    assert found["counts"]["probes"] > ENOUGH


def test_a_jail_that_is_not_mounted_is_not_probed(yard: Yard) -> None:
    yard.ok("umount")
    found = report(yard)
    assert found["counts"]["probes"] == 0
    assert not found["ok"]


# --- no trace -----------------------------------------------------------------------------------------------


def picture(top: Path) -> dict[str, tuple[object, ...]]:
    """Return everything of a tree that can be compared; not times of access and of change of status."""
    found = {}
    for here, directories, files in os.walk(top):
        for name in [".", *directories, *files]:
            path = Path(here) / name
            status = path.lstat()
            text = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            kind = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns)
            found[str(path)] = (*kind, text, os.readlink(path) if path.is_symlink() else "")
    return found


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "with everything writable"])
def test_probes_leave_no_trace(yard: Yard, broken: bool) -> None:
    if broken:
        for place in ("j/a", "j/a/s", "j/a/t"):
            remount("rw,suid,dev,exec", yard.root / place)
    before, table_before, running = picture(yard.root), mounts(), processes()
    assert bool(told(yard)) is broken
    assert picture(yard.root) == before
    assert mounts() == table_before
    assert not processes() - running


def test_what_a_killed_probe_left_is_taken_away(yard: Yard) -> None:
    left = yard.root / "t/a/tmp/.layout-probe-0123456789abcdef"
    fresh = yard.root / "t/a/tmp/.layout-probe-0123456789abcde0"
    for path in (left, fresh):
        path.write_text("x")
    os.utime(left, (1, 1))
    assert told(yard) == set()
    assert (left.exists(), fresh.exists()) == (False, True)


# --- a hostile t --------------------------------------------------------------------------------------------


def test_fifos_in_the_place_of_directories_keep_nobody_waiting(yard: Yard) -> None:
    for name in ("var", "tmp"):
        shutil.rmtree(yard.root / "t/a" / name)
        os.mkfifo(yard.root / "t/a" / name)
    begun = time.monotonic()
    assert told(yard) == {"A7-denied"}
    assert time.monotonic() - begun < 60


def test_a_deep_and_a_wide_tree_end_in_time(yard: Yard) -> None:
    nest(yard.root / "t/a/tmp", 5000)
    for number in range(3000):
        (yard.root / f"t/a/var/{number}").mkdir()
        (yard.root / f"t/a/tmp/{number}").symlink_to("/proc/self/root")
    used = processor_time()
    assert told(yard) == set()
    assert processor_time() - used < 10
    with open_root(str(yard.root / "t/a")) as top:
        remove_tree(top, "tmp")


def test_links_swapped_all_the_time_win_nothing(yard: Yard) -> None:
    victim = yard.top / "victim"
    victim.mkdir()
    before = picture(victim), picture(yard.root / "s"), picture(yard.root / "j/mroot")
    over = threading.Event()
    rounds = 0

    def swap() -> None:
        nonlocal rounds
        while not over.is_set():
            for target in ("/etc", "../../../../../../victim", "/"):
                with contextlib.suppress(OSError):
                    os.rename(yard.root / "t/a/tmp", yard.root / "t/a/away")
                    os.symlink(target, yard.root / "t/a/tmp")
                    rounds += 1
                    os.unlink(yard.root / "t/a/tmp")
                    os.rename(yard.root / "t/a/away", yard.root / "t/a/tmp")

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        for _ in range(5):
            assert told(yard) <= {"A7-denied"}
    finally:
        over.set()
        attacker.join()
    assert rounds > 20
    assert (picture(victim), picture(yard.root / "s"), picture(yard.root / "j/mroot")) == before


# --- time ---------------------------------------------------------------------------------------------------


def probe(yard: Yard, name: str) -> int:
    context = Context.find(str(yard.root), None)
    (plan,) = context.jails([name])
    found, count = probing.probe(context, plan, Live(table.read()))
    assert found == []
    return count


def processor_time() -> float:
    """Seconds that this process and those that it has waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def test_a_jail_takes_a_tenth_of_a_second_at_most(tmp_path: Path) -> None:
    names = tuple(f"j{number}" for number in range(30))
    with yard_at(tmp_path / "y", names=names) as yard:
        yard.ok("mount")
        times = []
        for name in names:
            begun, used = time.perf_counter(), processor_time()
            assert probe(yard, name) > ENOUGH
            # Others may be using this machine: what they took is not ours.
            times.append(min(time.perf_counter() - begun, processor_time() - used))
        usual, most = (1000 * found for found in (statistics.median(times), max(times)))
        print(f"{len(names)} jails: {usual:.1f} ms each, {most:.1f} ms at most")
        assert min(times) < LIMIT


# --- running jails ------------------------------------------------------------------------------------------

APART = '[linux.service]\ncommand = ["/bin/sleep", "1000"]\n'
# A port below 1024 on the host's network: then root of the jail is root of the host.
SLEEP = f'{APART}ports = ["81/tcp"]\n'
RUNNING = [
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
]


@pytest.fixture(name="busy", scope="module")
def _busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("probing"), names=("a",)) as yard:
        yield yard


@contextlib.contextmanager
def started(yard: Yard, text: str, engine: str = "bwrap") -> Iterator[None]:
    profile(yard, "default", text)
    yard.ok("start", "a", "--engine", engine)
    try:
        yield
    finally:
        yard.run("stop", "a")


def inside(yard: Yard) -> int:
    """Return the first process of jail a."""
    record = (yard.root / ".layout/run/a.toml").read_text()
    pid = procs.first_of_jail(int(record.partition("pid = ")[2].split()[0]))
    assert pid is not None
    return pid


def remount_within(pid: int, options: str, path: str) -> None:
    """As root of the host can, in the namespace of a running jail."""

    def child() -> int:
        fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        syscalls.setns(fd)
        flags = {"ro": syscalls.MS_RDONLY, "nosuid": syscalls.MS_NOSUID, "nodev": syscalls.MS_NODEV}
        flags["noexec"] = syscalls.MS_NOEXEC
        wanted = sum(flags.get(word, 0) for word in options.split(","))
        syscalls.mount(b"none", path.encode(), None, syscalls.MS_REMOUNT | syscalls.MS_BIND | wanted)
        return 0

    assert os.waitpid(forked.fork(child), 0)[1] == 0


def engines() -> list[object]:
    has = shutil.which("systemd-nspawn") is not None
    skip = pytest.mark.skipif(not has, reason="needs systemd-container")
    return [pytest.param("bwrap"), pytest.param("nspawn", marks=skip)]


@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("text", [SLEEP, APART], ids=["root of the host", "user namespace"])
class TestRunning:
    pytestmark = RUNNING

    def test_a_jail_is_whole_and_nothing_is_left(self, busy: Yard, text: str, engine: str) -> None:
        with started(busy, text, engine):
            before, running = picture(busy.root / "t"), processes()
            found = report(busy)
            assert [f for f in found["jails"]["a"]["findings"] if f["code"] != "S3-weak"] == []
            assert found["counts"]["probes"] > ENOUGH
            assert picture(busy.root / "t") == before
            assert not processes() - running


class TestAfterwards:
    pytestmark = RUNNING

    def test_start_says_what_was_tried(self, busy: Yard) -> None:
        profile(busy, "default", APART)
        try:
            done = json.loads(busy.ok("--json", "start", "a", "--engine", "bwrap"))
            assert (done["ok"], done["findings"]) == (True, {})
            assert done["probes"] > ENOUGH
        finally:
            busy.run("stop", "a")

    def test_start_fails_when_something_gives_way_and_the_service_goes_on(self, busy: Yard) -> None:
        os.mkfifo(busy.root / "j/mroot/usr/channel")
        profile(busy, "default", APART)
        try:
            done = busy.run("start", "a", "--engine", "bwrap")
            assert done.code == 1
            assert "A8-channel" in done.out
            assert json.loads(busy.ok("--json", "status", "a"))["jails"]["a"]["running"]
            done = busy.run("--json", "restart", "a", "--engine", "bwrap")
            assert done.code == 1
            assert [f["code"] for f in json.loads(done.out)["findings"]["a"]] == ["A8-channel"]
        finally:
            busy.run("stop", "a")
            (busy.root / "j/mroot/usr/channel").unlink()

    def test_a_session_in_the_base_probes_the_jails(self, busy: Yard) -> None:
        busy.ok("mount", "a")
        try:
            done = busy.run("--json", "manage", "--base", "--", "touch", "/etc/new")
            assert done.code == 0, done.err
            found = json.loads(done.out)
            assert found["jails"]["a"]["ok"]
            assert (found["findings"], found["probes"] > ENOUGH) == ({}, True)
            done = busy.run("--json", "manage", "--base", "--", "sh", "-c", "touch /etc/newer; mkfifo /usr/f")
            assert done.code == 1
            assert [f["code"] for f in json.loads(done.out)["findings"]["a"]] == ["A8-channel"]
            assert "A8-channel" not in busy.run("base", "merge", "a").out  # nothing is left to be merged
        finally:
            (busy.root / "j/mroot/usr/f").unlink()
            busy.ok("umount", "a")


class TestRunningBroken:
    pytestmark = RUNNING

    @pytest.mark.parametrize(
        ("options", "path", "code"),
        [
            ("rw,nosuid,nodev", "/s", "A1-writable"),
            ("rw,nosuid,nodev", "/", "A3-changed"),
            ("rw,nosuid,nodev,exec", "/t", "A2-executable"),
            ("rw,nosuid,nodev,exec", "/run", "A2-executable"),
            ("ro,nosuid,nodev,noexec", "/t", "A7-denied"),
        ],
    )
    def test_its_own_mounts_are_what_counts(self, busy: Yard, options: str, path: str, code: str) -> None:
        with started(busy, SLEEP):
            remount_within(inside(busy), options, path)
            assert code in told(busy)

    @pytest.mark.parametrize("more", ["", 'ports = ["81/tcp"]\n'], ids=["user namespace", "root of the host"])
    @pytest.mark.parametrize("what", ["KILL", "STOP"])
    def test_a_jail_that_ends_the_probes_does_not_pass(self, busy: Yard, what: str, more: str) -> None:
        """Nor does one that stops them for good, and nothing of them stays in it."""
        loop = f"for p in /proc/[0-9]*; do p=${{p#/proc/}}; [ $p -gt 2 ] && kill -{what} $p; done"
        script = f"while :; do {loop}; done 2>/dev/null"
        profile(busy, "default", f'[linux.service]\ncommand = ["/bin/sh", "-c", "{script}"]\n{more}')
        try:
            assert "A0-unprobed" in busy.run("start", "a", "--engine", "bwrap").out
            if what == "KILL":  # a second time, as STOP takes its time
                begun = time.monotonic()
                assert "A0-unprobed" in told(busy)
                assert time.monotonic() - begun < 60

            # What was killed is gone once the jail's first process has seen it.
            def only_its_own() -> bool:
                first = inside(busy)
                running = procs.of_jail(first)
                return len(running) == 2 and set(running) <= {first, *procs.children(first)}

            assert eventually(only_its_own)
        finally:
            busy.run("stop", "a")
