"""jail(8), jail.conf(5), jls, jexec and the processes of jails, under the strict FreeBSD personality."""

from __future__ import annotations

import json

import pytest

from tests.personality.host import Host, _host, full  # noqa: F401

pytestmark = pytest.mark.box


# --- jail.conf ----

CONF = """\
a {
  path = "/tmp/nowhere";
  persist;
%s
}
"""
BAD_CONF = {
    "blank in a token": "host.hostname = a b;",
    "no semicolon": "exec.clean",
    "unquoted quote-worthy": "host.hostname = a{b;",
    "undefined variable": 'host.hostname = "$nothing";',
    "several values in a string": 'exec.prepare = a, b; host.hostname = "x${exec.prepare}";',
    "comment in a token": "host.hostname = http://x;",
    "hash in a token": "host.hostname = a#b;",
    "two values": "host.hostname = a, b;",
    "name again": "name = b;",
    "variable named like a parameter": '$persist = "x";',
    "unterminated string": 'host.hostname = "a;',
    "lone dollar": 'host.hostname = "cost $ 5";',
    "nested": "b { persist; }",
    "include inside": '.include "/etc/x";',
}


def test_jail_conf_that_does_not_parse(host: Host) -> None:
    for name, statement in BAD_CONF.items():
        host.write("c", CONF % statement)
        assert host("jail -f c -e ,").code != 0, name
    host.write("c", CONF % 'host.hostname = "a b"; # fine')
    host.ok("jail -f c -e ,")


BAD_PARAMETERS = {
    "exec.strat = x;": "unknown parameter: exec.strat",
    "allow.nosuid;": "unknown parameter: allow.nosuid",
    "allow.routing;": "unknown parameter: allow.routing",
    "enforce_statfs = 3;": "invalid value",
    "exec.clean = yes;": "unknown boolean",
    "ip4 = on;": "unknown value",
    "ip4.addr = 10.9.9.9;": "Can't assign requested address",
    "ip4.addr = 'lo7|10.9.9.9';": "lo7 does not exist",
    "path = relative;": "not an absolute path",
    "path = /tmp/;": "trailing slash",
    "persist = false;": "persist, exec.start or command",
    "depend = other;": "undefined jail",
    "exec.prestart = false;": "false: failed",
    "mount = 'a b';": "missing field",
    "mount.fstab = /none;": "No such file",
    "vnet; ip4.addr = 127.0.0.1;": "vnet",
}


def test_parameters_that_fail_at_creation(host: Host) -> None:
    host.ok("base r")
    for statement, said in BAD_PARAMETERS.items():
        host.write("c", f'a {{ path = "{host.work}/r"; persist; {statement} }}')
        host.refused("jail -f c -c a", said)
    assert host.ok("jls name") == ""
    good = "ip4.addr = 127.0.0.1; securelevel = 2; allow.mlock;"
    host.write("c", f'a {{ path = "{host.work}/r"; persist; {good} }}')
    host.ok("jail -f c -c a && jail -f c -r a")


def test_jail_conf_language(host: Host) -> None:
    host.write(
        "c",
        f"""\
$root = "{host.work}";   // a comment
host.hostname = "$name.before";
* {{ exec.prepare = "true"; securelevel = 1; }}
.include "{host.work}/d/*.conf";
one {{ /* and
  another */ path = "$root/r\\x2d1"; exec.prepare += 'echo "$x"'; allow.nomount; mount.nodevfs; persist; }}
* {{ securelevel = 3; }}
""",
    )
    host.write(
        "d/two.conf", 'two { path=/${name}/x-1_2; host.hostname = "a\\"b\\$c\\\\"; command = a, "b c"; }\n'
    )
    two, one = host.ok("jail -e '|' -f c").splitlines()
    assert one.split("|") == [
        "name=one",
        "host.hostname=one.before",
        "exec.prepare=true",
        'exec.prepare=echo "$x"',
        "securelevel=3",
        f"path={host.work}/r-1",
        "allow.mount=false",
        "mount.devfs=false",
        "persist",
    ]
    assert two.split("|")[1] == 'host.hostname=a"b$c\\'
    assert two.split("|")[-3:] == ["path=/two/x-1_2", "command=a", "command=b c"] or "command=b c" in two
    host.refused("jail -f c -c three", "not found")
    host.refused("jail -c", "/etc/jail.conf: No such file")
    for wrong in ("-C one", "-l one", "-f c", "-c -f c -e , x", "-R -f c one"):
        host.refused(f"jail {wrong}", "usage")


# --- jails ----


