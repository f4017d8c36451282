"""pfctl, ifconfig, ldd, daemon and sockstat, under the strict FreeBSD personality."""

from __future__ import annotations

import pytest

from tests.personality.host import Host, _host  # noqa: F401

pytestmark = pytest.mark.box

ANCHORS = 'nat-anchor "layout/*"\nrdr-anchor "layout/*"\nanchor "layout/*"\npass all\n'
RULES = """\
# of one jail
ext = "em0"
nat on $ext inet from 10.0.0.5 to any -> ($ext)
rdr pass on $ext inet proto tcp from any to 192.0.2.10 port 79 -> \\
    10.0.0.5 port 7979
pass in on em0 proto tcp from any to 10.0.0.5 port 7979 keep state
"""


# --- pfctl ----


def test_pf_needs_its_module(host: Host) -> None:
    host.refused("pfctl -s rules", "/dev/pf: No such file or directory")
    host.write("main", ANCHORS)
    host.ok("pfctl -n -f main")
    host.refused("service pf onestart", "/etc/pf.conf")
    host.ok("cp main /etc/pf.conf; service pf onestart; pfctl -s info | grep Enabled")
    host.refused("pfctl -e", "already enabled")


def test_anchors_are_filled_listed_and_flushed(host: Host) -> None:
    host.write("main", ANCHORS)
    host.write("a", RULES)
    host.ok("personality set pf enabled; pfctl -f main; pfctl -a layout/a -f a; pfctl -a layout/b -f - <a")
    assert host.ok("pfctl -s Anchors") == "  layout\n"
    assert host.ok("pfctl -s Anchors -v") == "  layout\n  layout/a\n  layout/b\n"
    assert host.ok("pfctl -a layout/a -s nat").splitlines() == [
        "nat on em0 inet from 10.0.0.5 to any -> (em0)",
        "rdr pass on em0 inet proto tcp from any to 192.0.2.10 port = 79 -> 10.0.0.5 port 7979",
    ]
    assert host.ok("pfctl -a layout/a -s rules").startswith("pass in on em0")
    assert host.ok("pfctl -s nat") == 'nat-anchor "layout/*" all\nrdr-anchor "layout/*" all\n'
    host.ok("pfctl -q -a layout/a -F all")
    assert host.ok("pfctl -s Anchors -v") == "  layout\n  layout/b\n"
    host.refused("pfctl -a layout/a -s nat", "does not exist")
    host.write("main", ANCHORS + f'load anchor "layout/a" from "{host.work}/a"\n')
    host.ok("pfctl -f main; pfctl -a layout/a -F nat; pfctl -a layout/a -s rules | grep -q 'pass in'")
    assert host.ok("pfctl -a layout/a -s nat") == ""


LOADS_NOT = {
    "rdr on em0 inet proto tcp from any to any port 79 -> 10.0.0.5:79": "syntax error",
    "rdr on em0 inet proto tcp from any to any port 70000 -> 10.0.0.5 port 79": "illegal port",
    "rdr on em0 inet proto tcp from any to nowhere port 79 -> 10.0.0.5 port 79": "host specification",
    "nat on em0 inet6 from 10.0.0.5 to any -> (em0)": "host specification",
    "nat on $ext inet from 10.0.0.5 to any -> (em0)": "not defined",
    "match in on em0 inet proto tcp to port 80 rdr-to 10.0.0.5": "syntax error",
    "pass all\nnat on em0 inet from 10.0.0.5 to any -> (em0)": "Rules must be in order",
    "set skip on lo0": "syntax error",
}


def test_lines_that_pf_does_not_load(host: Host) -> None:
    host.write("good", RULES)
    host.ok("personality set pf enabled; pfctl -a layout/a -f good")
    for line, said in LOADS_NOT.items():
        host.write("bad", f"{line}\n")
        host.refused("pfctl -a layout/a -f bad", said, "rules not loaded")
        assert "nat on em0" in host.ok("pfctl -a layout/a -s nat"), "a file that fails changes nothing"


def test_wrong_use_of_pfctl(host: Host) -> None:
    host.ok("personality set pf disabled")
    for wrong in ("", "-a layout/a", "-z", "-s rules more", "-a '*' -s nat", "-t x -T show"):
        host.refused(f"pfctl {wrong}", "usage")
    host.refused("pfctl -F states", "Unknown flush modifier")
    host.refused("pfctl -s states", "Unknown show modifier")
    host.refused("pfctl -a x -f none", "No such file")


# --- ifconfig ----


