"""Kind service on a pretended FreeBSD host: svcj set in the only safe order, started, proven, taken away."""

from __future__ import annotations

import re
import shlex

import pytest
from test_freebsd_running import Whole, _host  # noqa: F401

from tests.test_designs import played

pytestmark = pytest.mark.box

SCRIPT = """\
#!/bin/sh
#
# PROVIDE: demo
# REQUIRE: DAEMON

. /etc/rc.subr

name="demo"
rcvar="demo_enable"
load_rc_config $name
: ${demo_enable:="NO"}
: ${demo_svcj_options:="net_basic"}
%s
pidfile="/var/run/${name}.pid"
procname="/bin/sleep"
command="/usr/sbin/daemon"
command_args="-f -p $pidfile /bin/sleep 5000"
run_rc_command "$1"
"""
START = "service demo onestart; come 'service demo onestatus'"
"""daemon(8) writes its pidfile before it is the program that rc.subr(8) looks for."""
PROFILE = """\
kind = "service"
description = "a service of the host"
[freebsd.confine]
options = [%s]
"""


def installed(host: Whole, *, more: str = "", name: str = "demo") -> None:
    host.write("script", (SCRIPT % more).replace("demo", name))
    host.ok(f"install -m 755 script /usr/local/etc/rc.d/{name}")


def options(host: Whole, *words: str, name: str = "demo", more: str = "") -> None:
    host.profile(name, PROFILE % ", ".join(f'"{word}"' for word in words) + more)


def calls(host: Whole) -> list[str]:
    """Return what changed rc.conf or a service since the last look."""
    text = host.ok("personality calls; : >/run/personality/calls")
    wanted = re.compile(r"(sysrc (-x )?demo_svcj|service demo one(start|stop)$|jail )")
    return [line for line in text.splitlines() if wanted.match(line) and " -q demo" not in line]


def jailed(host: Whole) -> list[str]:
    return host.ok("jls name").split()


def test_a_running_service_is_stopped_set_started_and_given_back(host: Whole) -> None:
    installed(host)
    host.ok(START)
    calls(host)
    steps = host.does("plan", "demo", "--profile", "svc")
    assert [line.split()[0] for line in steps.splitlines()[-4:]] == ["stop", "sysrc", "sysrc", "start"]
    assert "for jail(8): ip4=inherit allow.reserved_ports ip6=inherit" in steps
    assert calls(host) == [], "a plan changes nothing"
    done = host.layout("init", "demo", "--profile", "svc")
    assert done.code == 0, done
    assert "the file system is the host's" in done.err
    made = calls(host)
    assert [line for line in made if not line.startswith("jail ")] == [
        "service demo onestop",
        "sysrc demo_svcj=YES",
        "sysrc demo_svcj_options=net_basic",
        "service demo onestart",
    ]
    assert next(line for line in made if line.startswith("jail ")).startswith(
        "jail -q -c path=/ mount.nodevfs"
    )
    assert jailed(host) == ["svcj-demo"]
    assert host.ok("sysrc -n demo_svcj demo_svcj_options").splitlines() == ["YES", "net_basic"]
    assert "0 changes" in host.does("init", "demo")
    assert calls(host) == [], "the second run has nothing to do"
    assert host.codes() == set()
    assert host.ok(
        "ls /usr/local/etc/layout; ! sysrc -n jail_list | grep demo; test ! -e /etc/jail.conf.d/demo.conf"
    )
    calls(host)
    assert "destroyed" in host.does("destroy", "demo")
    assert [line for line in calls(host) if line.startswith("s")] == [
        "service demo onestop",
        "sysrc -x demo_svcj",
        "sysrc -x demo_svcj_options",
        "service demo onestart",
    ]
    host.ok('service demo onestatus; ! grep svcj /etc/rc.conf; test -z "$(jls name)"')


def test_the_worked_example_does_what_it_says(host: Whole) -> None:
    installed(host)
    host.ok(START)
    said = {}
    for command, wanted in played("service", 0):
        program, *words = shlex.split(command)
        assert program == "layout"
        said[words[0]] = host.does(*words)
        lines = [
            line for line in said[words[0]].splitlines() if "sysrc" in line or "demo" in line.split()[1:2]
        ]
        assert not wanted or [" ".join(line.split()) for line in lines] == [
            " ".join(one.split()) for one in wanted
        ]
    assert "sleep 5000" in said["exec"]
    assert "personality" not in said["exec"], "it sees its own processes alone"
    assert "0 errors" in said["verify"]