def test_the_life_of_a_jail(host: Host) -> None:
    full(host)
    assert host.ok("jail -i -f a.conf -c a") == "1\n"
    assert host.mounted() == [
        ("/m", "/j/a", "nullfs"),
        ("/t", "/j/a/t", "nullfs"),
        ("devfs", "/j/a/dev", "devfs"),
    ]
    assert (host.work / "log").read_text().splitlines() == ["up", "a.example", "/bin:/usr/bin /"]
    host.refused("jail -f a.conf -c a", "already exists")
    host.ok("umount $PWD/j/a/dev; umount $PWD/j/a/t")
    host.refused("umount $PWD/j/a", "Device busy")  # its root is a jail's
    host.ok("mount -t nullfs -o nosuid,noexec $PWD/t $PWD/j/a/t; mount -t devfs -o ruleset=4 . $PWD/j/a/dev")
    host.ok("jail -f a.conf -r a")
    assert (host.work / "t/stopped").exists()
    assert (host.work / "log").read_text().endswith("a gone\n")
    assert (host.mounted(), host.ok("jls jid")) == ([], "")
    host.refused("jail -f a.conf -r a", "not found")


def test_removal_without_the_configuration_leaves_the_mounts(host: Host) -> None:
    full(host)
    host.ok("jail -f a.conf -c a; jail -r a")
    assert (len(host.mounted()), (host.work / "t/stopped").exists()) == (3, False)
    host.refused("jail -f a.conf -c a", "Resource deadlock avoided")
    assert len(host.mounted()) == 3, "what failed to be mounted again is not taken down"
    host.ok("umount $PWD/j/a/dev; umount -a -F a.fstab; jail -f a.conf -c a; jail -f a.conf -rc a; jail -R a")


def test_inside_a_jail_root_is_confined(host: Host) -> None:
    full(host)
    host.ok("jail -f a.conf -c a; echo secret >secret; sleep 1000 & echo $! >victim")
    inside = "jexec a /bin/sh -c"
    host.refused(f"{inside} 'touch /x'", "Read-only file system")
    host.ok(f"{inside} 'touch /t/x' && test -e t/x")
    for attempt in (
        "mount -t tmpfs x /t",
        "mount -o remount,rw /",
        "umount /t",
        "chroot /t /bin/sh",
        "mknod /t/m c 1 1",
    ):
        host.refused(f"{inside} '{attempt}'")
    host.refused(f"cp /bin/busybox t/; {inside} '/t/busybox true'", "Permission denied")
    host.refused(f'{inside} "kill $(cat victim)"')
    host.ok("kill -0 $(cat victim); kill $(cat victim)")
    assert host.ok("jexec a hostname; jexec -l a /bin/sh -c 'echo $PATH'").split() == [
        "a.example",
        "/bin:/usr/bin",
    ]
    host.refused("jexec nobody true", "not found")
    host.refused("jexec -d /t a true", "usage")
    assert host("jexec 1 /bin/sh -c 'exit 7'").code == 7


def test_processes_of_a_jail(host: Host) -> None:
    full(host)
    host.ok("jail -f a.conf -c a")
    assert host.ok("ps -J a -o jid= -o command=") == "1 /bin/sleep 1000\n"
    pid = host.ok("pgrep -j a sleep")
    assert pid == host.ok("ps -J 1 -o pid=")
    assert f"{pid.strip()}\n" not in host.ok("pgrep -j 0 . || true")
    host.ok("pkill -j a -x sleep")
    assert host.ok("come '! jls -j a'; jls jid") == "", "without persist the jail ends with its last process"
    host.refused("killall -j a", "unknown jail")
    host.ok("umount $PWD/j/a/dev; umount -a -F a.fstab; jail -f a.conf -c a && killall -j a -KILL sleep")


def test_jls(host: Host) -> None:
    host.ok(
        "base r; jail -q -c path=$PWD/r name=b persist "
        "ip4.addr=127.0.0.1 host.hostname=b.example allow.chflags"
    )
    rows = json.loads(host.ok("jls --libxo=json"))["jail-information"]["jail"]
    assert rows == [{"jid": 1, "ipv4": "127.0.0.1", "hostname": "b.example", "path": f"{host.work}/r"}]
    rows = json.loads(host.ok("jls --libxo json jid name path dying allow.chflags"))["jail-information"][
        "jail"
    ]
    assert rows == [
        {"jid": 1, "name": "b", "path": f"{host.work}/r", "dying": "false", "allow.chflags": "true"}
    ]
    assert host.ok("jls -n -j b jid name enforce_statfs") == "jid=1 name=b enforce_statfs=2\n"
    assert host.ok("jls -N | sed 1d").split() == ["b", "127.0.0.1", "b.example", f"{host.work}/r"]
    host.ok("jls -c -j b; ! jls -c -j c")
    host.refused("jls -j c", "not found")
    host.refused("jls nonsense", "unknown parameter")
    host.refused("jls exec.start", "unknown parameter")
    host.refused("jail -m name=b path=/", "cannot be changed")
    host.ok("jail -m name=b nopersist; come '! jls -j b'")
    assert host.ok("jls jid") == ""


