"""Service jails of rc.subr, under the strict FreeBSD personality."""

from __future__ import annotations

import pytest

from tests.personality.host import Host, _host  # noqa: F401

pytestmark = pytest.mark.box

# What a port installs: a daemon that rc starts by itself, with the options that it asks for.
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
pidfile="/var/run/demo.pid"
procname="/bin/sleep"
command="/usr/sbin/daemon"
command_args="-f -p $pidfile /bin/sleep 5000"
start_precmd="echo precmd"
run_rc_command "$1"
"""


def installed(host: Host, script: str = SCRIPT) -> None:
    host.write("demo", script)
    host.ok("install -m 755 demo /usr/local/etc/rc.d/demo")


WAIT = "come '! jls -j svcj-demo jid'"


# daemon(8) writes its pidfile before it is the program that rc.subr looks for.
ONCE_UP = "come 'service demo onestatus'"
START = f"service demo onestart; {ONCE_UP}"


def test_the_life_of_a_service_jail(host: Host) -> None:
    installed(host)
    host.ok(f"sysrc demo_svcj=YES; {{ {START}; }} | grep precmd; service demo onestatus")
    shown = host.ok("jls -n -j svcj-demo path host.hostname ip4 ip6 allow.raw_sockets sysvshm").strip()
    assert (
        shown
        == "path=/ host.hostname=freebsd.test ip4=inherit ip6=inherit allow.raw_sockets=false sysvshm=disable"
    )
    assert host.ok("ps -J svcj-demo -o command= | grep ^/bin") == "/bin/sleep 5000\n"
    assert "sshd" not in host.ok("jexec svcj-demo ps -axo command= ")
    host.refused("service demo onestart", "already running?")
    host.ok("service demo onestop; ! service demo onestatus; ! jls -j svcj-demo; test ! -e /var/run/demo.pid")
    host.refused("service demo onestop", "not running?")
    host.ok(f"{START}; service demo onerestart; {ONCE_UP}; service demo onestatus; jail -r svcj-demo; {WAIT}")
    host.refused("service demo onestatus", "is not running")


def test_flipping_the_variable_loses_a_running_service(host: Host) -> None:
    installed(host)
    host.ok(f"{START}; service demo onestatus; sysrc demo_svcj=YES")
    host.refused("service demo onestatus", "is not running")
    host.refused("service demo onestop", "not running?")
    host.ok(f"sysrc demo_svcj=NO; service demo onestop; sysrc demo_svcj=YES; {START}")
    host.ok("sysrc demo_svcj=NO")
    host.refused("service demo onestatus", "is not running")
    host.ok("sysrc -x demo_svcj; sysrc svcj_all_enable=YES; service demo onestatus; service demo onestop")


def test_options(host: Host) -> None:
    installed(host)
    host.ok(
        "sysrc demo_svcj=YES demo_svcj_options='netv4 mlock nfsd sysvipcnew' demo_svcj_ipaddrs=192.0.2.10"
    )
    host.ok(START)
    names = "ip4 ip4.addr allow.mlock allow.nfsd enforce_statfs sysvsem allow.reserved_ports ip6"
    assert host.ok(f"jls -j svcj-demo {names}").split() == [
        "new",
        "192.0.2.10",
        "true",
        "true",
        "1",
        "new",
        "true",
        "disable",
    ]
    host.ok("service demo onestop; sysrc -x demo_svcj_ipaddrs; sysrc demo_svcj_options=' '; " + START)
    assert host.ok("jls -j svcj-demo ip4 ip6").split() == ["disable", "disable"]
    assert "lo" in host.ok("jexec svcj-demo cat /proc/self/net/dev")
    assert host.ok("jexec svcj-demo cat /proc/self/net/dev | grep -c :").strip() == "1", "no network at all"
    host.ok("service demo onestop; sysrc demo_svcj_options='mlokc net_basic'")
    assert "unknown service jail option: mlokc" in host.ok(START)
    host.ok("service demo onestop")
    for wrong, said in (("sysvipc sysvipcnew", "more than one"), ("netv4 netv6", "use net_basic")):
        host.ok(f"sysrc demo_svcj_options='{wrong}'")
        host.refused("service demo onestart", said)
    host.ok("sysrc demo_svcj_options=vmm")
    host.refused("service demo onestart", "unknown parameter: allow.vmm")


def test_a_jail_in_a_jail_needs_room(host: Host) -> None:
    installed(host)
    host.ok("sysrc demo_svcj=YES; personality set sysctl security.jail.jailed 1")
    host.ok("personality set sysctl security.jail.children.max 0")
    host.refused("service demo onestart", "children.max")
    host.ok("personality set sysctl security.jail.children.max 1; " + START + "; service demo onestop")
    assert "sysrc demo_svcj=YES\n" in host.ok("personality calls")