def test_a_stopped_service_stays_stopped(host: Whole) -> None:
    installed(host)
    host.does("init", "demo", "--profile", "svc")
    assert not [line for line in calls(host) if line.startswith(("service", "jail"))]
    assert jailed(host) == []
    said = host.layout("start", "demo")
    assert said.code == 0, said
    assert re.search(r"demo: running, process \d+, svcj", said.out)
    assert "the file system is the host's" in said.err
    state = host.told("status")["jails"]["demo"]["running"]
    assert (state["engine"], state["log"]) == ("svcj", "/var/log/svcj_demo_console.log")
    assert host.does("exec", "demo", "--", "/bin/sh", "-c", "echo in; test -w /etc/rc.conf") == "in\n"
    assert calls(host)[:1] == ["service demo onestart"]
    assert "demo: stopped" in host.does("stop", "demo")
    assert [line for line in calls(host) if line.startswith("service")] == ["service demo onestop"]
    assert jailed(host) == []
    assert "not running" in host.fails("exec", "demo", "--", "/bin/true")
    assert "whose files are the host's" in host.fails("manage", "demo", "--", "/bin/true", code=2)


def test_show_says_what_it_is(host: Whole) -> None:
    installed(host)
    options(host, "netv4", "mlock", more='ipaddrs = ["192.0.2.10"]\n')
    host.does("init", "demo")
    assert host.ok("sysrc -n demo_svcj_ipaddrs").strip() == "192.0.2.10"
    shown = host.does("show", "demo")
    for text in (
        "a service of the host, in the jail svcj-demo",
        "netv4 mlock",
        "ip4=new allow.reserved_ports allow.mlock ip4.addr=192.0.2.10",
        "the file system is the host's",
    ):
        assert text in shown
    assert "mroot" not in shown, "it has no base"
    assert host.told("show", "demo")["jails"]["demo"]["rows"]["options"] == "netv4 mlock"
    host.does("start", "demo")
    assert host.ok("jls -j svcj-demo ip4.addr allow.mlock").split() == ["192.0.2.10", "true"]
    checked = host.layout("profile", "check", "/usr/local/etc/layout/profiles/demo.toml")
    assert "options netv4 mlock: ip4=new" in checked.err
    assert "mlock: to lock memory (allow.mlock)" in checked.err
    options(host, "netv4")
    assert "demo_svcj_ipaddrs taken out" in host.layout("-v", "init", "demo").err
    assert host("sysrc -n demo_svcj_ipaddrs").code == 1
    assert host.ok("jls -j svcj-demo ip4 allow.mlock").split() == ["inherit", "false"]


def test_without_a_network_word_there_is_no_network(host: Whole) -> None:
    installed(host)
    options(host)
    assert "it has no network at all" in host.layout("init", "demo").err
    host.does("start", "demo")
    assert host.ok("jls -j svcj-demo ip4 ip6").split() == ["disable", "disable"], (
        "not the script's own default"
    )
    assert host.codes() == set()


def test_what_cannot_be_is_said_before_anything_changes(host: Whole) -> None:
    installed(host)
    for words, said in (
        (("net_bsic",), "did you mean 'net_basic'?"),
        (("settime",), "on FreeBSD 15.0"),
    ):
        options(host, *words)
        assert said in host.fails("init", "demo", code=2)
    options(host, "vmm")
    assert "kldload vmm" in host.fails("init", "demo")
    options(host, "net_basic")
    host.ok("sed -i 's/^: ..demo_svcj_options.*/demo_svcj=\"NO\"/' /usr/local/etc/rc.d/demo")
    assert "pins it out" in host.fails("init", "demo")
    installed(host)
    assert "rc_name" in host.fails("init", "nothing", "--profile", "svc")
    assert "mounts file systems" in host.fails("init", "zfs", "--profile", "svc")
    host.ok("sed -i s/name=.demo./name=other/ /usr/local/etc/rc.d/demo")
    assert "service.rc_name = 'other'" in host.fails("init", "demo")
    installed(host)
    host.ok(
        "personality set sysctl security.jail.jailed 1; personality set sysctl security.jail.children.max 0"
    )
    assert "room for one more jail" in host.fails("init", "demo")
    host.ok("personality set sysctl security.jail.children.max 3")
    host.ok("cp /etc/rc.subr subr; grep -v _svcj subr >/etc/rc.subr")
    assert "no service jails" in host.fails("init", "demo")
    host.ok("cp subr /etc/rc.subr")
    assert [line for line in calls(host) if line.startswith(("sysrc demo_svcj=", "service", "jail "))] == []
    host.does("init", "demo")
    host.ok("personality set sysctl security.jail.children.max 0")
    assert "room for one more jail" in host.fails("start", "demo")


