"""service, rc.subr, sysrc, rcorder, reboot, and the programs for files and accounts, in the personality."""

from __future__ import annotations

import pytest

from tests.personality.host import Host, _host, full  # noqa: F401

pytestmark = pytest.mark.box


# --- rc ----


def test_service_jail_chooses_files_as_rc_d_does(host: Host) -> None:
    full(host)
    host.ok("cp a.conf /etc/jail.conf.d/a.conf")
    assert "Set jail_enable to YES" in host.ok("service jail start a"), "a hint, and status 0"
    assert host.ok("jls jid") == ""
    host.ok("sysrc jail_enable=YES; service jail start")
    assert host.ok("jls jid") == "", "an empty jail_list reads /etc/jail.conf alone"
    host.ok("service jail start a && jls -j a && test $(cat /var/run/jail_a.id) = 1")
    assert "a.example" in host.ok("service jail status")
    host.ok("service jail restart a && jls -j a && service jail stop a && ! jls -j a")
    assert host.mounted() == []
    host.ok("sysrc jail_list+=a; service jail start; jls -j a; service jail stop")
    host.ok("echo '.include \"/etc/jail.conf.d/*.conf\";' >/etc/jail.conf; service jail config a >said")
    assert "/etc/jail.conf." in (host.work / "said").read_text()
    assert "jail.conf.d" not in (host.work / "said").read_text()
    host.refused("service nothing start", "does not exist")


SCRIPT = """\
#!/bin/sh
#
# PROVIDE: inner
# REQUIRE: jail
# KEYWORD: shutdown

. /etc/rc.subr

name=inner
rcvar=inner_enable
load_rc_config $name
: ${inner_enable:=NO}
command=/bin/sleep
pidfile=/tmp/inner.pid
start_cmd=inner_start
inner_start() {
    startmsg Starting
    jexec a /bin/sh -c '/bin/sleep 500 & :'
    pgrep -j a -f 'sleep 500' >/tmp/inner.pid
}
JID=$(jls -j a jid 2>/dev/null || echo -1)
run_rc_command "$1"
"""


def test_rc_subr_and_the_jid_override(host: Host) -> None:
    full(host)
    host.write("inner", SCRIPT)
    host.ok("install -m 755 inner /usr/local/etc/rc.d/inner; jail -f a.conf -c a")
    assert "Set inner_enable" in host.ok("service inner start")
    host.ok("service inner enable; service inner start")
    assert "is running as pid" in host.ok("service inner status")
    host.ok("sed -i 's/^JID=.*//' /usr/local/etc/rc.d/inner")
    host.refused("service inner status", "is not running")
    host.write("inner", SCRIPT)
    host.ok("install -m 755 inner /usr/local/etc/rc.d/inner; service inner stop")
    host.refused("service inner status", "is not running")
    host.refused("service inner dance", "unknown directive")


def test_sysrc(host: Host) -> None:
    assert host.ok(
        "sysrc x_list='a b'; sysrc x_list+=c; sysrc x_list+=a; sysrc x_list-=b; sysrc -n x_list"
    ) == ("x_list:  -> a b\nx_list: a b -> a b c\nx_list: a b c -> a b c\nx_list: a b c -> a c\na c\n")
    assert 'x_list="a c"\n' in host.ok("cat /etc/rc.conf")
    host.ok("sysrc -c x_list='a c' && ! sysrc -c x_list=a && sysrc -x x_list && ! grep x_list /etc/rc.conf")
    host.refused("sysrc x_list", "unknown variable")
    host.refused("sysrc bad-name=1", "not a valid variable name")
    host.refused("sysrc -z x=1", "usage")
    host.ok('sysrc -q -f f.conf \'quoted=a "b" $c\' && test "$(. ./f.conf; echo "$quoted")" = \'a "b" $c\'')
    host.ok(
        "sysrc -s jail jail_enable=YES; grep -q jail_enable /etc/rc.conf.d/jail; ! grep jail_e /etc/rc.conf"
    )
    host.refused("mkdir r; sysrc -R $PWD/r x=1", "needs a full root")
    host.ok("base r; sysrc -R $PWD/r x=1; grep -q 'x=\"1\"' r/etc/rc.conf")


def test_rcorder(host: Host) -> None:
    host.write("1", "#!/bin/sh\n#\n# PROVIDE: one\n# REQUIRE: two\n")
    host.write("2", "#!/bin/sh\n#\n# PROVIDE: two\n# KEYWORD: nojail\n\n# REQUIRE: one\n")
    host.write("3", "#!/bin/sh\n#\n#PROVIDE: three\n# BEFORE: two\n")
    assert host.ok("rcorder 1 2 3").split() == ["3", "2", "1"]
    assert host.ok("rcorder -s nojail 1 2 3").split() == ["3", "1"]


