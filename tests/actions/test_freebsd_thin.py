"""A thin jail of FreeBSD: built, run and taken away by one script, which layout uses and needs no layout."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM
from typing import TYPE_CHECKING

import pytest
from busybox_yard import eventually
from thin_yard import SERVER, Daemon, compile_

from tests.freebsd_host import HERE, SHIM, FreeBSD, _freebsd  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.box, pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")]


@pytest.fixture(name="daemon")
def _daemon(freebsd: FreeBSD) -> Iterator[Daemon]:
    daemon = Daemon(freebsd.work / "app", 8092)
    daemon.build()
    freebsd.write("jails/etc/profiles/a.toml", daemon.profile())
    freebsd.ok(f"chmod 700 {freebsd.root}")
    yield daemon
    assert freebsd.layout_mounts() == []


def gone(host: FreeBSD) -> None:
    """Nothing is left of the root of a."""
    assert host.layout_mounts() == []
    assert os.listdir(host.root / "j/a") == []
    assert host.ok("jls name") == ""


ANSWER = {"answer": "42", "etc": "0", "lib": "0", "log": "1", "conf": "0", "sh": "0", "config": "of the host"}


def answer(daemon: Daemon) -> dict[str, str]:
    found = daemon.ask()
    return {key: found[key] for key in ANSWER}


def test_layout_runs_a_jail_from_init_to_destroy(freebsd: FreeBSD, daemon: Daemon) -> None:
    host = freebsd
    host.ok("cp -R /etc /tmp/etc.thin")
    host.does("init", "a")
    host.ok("diff -r /etc /tmp/etc.thin")
    gone(host)
    host.does("start", "a")
    assert answer(daemon) == ANSWER
    kept = next(name for name in os.listdir(host.root / ".layout/thin") if len(name) == 64)
    # The C library of FreeBSD knows users by these databases alone.
    assert {"master.passwd", "pwd.db", "spwd.db"} <= set(
        os.listdir(host.root / ".layout/thin" / kept / "etc")
    )
    top, log = f"/{daemon.top.name}", "var/log/app"
    assert host.layout_mounts() == [
        (f".layout/thin/{kept}", "j/a"),
        ("devfs", "j/a/dev"),
        (f"{top}/etc", "j/a/etc/app"),
        (f"{top}/log", f"j/a/{log}"),
    ]
    # A changed library, and another user, whom the host's accounts know.
    daemon.library(43)
    assert host.codes("a") == {"T4-stale"}
    text = daemon.profile().replace("stop_timeout = 30\n", 'stop_timeout = 30\nuser = "nobody"\n')
    host.write("jails/etc/profiles/a.toml", text)
    host.does("restart", "a")
    found = daemon.ask()
    assert (found["answer"], found["user"], found["root"]) == ("43", "nobody", "unknown")
    assert host.codes("a") == set()
    running = host.told("status", "a")["jails"]["a"]["running"]
    assert (running["engine"], running["jid"] > 0, running["pid"] > 0) == ("jail", True, True)
    assert host.does("start", "a").startswith("a: already running, ")
    assert "hint" in host.fails("manage", "a", code=2)
    assert host.layout("exec", "a", "--", "/bin/sh", "-c", ":").code != 0
    host.fails("destroy", "a")
    host.ok(f"umount {host.root}/j/a/{log}")
    assert "S1-missing" in host.codes("a")
    host.does("stop", "a")
    gone(host)
    assert host.codes("a") == set()
    host.does("destroy", "a")
    advice = host.told("advise", str(daemon.program))
    assert advice["kind"] == "shared", "it names /bin/sh"
    assert "[freebsd.service]" in advice["profile"]
    assert os.listdir(host.root / ".layout/thin") == []


def test_whatever_ends_it_nothing_is_left(freebsd: FreeBSD, daemon: Daemon) -> None:
    host = freebsd

    def stopped() -> bool:
        host.layout("stop", "a")
        time.sleep(0.5)  # what goes on by itself may come up only now
        return not host.layout_mounts()

    host.does("init", "a")
    # The daemon is killed.
    host.does("start", "a")
    host.ok("killall -KILL -j a")
    assert eventually(lambda: not host.layout_mounts())
    gone(host)
    # jail(8) is killed.
    host.does("start", "a")
    host.ok(f"kill -9 $(cat {host.root}/.layout/thin/a.pid)")
    assert eventually(lambda: not host.layout_mounts())
    # layout is killed while it starts it: what was begun goes on by itself, or never began.
    command = f"timeout -s KILL %s {' '.join(host_command(host))} start a"
    for seconds in (0.4, 0.8):
        host(command % seconds)
        assert eventually(stopped, 90)
    # What keeps it is killed: stop sees it.
    host.does("start", "a")
    host.ok(f"kill -9 $(cat {host.root}/.layout/thin/a.pid.keeper); killall -KILL -j a; sleep 0.5")
    assert host.layout_mounts()
    assert "T1-left" in host.codes("a")
    assert "taken away" in host.layout("stop", "a").err
    gone(host)
    # It cannot be started.
    host.write("jails/etc/profiles/a.toml", daemon.profile(words=', "fail"'))
    assert "told to fail" in host.fails("start", "a")
    assert eventually(lambda: not host.layout_mounts())
    gone(host)
    host.write("jails/etc/profiles/a.toml", daemon.profile())
    host.ok(f"mv {daemon.top}/log {daemon.top}/elsewhere")
    assert f"{daemon.top}/log" in host.fails("start", "a")
    gone(host)
    # A devfs without rules would show every device.
    host.ok(f"mv {daemon.top}/elsewhere {daemon.top}/log; personality set devfs unloaded")
    assert "ruleset" in host.fails("start", "a")
    gone(host)


def host_command(host: FreeBSD) -> list[str]:
    return ["env", f"PYTHONPATH={SHIM}:{HERE.parent}", sys.executable, "-m", "layout", *host.where]


RC = "/usr/local/etc/rc.d/thin_a"


def install(host: FreeBSD) -> None:
    """Install the rendered script, and take away everything that it must do without."""
    host.write("script", host.does("render", "rc.d", "a"))
    host.ok(f"install -m 755 script {RC}")
    shutil.rmtree(host.root / ".layout/thin", ignore_errors=True)


def test_the_script_runs_it_without_layout_or_python(freebsd: FreeBSD, daemon: Daemon) -> None:
    host = freebsd
    host.does("init", "a")
    install(host)
    for checker in (["dash", "-n"], ["shellcheck", "-s", "sh"]):
        if shutil.which(checker[0]):
            done = subprocess.run([*checker, host.work / "script"], capture_output=True, text=True)
            assert done.stdout + done.stderr == ""
    assert "python" not in (host.work / "script").read_text(encoding="utf-8").lower().split("\n\n", 1)[1]
    assert "Set thin_a_enable" in host.ok("service thin_a start")
    host.ok("service thin_a enable; service thin_a start")
    assert eventually(lambda: listening(daemon.port))
    assert answer(daemon) == ANSWER
    assert "is running as pid" in host.ok("service thin_a status")
    assert host.codes("a") == set()
    assert (host.root / ".layout/thin/rc-a/etc/pwd.db").exists()
    library = next((host.root / ".layout/thin/rc-a").rglob("libanswer.so"))
    library.rename(library.with_name("elsewhere"))
    assert host.codes("a") == {"T3-content"}
    library.with_name("elsewhere").rename(library)
    host.refused("service thin_a start", "already running")
    assert [target for _, target in host.layout_mounts()] == [
        "j/a",
        "j/a/dev",
        "j/a/etc/app",
        "j/a/var/log/app",
    ]
    host.ok("service thin_a stop")
    gone(host)
    assert not (host.root / ".layout/thin/rc-a").exists()
    host.refused("service thin_a status", "is not running")
    # The daemon and then jail(8) are killed.
    host.ok("service thin_a start; killall -KILL -j a")
    assert eventually(lambda: not host.layout_mounts())
    host.ok("service thin_a start; kill -9 $(cat " + pidfile(host) + ")")
    assert eventually(lambda: not host.layout_mounts())
    assert eventually(lambda: not (host.root / ".layout/thin/rc-a").exists())
    # What keeps it is killed as well: the next stop, or start, takes away what is left.
    kill = f"service thin_a start; kill -9 $(cat {pidfile(host)}.keeper); killall -KILL -j a; sleep 0.5"
    host.ok(kill)
    assert host.layout_mounts()
    host.ok("service thin_a stop")
    gone(host)
    host.ok(kill)
    assert "a" in host.does("recover")
    gone(host)
    host.ok(kill)
    host.ok("service thin_a start")
    assert eventually(lambda: listening(daemon.port))
    host.ok("service thin_a stop")
    # A library that is gone: nothing is half made.
    host.ok(f"mv {daemon.top}/lib/libanswer.so {daemon.top}/lib/gone")
    host.refused("service thin_a start", "did not start")
    gone(host)
    assert not (host.root / ".layout/thin/rc-a").exists()


def test_the_program_has_the_signals_of_a_daemon_and_starts_at_boot(freebsd: FreeBSD, daemon: Daemon) -> None:
    """None is ignored: a shell that puts it into the background would leave it without INT."""
    host = freebsd
    text = daemon.profile().replace("stop_timeout = 30\n", 'stop_timeout = 30\nstop_signal = "INT"\n')
    host.write("jails/etc/profiles/a.toml", text)
    host.does("init", "a")
    host.does("start", "a")
    script = "grep -h SigIgn /proc/$(pgrep -j a appd)/status /proc/$$/status"
    own, caller = (int(line.split()[1], 16) for line in host.ok(script).splitlines())
    assert own & ~caller & sum(1 << number - 1 for number in (SIGHUP, SIGINT, SIGQUIT, SIGTERM)) == 0
    assert "killed" not in host.layout("stop", "a").err
    gone(host)
    install(host)
    host.ok("service thin_a enable; reboot")
    assert eventually(lambda: listening(daemon.port))
    assert "is running as pid" in host.ok("service thin_a status")
    assert "killed" not in host.ok("service thin_a stop 2>&1")
    gone(host)


def test_the_script_can_ask_ldd_at_each_start(freebsd: FreeBSD, daemon: Daemon) -> None:
    host = freebsd
    host.does("init", "a")
    install(host)
    # Another library under another name, as an upgrade brings it.
    (daemon.top / "lib/libanswer.so").unlink()
    more = daemon.top / "lib/libmore.so"
    compile_("-shared", "-fPIC", "-Wl,-soname,libmore.so", "-o", more, text="int answer(void) { return 44; }")
    daemon.program.unlink()
    words = ("-L", daemon.top / "lib", "-lmore", f"-Wl,-rpath,{daemon.top}/lib")
    compile_("-w", "-o", daemon.program, *words, text=SERVER)
    host.refused("service thin_a onestart", "did not start")
    gone(host)
    host.ok("sysrc thin_a_ldd=YES; service thin_a onestart")
    assert eventually(lambda: listening(daemon.port))
    assert daemon.ask()["answer"] == "44"
    host.ok("service thin_a onestop")
    gone(host)


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        time.sleep(0.05)
        return False
    return True


def pidfile(host: FreeBSD) -> str:
    return f"{host.root}/.layout/thin/a.pid"