def test_a_service_that_does_not_come_up_is_put_back(host: Whole) -> None:
    installed(host, more='[ "$_rc_svcj" != jailing ] || { echo cannot live here >&2; exit 1; }')
    host.ok(f"{START}; sysrc demo_svcj_options=mlock")
    calls(host)
    said = host.fails("init", "demo", "--profile", "svc")
    assert "cannot live here" in said
    host.ok("service demo onestatus")
    assert host("sysrc -n demo_svcj").code == 1
    assert host.ok("sysrc -n demo_svcj_options").strip() == "mlock"
    assert [line for line in calls(host) if line.startswith("s")][-1] == "service demo onestart"


def test_verify_finds_what_is_not_as_planned(host: Whole) -> None:
    installed(host)
    host.does("init", "demo", "--profile", "svc")
    host.does("start", "demo")
    assert host.codes() == set()
    host.ok("jail -m name=svcj-demo allow.raw_sockets")
    found = host.findings()
    assert [(f["code"], f["path"], f["found"]) for f in found] == [
        ("S2-svcj", "svcj-demo", "allow.raw_sockets is true")
    ]
    host.does("restart", "demo")
    host.ok("sysrc demo_svcj_options='net_basic mlock'")
    assert host.codes() == {"S12-svcj"}
    host.does("stop", "demo")
    assert "layout init demo" in host.fails("start", "demo")
    host.does("init", "demo")
    assert host.codes() == set()
    # Flipped by hand under the running service, and started once more: now it runs outside.
    host.ok(f"service demo onestop; sysrc demo_svcj=NO; {START}; sysrc demo_svcj=YES")
    assert host.codes() == {"S3-svcj"}
    assert "runs outside its jail" in host.fails("start", "demo")
    host.ok("kill $(cat /var/run/demo.pid); come '! test -e /var/run/demo.pid'")
    host.ok("echo demo_svcj=NO >/usr/local/etc/rc.conf.d/demo")
    assert [(f["code"], f["path"]) for f in host.findings()] == [
        ("S12-svcj", "/usr/local/etc/rc.conf.d/demo")
    ]
    host.ok("rm /usr/local/etc/rc.conf.d/demo")
    host.ok("mv /usr/local/etc/rc.d/demo /tmp/demo-away")
    assert host.codes() == {"S5-rc-d"}
    host.ok("mv /tmp/demo-away /usr/local/etc/rc.d/demo; echo 'demo_svcj=NO' >>/etc/rc.conf.local")
    assert host.codes() == {"S12-svcj"}
    host.does("init", "demo")
    assert host.codes() == set()


def test_a_trial_leaves_rc_conf_alone(host: Whole) -> None:
    installed(host)
    host.ok(START)
    trial = host.work / "trial"
    host.does("--root", trial, "init", "demo", "--profile", "svc")
    assert host("sysrc -n demo_svcj").code == 1
    assert 'demo_svcj="YES"' in host.ok(f"cat $(find {trial} -path '*rc.conf.d/demo')")
    assert "a trial" in host.fails("--root", trial, "start", "demo")
    host.does("--root", trial, "destroy", "demo")
    host.ok("service demo onestatus")


def test_a_name_that_is_no_service_is_given_by_the_profile(host: Whole) -> None:
    installed(host, name="other_d")
    options(host, "net_basic", name="web-1", more='[freebsd.service]\nrc_name = "other_d"\n')
    host.does("init", "web-1")
    host.does("start", "web-1")
    assert jailed(host) == ["svcj-other_d"]
    assert host.codes() == set()
    host.does("destroy", "web-1")
    assert jailed(host) == []
