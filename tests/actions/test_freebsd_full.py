"""A full jail on a pretended FreeBSD host: its world, its alias, its redirects in pf, to the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actions.test_freebsd_running import Whole, base, jailed, mounted

pytestmark = pytest.mark.box

PROFILE = """\
kind = "full"
description = "a world of its own"
manage = "session"
[freebsd.network]
ip4 = ["10.79.0.2/32"]
ip6 = ["disable"]
interface = "lo1"
external = "em0"
nat = true
apply = true
[freebsd.full]
nameservers = ["192.0.2.53"]
[[freebsd.redirect]]
port = 2222
to = 22
[[freebsd.redirect]]
port = 8080
to = 80
address = "192.0.2.1"
[freebsd.service]
rc_conf = ["sshd_enable=YES"]
stop_timeout = 2
"""
PF_CONF = 'nat-anchor "layout/*"\nrdr-anchor "layout/*"\nanchor "layout/*"\n'


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Whole]:
    host = Whole(tmp_path.resolve())
    host.profile("cell", PROFILE)
    host.ok("ifconfig lo1 destroy; personality set interface em0 192.0.2.1; personality set pf enabled")
    host.write("pf.conf", PF_CONF)
    host.ok("cp pf.conf /etc/pf.conf && pfctl -q -f /etc/pf.conf; sysrc pf_enable=YES")
    yield host
    host.close()


def world(host: Whole) -> Path:
    """Return a base with an sshd_config and an identity of its own."""
    path = base(host)
    host.write("base/etc/ssh/sshd_config", "#Port 22\nListenAddress 0.0.0.0\n")
    host.write("base/etc/ssh/ssh_host_ed25519_key", "everybody's\n")
    host.write("base/etc/rc.conf", 'sendmail_enable="YES"\n')
    return path


def rules(host: Whole) -> list[str]:
    return host.ok("pfctl -q -a layout/cell -s nat 2>/dev/null || :").splitlines()


def test_a_full_jail_from_init_to_destroy(host: Whole) -> None:
    host.does("init", "--base", world(host), "cell")
    at = f"{host.root}/t/cell"
    assert host("test -e {host.root}/j/mroot").code != 0
    assert host.ok(f"cat {at}/etc/hosts").endswith("10.79.0.2\tcell\n")
    assert host.ok(f"cat {at}/etc/resolv.conf").endswith("nameserver 192.0.2.53\n")
    assert "ListenAddress 10.79.0.2\n" in host.ok(f"grep -v '^#' {at}/etc/ssh/sshd_config")
    assert "ListenAddress 0.0.0.0" not in host.ok(f"grep -v '^#' {at}/etc/ssh/sshd_config")
    assert host(f"test -e {at}/etc/ssh/ssh_host_ed25519_key").code != 0
    settings = dict(
        line.split("=", 1) for line in host.ok(f"grep = {at}/etc/rc.conf").splitlines() if line[0] != "#"
    )
    assert settings["syslogd_flags"] == '"-ss"'
    assert settings["inetd_flags"] == '"-wW -a 10.79.0.2"'
    assert settings["sendmail_enable"] == '"NONE"', "the last one counts"
    assert settings["sshd_enable"] == '"YES"'
    assert host.ok("sysrc -n jail_enable jail_list cloned_interfaces").split() == ["YES", "cell", "lo1"]
    assert mounted(host) == ["j/cell"]
    assert host.ok("grep -c 'ip4.addr = \"lo1|10.79.0.2/32\"' /etc/jail.conf.d/cell.conf") == "1\n"
    assert rules(host) == []

    assert "running" in host.does("start", "cell")
    assert mounted(host) == ["j/cell", "j/cell/dev"]
    assert "10.79.0.2" in host.ok("ifconfig lo1")
    assert rules(host) == [
        "nat on em0 inet from 10.79.0.2 to any -> (em0)",
        "rdr pass on em0 inet proto tcp from any to (em0) port = 2222 -> 10.79.0.2 port 22",
        "rdr pass on em0 inet proto tcp from any to 192.0.2.1 port = 8080 -> 10.79.0.2 port 80",
    ]
    assert host.codes("cell") == {"S2-world"}
    host.does("exec", "cell", "--", "/bin/sh", "-c", "echo x >/etc/new && chmod 4755 /bin/sh")
    assert host.ok(f"cat {at}/etc/new") == "x\n"
    assert host.codes("cell") == {"S2-world"}
    assert "layout exec cell" in host.fails("manage", "cell", "--", "/bin/sh", "-c", ":")

    host.does("stop", "cell")
    assert (jailed(host), rules(host), mounted(host)) == ([], [], ["j/cell"])
    assert "10.79.0.2" not in host.ok("ifconfig lo1")
    host.does("manage", "cell", "--", "/bin/sh", "-c", "echo y >/etc/new; test -c /dev/null")
    assert host.ok(f"cat {at}/etc/new") == "y\n"
    assert "0 changes" in host.does("init", "cell")
    host.does("umount", "cell")
    host.does("destroy", "cell")
    assert host(f"ls {host.root}/t/cell /usr/local/etc/layout/pf/cell.conf").code != 0


def test_it_starts_at_boot_with_its_alias_and_its_rules(host: Whole) -> None:
    host.does("init", "--base", world(host), "cell")
    host.ok("reboot")
    assert (jailed(host), len(rules(host))) == (["cell"], 3)
    assert "10.79.0.2" in host.ok("ifconfig lo1")
    assert host.codes("cell") == {"S2-world"}
    # Without pf its rules cannot be loaded, and jail(8) does not start it.
    host.ok("sysrc pf_enable=NO")
    (found,) = [one for one in host.findings("cell") if one["code"] == "S2-rules"]
    assert (found["severity"], "next boot" in found["found"]) == ("warning", True)
    host.ok("service jail stop")
    assert rules(host) == []


def test_what_is_not_as_planned_of_a_running_one_is_found(host: Whole) -> None:
    host.does("init", "--base", world(host), "cell")
    host.does("start", "cell")
    host.ok("pfctl -q -a layout/cell -F all")
    assert host.codes("cell") == {"S2-world", "S2-rules"}
    host.does("restart", "cell")
    host.write("more", "rdr pass on em0 inet proto tcp from any to any port 1 -> 10.79.0.2 port 1\n")
    host.ok("pfctl -q -a layout/cell -f more")
    assert host.codes("cell") == {"S2-world", "S2-rules"}
    host.does("restart", "cell")
    assert host.codes("cell") == {"S2-world"}
    host.write("pf.conf", "pass all\n")
    host.ok("pfctl -q -f pf.conf")
    assert host.codes("cell") == {"S2-world", "S2-rules"}
    host.ok("pfctl -q -f /etc/pf.conf; pfctl -q -d")
    assert [one["path"] for one in host.findings("cell") if one["code"] == "S2-rules"] == ["pf"]
    host.ok("pfctl -q -e; jail -R cell")
    assert len(rules(host)) == 3, "what was removed by force leaves its rules"
    assert "cell: what was left of its service taken away" in host.does("recover")
    assert rules(host) == []
    assert "nothing to recover from" in host.layout("recover").err


def test_an_sshd_of_the_host_on_every_address_is_warned_of(host: Whole) -> None:
    host.does("init", "--base", world(host), "cell")
    host.ok("mkdir -p /etc/ssh && echo 'Port 22' >/etc/ssh/sshd_config")
    assert host.codes("cell") == {"S2-world"}, "it is not to start"
    host.ok("sysrc sshd_enable=YES")
    assert host.codes("cell") == {"S2-world", "S2-sshd"}
    started = host.layout("start", "cell")
    assert started.code == 0
    assert "the host's sshd listens on every address" in started.err
    host.ok("echo 'ListenAddress 192.0.2.1' >>/etc/ssh/sshd_config")
    assert host.codes("cell") == {"S2-world"}
    host.ok("echo 'ListenAddress [::]:22' >>/etc/ssh/sshd_config")
    assert host.codes("cell") == {"S2-world", "S2-sshd"}
    # What really listens counts, whatever its files say.
    host.ok("sysrc sshd_enable=NO")
    assert host.codes("cell") == {"S2-world"}
    code = "import socket, time; s = socket.create_server(('', 22)); print('up', flush=True); time.sleep(600)"
    host.write("listen.sh", f'ln -s {sys.executable} sshd; exec ./sshd -c "{code}"\n')
    host.ok(
        "sh listen.sh >up 2>&1 & echo $! >pid; timeout 30 sh -c 'until grep -q up up; do sleep 0.05; done'"
    )
    assert host.codes("cell") == {"S2-world", "S2-sshd"}
    host.ok("kill $(cat pid)")


def test_rules_that_pf_would_not_load_keep_the_jail_from_starting(host: Whole) -> None:
    host.profile("cell", PROFILE.replace("em0", "em7"))
    host.does("init", "--base", world(host), "cell")
    said = host.fails("start", "cell")
    assert "did not start" in said
    assert jailed(host) == []


def test_the_texts_for_pf_and_ipnat_are_those_that_they_take(host: Whole) -> None:
    host.does("init", "--no-mount", "--base", world(host), "cell")
    host.write("anchor", host.does("render", "pf.conf", "cell"))
    host.ok("pfctl -q -n -a layout/cell -f anchor")
    assert "no address of the host" in host.fails("render", "ipnat", "cell", code=2)
    host.profile("cell", PROFILE.replace("to = 22\n", 'to = 22\naddress = "192.0.2.1"\n'))
    host.write("ipnat", host.does("render", "ipnat", "cell"))
    host.ok("ipnat -CF -f ipnat")
    assert host.ok("ipnat -l").splitlines()[1:] == [
        "map em0 10.79.0.2/32 -> 0.0.0.0/32 portmap tcp/udp 10000:65000",
        "map em0 10.79.0.2/32 -> 0.0.0.0/32",
        "rdr em0 192.0.2.1/32 port 2222 -> 10.79.0.2 port 22 tcp",
        "rdr em0 192.0.2.1/32 port 8080 -> 10.79.0.2 port 80 tcp",
    ]
    host.write("ipnat", "rdr em0 192.0.2.1/32 port 2222 -> 10.79.0.2/32 port 22 tcp\n")
    assert host("ipnat -n -f ipnat").code == 1, "the control: it refuses what it does not know"
