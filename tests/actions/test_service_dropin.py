"""Kind service on Linux: the drop-in as systemd reads it; a host that seems to have booted with systemd."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from yard import Said, layout, mount, umount

from layout.host import run
from layout.host.linux.process import CAPABILITIES
from tests.test_designs import played

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box
with_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")

UNIT = "[Unit]\nDescription=demo\n[Service]\nExecStart=/bin/sleep 1000\nUser=www-data\n"

# What systemd does with one unit and its drop-in, as far as layout asks. A file `fails` lets it end at once.
SYSTEMCTL = r"""#!{python}
import ctypes, os, pathlib, signal, sys, time
STATE = pathlib.Path("{state}")
UNIT = pathlib.Path("/etc/systemd/system/demo.service.d/layout.conf")
libc = ctypes.CDLL(None)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
def alive():
    try:
        pid = int((STATE / "pid").read_text())
        state = pathlib.Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[0]
        return 0 if state in "ZX" else pid
    except (OSError, ValueError):
        return 0
def stop():
    if alive():
        os.kill(alive(), signal.SIGTERM)
    while alive():
        time.sleep(0.02)
def start():
    read = (STATE / "read").read_text() if (STATE / "read").exists() else ""
    child = os.fork()
    if child == 0:
        os.setsid()
        if read:
            (lost,) = [line for line in read.splitlines() if line.startswith("CapabilityBoundingSet=~")]
            for number, name in enumerate({capabilities}):
                if f"CAP_{{name}}" in lost.partition("~")[2].split():
                    libc.prctl(24, number, 0, 0, 0)
            libc.prctl(38, 1, 0, 0, 0)
            allow = (ctypes.c_ulonglong * 1)(0x7FFF000000000006)
            libc.prctl(22, 2, ctypes.byref(Program(1, ctypes.cast(allow, ctypes.c_void_p).value)), 0, 0)
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        os.execv("/bin/sleep", ["sleep", "0" if read and (STATE / "fails").exists() else "1000"])
    (STATE / "pid").write_text(str(child))
    if read and (STATE / "fails").exists():
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
with open(STATE / "calls", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\n")
verb = sys.argv[1]
text = UNIT.read_text() if UNIT.exists() else ""
if verb == "daemon-reload":
    (STATE / "read").write_text(text)
elif verb in ("start", "restart"):
    stop() if verb == "restart" else None
    start()
elif verb == "stop":
    stop()
elif verb == "show":
    read = (STATE / "read").read_text() if (STATE / "read").exists() else ""
    print(f"ActiveState={{'active' if alive() else 'inactive'}}\nMainPID={{alive()}}")
    print(f"NeedDaemonReload={{'yes' if read != text else 'no'}}\nDropInPaths={{UNIT if read else ''}}")
"""


class Host:
    """A host with one unit; ROOT is the site's own, or a trial."""

    def __init__(self, work: Path) -> None:
        self.work, self.root = work, work / "jails"
        self.config = work / "layout.toml"
        self.config.write_text(f'root = "{self.root}"\n')

    def run(self, *words: object, trial: bool = False) -> Said:
        return layout("--root" if trial else "--config", self.root if trial else self.config, *words)

    def does(self, *words: object, trial: bool = False) -> Said:
        said = self.run(*words, trial=trial)
        assert said.code == 0, said
        return said

    def findings(self, *, trial: bool = False) -> list[tuple[str, str]]:
        said = self.run("--json", "verify", trial=trial)
        document: dict[str, Any] = json.loads(said.out)
        every = [document["host"], *document["jails"].values()]
        return [(one["code"], one["found"]) for report in every for one in report["findings"]]

    def profile(self, *options: str, more: str = "") -> None:
        path = self.root / "etc/profiles/demo.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = ", ".join(f'"{word}"' for word in options)
        path.write_text(f'kind = "service"\ndescription = "x"\n[linux.confine]\noptions = [{words}]\n{more}')


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def trial(host: Host, unit: str = UNIT) -> Path:
    """Put the unit into a trial's own ETC; return where its drop-in will be."""
    host.root.mkdir(mode=0o700)
    place = host.root / "etc/systemd"
    place.mkdir(parents=True)
    (place / "demo.service").write_text(unit)
    return place / "demo.service.d/layout.conf"


def verified(path: Path) -> subprocess.CompletedProcess[str]:
    words = ["systemd-analyze", "verify", "--man=no", path.parents[1] / "demo.service"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


# --- in a trial: written, and analysed offline ----


@with_systemd
def test_a_drop_in_closes_a_unit_further_and_systemd_finds_no_fault(host: Host) -> None:
    path = trial(host)
    planned = host.does("plan", "demo", "--profile", "svc", trial=True)
    found = re.search(r"exposure ([0-9.]+) of 10, ([0-9.]+) without it", planned.out)
    assert found
    assert float(found[1]) < 3.5 < 9 < float(found[2])
    said = host.does("-v", "init", "demo", "--profile", "svc", trial=True)
    assert "written only, for this is a trial" in said.err
    assert "the file system is the host's" in said.err
    assert path.read_text() == host.does("render", "dropin", "demo", trial=True).out
    assert "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK" in path.read_text()
    done = verified(path)
    assert "layout.conf" not in done.stderr
    path.write_text(path.read_text() + "NoSuchKey=1\n")
    done = verified(path)
    assert "NoSuchKey" in done.stderr, "it does look at the drop-in"
    assert host.findings(trial=True) == [("S12-dropin", "another drop-in than the profile makes")]
    host.does("init", "demo", trial=True)
    assert host.findings(trial=True) == []
    assert "0 changes" in host.does("init", "demo", trial=True).out
    assert "a unit of the host, confined by" in host.does("show", "demo", trial=True).out
    assert "a trial" in host.run("start", "demo", trial=True).err
    host.does("destroy", "demo", trial=True)
    assert not path.parent.exists()


@with_systemd
def test_every_word_makes_a_sound_drop_in_and_fewer_words_a_closer_one(host: Host) -> None:
    trial(host)
    levels = []
    for options in ((), ("net_basic",), ("net_all", "mlock", "sysvipc", "vmm", "routing", "settime")):
        host.profile(*options, more='writable = ["/etc/demo", "/usr/share/a b"]\n')
        said = host.does("plan", "demo", trial=True)
        level = re.search(r"exposure ([0-9.]+)", said.out)
        assert level
        levels.append(float(level[1]))
    assert levels == sorted(levels)
    assert levels[0] < levels[-1]


def test_what_cannot_be_confined_is_refused(host: Host) -> None:
    path = trial(host)
    host.profile("nfsd")
    assert "nfsd" in host.run("init", "demo", trial=True).err
    assert "the unit" not in host.run("init", "nothing", "--profile", "svc", trial=True).out
    assert "`service.unit`" in host.run("init", "nothing", "--profile", "svc", trial=True).err
    host.profile("net_basic", more='[linux.service]\nunit = "systemd-journald.service"\n')
    assert "runs the host" in host.run("init", "demo", trial=True).err
    host.profile("net_basic")
    path.parent.mkdir()
    path.write_text("[Service]\nNice=5\n")
    assert "not written" in host.run("init", "demo", trial=True).err
    assert path.read_text() == "[Service]\nNice=5\n"


# --- where systemd is ----


@pytest.fixture(name="booted")
def _booted(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host that seems to have booted with systemd, which has the unit; yields what systemctl remembers."""
    state, programs = host.work / "state", host.work / "bin"
    for directory in (state, programs, Path("/run/systemd/system")):
        directory.mkdir(parents=True, exist_ok=True)
    text = SYSTEMCTL.format(python=sys.executable, state=state, capabilities=list(CAPABILITIES))
    for name, script in (
        ("systemctl", text),
        ("journalctl", "#!/bin/sh\necho its last words\n"),
        (
            "systemd-run",
            f'#!/bin/sh\necho "$@" >{state}/ran\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n',
        ),
    ):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setattr(run, "PATH", f"{programs}:{run.PATH}")
    run.which.cache_clear()
    mount("-t", "tmpfs", "units", "/etc/systemd")
    try:
        Path("/etc/systemd/system").mkdir()
        Path("/etc/systemd/system/demo.service").write_text(UNIT)
        yield state
    finally:
        subprocess.run([programs / "systemctl", "stop", "demo.service"], check=False)
        umount("/etc/systemd")
        Path("/run/systemd/system").rmdir()
        run.which.cache_clear()


def calls(state: Path) -> list[str]:
    found = [line for line in (state / "calls").read_text().splitlines() if not line.startswith("show")]
    (state / "calls").write_text("")
    return found


DROPIN = Path("/etc/systemd/system/demo.service.d/layout.conf")


def test_a_unit_is_confined_restarted_proven_and_given_back(host: Host, booted: Path) -> None:
    systemctl = host.work / "bin/systemctl"
    subprocess.run([systemctl, "start", "demo.service"], check=True)
    before = (booted / "pid").read_text()
    calls(booted)
    steps = host.does("plan", "demo", "--profile", "svc").out
    assert [line.split()[0] for line in steps.splitlines()[-3:]] == ["write", "reload", "restart"]
    host.does("init", "demo", "--profile", "svc")
    assert calls(booted) == ["daemon-reload", "restart demo.service"]
    assert (booted / "pid").read_text() != before
    assert host.findings() == []
    assert host.does("init", "demo").out.splitlines()[0] == "0 changes"
    assert calls(booted) == []
    state = json.loads(host.does("--json", "status").out)["jails"]["demo"]["running"]
    assert (state["engine"], state["pid"]) == ("systemd", int((booted / "pid").read_text()))
    said = host.does("exec", "demo", "--", "/bin/true")
    ran = (booted / "ran").read_text()
    assert said.out == ""
    assert "--property NoNewPrivileges=yes" in ran
    assert "--property User=www-data" in ran
    host.does("stop", "demo")
    host.does("start", "demo")
    assert calls(booted) == ["stop demo.service", "daemon-reload", "start demo.service"]
    host.does("destroy", "demo")
    assert not DROPIN.parent.exists()
    assert calls(booted) == ["daemon-reload", "restart demo.service"]


@with_systemd
def test_the_worked_example_does_what_it_says(host: Host, booted: Path) -> None:
    subprocess.run([host.work / "bin/systemctl", "start", "demo.service"], check=True)

    def plain(lines: list[str]) -> list[str]:
        return [re.sub(r"[0-9.]+ of 10, [0-9.]+", "N of 10, N", " ".join(line.split())) for line in lines]

    for command, wanted in played("service", 1):
        program, *words = shlex.split(command)
        assert program == "layout"
        said = host.does(*words)
        if wanted:
            assert plain(said.out.splitlines())[-len(wanted) :] == plain(wanted)
    assert not DROPIN.parent.exists()


def test_verify_finds_what_systemd_or_the_process_does_not_have(host: Host, booted: Path) -> None:
    systemctl = host.work / "bin/systemctl"
    host.does("init", "demo", "--profile", "svc")
    host.does("start", "demo")
    assert host.findings() == []
    (booted / "read").write_text("")
    subprocess.run([systemctl, "restart", "demo.service"], check=True)
    found = host.findings()
    assert {code for code, _ in found} == {"S3-dropin", "S2-dropin"}
    assert ("S2-dropin", "no no_new_privs") in found
    assert ("S2-dropin", "cap_sys_admin in its bounding set") in found
    host.does("restart", "demo")
    assert host.findings() == []
    later = DROPIN.stat().st_mtime + 60
    os.utime(DROPIN, (later, later))
    assert [code for code, _ in host.findings()] == ["S3-dropin"]
    DROPIN.unlink()
    assert "S12-dropin" in {code for code, _ in host.findings()}
    Path("/etc/systemd/system/demo.service").unlink()
    assert [code for code, _ in host.findings()] == ["S5-unit"]


def test_a_unit_that_does_not_come_up_is_put_back(host: Host, booted: Path) -> None:
    systemctl = host.work / "bin/systemctl"
    subprocess.run([systemctl, "start", "demo.service"], check=True)
    (booted / "fails").write_text("")
    said = host.run("init", "demo", "--profile", "svc")
    assert said.code == 1
    assert "ended at once; its last words: its last words" in said.err
    assert not DROPIN.parent.exists()
    assert os.path.exists(f"/proc/{(booted / 'pid').read_text()}"), "it runs as before"
