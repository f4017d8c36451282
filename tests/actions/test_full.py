"""A full jail on Linux: its own world with its own accounts, made once, run, entered, verified, destroyed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from busybox_yard import BUSYBOX, build, eventually, processes
from net_yard import OUTSIDE, Outside, links, missing, tables
from yard import Yard, clear_mounts, mount, umount

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
    pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}"),
]
ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(program) is None, reason=f"no {program}"))
    for name, program in (("bwrap", "bwrap"), ("nspawn", "systemd-nspawn"))
]
each_engine = pytest.mark.parametrize("engine", ENGINES)

JAIL, GATEWAY = "10.79.1.2", "10.79.1.1"
INETD = "nc -ll -p 24 -e su ann -c 'su -c id' & nc -ll -p 23 -e su ann -c id & exec nc -ll -p 22 -e cat"
"""What inetd would do: echo; who an account is that only the jail has; and who that becomes by su(1)."""
PROFILE = f"""
kind = "full"
description = "a test"
[linux.network]
hostname = "cell.example.test"
ip4 = ["{JAIL}/30"]
ip6 = ["disable"]
gateway = ["{GATEWAY}"]
external = "{OUTSIDE}"
apply = true
[linux.full]
nameservers = ["192.0.2.53"]
search = ["example.test"]
[[linux.redirect]]
port = 2222
to = 22
[[linux.redirect]]
port = 2223
to = 23
[[linux.redirect]]
port = 2224
to = 24
[linux.service]
command = ["/bin/sh", "-c", "{INETD}"]
capabilities = ["setuid", "setgid", "chown", "dac_override", "net_bind_service"]
ports = ["22/tcp", "23/tcp", "24/tcp"]
ready = {{ tcp = "{JAIL}:22", timeout = 30 }}
"""


def write_profile(root: Path, text: str = PROFILE) -> None:
    path = root / "etc/profiles/cell.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    top = tmp_path_factory.mktemp("full")
    base = build(top / "busybox")
    for applet in ("su", "hostname"):
        os.link(base / "bin/busybox", base / "bin" / applet)
    (base / "bin/busybox").chmod(0o4755)
    (base / "etc/passwd").write_text("root::0:0:root:/root:/bin/sh\n", encoding="utf-8")
    (base / "etc/ssh").mkdir()
    (base / "etc/ssh/ssh_host_rsa_key").write_text("everybody's\n", encoding="utf-8")
    (base / "etc/ssh/sshd_config").write_text("ListenAddress 0.0.0.0\nMatch User x\n", encoding="utf-8")
    (base / "home").mkdir()
    write_profile(top / "jails")
    yard = Yard(top, "--base", base, names=("cell",))
    try:
        yield yard
    finally:
        yard.run("stop", "cell")
        clear_mounts(top)
        shutil.rmtree(top)


@pytest.fixture(name="yard")
def _yard(whole: Yard, client: Outside) -> Iterator[Yard]:
    """One full jail that does not run; and nothing may be left of what ran."""
    before = processes(), links(), tables()
    write_profile(whole.root)
    yield whole
    whole.run("stop", "cell")
    whole.run("umount", "cell")
    assert eventually(lambda: not processes() - before[0]), processes() - before[0]
    assert (links(), tables()) == before[1:]
    assert whole.mounts() == []


def run(yard: Yard, *words: str) -> str:
    """Run a layout command in a process of its own; return what it said."""
    with yard.process(*words, stdin=subprocess.DEVNULL) as done:
        out, err = done.communicate(timeout=60)
    assert done.returncode == 0, out + err
    return out


def test_the_world_is_whole_and_knows_who_it_is(yard: Yard) -> None:
    world = yard.root / "t/cell"
    assert not (yard.root / "j/mroot").exists(), "nothing is shared"
    assert (world / "etc/hosts").read_text().endswith(f"{JAIL}\tcell.example.test cell\n")
    assert (world / "etc/resolv.conf").read_text().endswith("search example.test\nnameserver 192.0.2.53\n")
    assert (world / "etc/hostname").read_text() == "cell.example.test\n"
    assert len((world / "etc/machine-id").read_text()) == 33
    assert not (world / "etc/ssh/ssh_host_rsa_key").exists(), "a host key that every copy would have"
    sshd = (world / "etc/ssh/sshd_config").read_text().splitlines()
    assert sshd[1:] == [
        f"ListenAddress {JAIL}",
        "",
        "# by layout: ListenAddress 0.0.0.0",
        "Match User x",
    ]
    assert yard.ok("init", "--no-mount", "cell") == "0 changes\n"
    assert yard.run("plan", "cell", "--no-mount").out == ""


def test_what_its_root_changes_is_not_put_back(yard: Yard) -> None:
    """The world is its own: init looks at it from outside only."""
    hosts = yard.root / "t/cell/etc/hosts"
    before = hosts.read_text()
    hosts.unlink()
    hosts.symlink_to("/etc/passwd")
    try:
        assert yard.ok("init", "--no-mount", "cell") == "0 changes\n"
        assert hosts.is_symlink()
    finally:
        hosts.unlink()
        hosts.write_text(before)


@each_engine
def test_the_outside_is_answered_by_accounts_of_its_own(yard: Yard, client: Outside, engine: str) -> None:
    entry = "ann:x:1001:1001:Ann:/:/bin/sh"
    passwd = yard.root / "t/cell/etc/passwd"
    before = passwd.read_text()
    said = yard.run("manage", "cell", "--", "/bin/sh", "-c", f"echo {entry} >>/etc/passwd").err
    assert "cell: not looked for changes" in said
    assert "0 changes" not in said
    try:
        assert yard.ok("start", "cell", "--engine", engine).endswith(f"{engine}, full\n")
        assert client.ask(2222, say="echo") == "echo"
        assert client.ask(2223).startswith("uid=1001(ann) gid=1001")
        # Setuid programs are part of such a world; bwrap has them without effect.
        assert client.ask(2224).startswith("uid=0") is (engine == "nspawn")
        assert "ann" not in Path("/etc/passwd").read_text(), "not the host's"
        assert run(yard, "exec", "cell", "--", "/bin/hostname") == "cell.example.test\n"
        assert run(yard, "exec", "cell", "--", "/bin/sh", "-c", "echo x >/usr/new; cat /usr/new") == "x\n"
        assert (yard.root / "t/cell/usr/new").exists(), "writable to its root, all of it"
        assert yard.verify("cell") == [("cell", "S2-world", "warning")]
        done = yard.run("manage", "cell", "--", "/bin/id")
        assert done.code == 1
        assert "layout exec cell" in done.err
        assert yard.ok("restart", "cell", "--engine", engine).endswith("full\n")
        assert yard.ok("stop", "cell") == "cell: stopped\n"
    finally:
        yard.run("stop", "cell")
        passwd.write_text(before)


def test_a_session_in_the_world_reaches_neither_network_nor_host(yard: Yard) -> None:
    said = run(yard, "manage", "cell", "--", "/bin/sh", "-c", "cat /proc/net/dev; ls /proc/self/fd; touch /y")
    assert OUTSIDE not in said
    assert (yard.root / "t/cell/y").exists()
    (yard.root / "t/cell/y").unlink()
    assert yard.mounts() == [], "the view was the session's own"
    for option in ("--sealed", "--base-ro"):
        assert yard.run("manage", "cell", option, "--", "/bin/id").code == 2


SABOTAGE = {
    "a rule more": ("nft add rule inet layout-cell forward accept", "S2-rules"),
    "a rule less": ("nft flush chain inet layout-cell input", "S2-rules"),
    "no table": ("nft delete table inet layout-cell", "S2-rules"),
    "nothing passed on": ("echo 0 >/proc/sys/net/ipv4/ip_forward", "S2-rules"),
    "no address": ("ip address del {gateway}/30 dev {link}", "S2-address"),
    "another prefix": (
        "ip address del {gateway}/30 dev {link}; ip address add {gateway}/29 dev {link}",
        "S2-address",
    ),
}


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bwrap")
def test_what_is_not_as_planned_of_a_running_jail_is_found(yard: Yard) -> None:
    yard.ok("start", "cell")
    (link,) = {name for name in links() if name.startswith("ly-cell")}
    for what, (script, code) in SABOTAGE.items():
        subprocess.run(script.format(gateway=GATEWAY, link=link), shell=True, check=True)
        assert ("cell", code, "error") in yard.verify("--quick", "cell"), what
        subprocess.run("echo 1 >/proc/sys/net/ipv4/ip_forward", shell=True, check=True)
        yard.ok("restart", "cell")
        assert yard.verify("--quick", "cell") == [("cell", "S2-world", "warning")]
    write_profile(yard.root, PROFILE.replace("/30", "/29"))
    report = json.loads(yard.run("--json", "verify", "--quick", "cell").out)["jails"]["cell"]["findings"]
    assert {
        (one["path"], one["found"], one["expected"]) for one in report if one["code"] == "S2-address"
    } == {
        (f"{link}: {GATEWAY}", "prefix /30", f"{GATEWAY}/29"),
        (f"eth0 in the jail: {JAIL}", "prefix /30", f"{JAIL}/29"),
    }
    write_profile(yard.root, PROFILE.replace("apply = true", "apply = false"))
    assert ("cell", "S2-rules", "error") in yard.verify("--quick", "cell")


def test_an_address_on_an_interface_of_the_host_has_the_prefix_of_the_profile(yard: Yard) -> None:
    on_lo = PROFILE.replace(f'gateway = ["{GATEWAY}"]', 'interface = "lo"').replace("apply = true", "")
    write_profile(yard.root, on_lo)
    yard.ok("start", "cell")
    assert ("cell", "S2-address", "error") not in yard.verify("--quick", "cell")
    write_profile(yard.root, on_lo.replace("/30", "/29"))
    assert ("cell", "S2-address", "error") in yard.verify("--quick", "cell")
    yard.ok("restart", "cell")
    assert ("cell", "S2-address", "error") not in yard.verify("--quick", "cell")
    # And stop takes it away with whatever prefix it has by now.
    script = f"ip address del {JAIL}/29 dev lo; ip address add {JAIL}/28 dev lo"
    subprocess.run(script, shell=True, check=True)
    assert ("cell", "S2-address", "error") in yard.verify("--quick", "cell")
    yard.ok("stop", "cell")
    assert JAIL not in subprocess.run(["ip", "address"], capture_output=True, text=True, check=True).stdout


def test_a_second_view_of_the_world_and_a_weaker_mount_are_found(yard: Yard) -> None:
    yard.ok("mount", "cell")
    assert yard.verify("cell") == [("cell", "S2-world", "warning")]
    there = yard.elsewhere("view")
    mount("--bind", "-o", "nosuid", yard.root / "t/cell/etc", there)
    try:
        assert ("cell", "S1-world", "error") in yard.verify("cell")
    finally:
        umount(there)
    mount("-o", "remount,bind,dev", yard.root / "j/cell")
    assert ("cell", "S2-options", "error") in yard.verify("cell")
    yard.ok("umount", "cell")
    os.mknod(yard.root / "t/cell/disk", 0o600 | 0o060000, os.makedev(7, 0))
    try:
        assert ("cell", "S7-device", "error") in yard.verify("cell")
    finally:
        (yard.root / "t/cell/disk").unlink()


def test_an_sshd_of_the_host_on_every_address_is_warned_of(yard: Yard) -> None:
    """Only where jail and host share a network, so that both can listen on the jail's address."""
    shared = PROFILE.replace(f'gateway = ["{GATEWAY}"]', 'interface = "lo"').replace("apply = true", "")
    write_profile(yard.root, shared)
    yard.ok("mount", "cell")
    script = (
        "import socket, time\nopen('/proc/self/comm', 'w').write('sshd')\n"
        "with socket.create_server(('', 22)):\n print(flush=True)\n time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as host:
        try:
            assert host.stdout is not None
            host.stdout.readline()
            assert ("cell", "S2-sshd", "warning") in yard.verify("--quick", "cell")
        finally:
            host.kill()
    assert ("cell", "S2-sshd", "warning") not in yard.verify("--quick", "cell")


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bwrap")
def test_a_world_whose_root_lays_traps_is_neither_started_nor_entered(yard: Yard) -> None:
    """What layout mounts in a world goes onto directories of that world, and never through a link."""
    dev = yard.root / "t/cell/dev"
    dev.rmdir()
    dev.symlink_to("/etc")
    before = sorted(os.listdir("/etc"))
    try:
        done = yard.run("start", "cell", "--engine", "bwrap")
        assert (done.code, "jail/dev" in done.err) == (1, True), done.err
        done = yard.run("manage", "cell", "--", "/bin/id")
        assert (done.code, "manage/cell/dev" in done.err) == (1, True), done.err
        assert sorted(os.listdir("/etc")) == before
    finally:
        dev.unlink()
        dev.mkdir(0o755)
    yard.ok("start", "cell", "--engine", "bwrap")


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bwrap")
def test_two_jails_cannot_have_one_port_of_the_host(yard: Yard) -> None:
    yard.ok("start", "cell", "--engine", "bwrap")
    other = PROFILE.replace(JAIL, "10.79.1.6").replace(GATEWAY, "10.79.1.5").replace("2223", "2225")
    (yard.root / "etc/profiles/other.toml").write_text(other.replace("2224", "2226"), encoding="utf-8")
    yard.ok("init", "--no-mount", "other", "--base", yard.top / "busybox")
    try:
        done = yard.run("start", "other")
        assert done.code == 1
        assert (
            "redirect *:2222/tcp -> 10.79.1.6:22: found the redirect *:2222/tcp -> 10.79.1.2:22 of cell"
            in (done.err)
        )
        yard.ok("stop", "cell")
        yard.ok("start", "other", "--engine", "bwrap")
    finally:
        yard.run("stop", "other")
        yard.ok("destroy", "other")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_directory_of_the_host_is_seen_and_no_more(yard: Yard, engine: str) -> None:
    data = yard.top / "data"
    data.mkdir(mode=0o755, exist_ok=True)
    (data / "file").write_text("the host's\n", encoding="utf-8")
    mounts = f'[[linux.mounts]]\nsource = "{data}"\ntarget = "srv/data"\n'
    other = PROFILE.replace("[linux.service]", f"{mounts}[linux.service]")
    (yard.root / "etc/profiles/other.toml").write_text(other, encoding="utf-8")
    yard.ok("init", "--no-mount", "other", "--base", yard.top / "busybox")
    try:
        yard.ok("start", "other", "--engine", engine)
        script = "cat /srv/data/file; echo x >/srv/data/new"
        with yard.process("exec", "other", "--", "/bin/sh", "-c", script, stdin=subprocess.DEVNULL) as done:
            out, err = done.communicate(timeout=60)
        assert (out, "Read-only file system" in err) == ("the host's\n", True)
        assert yard.verify("other") == [("other", "S2-world", "warning")]
    finally:
        yard.run("stop", "other")
        yard.ok("destroy", "other")
    assert (data / "file").exists()


def test_the_engine_unit_is_for_shared_roots(yard: Yard) -> None:
    done = yard.run("start", "cell", "--engine", "unit")
    assert (done.code, "layout render unit cell" in done.err) == (2, True)


def test_a_picture_says_what_it_is_and_what_leads_there(yard: Yard) -> None:
    text = yard.ok("show", "cell")
    assert "shared base" not in text
    assert "redirect" in text
    assert "*:2222/tcp -> 10.79.1.2:22" in text
    audit = yard.ok("audit", "cell")
    assert "reached through *:2222/tcp -> 10.79.1.2:22" in audit
    assert "no_new_privs under bwrap only" in audit
    assert "connects to the outside: no; to the host: no" in audit
    assert json.loads(yard.ok("--json", "show", "cell"))["jails"]["cell"]["kind"] == "full"


def test_a_world_that_cannot_be_made_leaves_nothing(yard: Yard) -> None:
    (yard.root / "etc/profiles/other.toml").write_text(PROFILE, encoding="utf-8")
    done = yard.run("init", "--no-mount", "other", "--base", yard.top / "nothing")
    assert done.code == 2
    bad = yard.top / "bad"
    bad.mkdir(exist_ok=True)
    done = yard.run("init", "--no-mount", "other", "--base", bad)
    assert done.code == 2
    assert "root file system" in done.err
    assert sorted(path.name for path in (yard.root / "t").iterdir()) == ["cell"]
    assert not (yard.root / ".layout/jails/other.toml").exists()
    done = yard.run("init", "--no-mount", "cell", "--base", yard.top)
    assert done.code == 2
    assert "a base from" in done.err


def test_its_unit_starts_it_as_the_command_does(yard: Yard) -> None:
    text = yard.ok("render", "unit", "cell")
    assert " start cell\n" in text
    file = yard.top / "layout-cell.service"
    file.write_text(text, encoding="utf-8")
    if shutil.which("systemd-analyze") is not None:
        done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True)
        assert (done.returncode, "layout-cell" in done.stderr) == (0, False), done.stderr


