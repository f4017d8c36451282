"""start --engine unit: layout's side of it, with a stand-in that does for one unit what systemd does."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from busybox_yard import BUSYBOX, busybox_yard, fetch, profile, web
from yard import Yard

from layout.host import run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.box, pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")]

UNITS = Path("/run/systemd/system")

SYSTEMCTL = r"""#!{python}
import ctypes, os, pathlib, shlex, signal, stat, subprocess, sys, time
LIBC = ctypes.CDLL(None, use_errno=True)
UNITS, STATE = pathlib.Path("/run/systemd/system"), pathlib.Path("/run/stand-in.pid")
verb, unit = sys.argv[1], UNITS / sys.argv[-1]
lines = [line.partition("=")[::2] for line in unit.read_text().splitlines()] if unit.is_file() else []
def commands(key):
    return [shlex.split(value.lstrip("+-")) for name, value in lines if name == key]
def main():
    try:
        pid = int(STATE.read_text())
        state = pathlib.Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[0]
        return pid if state not in "ZX" else 0
    except (OSError, ValueError):
        return 0
def enter(root):
    # PrivateDevices, ProtectProc, RootDirectory, CapabilityBoundingSet and NoNewPrivileges, as it has them.
    nosuid, noexec = 2, 8
    done = [
        LIBC.unshare(0x20000),
        LIBC.mount(None, b"/", None, 1 << 14 | 1 << 18, None),
        LIBC.mount(b"dev", f"{{root}}/dev".encode(), b"tmpfs", nosuid | noexec, b"mode=755"),
        LIBC.mount(b"proc", f"{{root}}/proc".encode(), b"proc", nosuid | noexec | 4, b"hidepid=invisible"),
    ]
    os.mknod(f"{{root}}/dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chroot(root)
    os.chdir("/")
    drop, no_new_privs = 24, 38
    last = int(open("/proc/sys/kernel/cap_last_cap").read())
    done += [LIBC.prctl(drop, number, 0, 0, 0) for number in range(last + 1)]
    done.append(LIBC.prctl(no_new_privs, 1, 0, 0, 0))
    assert not any(done), done
if verb == "start":
    assert dict(lines)["RootDirectoryStartOnly"] == "yes"
    assert all(pathlib.Path(value).exists() for name, value in lines if name == "AssertPathExists")
    for words in commands("ExecStartPre"):
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    assert dict(lines)["CapabilityBoundingSet"] == "" and dict(lines)["ProtectProc"] == "invisible"
    child = subprocess.Popen(commands("ExecStart")[0], start_new_session=True, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             preexec_fn=lambda: enter(dict(lines)["RootDirectory"]))
    STATE.write_text(str(child.pid))
    time.sleep(0.2)
elif verb == "show":
    # All that it is asked for but NoExecPaths, which came with systemd 248.
    asked = sys.argv[2].removeprefix("--property=").split(",")
    print("".join(f"{{name}}={{dict(lines).get(name, '')}}\n" for name in asked if name != "NoExecPaths"))
    print(f"ActiveState={{'active' if main() else 'inactive'}}\nMainPID={{main()}}")
elif verb == "stop":
    if not unit.is_file():
        sys.exit(5)
    if main():
        os.kill(main(), signal.SIGTERM)
    while main():
        time.sleep(0.02)
    for words in commands("ExecStopPost"):
        subprocess.run(words, check=False)
"""


@pytest.fixture(name="yard", scope="module")
def _yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("unit"), ("a",)) as yard:
        yield yard


@pytest.fixture(name="systemd")
def _systemd(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host that seems to have booted with systemd."""
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    journal = tmp_path / "journalctl"
    journal.write_text("#!/bin/sh\necho its last words\n", encoding="utf-8")
    journal.chmod(0o755)
    monkeypatch.setattr(run, "PATH", f"{tmp_path}:{run.PATH}")
    run.which.cache_clear()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    UNITS.mkdir(parents=True)
    yield
    yard.run("stop", "a")
    shutil.rmtree("/run/systemd")
    run.which.cache_clear()


def state(yard: Yard) -> dict[str, object] | None:
    found = json.loads(yard.ok("--json", "status", "a"))["jails"]["a"]["running"]
    assert found is None or isinstance(found, dict)
    return found


def test_without_systemd_it_is_refused_and_nothing_is_changed(yard: Yard) -> None:
    profile(yard, "default", web(8080))
    done = yard.run("start", "a", "--engine", "unit")
    assert done.code == 1
    assert "no systemd as process 1" in done.err
    assert yard.mounts() == []
    assert not (yard.root / ".layout/run").exists()


@pytest.mark.usefixtures("systemd")
def test_a_unit_is_installed_started_asked_and_taken_away(yard: Yard) -> None:
    profile(yard, "default", web(8080))
    said = yard.ok("start", "a", "--engine", "unit")
    assert "unit, weak\n" in said
    assert "warning A6-outside" in said, "its processes are among the host's"
    assert "error" not in said
    assert fetch(8080).endswith("hello\n")
    found = state(yard)
    assert found is not None
    assert found["notes"][-1] == "this systemd does not know NoExecPaths"
    assert (found["engine"], found["log"]) == ("unit", "journalctl -u layout-a.service")
    assert yard.run("exec", "a", "--", "/bin/sh", "-c", "test -e /srv/index.html && exit 9").code == 9
    assert yard.ok("stop", "a") == "a: stopped\n"
    assert state(yard) is None
    assert list(UNITS.iterdir()) == []
    assert yard.mounts() == []


@pytest.mark.usefixtures("systemd")
def test_a_unit_that_ends_at_once_leaves_nothing(yard: Yard) -> None:
    profile(yard, "default", '[linux.service]\ncommand = ["/bin/sh", "-c", "exit 3"]\n')
    done = yard.run("start", "a", "--engine", "unit")
    assert done.code == 1
    assert "ended at once; its last words: its last words" in done.err
    assert state(yard) is None
    assert list(UNITS.iterdir()) == []
    assert yard.mounts() == []