def test_reboot(host: Host) -> None:
    full(host)
    w = host.work
    host.ok(
        "cp a.conf /etc/jail.conf.d/; sysrc jail_enable=YES jail_list=a; mkdir b c e; touch /var/run/x\n"
        f"echo {w}/m {w}/b nullfs ro,late,failok 0 0 >>/etc/fstab\n"
        f"echo devfs {w}/b/dev devfs rw,late 0 0 >>/etc/fstab\n"
        f"echo {w}/m {w}/c nullfs rw 0 0 >>/etc/fstab\n"
        f"jail -q -c path=/ name=old persist; mount -t tmpfs x {w}/e"
    )
    said = host.ok("reboot")
    steps = [line.rpartition("/")[2] for line in said.splitlines() if line.startswith("rc: /")]
    order = ["devfs", "mountcritlocal", "zfs", "mountcritremote", "mountlate", "LOGIN", "jail"]
    assert [step for step in steps if step in order] == order
    assert [line[1] for line in host.mounted()] == ["/c", "/b", "/b/dev", "/j/a", "/j/a/t", "/j/a/dev"]
    assert host.ok("jls name; ls /var/run") == "a\njail_a.id\n"
    assert "path fuse unhide" in host.ok("devfs rule -s 4 show")
    assert "LOGIN" in host.ok("reboot --clean")
    assert (host.work / "t/stopped").exists()


BOOTS = [
    ("{0}/m {0}/gone nullfs ro,late 0 0", "NO", False),
    ("{0}/m {0}/gone nullfs ro,late,failok 0 0", "NO", True),
    ("{0}/m {0}/gone nullfs ro 0 0", "NO", False),
    ("{0}/m {0}/gone nullfs ro 0 0", "nullfs", True),
    ("{0}/m {0}/b nullfs rw 0 0\ndevfs {0}/b/sub/dev devfs rw 0 0", "nullfs", False),
    ("{0}/m {0}/b nullfs rw 0 0\ndevfs {0}/b/sub/dev devfs rw,late 0 0", "nullfs", True),
]


def test_what_stops_a_boot(host: Host) -> None:
    host.ok("mkdir -p m/sub b; mkdir m/sub/dev")
    for lines, extra, boots in BOOTS:
        host.write("lines", lines.format(host.work) + "\n")
        done = host(f"cp lines /etc/fstab; echo extra_netfs_types={extra} >/etc/rc.conf; reboot")
        assert (done.code == 0, "ABORTING BOOT" in done.err) == (boots, not boots), (lines, done)


# --- files ----


def test_chflags(host: Host) -> None:
    host.ok(
        "mkdir -p d/e ro; touch d/f; chflags schg d/f; chflags -R schg d/e\n"
        "mount -t nullfs -o ro $PWD/d $PWD/ro"
    )
    host.refused("rm -f d/f", "Operation not permitted")
    host.refused("touch d/e/x", "Operation not permitted")
    host.refused("chflags nodump ro/f", "Read-only file system")
    host.refused("chflags immutable d/f", "invalid flags")
    host.refused("chflags +i d/f", "invalid flags")
    host.ok("sysctl kern.securelevel=1")
    host.refused("chflags noschg d/f", "Operation not permitted")
    host.refused("sysctl kern.securelevel=0", "not permitted")
    host.ok("personality set release 15.0-RELEASE; reboot >/dev/null; chflags -R 0 d; rm -r d/f d/e")


def test_mtree_makes_var(host: Host) -> None:
    host.ok(
        "mkdir v; mtree -deU -f /etc/mtree/BSD.var.dist -p v >/dev/null\n"
        "mtree -de -f /etc/mtree/BSD.var.dist -p v"
    )
    assert host.ok("stat -c '%a %U %G' v/audit/dist v/tmp v/db/pkg").split("\n")[:3] == [
        "770 auditdistd audit",
        "1777 root wheel",
        "755 root wheel",
    ]
    host.refused("rmdir v/empty", "Operation not permitted")
    host.ok("chflags noschg v/empty; rmdir v/empty")
    host.ok("mtree -c -x -n -K sha256digest -R nlink,time -p v >spec; mtree -x -p v -f spec; touch v/new")
    assert host("mtree -x -p v -f spec").code == 2
    host.refused("mtree -c -K sha3 -p v", "unknown keyword")
    host.refused("mtree -Z -p v", "illegal option")