def test_its_rules_are_rendered_for_each_filter(yard: Yard) -> None:
    assert "dnat ip to 10.79.1.2:22" in yard.ok("render", "nft", "cell")
    done = yard.run("render", "pf.conf", "cell")
    assert done.code in {0, 2}, "the profile says nothing for FreeBSD"


def test_a_jail_with_a_shared_root_may_come_later_from_another_base(yard: Yard) -> None:
    other = yard.top / "other"
    if not other.exists():
        build(other)
    yard.ok("init", "--no-mount", "a", "--profile", "default", "--base", other)
    assert str(other) in (yard.root / ".layout/bases/mroot.toml").read_text()
    assert yard.ok("init", "--no-mount", "cell") == "0 changes\n"
    done = yard.run("init", "--no-mount", "a", "--base", yard.top / "busybox")
    assert (done.code, f"a base from {other}" in done.err) == (2, True)
    (yard.root / "etc/profiles/third.toml").write_text(PROFILE, encoding="utf-8")
    yard.ok("init", "--no-mount", "third", "--base", yard.top / "busybox")
    for name in ("third", "a"):
        yard.ok("destroy", name)


def test_it_is_destroyed_whole_and_made_anew(yard: Yard) -> None:
    yard.ok("mount", "cell")
    assert yard.run("destroy", "cell").code == 1, "mounted"
    yard.ok("umount", "cell")
    yard.ok("destroy", "cell")
    assert not (yard.root / "t/cell").exists()
    yard.ok("init", "--no-mount", "cell", "--base", yard.top / "busybox")
    assert json.loads(yard.ok("--json", "status", "cell"))["jails"]["cell"]["running"] is None


@pytest.mark.parametrize("whom", ["daemon", "engine"])
def test_the_rules_of_a_killed_service_are_told_of_and_the_next_start_works(
    yard: Yard, client: Outside, whom: str
) -> None:
    yard.ok("start", "cell")
    (table,) = tables()
    running = json.loads(yard.ok("--json", "status", "cell"))["jails"]["cell"]["running"]
    record = (yard.root / ".layout/run/cell.toml").read_text()
    engine = int(record.partition("pid = ")[2].split()[0])
    os.kill(running["pid"] if whom == "daemon" else engine, signal.SIGKILL)
    assert eventually(lambda: not Path(f"/proc/{engine}/root").exists())
    assert json.loads(yard.run("--json", "status", "cell").out)["jails"]["cell"]["running"] is None
    report = json.loads(yard.run("--json", "verify", "--quick", "cell").out)["jails"]["cell"]["findings"]
    (found,) = [one["found"] for one in report if one["code"] == "S5-service"]
    assert found.endswith(f", with its rules: table {table}")
    yard.ok("start", "cell")
    assert client.ask(2222, say="echo") == "echo"
    assert yard.verify("--quick", "cell") == [("cell", "S2-world", "warning")]
