"""Every engine keeps a jail equally well: what root in it tries, and what is left when it has gone."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from busybox_yard import BUSYBOX, busybox_yard, command_of, eventually, fetch, processes, profile, web
from yard import Yard

from layout.host.linux.process import CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.box, pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")]

ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {package}"))
    for name, program, package in (
        ("bwrap", "bwrap", "bubblewrap"),
        ("nspawn", "systemd-nspawn", "systemd-container"),
    )
]
each_engine = pytest.mark.parametrize("engine", ENGINES)

SERVICES = {
    "full": web(8080),
    "weak": web(80, more='capabilities = ["net_bind_service", "setuid", "setgid", "chown", "dac_override"]'),
}

ATTACKS = """
try() { name=$1; shift; if said=$("$@" 2>&1); then echo "$name: allowed"; else echo "$name: $said"; fi; }
for d in / /bin /etc /root /usr/local /s /dev; do try "write $d" touch ${d%/}/.probe; done
for d in /tmp /var /t/var /run /dev/shm; do
    try "write $d" touch $d/.probe
    cp /bin/busybox $d/sh; chmod 755 $d/sh
    try "execute $d" $d/sh -c true
    rm -f $d/sh $d/.probe
done
try "remount /" mount -o remount,rw,bind /
try "remount /s" mount -o remount,rw,bind /s
try "remount /t exec" mount -o remount,rw,exec,bind /t
try "mount" mount -t tmpfs none /tmp
try "umount" umount /t
try "mknod" mknod /tmp/node b 7 0
rm -f /tmp/node
v=$(cat /proc/sys/kernel/core_pattern)
try "core_pattern" sh -c "echo '$v' >/proc/sys/kernel/core_pattern"
try "chroot" chroot / /bin/busybox true
try "kill the host" kill -0 99999
"""

READ_ONLY = {f"write {d}" for d in ("/", "/bin", "/etc", "/root", "/usr/local", "/s")}
WRITABLE = {f"write {d}" for d in ("/tmp", "/var", "/t/var", "/run", "/dev/shm")}
EXECUTABLE = {f"execute {d}" for d in ("/tmp", "/var", "/t/var", "/run", "/dev/shm")}
FORBIDDEN = {"remount /", "remount /s", "remount /t exec", "mount", "umount", "mknod", "chroot"}


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("engines"), ("a",)) as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Iterator[Yard]:
    """One jail, nothing mounted, nothing running; and nothing may be left."""
    before = processes()
    yield whole
    whole.run("stop", "a")
    assert eventually(lambda: not processes() - before), processes() - before
    assert whole.mounts() == []


def run(yard: Yard, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the jail."""
    with yard.process("exec", "a", "--", *words, stdin=subprocess.DEVNULL) as done:
        out, err = done.communicate(timeout=60)
    return subprocess.CompletedProcess(words, done.returncode, out, err)


def attack(yard: Yard) -> dict[str, str]:
    """Return what came of each attack."""
    done = run(yard, "/bin/sh", "-c", ATTACKS)
    assert done.stderr == ""
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert READ_ONLY | WRITABLE | EXECUTABLE | FORBIDDEN | {"core_pattern"} <= found.keys()
    return found


@each_engine
@pytest.mark.parametrize("grade", SERVICES)
def test_root_in_a_jail_gets_nowhere(yard: Yard, engine: str, grade: str) -> None:
    profile(yard, "default", SERVICES[grade])
    assert yard.ok("start", "a", "--engine", engine).endswith(f"{engine}, {grade}\n")
    found = attack(yard)
    assert {name for name in READ_ONLY if "Read-only file system" not in found[name]} == set()
    assert {name for name in WRITABLE if found[name] != "allowed"} == set()
    assert {name for name in EXECUTABLE if "Permission denied" not in found[name]} == set()
    refusals = ("permission denied", "not permitted")
    assert {name for name in FORBIDDEN if not any(r in found[name].lower() for r in refusals)} == set()
    assert any(r in found["core_pattern"] for r in ("Read-only file system", "Permission denied"))
    assert yard.ok("stop", "a") == "a: stopped\n"


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_the_attacks_work_where_all_capabilities_are_kept(yard: Yard) -> None:
    """The control: these words can be told from a mistake in the probe."""
    every = json.dumps([name.lower() for name in CAPABILITIES])
    profile(yard, "default", web(80, more=f"capabilities = {every}"))
    started = yard.run("start", "a", "--engine", "bwrap")  # the probes say so, and it goes on
    assert started.code == 1
    assert "A4-allowed" in started.out
    done = run(yard, "/bin/sh", "-c", f"mount -o remount,rw,bind /proc/sys\n{ATTACKS}\nrm -f /.probe")
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    wanted = {"remount /", "remount /s", "remount /t exec", "mount", "chroot", "core_pattern", "mknod"}
    assert {name: found[name] for name in wanted if found[name] != "allowed"} == {}


@each_engine
def test_an_engine_starts_serves_and_stops_in_good_order(yard: Yard, engine: str) -> None:
    script = "trap 'echo in good order; exit 0' USR1; while :; do sleep 0.1; done"
    profile(
        yard,
        "default",
        f'[linux.service]\ncommand = ["/bin/sh", "-c", "{script}"]\nstop_signal = "USR1"\nstop_timeout = 9\n',
    )
    yard.ok("start", "a", "--engine", engine)
    done = yard.run("stop", "a")
    assert (done.out, done.err) == ("a: stopped\n", "")
    log = (yard.root / ".layout/log/a.log").read_text(encoding="utf-8")
    assert log.endswith("in good order\n")