def test_ifconfig(host: Host) -> None:
    assert host.ok("ifconfig -l") == "lo0 lo1 em0\n"
    host.ok("ifconfig lo7 create; ifconfig lo7 inet 10.0.0.5/32 alias; ifconfig lo7 inet6 fd00::5/128 alias")
    shown = host.ok("ifconfig lo7")
    assert "inet 10.0.0.5 netmask 0xffffffff" in shown
    assert "inet6 fd00::5 prefixlen 128" in shown
    host.ok("ifconfig lo7 inet 10.0.1.1 netmask 255.255.255.0 alias; ifconfig lo7 | grep 0xffffff00")
    host.ok("ifconfig lo7 inet 10.0.0.5 -alias; ! ifconfig lo7 | grep -q 10.0.0.5")
    host.refused("ifconfig lo7 inet 10.0.0.5 -alias", "Can't assign")
    host.refused("ifconfig lo7 create", "already exists")
    host.refused("ifconfig lo9 inet 10.0.0.9 alias", "does not exist")
    host.refused("ifconfig lo7 inet 10.0.0.5/40 alias", "bad value")
    host.refused("ifconfig lo7 netmask 1", "usage")
    host.ok("ifconfig lo7 destroy")
    host.refused("ifconfig lo7", "does not exist")


# --- ldd ----


def test_ldd_prints_as_it_is_told(host: Host) -> None:
    program = host.ok("command -v sort").strip()
    paths = host.ok(f"ldd -f '%p\\n' -f '%p\\n' {program}").splitlines()
    assert [path for path in paths if "libc.so" in path and path.startswith("/")], paths
    assert not [path for path in paths if "/ld-" in path], "the loader itself is not listed"
    once = host.ok(f"ldd -f '%o\\n' {program}")
    assert "\t[vdso] (0x" in once, "one format is for the names that start with lib alone"
    assert host.ok(f"ldd {program}").startswith(f"{program}:\n\tlib")
    host.refused("ldd /bin/busybox", "not a dynamic ELF executable")
    host.refused("ldd /etc/passwd", "not a dynamic executable")
    host.refused("ldd /none", "No such file")
    host.refused("ldd -a /bin/sh", "usage")
    host.refused(f"ldd -f '%q' {program}", "the fact sheet")


# --- daemon ----


def test_daemon_keeps_the_pid_of_its_child(host: Host) -> None:
    host.ok("daemon -p $PWD/pid -f sleep 500; come \"ps -p \\$(cat pid) -o command= | grep -x 'sleep 500'\"")
    host.refused("daemon -p $PWD/pid sleep 1", "process already running, pid: ")
    host.ok("kill $(cat pid); come '! test -e pid'")
    host.refused("daemon -p /none/pid true", "No such file")
    host.refused("daemon -u nobody-such true", "unknown user")
    host.refused("daemon", "usage")
    host.refused("daemon -s 1 true", "usage")


def test_daemon_resets_no_signal(host: Host) -> None:
    host.ok(
        "trap '' INT; daemon -p $PWD/pid -f sleep 500\n"
        "come \"ps -p \\$(cat pid) -o command= | grep -x 'sleep 500'\"\n"
        "kill -INT $(cat pid); sleep 0.1; kill $(cat pid)"
    )


def test_daemon_starts_again_what_ends(host: Host) -> None:
    host.ok(
        "daemon -r -P $PWD/super -o $PWD/log sh -c 'echo up; exec sleep 0.2'\n"
        "come 'test $(grep -c up log) -ge 2' && kill $(cat super) && come '! test -e super'"
    )


def test_the_pidfile_of_a_command_jail_holds_jail_itself(host: Host) -> None:
    host.ok(
        "base r; daemon -p $PWD/pid jail -q -c path=$PWD/r name=x command=/bin/sleep 500\n"
        "come 'jls -j x jid'\n"
        "ps -p $(cat pid) -o command= | grep '^jail -q -c'; killall -j x -INT"
    )
    host.ok("come '! test -e pid'")


def test_sockstat_lists_who_listens(host: Host) -> None:
    host.ok(
        "base r; jail -q -c path=$PWD/r name=x persist ip4=inherit\n"
        "(exec busybox httpd -f -p 127.0.0.1:18079 -h /tmp) & echo $! >own\n"
        "(exec jexec x /bin/busybox httpd -f -p 127.0.0.1:18080 -h /) &\n"
        "come 'sockstat -q -4lj x | grep 18080' && come 'sockstat -q -4l | grep 18079'"
    )
    out = host.ok("sockstat -4 -l -p 18079-18080 -q")
    assert sorted(line.split()[5] for line in out.splitlines()) == ["127.0.0.1:18079", "127.0.0.1:18080"]
    assert "18080" in host.ok("sockstat -46l -P tcp -j x")
    assert "18079" not in host.ok("sockstat -4l -j x")
    assert host.ok("sockstat -l -p 1").startswith("USER     COMMAND")
    host.refused("sockstat -j none", "jail not found")
    host.refused("sockstat -c", "usage")
    host.ok("kill $(cat own); jail -R x")
