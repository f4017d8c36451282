"""Kind osless on a pretended FreeBSD host: jail(8) keeps an empty jail, its rc.d script the program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from busybox_yard import eventually
from osless_yard import PROFILE, PROGRAM, fingerd

from layout.actions.context import Context
from layout.actions.kinds import osless_freebsd
from layout.core.model import Jail, JailPlan, Manage, Platform, Preset, Site, Tables
from layout.core.osless import Osless
from layout.core.profile import Config
from layout.core.service import Service, Settings
from layout.host.run import Done as Command
from tests.freebsd_host import FreeBSD
from tests.personality.host import Done

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]

SCRIPT = "/usr/local/etc/rc.d/osless_finger"


class Host(FreeBSD):
    """A pretended FreeBSD host that layout is installed on, with a program that was built there."""

    def __init__(self, work: Path, *options: str) -> None:
        super().__init__(work, *options)
        work.chmod(0o755)
        (work / "homes/alice").mkdir(parents=True)
        (work / "homes/alice/.plan").write_text("Alice plans.\n", encoding="utf-8")
        (work / "build").mkdir()
        self.ok("mkdir -p /usr/local/etc/layout/profiles")
        self.ok(f"echo 'root = \"{self.root}\"' >/usr/local/etc/layout/layout.toml")
        self.build("fingerd")
        self.where = []
        self.profile()

    def build(self, name: str, *flags: str) -> str:
        shutil.copy(fingerd(*flags), self.work / "build" / name)
        return str(self.work / "build" / name)

    def profile(
        self,
        osless: str = "",
        head: str = "",
        command: str = "",
        port: int = 1079,
        network: str = "",
        redirect: str = "",
    ) -> None:
        text = PROFILE.format(
            platform="freebsd",
            program=self.work / "build/fingerd",
            homes=self.work / "homes",
            command=command or f'["/{PROGRAM}", "127.0.0.1", "1079", "/home", "/log/queries"]',
            port=port,
            address="127.0.0.1",
            osless=osless,
            service="",
            network=f"{network}\n{redirect}",
        )
        self.write("profile", text.replace("\n[freebsd.osless]", f"{head}\n[freebsd.osless]", 1))
        self.ok("cp profile /usr/local/etc/layout/profiles/finger.toml")

    def finger(self, query: str, port: int = 1079) -> str:
        """Ask as a client of the host, outside the jail."""
        return self(f"printf '{query}\\r\\n' | busybox nc -w 30 127.0.0.1 {port}").out

    def rc(self, method: str) -> Done:
        """Run the script as an administrator does, by dash."""
        return self(f"dash {SCRIPT} {method}")


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path.resolve())
    yield host
    host("jail -R finger; jail -r finger")
    host.close()


def test_the_jail_is_empty_and_its_program_is_started_stopped_and_reported_from_outside(host: Host) -> None:
    host.does("init", "finger")
    conf = host.ok("cat /etc/jail.conf.d/finger.conf")
    for line in ("persist;", 'exec.start = "";', 'exec.stop = "";', "mount.nodevfs;", "mount.nofdescfs;"):
        assert f"  {line}\n" in conf
    assert "allow.noset_hostname;" in conf
    assert "exec.clean" not in conf
    assert "0 changes" in host.does("init", "finger")
    assert 'osless_finger_enable="YES"' in host.ok("cat /etc/rc.conf")
    assert "osless_finger" in host.ok("rcorder /etc/rc.d/* /usr/local/etc/rc.d/* 2>/dev/null")

    # By hand: the jail alone answers nobody; then the script.
    host.ok("service jail onestart finger")
    assert host.finger("alice") == ""
    assert host.rc("onestatus").code == 1
    # Whoever reads what it says is not kept waiting by daemon(8).
    assert "Starting" in host.ok(f"timeout 20 sh -c 'dash {SCRIPT} onestart | cat'")
    assert "is running as pid" in host.rc("onestatus").out
    assert eventually(lambda: host.finger("alice"))
    assert host.finger("alice") == "fingerd one\nAlice plans.\n"
    assert "already running" in host.rc("onestart").err
    # Its user by number, its process ID and its output in files of the host.
    pid = host.ok("cat /var/run/osless_finger.pid").strip()
    assert host.ok(f"ps -o uid= -p {pid}").strip() == "65534"
    assert host.ok(f"ps -o jid= -p {pid}").strip() == host.ok("jls -j finger jid").strip()
    assert "finger alice" in host.ok("cat /var/log/jail_finger_console.log")
    assert "finger alice" in (host.root / "t/finger/queries").read_text(encoding="utf-8")
    host.ok(f"dash {SCRIPT} onestop")
    assert host.finger("alice") == ""
    assert host.rc("onestatus").code == 1
    # The control of the rule of the JID: without it the script does not find the program.
    host.ok(f"dash {SCRIPT} onestart; sed '/^JID=/d' {SCRIPT} >blind")
    assert "is running" in host.rc("onestatus").out
    assert "is not running" in host("dash blind onestatus").out
    host.ok("service jail onestop finger")
    assert "does not run" in host.rc("onestart").err
    # At boot, the jail first and then its program.
    host.ok("reboot")
    assert eventually(lambda: host.finger("alice"))
    assert "is running as pid" in host.rc("status").out


def test_layout_starts_deploys_and_goes_back(host: Host) -> None:
    host.does("init", "finger")
    assert "running" in host.does("start", "finger")
    assert host.finger("alice") == "fingerd one\nAlice plans.\n"
    assert host.codes() == set()
    assert host.told("status", "finger")["jails"]["finger"]["running"]["pid"]
    assert host.does("exec", "finger", "--", f"/{PROGRAM}", "-version") == "one\n"
    assert host.layout("exec", "finger", "--", "/bin/sh", "-c", "id").code in {126, 127}
    two = host.build("two", '-DVERSION="two"')
    assert "replaced; running" in host.does("update", "finger", two)
    assert host.finger("alice").startswith("fingerd two")
    said = host.fails("update", "finger", host.build("broken", "-DBROKEN"))
    assert "broken on purpose" in said
    assert "the file from before is back and runs" in said
    assert host.finger("alice").startswith("fingerd two")
    host.does("stop", "finger")
    assert host.finger("alice") == ""
    host.does("umount", "finger")
    host.does("destroy", "finger")
    assert host(f"ls {SCRIPT} /etc/jail.conf.d/finger.conf /var/run/osless_finger.pid").out == ""
    assert "osless_finger_enable" not in host.ok("cat /etc/rc.conf")
    assert (host.work / "homes/alice/.plan").exists()


def test_with_the_hosts_fstab_its_mounts_come_late_and_do_not_stop_the_boot(host: Host) -> None:
    host.ok("zfs create -o mountpoint=none zroot/jails; sysrc zfs_enable=YES")
    host.ok("echo 'zfs = \"zroot/jails\"' >>/usr/local/etc/layout/layout.toml")
    host.profile(head='boot = "fstab"\n')
    host.does("init", "finger")
    assert host.codes() == {"S12-host-fstab"}, "it would boot with an empty root"
    host.does("fstab", "--install", "finger")
    lines = [line.split() for line in host.ok("cat /etc/fstab").splitlines() if "nullfs" in line]
    assert len(lines) == 3
    assert all({"late", "failok", "nosuid"} <= set(line[3].split(",")) for line in lines)
    home = next(line for line in lines if line[1].endswith("/j/finger/home"))
    assert {"ro", "noexec"} <= set(home[3].split(","))
    assert "nullfs" in host.ok("sysrc -n extra_netfs_types")
    assert "extra_netfs_types=" in host.does("render", "rc.conf", "finger")
    # The datasets first, then what shows them, then the jail and its program.
    host.ok("reboot")
    assert host.codes() == set()
    assert "Alice plans." in host.finger("alice")


def test_a_self_jailing_program_finds_a_jail_where_nothing_is_writable_or_executable(host: Host) -> None:
    program = host.work / "build/fingerd"
    command = f'["{program}", "127.0.0.1", "1079", "/home"]'
    host.profile("self_jailing = true\nlog = false", command=command)
    host.does("init", "finger")
    mounts = host.ok("cat /usr/local/etc/layout/fstab.d/finger.fstab")
    assert all("noexec" in line and "ro," in line for line in mounts.splitlines() if line[:1] != "#")
    assert host.codes() == {"O6-nothing-writable", "O6-nothing-executable"}
    assert not (host.root / "s/finger/srv").exists()
    # Ours does not know jail_attach(2): it stays outside, which is found out, and ended.
    assert "ended at once" in host.fails("start", "finger")
    assert host.finger("alice") == ""
    assert host("jls -j finger jid").code != 0
    host.ok(f"chmod 757 {program}")
    assert "O1-static" in host.codes()


@pytest.mark.parametrize(("seen", "ended"), [("fingerd", True), ("fing", True), ("sh", False), ("", False)])
def test_only_the_jails_own_program_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seen: str, ended: bool
) -> None:
    (tmp_path / "etc/run").mkdir(parents=True)
    (tmp_path / "etc/run/osless_a.pid").write_text("123\n")
    settings = Settings(service=Service(command=("/opt/fingerd", "1079")), osless=Osless(self_jailing=True))
    jail = Jail("a", "finger", Preset.HARDENED, Manage.SESSION, Platform.FREEBSD, settings=settings)
    etc = str(tmp_path / "etc")
    site = Site(str(tmp_path), etc, Platform.FREEBSD, f"{etc}/fstab", trial=True)
    said: list[tuple[str, ...]] = []

    def run(*words: str, **_: object) -> Command:
        said.append(words)
        return Command(0, f"{seen}\n" if words[0] == "ps" else "", "")

    monkeypatch.setattr(osless_freebsd, "run", run)
    osless_freebsd.stop(Context(site, Config()), JailPlan(jail, (), Tables((), ())))
    assert (("kill", "-TERM", "123") in said) is ended


def test_a_number_without_a_name_and_one_that_stays_root_do_not_start(host: Host) -> None:
    host.profile("uid = 54321\ngid = 54321")
    host.does("init", "--no-mount", "finger")
    assert "no user 54321 with group 54321" in host.fails("start", "finger")
    assert host("jls -j finger jid").code != 0
    host.profile("drops_root = true")
    host.does("init", "--no-mount", "finger")
    assert "user 0" in host.fails("start", "finger")
    assert host("jls -j finger jid").code != 0


def test_one_that_drops_root_itself_has_the_low_port(host: Host) -> None:
    command = f'["/{PROGRAM}", "-u", "65534:65534", "127.0.0.1", "79", "/home"]'
    host.profile("drops_root = true", command=command, port=79)
    host.does("init", "finger")
    host.does("start", "finger")
    assert "Alice plans." in host.finger("alice", 79)
    pid = host.ok("cat /var/run/osless_finger.pid").strip()
    assert host.ok(f"ps -o uid= -p {pid}").strip() == "65534"
    # Another one, as root: somebody's mistake, and found.
    host.ok(f"jexec finger /{PROGRAM} 127.0.0.1 7979 /home >/dev/null 2>&1 &")
    assert eventually(lambda: host.finger("alice", 7979))
    assert "S3-running" in host.codes()


def test_the_packet_filter_leads_the_low_port_to_one_for_everybody(host: Host) -> None:
    host.profile(
        network='ip4 = ["192.168.1.2/32"]\ninterface = "lo1"\nexternal = "bce1"',
        redirect="[[freebsd.redirect]]\nport = 79\nto = 1079\naddress = '192.0.2.3'\n",
    )
    rules = host.does("render", "pf.conf", "finger")
    assert "rdr" in rules
    assert "192.0.2.3 port 79 -> 192.168.1.2 port 1079" in " ".join(rules.split())
    # Without NAT it can be reached and cannot call out.
    assert not [line for line in rules.splitlines() if line.startswith("nat ")]


def test_on_datasets_it_is_as_the_source_has_it(host: Host) -> None:
    host.ok("zfs create -o mountpoint=none zroot/jails")
    host.ok("echo 'zfs = \"zroot/jails\"' >>/usr/local/etc/layout/layout.toml")
    assert "ok" in host.does("init", "finger")
    content, logs = "zroot/jails/s/finger", "zroot/jails/t/finger"
    keys = "setuid,devices,exec,atime,utf8only,readonly"
    get = f"zfs get -H -o value {keys}"
    assert host.ok(f"{get} {content}").split() == ["off", "off", "on", "off", "on", "on"]
    assert host.ok(f"{get} {logs}").split() == ["off", "off", "off", "off", "on", "off"]
    host.refused(f"touch {host.root}/s/finger/etc/x", "Read-only")
    host.does("update", "finger", host.build("two", '-DVERSION="two"'))
    assert host.ok(f"{host.root}/s/finger/{PROGRAM} -version") == "two\n"
    assert host.ok(f"zfs get -H -o value readonly {content}").strip() == "on"
    host.ok(f"zfs set exec=on {logs}; zfs set readonly=off {content}; zfs set setuid=on {content}")
    assert host.codes() == {"O5-dataset"}
    assert "setuid=on, planned is setuid=off" in host.does("plan", "finger")
    assert "0 errors" in host.does("init", "finger")
    host.does("umount", "finger")
    host.ok(f"zfs snapshot {content}@kept")
    assert "@kept" in host.fails("destroy", "finger")
    host.ok(f"zfs destroy {content}@kept")
    host.does("destroy", "finger")
    left = host.ok("zfs list -H -r -o name zroot").split()
    assert left == ["zroot", "zroot/jails", "zroot/jails/s", "zroot/jails/t"]


def test_a_script_of_somebody_else_stays_and_an_edited_one_is_found(host: Host) -> None:
    host.ok(f"mkdir -p {os.path.dirname(SCRIPT)}; echo '#!/bin/sh' >{SCRIPT}")
    assert "layout did not write" in host.fails("init", "finger")
    host.ok(f"rm {SCRIPT}")
    host.does("init", "finger")
    host.ok(f"sed -i 's/TERM/KILL/' {SCRIPT}")
    assert host.codes() == {"O7-rc"}


def test_a_root_with_a_blank_is_one_word_everywhere(host: Host) -> None:
    """rc.subr(8) evaluates the name of the pidfile once more than sh(1) alone."""
    root = host.work / "my jails"
    host.ok("mkdir -m 700 'my jails'; mkdir -p 'my jails/etc/profiles'")
    host.ok("cp profile 'my jails/etc/profiles/finger.toml'")
    trial = ("--root", str(root))
    host.does(*trial, "init", "finger")
    host.does(*trial, "start", "finger")
    assert host.finger("alice") == "fingerd one\nAlice plans.\n"
    assert "is running as pid" in host.ok("sh 'my jails/etc/rc.d/osless_finger' onestatus")
    host.ok("sh 'my jails/etc/rc.d/osless_finger' onestop")
    assert host.finger("alice") == ""
    host.does(*trial, "stop", "finger")
    assert host.ok("jls name") == ""
    host.does(*trial, "umount")