def test_a_command_jail_ends_with_its_command(host: Host) -> None:
    host.ok("base r")
    line = "jail -q -c path=$PWD/r name=x command=/bin/sh -c"
    assert host.ok(f"{line} 'echo in; sleep 100 & exit 0'; killall -q -j x -KILL; jls jid") == "in\n"
    host.refused(f"{line} 'exit 3'; test $? = 1 && exit 5", "failed")
    host.refused("jail -c path=$PWD/r name=x command=/bin/none", "No such file")
    host.refused("jail -c path=$PWD/none name=x persist", "No such file")
    host.refused("jail -c path=$PWD/r name=1x.y persist", "refused")
    assert host.ok("jls jid") == ""


def test_failures_are_walked_back(host: Host) -> None:
    full(host)
    host.ok("sed -i 's/exec.start = .*/exec.start = false;/' a.conf")
    host.refused("jail -f a.conf -c a", "false: failed")
    assert (host.mounted(), host.ok("jls jid")) == ([], "")
    host.ok(
        "sed -i 's/exec.start = .*/persist;/; s/exec.stop = .*/exec.stop = false;/' a.conf\n"
        "jail -f a.conf -c a"
    )
    host.refused("jail -f a.conf -r a", "false: failed")
    assert (len(host.mounted()), host.ok("jls name")) == (3, "a\n"), (
        "a failed exec.stop leaves the jail running"
    )
    host.ok("sed -i 's/exec.stop = .*//' a.conf; umount $PWD/j/a/t")
    host.refused("jail -f a.conf -r a", "not a mount point")
    assert (host.mounted(), host.ok("jls jid")) == ([], ""), "after the removal the other steps still run"
    host.ok("sed -i 's/persist;/exec.start = \"sleep 60\"; exec.timeout = 1;/' a.conf")
    host.refused("jail -f a.conf -c a", "exited on signal")


def test_targets_below_the_path_may_have_no_symlink(host: Host) -> None:
    full(host)
    host.ok("mkdir m/real; ln -s real m/link; mkdir x; echo $PWD/x $PWD/j/a/link nullfs rw >>a.fstab")
    host.refused("jail -f a.conf -c a", "is a symbolic link")
    host.ok("sed -i 's,link,real,' a.fstab; jail -f a.conf -c a; jail -f a.conf -r a")
    host.refused("echo $PWD/x\\#1 $PWD/j/a/real nullfs rw >>a.fstab; jail -f a.conf -c a", "missing field")
    assert host.mounted() == []


def test_users(host: Host) -> None:
    host.ok("base r; echo 'www:*:80:80::0:0::/t:/bin/sh' >>r/etc/master.passwd; cp /bin/busybox r/t")
    line = "jail -q -c path=$PWD/r name=x"
    assert host.ok(f"{line} exec.jail_user=www command=/bin/id") == "uid=80 gid=80 groups=80\n"
    assert host.ok(f"{line} exec.clean exec.jail_user=www command=/bin/sh -c 'pwd; echo $USER'").split() == [
        "/t",
        "www",
    ]
    host.refused(f"{line} exec.jail_user=bind command=/bin/id", "no passwd entry")
    assert "uid=53" in host.ok(f"{line} exec.jail_user=bind exec.system_jail_user command=/bin/id")
    host.ok("rm r/etc/master.passwd")
    host.refused(f"{line} exec.clean command=/bin/id", "no passwd entry")
    host.ok(f"{line} command=/bin/id")
    host.refused("jexec -l -U www x true", "not found")


def test_depend(host: Host) -> None:
    host.ok("base r")
    host.write(
        "c",
        f'path = "{host.work}/r"; persist; exec.created = "echo $name >>{host.work}/order";\n'
        "one { depend = two; } two { }\n",
    )
    host.ok("jail -q -f c -c one")
    assert (host.work / "order").read_text() == "two\none\n"
    assert host.ok("jail -f c -r '*'") == "one: removed\ntwo: removed\n"
    host.ok("jail -f c -c && jls -j two && jls -j one")
