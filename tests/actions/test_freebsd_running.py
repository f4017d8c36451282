"""Jails run on a pretended FreeBSD host by jail(8), also after a reboot, and what is wrong is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.freebsd_host import HERE, SHIM, FreeBSD, _freebsd  # noqa: F401

pytestmark = pytest.mark.box

DAEMON = """\
kind = "shared"
description = "a daemon in the foreground"
%s
[freebsd.service]
command = ["/bin/sleep", "100000"]
stop_timeout = 2
"""
RC = """\
kind = "shared"
description = "boots with rc"
%s
[freebsd.service]
stop_timeout = 2
"""


class Whole(FreeBSD):
    """A pretended FreeBSD host that layout is installed on: without --root, its own files are written."""

    def __init__(self, work: Path, *options: str) -> None:
        super().__init__(work, *options)
        self.ok(
            "mkdir -p /usr/local/etc/layout/profiles && "
            f"echo 'root = \"{self.root}\"' >/usr/local/etc/layout/layout.toml"
        )
        self.where = []

    def profile(self, name: str, text: str) -> None:
        self.write("profile", text)
        self.ok(f"cp profile /usr/local/etc/layout/profiles/{name}.toml")


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Whole]:
    host = Whole(tmp_path.resolve())
    yield host
    host.close()


def base(host: FreeBSD) -> Path:
    """Return a base that boots: an rc that starts a daemon, and one that ends it."""
    path = host.small_base()
    host.write("base/etc/rc", "echo booted; sleep 100000 &\n")
    host.write("base/etc/rc.shutdown", "echo $1 >/var/stopped\n")
    return path


def mounted(host: FreeBSD) -> list[str]:
    return [target for _, target in host.layout_mounts()]


def jailed(host: FreeBSD) -> list[str]:
    return host.ok("jls name").split()


WHOLE = ["j/a", "j/a/s", "j/a/t"]


def test_a_jail_from_init_to_destroy(host: Whole) -> None:
    host.profile("a", RC % "")
    host.does("init", "--base", base(host), "a")
    assert host.ok("sysrc -n jail_enable jail_list").split() == ["YES", "a"]
    assert mounted(host) == WHOLE
    assert "running" in host.does("start", "a")
    assert jailed(host) == ["a"]
    assert mounted(host) == [*WHOLE, "j/a/dev"]
    assert host.does("exec", "a", "--", "/bin/cat", "/etc/hostname") == "a\n"
    assert host.layout("exec", "a", "--", "/bin/sh", "-c", "exit 7").code == 7
    host.fails("exec", "a", "--", "/bin/touch", "/etc/x")
    host.ok("sysrc -q jail_list= >/dev/null")
    assert {"S12-rc-conf"} == host.codes("a")
    assert "1 change" in host.does("init", "a")
    assert host.does("start", "a").startswith("a: already running, ")
    running = host.told("status", "a")["jails"]["a"]["running"]
    assert (running["engine"], running["jid"] > 0, running["pid"] > 0) == ("jail", True, True)
    assert (running["grade"], running["notes"]) == ("full", [])
    assert "booted" in host.ok("cat /var/log/jail_a_console.log")
    host.does("verify", "a")
    assert "a" in host.fails("destroy", "a")
    host.does("stop", "a")
    assert jailed(host) == []
    assert host.ok(f"cat {host.root}/t/a/var/stopped") == "jail\n"
    assert mounted(host) == WHOLE
    # rc alone can start what layout has mounted, too.
    host.ok("service jail start a")
    assert jailed(host) == ["a"]
    host.does("verify", "a")
    host.ok("service jail stop a")
    assert (mounted(host), host.codes("a")) == ([], {"S1-unmounted"})
    host.does("destroy", "a")
    assert host.ok("sysrc -n jail_list") == "\n"
    assert host("test -e /etc/jail.conf.d/a.conf").code != 0


def test_a_trial_runs_its_jail_and_leaves_the_host_alone(freebsd: FreeBSD) -> None:
    host = freebsd
    host.write("jails/etc/profiles/a.toml", DAEMON % "")
    host.ok(f"chmod 700 {host.root}; cp -R /etc /tmp/etc.trial")
    host.does("init", "--base", base(host), "a")
    host.does("start", "a")
    assert host.told("status", "a")["jails"]["a"]["running"]["notes"] == []
    host.does("restart", "a")
    host.does("stop", "a")
    assert "not running" in host.layout("stop", "a").err
    assert mounted(host) == WHOLE
    host.ok("diff -r /etc /tmp/etc.trial")
    host.does("umount", "a")
    host.does("destroy", "a")
    assert host.ok(f"ls {host.root}/etc/jail.conf.d") == ""


@pytest.mark.parametrize("boot", ["jail", "fstab"])
def test_jails_run_again_after_a_reboot(host: Whole, boot: str) -> None:
    host.profile("a", RC % "")
    host.profile("web", DAEMON % "freebsd.jail.depend = ['a']")
    host.does("init", "--boot", boot, "--base", base(host), "web", "a")
    if boot == "fstab":
        host.does("fstab", "--install", "web", "a")
        assert "ro,nosuid,late,failok" in host.ok("cat /etc/fstab")
    else:
        assert "jail(8) mounts" in host.fails("fstab", "--install", "a")
    assert host.ok("sysrc -n jail_list") == "a web\n"
    host.does("start", "web")
    assert jailed(host) == ["a", "web"]
    assert "depends on it" in host.fails("stop", "a")
    before = mounted(host)
    host.ok("reboot --clean")
    assert jailed(host) == ["a", "web"]
    assert sorted(mounted(host)) == sorted(before)
    host.does("verify")
    host.does("stop", "web", "a")
    assert sorted(mounted(host)) == sorted(path for path in before if not path.endswith("/dev"))


def test_nobody_starts_a_jail_that_is_not_to_boot(host: Whole) -> None:
    host.profile("a", DAEMON % "")
    host.does("init", "--boot", "none", "--base", base(host), "a")
    host.does("start", "a")
    host.ok("reboot")
    assert (jailed(host), mounted(host)) == ([], [])
    host.does("start", "a")
    assert mounted(host) == [*WHOLE, "j/a/dev"]


FOREIGN = {
    "a jail of this name": ("echo 'a { path = /x; }' >/etc/jail.conf", "/etc/jail.conf:1: found a jail a"),
    "others that an empty list starts": (
        "echo 'exec.clean; b { path = /x; }' >/etc/jail.conf",
        "start because jail_list is empty: b",
    ),
    "a file that jail would refuse": ("echo 'b {' >/etc/jail.conf", "/etc/jail.conf:2"),
    "a file of the older kind": ("echo >/etc/jail.a.conf", "/etc/jail.a.conf: found a file"),
    "variables of the older kind": ("sysrc -q jail_a_rootdir=/x", "rc.conf: jail_a_rootdir: found '/x'"),
    "somebody's own file": (
        "mkdir -p /etc/jail.conf.d; echo 'a { persist; }' >/etc/jail.conf.d/a.conf",
        "/etc/jail.conf.d/a.conf: found a file that layout did not write",
    ),
    "a running jail": ("mkdir r; jail -c name=a path=$PWD/r persist", "a running jail a (jid"),
    "an older release": ("personality set release 13.2-RELEASE", "found FreeBSD 13.2-RELEASE"),
}


def test_what_else_speaks_of_a_jail_is_found_before_anything_changes(host: Whole) -> None:
    base(host)
    host.ok("cp -R /etc /tmp/etc.before")
    for case, (make, said) in FOREIGN.items():
        host.ok(f"{make}; cp -R /etc /tmp/etc.now")
        assert said in host.fails("init", "--base", host.base, "a"), case
        host.ok(f"test ! -e {host.root} && diff -r /etc /tmp/etc.now")
        host.ok("jail -R a 2>/dev/null; rm -rf /tmp/etc.now /etc/jail* && cp -R /tmp/etc.before/. /etc")
    assert "13.2" in host.fails("init", "--base", host.base, "a")
    host.ok("personality set release 14.3-RELEASE")
    host.does("init", "--base", host.base, "a")


def trial(host: FreeBSD, service: str = "", rest: str = "") -> None:
    """Make jail a anew with a daemon as said."""
    text = DAEMON.replace("stop_timeout = 2", f"stop_timeout = 1\n{service}") % rest
    host.write("jails/etc/profiles/a.toml", text)
    host.ok(f"chmod 700 {host.root}")
    host.does("init", "--base", base(host), "a")


STARTS_NOT = {
    "a check that never passes": (
        'ready = { command = ["/bin/false"], timeout = 4 }',
        "not ready after 4 s: /bin/false exits with 1",
    ),
    "a port that nobody opens": ('ready = { tcp = "127.0.0.1:9", timeout = 1 }', "127.0.0.1:9"),
    "a socket that is none": ('ready = { socket = "/var/x", timeout = 1 }', "t/var/x: found no socket"),
    "a user that the jail does not have": ('user = "www"', "www: no passwd entry"),
}


def test_a_jail_that_does_not_start_is_stopped_again_and_says_why(freebsd: FreeBSD) -> None:
    host = freebsd
    for case, (service, said) in STARTS_NOT.items():
        trial(host, service)
        assert said in host.fails("start", "a"), case
        assert (jailed(host), mounted(host)) == ([], WHOLE), case
    trial(host)
    host.ok(f"sed -i s/persist/nopersist/ {host.root}/etc/jail.conf.d/a.conf")
    assert "layout init a" in host.fails("start", "a")
    host.ok(f"rm {host.root}/etc/jail.conf.d/a.conf")
    trial(host)
    host.ok("personality set devfs unloaded")
    assert "service devfs restart" in host.fails("start", "a")
    host.ok("service devfs restart; mkdir r; jail -c name=a path=$PWD/r persist")
    for word in ("start", "stop", "status"):
        assert f"with the root {host.work}/r" in host.fails(word, "a")
    assert jailed(host) == ["a"]


def test_a_running_jail_that_is_not_as_planned_is_seen(freebsd: FreeBSD) -> None:
    host = freebsd
    host.write("jails/etc/profiles/a.toml", DAEMON % "")
    host.ok(f"chmod 700 {host.root}")
    host.does("init", "--base", base(host), "a")
    host.does("start", "a")
    host.ok("jail -m name=a enforce_statfs=1 allow.raw_sockets=true")
    (first, second) = host.told("status", "a")["jails"]["a"]["running"]["notes"]
    assert first.startswith("enforce_statfs is 1, planned is 2")
    assert second.startswith("allow.raw_sockets is true")
    assert "S2-jail" in host.codes("a")
    host.write("jails/etc/profiles/a.toml", DAEMON % "freebsd.jail.enforce_statfs = 1")
    assert "layout stop a" in host.fails("init", "a")
    assert "layout stop a" in host.fails("umount", "a")
    host.write("jails/etc/profiles/a.toml", DAEMON % "")
    host.does("restart", "a")
    assert host.codes("a") == set()


def test_a_mount_that_somebody_keeps_busy_is_named(freebsd: FreeBSD) -> None:
    host = freebsd
    trial(host)
    host.does("start", "a")
    host.ok(f"(cd {host.root}/j/a/t && exec sleep 1000) & echo $! >pid")
    host.ok("come 'ps -p $(cat pid) -o command= | grep -x \"sleep 1000\"'")
    said = host.fails("stop", "a")
    assert "j/a/t: found a mount in use" in said
    assert jailed(host) == []
    host.ok("kill $(cat pid); come '! kill -0 $(cat pid)'")
    host.does("start", "a")
    # Killed without jail(8), which would have unmounted.
    host.ok("jail -R a")
    assert mounted(host) == [*WHOLE, "j/a/dev"]
    assert "S1-extra" in host.codes("a")
    host.does("start", "a")
    host.does("stop", "a")
    host.does("verify", "a")