@each_engine
def test_a_service_that_does_not_stop_is_killed_with_its_children(yard: Yard, engine: str) -> None:
    script = "trap '' TERM; setsid sleep 999 & while :; do sleep 0.1; done"
    profile(yard, "default", f'[linux.service]\ncommand = ["/bin/sh", "-c", "{script}"]\nstop_timeout = 1\n')
    yard.ok("start", "a", "--engine", engine)
    begin = time.monotonic()
    done = yard.run("stop", "a")
    assert done.out == "a: stopped\n"
    assert "did not stop within 1 s" in done.err
    assert 1 <= time.monotonic() - begin < 60


@each_engine
def test_a_killed_engine_takes_everything_along(yard: Yard, engine: str) -> None:
    profile(yard, "default", SERVICES["full"])
    before = processes()
    yard.ok("start", "a", "--engine", engine)
    assert fetch(8080).endswith("hello\n")
    with yard.process("exec", "a", "--", "/bin/sleep", "99", stdin=subprocess.DEVNULL) as inside:
        assert eventually(lambda: any(command_of(pid) == "/bin/sleep 99" for pid in processes() - before))
        record = (yard.root / ".layout/run/a.toml").read_text(encoding="utf-8")
        os.kill(int(record.partition("pid = ")[2].split()[0]), signal.SIGKILL)
        assert inside.wait(60) == 128 + signal.SIGKILL
    assert eventually(lambda: not processes() - before)
    yard.ok("start", "a", "--engine", engine)
    yard.ok("stop", "a")


def test_an_engine_that_is_not_there_is_named_with_its_package(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layout.host import run as door

    profile(yard, "default", SERVICES["full"])
    monkeypatch.setattr(door, "which", lambda _: None)
    for word, package in (
        ("bwrap", "bubblewrap"),
        ("nspawn", "systemd-container"),
        ("auto", "bubblewrap or"),
    ):
        done = yard.run("start", "a", "--engine", word)
        assert done.code == 1
        assert f"install {package}" in done.err


def core_limit(text: str) -> list[str]:
    """Return the limits of core dumps: with 1, not even the host's program for them is started."""
    return next(line for line in text.splitlines() if line.startswith("Max core")).split()[4:6]


STANDARD = (
    "chmod 600 /proc/self/fd/0 2>/tmp/null; cat /bin/busybox >/proc/self/fd/1; chmod 755 /proc/self/fd/1; "
    "/proc/self/fd/1 true 2>/tmp/log; cat /proc/self/limits >/tmp/limits; echo >/tmp/done; exec sleep 99"
)


@each_engine
def test_what_a_service_gets_from_the_host_is_good_for_reading_and_writing_only(
    yard: Yard, engine: str
) -> None:
    """Root of the jail is root of the host here: /dev/null and the log are files of his."""
    mode = os.stat("/dev/null").st_mode
    words = json.dumps(["/bin/sh", "-c", STANDARD])
    profile(yard, "default", f'[linux.service]\ncommand = {words}\nports = ["81/tcp"]\n')
    yard.ok("start", "a", "--engine", engine)
    t = yard.root / "t/a/tmp"
    assert eventually((t / "done").exists, 30)
    if engine == "bwrap":  # under nspawn, it is the jail's own
        assert "Read-only file system" in (t / "null").read_text()
    assert os.stat("/dev/null").st_mode == mode
    log = yard.root / ".layout/log/a.log"
    assert log.stat().st_mode & 0o777 == 0o755  # the control: it was his to change
    assert "Permission denied" in (t / "log").read_text()
    wanted = ["0", "0"] if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else ["1", "1"]
    assert core_limit((t / "limits").read_text()) in (wanted, ["1", "1"])
    assert core_limit(run(yard, "/bin/cat", "/proc/self/limits").stdout) in (wanted, ["1", "1"])
    for name in ("done", "limits", "log", "null"):
        (t / name).unlink()
    log.unlink()


@pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="needs systemd-container")
def test_a_fifo_in_the_place_of_a_device_is_not_waited_for(yard: Yard) -> None:
    """Under nspawn /dev is the jail's to write."""
    profile(yard, "default", '[linux.service]\ncommand = ["/bin/sleep", "99"]\n')
    yard.ok("start", "a", "--engine", "nspawn")
    assert run(yard, "/bin/sh", "-c", ":").returncode == 0  # the control
    assert run(yard, "/bin/sh", "-c", "rm /dev/null; mkfifo -m 666 /dev/null").returncode == 0
    with (
        open("/dev/null", "rb") as null,
        yard.process("exec", "a", "--", "/bin/sh", "-c", ":", stdin=null) as done,
    ):
        _, said = done.communicate(timeout=30)
    assert done.returncode == 1
    assert "/dev/null" in said


@each_engine
def test_no_descriptor_of_the_host_is_open_in_a_jail(yard: Yard, engine: str) -> None:
    profile(yard, "default", SERVICES["weak"])
    fd = os.open(yard.root / "j/mroot", os.O_RDONLY)
    try:
        with yard.process("start", "a", "--engine", engine, pass_fds=(fd,)) as starting:
            assert starting.wait(60) == 0
        words = ("exec", "a", "--", "/bin/sh", "-c", "echo /proc/self/fd/*")
        with yard.process(*words, stdin=subprocess.DEVNULL, pass_fds=(fd,)) as done:
            out, _ = done.communicate(timeout=60)
        assert f"/proc/self/fd/{fd} " not in f"{out.strip()} "
        log = str(yard.root / ".layout/log/a.log")
        for pid in processes():
            if "/bin/httpd -f" in command_of(pid):
                links = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
                assert {link for link in links if link.startswith(str(yard.top))} <= {log}
    finally:
        os.close(fd)
