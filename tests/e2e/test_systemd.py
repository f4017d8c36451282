"""A host that really booted with systemd: jails that it keeps and starts at boot, a service it confines."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.booted import Booted, CannotBoot, booted, missing

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "actions"))
from busybox_yard import BUSYBOX, build, web

if TYPE_CHECKING:
    from collections.abc import Iterator

LACKING = missing("nft", "ip", "systemd-nspawn", "ldd") or ("" if BUSYBOX.exists() else "busybox-static")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(LACKING), reason=f"needs {LACKING}")]

WEB = """
kind = "shared"
description = "a test"
""" + web(
    8080,
    more="""user = "web"
environment = ["A=50% of $HOME ${HOME} %n", "B=\\"two  words\\" it's \\\\n; #\\\\"]
[[linux.service.run]]
path = "run/httpd/deep"
owner = "web"
group = "webs"
mode = "0750"
""",
)
HOSTILE = {"A=50% of $HOME ${HOME} %n", 'B="two  words" it\'s \\n; #\\'}
CELL = """
kind = "full"
description = "a test"
[linux.network]
ip4 = ["10.79.1.2/30"]
ip6 = ["disable"]
gateway = ["10.79.1.1"]
apply = true
[[linux.redirect]]
port = 2222
to = 22
[linux.service]
command = ["/bin/sh", "-c", "exec nc -ll -p 22 -e id -u"]
capabilities = ["setuid", "setgid", "net_bind_service"]
ports = ["22/tcp"]
ready = { tcp = "10.79.1.2:22", timeout = 30 }
"""
DEMO = """
kind = "service"
description = "a test"
[linux.confine]
options = []
"""
THIN = f"""
kind = "thin"
description = "a test"
[linux.service]
command = ["{BUSYBOX}", "httpd", "-f", "-p", "127.0.0.1:8081"]
ready = {{ tcp = "127.0.0.1:8081", timeout = 30 }}
"""
OSLESS = f"""
kind = "osless"
description = "a test"
[linux.osless]
program = "{BUSYBOX}"
path = "srv/bin/httpd"
[linux.service]
command = ["/srv/bin/httpd", "-f", "-p", "127.0.0.1:8082"]
ready = {{ tcp = "127.0.0.1:8082", timeout = 30 }}
"""
ATTEMPTS = """\
#!/bin/sh
# Each is allowed to root without the drop-in, and changes nothing that is not there already.
try() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "$name allowed"; else echo "$name refused"; fi; }
{
    try etc touch /etc/fstab
    try mount mount -t tmpfs none /mnt
    try userns unshare --user true
    try mntns unshare --mount true
    try mknod mknod "/var/lib/demo/null.$$" c 1 3
    try link ip link set lo up
    try addresses ip addr
    try hostname hostname booted
    try sysctl sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    try cgroup mkdir "/sys/fs/cgroup/demo.$$"
    try setuid sh -c 'cp /bin/true "/var/lib/demo/$$" && chmod u+s "/var/lib/demo/$$"'
    echo done
} >"/var/lib/demo/$$.out" 2>&1
exec sleep 1000
"""


def base(top: Path) -> Path:
    """A base of busybox, with what changes the user."""
    made = build(top)
    program = shutil.which("setpriv")
    assert program is not None
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    files = [program, *(word for word in said.split() if word.startswith("/"))]
    for file in files:
        target = made / ("usr/bin/setpriv" if file == program else file[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    return made


@pytest.fixture(name="tree", scope="module")
def _tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(name="host", scope="module")
def _host(tree: Path) -> Iterator[Booted]:
    """A host with its ROOT, /jails, and two jails and a service that its administrator has decided on."""
    try:
        with booted() as host:
            profiles = host.file("/etc/layout/profiles")
            profiles.mkdir(parents=True)
            for name, text in (("a", WEB), ("cell", CELL), ("demo", DEMO), ("thin", THIN), ("lone", OSLESS)):
                (profiles / f"{name}.toml").write_text(text)
            demo = host.state / "var/lib/demo"
            demo.mkdir()
            (demo / "run").write_text(ATTEMPTS)
            (demo / "run").chmod(0o755)
            install(
                host,
                "demo.service",
                "[Service]\nExecStart=/var/lib/demo/run\n[Install]\nWantedBy=multi-user.target\n",
            )
            host.ok("init", "a", "cell", "--base", tree, "--no-mount")
            yield host
    except CannotBoot as why:
        pytest.skip(f"no systemd can be process 1 here: {' '.join(str(why).split())[-300:]}")


def install(host: Booted, unit: str, text: str) -> None:
    """Do what an administrator does with a unit that is to start at boot."""
    (host.state / "system" / unit).write_text(text)
    for words in (("daemon-reload",), ("enable", unit)):
        done = host.inside("systemctl", *words)
        assert done.returncode == 0, done.stderr


def state(host: Booted, name: str) -> Any:
    return json.loads(host.ok("--json", "status", name))["jails"][name]["running"]


def findings(host: Booted, *names: str) -> list[str]:
    report = json.loads(host.ok("--json", "verify", *names))
    assert report["host"]["findings"] == []
    return sorted({one["code"] for name in names for one in report["jails"][name]["findings"]})


def page(host: Booted) -> str:
    """What the web server of the jail answers."""
    script = (
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/index.html').read().decode())"
    )
    return host.inside(sys.executable, "-c", script).stdout.strip()


def status(host: Booted, pid: int) -> dict[str, str]:
    """Return the status of one of its processes, see proc_pid_status(5)."""
    lines = host.inside("cat", f"/proc/{pid}/status").stdout.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def outcome(host: Booted) -> set[str]:
    """Return what the running service could do and could not."""
    pid = host.shown("demo", "MainPID")[0]
    said = host.state / f"var/lib/demo/{pid}.out"
    end = time.monotonic() + 30
    while not said.exists() or "done" not in said.read_text():
        assert time.monotonic() < end, host.inside("systemctl", "status", "demo").stdout
        time.sleep(0.05)
    return {line.partition(" ")[2] for line in said.read_text().splitlines() if line != "done"}


def test_systemd_keeps_a_jail(host: Booted) -> None:
    said = host.ok("start", "a", "--engine", "unit")
    assert "unit, weak\n" in said
    running = state(host, "a")
    assert running["engine"] == "unit"
    assert host.shown("layout-a", "ActiveState", "MainPID") == [str(running["pid"]), "active"]
    assert page(host) == "hello"
    process = status(host, running["pid"])
    assert process["Uid"].split() == ["80"] * 4, "a user that the host does not have"
    assert process["CapEff"] == process["CapAmb"] == "0" * 16
    assert (process["NoNewPrivs"], process["Seccomp"]) == ("1", "2")
    environment = host.inside("cat", f"/proc/{running['pid']}/environ").stdout.split("\0")
    assert set(environment) >= HOSTILE
    # Its directory in /run is its user's, and nothing there can be executed (the probes of verify try).
    ask = "cd /run/httpd && stat -c %U:%a deep 2>/dev/null || ls -ld deep; ! touch /bin/x 2>/dev/null"
    done = host.layout("exec", "a", "--", "/bin/sh", "-c", ask)
    assert (done.returncode, "web" in done.stdout) == (0, True), done
    assert len(running["notes"]) == 1, "systemd knows every setting of the unit"
    terminals = host.ok("exec", "a", "--", "/bin/ls", "/dev/pts", "/dev/mqueue")
    assert terminals.split() == ["/dev/mqueue:", "/dev/pts:"], "none of the host's"
    assert findings(host, "a") == ["A6-outside", "S3-weak"]
    assert host.ok("stop", "a") == "a: stopped\n"
    assert state(host, "a") is None
    assert host.inside("systemctl", "cat", "layout-a").returncode == 1
    left = host.inside(
        "sh", "-c", "ls /run/systemd/system /run/layout; grep ' /jails/' /proc/self/mountinfo"
    ).stdout
    assert "layout-a" not in left
    assert "/jails/j/a" not in left


def test_what_is_taken_out_of_a_unit_is_found(host: Booted) -> None:
    loose = host.file("/run/systemd/system/layout-a.service.d")
    loose.mkdir()
    (loose / "loose.conf").write_text(
        "[Service]\nNoNewPrivileges=no\nCapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_CHOWN\nUMask=0\n"
    )
    host.layout("start", "a", "--engine", "unit")
    pid = state(host, "a")["pid"]
    host.inside("nsenter", "-t", pid, "-m", BUSYBOX, "mount", "-t", "tmpfs", "none", "/t/tmp")
    report = json.loads(host.layout("--json", "verify", "a").stdout)["jails"]["a"]["findings"]
    found = {one["found"] for one in report if one["code"] == "S3-running"}
    assert found == {"no no_new_privs", "a mount of tmpfs, /"}
    shutil.rmtree(loose)
    host.ok("stop", "a")


def test_nspawn_keeps_a_jail_in_a_group_of_cgroup_v2_and_none_is_left(host: Booted) -> None:
    top = "/sys/fs/cgroup"
    assert host.inside("stat", "-f", "-c", "%T", top).stdout.strip() == "cgroup2fs"
    before = host.inside("ls", top).stdout
    host.ok("start", "cell", "--engine", "nspawn")
    running = state(host, "cell")
    assert (running["engine"], running["grade"]) == ("nspawn", "full")
    (group,) = set(host.inside("ls", top).stdout.split()) - set(before.split())
    assert group.startswith("layout-cell-")
    assert str(running["pid"]) in host.inside("cat", f"{top}/{group}/payload/cgroup.procs").stdout.split()
    seen = host.ok("exec", "cell", "--", "/bin/ls", top).split()
    assert "cgroup.procs" in seen, "it has a hierarchy"
    assert "system.slice" not in seen, "it sees no group but its own"
    assert findings(host, "cell") == ["S2-world"]
    host.ok("stop", "cell")
    assert host.inside("ls", top).stdout == before


def test_a_drop_in_takes_from_a_service_what_it_could_do_before(host: Booted) -> None:
    assert host.inside("systemctl", "start", "demo").returncode == 0
    assert outcome(host) == {"allowed"}
    said = host.ok("init", "demo")
    assert "demo  ok" in said
    assert outcome(host) == {"refused"}, "it was restarted with it"
    assert host.shown("demo", "DropInPaths") == ["/etc/systemd/system/demo.service.d/layout.conf"]
    done = host.layout("exec", "demo", "--", "sh", "-c", "unshare --mount true || exit 9")
    assert done.returncode == 9, done
    exposure = re.search(r"exposure +([0-9.]+) of 10, ([0-9.]+) without it", host.ok("show", "demo"))
    assert exposure is not None
    assert float(exposure[1]) < 4 < 8 < float(exposure[2]), "the drop-in of last time is not the unit's"
    assert findings(host, "demo") == []


def test_paths_with_what_means_something_to_systemd_are_paths(host: Booted, tree: Path) -> None:
    root = "/jails/x y%n $HOME ${A} \"q\" 'p';z\\w"
    config = host.file('/jails/la$HOME 50%d "q".toml')
    config.write_text(f"root = {json.dumps(root)}\n")
    site = ("--config", "/jails/" + config.name)
    host.ok(*site, "init", "a-b_c", "--base", tree, "--profile", "a", "--no-mount")
    host.ok(*site, "start", "a-b_c", "--engine", "unit")
    assert host.shown("layout-a-b_c", "RootDirectory") == [f"{root}/j/a-b_c"]
    assert host.shown("layout-a-b_c", "AssertResult", "NeedDaemonReload") == ["no", "yes"]
    assert page(host) == "hello"
    host.ok(*site, "stop", "a-b_c")
    journal = host.inside("journalctl", "-b", "-o", "cat", "--no-pager").stdout.splitlines()
    faults = [line for line in journal if "/systemd/system/layout-" in line]
    assert faults == []


def test_systemd_nspawn_keeps_a_jail_by_its_own_file(host: Booted) -> None:
    text = host.ok("render", "nspawn", "a")
    unit = "systemd-nspawn@a.service"
    directory = host.file("/etc/systemd/nspawn")
    directory.mkdir()
    (directory / "a.nspawn").write_text(text)
    dropin = host.state / f"system/{unit}.d"
    dropin.mkdir()
    # What its comments tell an administrator to do.
    said = [line[4:] for line in text.splitlines() if line.startswith("#   ")]
    (dropin / "layout.conf").write_text("\n".join(said) + "\n")
    (host.state / "var/lib/machines").mkdir()
    (host.state / "var/lib/machines/a").symlink_to("/jails/j/mroot")
    host.inside("systemctl", "daemon-reload")
    done = host.inside("systemctl", "start", unit)
    assert done.returncode == 0, host.inside("journalctl", "-u", unit, "--no-pager").stdout
    leader = int(host.inside("machinectl", "show", "--value", "--property=Leader", "a").stdout)
    end = time.monotonic() + 30
    while page(host) != "hello":
        assert time.monotonic() < end
    pid = int(host.inside("cat", f"/proc/{leader}/task/{leader}/children").stdout)
    process = status(host, pid)
    assert int(process["Uid"].split()[0]) % 65536 == 80, "shifted"
    assert int(process["Uid"].split()[0]) > 65536
    assert process["CapEff"] == "0" * 16
    environment = host.inside("cat", f"/proc/{pid}/environ").stdout.split("\0")
    assert set(environment) >= HOSTILE
    mounts = {
        line.split()[4]: line.split()[5].split(",")
        for line in host.inside("cat", f"/proc/{pid}/mountinfo").stdout.splitlines()
    }
    assert "ro" in mounts["/"]
    assert "ro" in mounts["/s"]
    for place in ("/t", "/dev/shm"):
        assert {"rw", "noexec"} <= set(mounts[place])
    assert "/run/httpd" in mounts
    begin = time.monotonic()
    host.inside("systemctl", "stop", unit)
    assert time.monotonic() - begin < 30, "it is asked to end, not waited for until it is killed (90 s)"
    assert "httpd" not in host.inside("ps", "-A", "-o", "args").stdout
    assert not host.file("/run/layout/a").exists()


def test_all_of_it_is_there_after_a_boot(host: Booted) -> None:
    host.ok("init", "b", "--profile", "a", "--no-mount")
    host.ok("fstab", "--install")
    host.ok("init", "thin", "lone", "--no-mount")
    for name in ("a", "cell", "thin", "lone"):
        install(host, f"layout-{name}.service", host.ok("render", "unit", name))
    host.ok("init", "demo", "--no-mount")
    host.reboot()
    failed = host.inside("systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout
    assert "layout" not in failed
    assert "jails" not in failed
    jails = json.loads(host.ok("--json", "status"))["jails"]
    engines = {name: jail["running"] and jail["running"]["engine"] for name, jail in jails.items()}
    own = {"thin": "bwrap", "lone": "direct"}
    assert engines == {"a": "unit", "b": None, "cell": "nspawn", "demo": "systemd", **own}
    assert host.shown("jails-j-b-t.mount", "ActiveState") == ["active"], "by its own fstab-generator"
    # And b is mounted as planned.
    assert findings(host, "thin", "lone") == []
    assert findings(host, "a", "b", "cell", "demo") == ["A6-outside", "S2-world", "S3-weak"]
    assert page(host) == "hello"
    answer = host.inside(BUSYBOX, "nc", "-w", "5", "10.79.1.2", "22").stdout
    assert answer == "0\n", "by the link that the unit made"
    assert "layout-cell" in host.inside("nft", "list", "tables").stdout
    assert outcome(host) == {"refused"}
    # What systemd has started layout can stop and start, by the same unit.
    host.ok("stop", "a", "cell")
    for name in own:
        assert host.inside("systemctl", "stop", f"layout-{name}").returncode == 0
        assert state(host, name) is None
    assert state(host, "a") is None
    assert host.shown("layout-a", "ActiveState") == ["inactive"]
    host.ok("start", "a", "--engine", "unit")
    assert host.shown("layout-a", "ActiveState", "FragmentPath") == [
        "active",
        "/etc/systemd/system/layout-a.service",
    ]
    host.ok("stop", "a")


def test_destroy_gives_a_service_back_what_it_had(host: Booted) -> None:
    host.ok("init", "demo")
    host.ok("start", "demo")
    assert outcome(host) == {"refused"}
    assert "still there" not in host.layout("destroy", "demo").stderr
    assert host.shown("demo", "DropInPaths", "ActiveState") == ["active", ""]
    assert outcome(host) == {"allowed"}
    assert not os.path.exists(host.state / "system/demo.service.d")


def test_destroy_names_the_unit_that_an_administrator_has_installed(host: Booted) -> None:
    host.ok("init", "b", "--profile", "a", "--no-mount")
    host.ok("umount", "b")
    unit = host.state / "system/layout-b.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    done = host.layout("destroy", "b")
    unit.unlink()
    assert done.returncode == 0, done
    assert "/etc/systemd/system/layout-b.service is still there" in done.stderr