def package(host: Host, install: str = "") -> None:
    host.write("p/+MANIFEST", "name: hello\nversion: 1.2\n")
    host.write("p/usr/local/bin/hello", "#!/bin/sh\necho hello\n")
    if install:
        host.write("p/+INSTALL", install)
    host.ok("chmod 755 p/usr/local/bin/hello; tar -C p -cf hello-1.2.pkg .")


def test_pkg(host: Host) -> None:
    package(host, 'echo "$1 $2" >>/tmp/scripts\n')
    host.ok("base r; for a in sed tail head sort find tar mv cp rm cat; do ln -sf busybox r/bin/$a; done")
    host.ok("mkdir -p r/usr/sbin r/usr/local/etc r/tmp; cp /usr/sbin/pkg r/usr/sbin/; cp hello-1.2.pkg r/tmp")
    host.refused("pkg -c $PWD/r install -y /tmp/hello-1.2.pkg", "no devfs")
    host.refused("mount -t devfs -o ruleset=4 d $PWD/r/dev; pkg -c $PWD/r info", "resolv.conf")
    host.ok("touch r/etc/resolv.conf; echo 'PKG_DBDIR: \"/usr/local/var/db/pkg\"' >r/usr/local/etc/pkg.conf")
    host.refused("pkg -c $PWD/r install /tmp/hello-1.2.pkg")  # nobody said yes
    host.ok("pkg -c $PWD/r install -y /tmp/hello-1.2.pkg; test -x r/usr/local/bin/hello")
    assert (host.work / "r/tmp/scripts").read_text() == "hello PRE-INSTALL\nhello POST-INSTALL\n"
    assert host.ok("ls r/usr/local/var/db/pkg; pkg -r $PWD/r info").split() == ["hello", "hello-1.2"]
    assert host.ok("jail -q -c path=$PWD/r name=x command=/usr/sbin/pkg info -e hello; pkg -v") == "2.3.1\n"
    host.ok("pkg -r $PWD/r delete -y hello; test ! -e r/usr/local/bin/hello; ! pkg -r $PWD/r info -e hello")
    host.refused("pkg -r $PWD/r install -y nothing", "No packages available")
    host.refused("pkg --chroot $PWD/r info", "usage")


def test_accounts_and_databases(host: Host) -> None:
    host.ok(
        "mkdir e; cp /etc/master.passwd /etc/group /etc/login.conf e/\n"
        "pw -V $PWD/e useradd -n jo -u 2001 -d /home/jo"
    )
    assert "jo:*:2001:2001:User &:/home/jo:/bin/sh" in host.ok("cat e/passwd; test -f e/spwd.db")
    host.refused("pw -V $PWD/e useradd -n jo", "already exists")
    host.refused("pw -V $PWD/e useradd -n x -g nosuch", "does not exist")
    host.ok(
        "pw -V $PWD/e groupadd -n web -g 2002 -M jo; pw -V $PWD/e groupshow web\n"
        "pwd_mkdb -p -d $PWD/e e/master.passwd"
    )
    host.ok("cap_mkdb e/login.conf; test -f e/login.conf.db; mkdir ro; mount -t nullfs -o ro $PWD/e $PWD/ro")
    host.refused("cap_mkdb ro/login.conf", "Read-only")
    host.refused("pw -V $PWD/ro userdel -n jo", "Read-only")
    host.refused("echo broken:line >bad; pwd_mkdb -d $PWD/e bad", "corrupted")
    host.refused("useradd jo", "not found")


def test_install_and_ldconfig(host: Host) -> None:
    host.ok("echo x >f; install -d -m 700 -o www d; install -c -m 4755 -f schg f d/; test -u d/f")
    assert host.ok("stat -c '%a %U' d").split() == ["700", "www"]
    host.refused("rm -f d/f", "not permitted")
    host.refused("install -D f a/b/c")
    host.refused("install -m 644 -t d f")
    host.refused("install --mode=644 f g")
    host.ok(
        "chflags 0 d/f; ldconfig -m /usr/lib; ldconfig -r | grep -q /usr/lib\n"
        "test -f /var/run/ld-elf.so.hints"
    )
    host.refused("ldconfig -p", "usage")


def test_chroot(host: Host) -> None:
    host.ok('base r; test "$(chroot $PWD/r /bin/ls /)" && chroot -u www $PWD/r /bin/id | grep -q uid=80')
    host.refused("chroot --userspec=www r /bin/id", "usage")
