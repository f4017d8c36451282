"""The strict FreeBSD personality: what it refuses, and that what it accepts really happens.

Each test has a fresh pretended host (tests/personality/enter). Where a test shows a refusal, it also shows
that the same thing without the fault works.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent / "personality"
ENTER = str(HERE / "enter")

pytestmark = pytest.mark.box

# base DIR: a busybox root, copied (never linked: a write through a link would reach the host)
PRELUDE = r"""
base() {
    mkdir -p "$1/bin" "$1/sbin" "$1/usr/bin" "$1/s" "$1/t" "$1/dev" "$1/etc" "$1/proc" "$1/tmp"
    cp /bin/busybox "$1/bin/busybox"
    for applet in sh ls cat touch id echo sleep hostname kill mkdir mount umount chroot mknod true false; do
        ln -s busybox "$1/bin/$applet"
    done
    echo 'root:*:0:0::0:0:R:/:/bin/sh' >"$1/etc/master.passwd"
}
"""


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


class Host:
    """A pretended FreeBSD host; call it with a shell script to run there, in the test's own directory."""

    def __init__(self, work: Path, *options: str) -> None:
        self.work = work
        self.shell = subprocess.Popen(
            [ENTER, *options, "sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=work
        )

    def __call__(self, script: str) -> Done:
        assert self.shell.stdin and self.shell.stdout
        (self.work / ".script").write_text(PRELUDE + script)
        self.shell.stdin.write("sh .script >.out 2>.err </dev/null; echo $?\n")
        self.shell.stdin.flush()
        code = self.shell.stdout.readline()
        out, err = ((self.work / name).read_text("utf-8", "surrogateescape") for name in (".out", ".err"))
        assert "Traceback" not in err, err
        return Done(int(code), out, err)

    def ok(self, script: str) -> str:
        done = self(script)
        assert done.code == 0, done
        return done.out

    def refused(self, script: str, *said: str) -> None:
        done = self(script)
        assert done.code != 0, done
        for text in said:
            assert text in done.err + done.out, done

    def write(self, name: str, text: str) -> None:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def mounted(self) -> list[tuple[str, str, str]]:
        table = json.loads(self.ok("mount --libxo=json"))["mount"]["mounted"]
        own = [line for line in table if not line["special"].startswith("zroot") and line["node"] != "/dev"]
        short = str(self.work)
        return [
            (line["special"].replace(short, ""), line["node"].replace(short, ""), line["fstype"])
            for line in own
        ]

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        assert self.shell.stdin and self.shell.stdout
        self.shell.stdin.close()
        self.shell.stdout.close()


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path.resolve())
    yield host
    host.close()


# --- the stage ----


def test_nothing_works_outside_the_box_or_outside_enter() -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("LAYOUT_")}
    done = subprocess.run([ENTER, "true"], env=bare, capture_output=True, text=True)
    assert (done.returncode, "only inside tests/box" in done.stderr) == (77, True)
    for name in ("mount", "jail", "umount", "chflags", "reboot"):
        done = subprocess.run([HERE / "bin" / name, "-a"], capture_output=True, text=True)
        assert done.returncode != 0
        assert "not under tests/personality/enter" in done.stderr


def test_exit_status_join_and_the_end_of_everything(tmp_path: Path) -> None:
    assert subprocess.run([ENTER, "sh", "-c", "exit 42"]).returncode == 42
    assert subprocess.run([ENTER, "--nonsense"], stderr=subprocess.DEVNULL).returncode == 2
    host = Host(tmp_path)
    host.ok("mkdir a b; mount -t nullfs $PWD/a $PWD/b; touch b/seen")
    listing = subprocess.run(
        [ENTER, "--join", str(host.shell.pid), "mount"], capture_output=True, text=True
    ).stdout
    assert f"{tmp_path}/a on {tmp_path}/b (nullfs, local)" in listing
    assert (tmp_path / "a/seen").exists()
    assert not (tmp_path / "b/seen").exists(), "the mount reached the outside"
    host.close()


def test_the_host_looks_like_freebsd(host: Host) -> None:
    assert host.ok("uname; uname -r; freebsd-version; echo $LAYOUT_PERSONALITY").split() == [
        "FreeBSD",
        "15.0-RELEASE",
        "15.0-RELEASE",
        "freebsd",
    ]
    host.ok("set -e; for p in /sbin/mount /sbin/umount /usr/sbin/jail /bin/ps; do test -x $p; done")
    host.ok("! command -v findmnt unshare nsenter systemctl zfs zpool")
    assert host.ok("sysctl -n security.jail.jailed vfs.usermount kern.osreldate").split() == [
        "0",
        "0",
        "1500068",
    ]
    host.refused("sysctl kern.nonsense", "unknown oid")
    host.ok("sysctl -d security.jail.param.allow | grep -q allow.chflags")


# --- fstab and mount ----

BAD_LINES = {
    "no rw or ro word": "{0}/a {0}/b nullfs late,failok 0 0",
    "no options": "{0}/a {0}/b nullfs",
    "only defaults": "{0}/a {0}/b nullfs defaults 0 0",
    "unknown letter": "{0}/\\qa {0}/b nullfs rw 0 0",
    "two octal digits": "{0}/\\04a {0}/b nullfs rw 0 0",
    "no blanks": "{0}/a,{0}/b,nullfs,rw",
}


def test_lines_that_getfsent_refuses(host: Host) -> None:
    host.ok("mkdir a b c")
    for name, line in BAD_LINES.items():
        host.write("f", f"{line}\n{{0}}/a {{0}}/c nullfs ro\n".format(host.work))
        done = host("mount -a -F f")
        assert "fstab: f:1: Inappropriate file type or format" in done.err, name
        assert host.mounted() == [("/a", "/c", "nullfs")], "reading goes on with the next line"


def test_lines_that_getfsent_reads(host: Host) -> None:
    work = str(host.work)
    long = f"{work}/a {work}/e nullfs ro 0 0 " + "x" * 1024
    host.write(
        "f",
        f"# {work}/a {work}/x nullfs rw\n\n   #{work}/a {work}/x nullfs rw\n"
        f"{work}/a\\040b\t{work}/b\\134c nullfs ro,noatime 1 2 anything\n"
        f"{work}/a {work}/d nullfs xx 0 0\n{work}/a {work}/g nullfs noauto,rw 0 0\n{long}\n",
    )
    done = host("mkdir a 'a b' 'b\\c' d e g; mount -a -F f")
    assert done.err.count("Inappropriate") == 1, "the long line was cut in two, its second half is bogus"
    assert host.mounted() == [("/a b", "/b\\c", "nullfs"), ("/a", "/e", "nullfs")]
    assert "a b\t" not in host.ok("mount -p").replace("a b ", "")  # -p does not escape


BAD_WORDS = ("nodev", "bind", "private", "remount", "defaults", "nofail", "ruleset=4", "size=1m")
BAD_MOUNTS = (
    "--bind a b",
    "-n a b",
    "-t nullfs a",
    "-o bind",
    "--libxo=xml",
    "--libxo:X",
    "-a extra",
    "a b c",
)


def test_options_that_freebsd_has_not(host: Host) -> None:
    host.ok("mkdir a b")
    for word in BAD_WORDS:
        host.refused(f"mount -t nullfs -o rw,{word} $PWD/a $PWD/b", f"-o {word}: option not supported")
    for word in BAD_WORDS[:3]:
        host.refused(f"mount -t tmpfs -o rw,{word} tmpfs $PWD/b", f"mount option <{word}> is unknown")
    for arguments in (*BAD_MOUNTS, "-t none $PWD/a $PWD/b"):
        host.refused(f"mount {arguments}")
    host.refused("mount_nullfs -t x a b", "usage")
    assert host.mounted() == []
    host.ok("mount_nullfs -o rw,nosuid,noexec,noatime,nocache $PWD/a $PWD/b")


def test_the_2010_message(host: Host) -> None:
    """ldap, bind and heimdal: all mounted in order, once; umount -a undoes it."""
    names = ("ldap", "bind", "heimdal")
    root = f"{host.work}/jails"
    lines = [f"{root}/j/mroot {root}/j/{name} nullfs ro 0 0" for name in ("bind", "heimdal", "ldap")]
    lines += [f"{root}/s/{name} {root}/j/{name}/s nullfs ro 0 0" for name in names]
    lines += [f"{root}/t/{name} {root}/j/{name}/t nullfs rw 0 0" for name in reversed(names)]
    lines += [f"{root}/j/mroot {root}/manage/{name} nullfs rw 0 0" for name in ("bind", "heimdal", "ldap")]
    lines += [f"{root}/{d}/{name} {root}/manage/{name}/{d} nullfs rw 0 0" for d in "st" for name in names]
    lines += [f"devfs {root}/manage/{name}/dev devfs rw 0 0" for name in names]
    host.write("fstab", "\n".join(lines) + "\n")
    host.ok(
        "mkdir -p jails/j/mroot/s jails/j/mroot/t jails/j/mroot/dev\n"
        "for n in ldap bind heimdal; do mkdir -p jails/j/$n jails/s/$n jails/t/$n jails/manage/$n; done\n"
        "mount -a -F fstab"
    )
    assert [line[1] for line in host.mounted()] == [
        line.split()[1].replace(str(host.work), "") for line in lines
    ]
    assert len(host.mounted()) == 21
    host.refused("touch jails/j/ldap/x", "Read-only file system")
    host.refused("touch jails/j/ldap/s/x", "Read-only file system")
    host.ok(
        "touch jails/j/ldap/t/x jails/manage/bind/y && test -e jails/t/ldap/x && test -e jails/j/heimdal/y"
    )
    host.ok("test -c jails/manage/ldap/dev/null && echo x >jails/manage/ldap/dev/null")
    host.ok("mount -a -F fstab && mount -d -a -F fstab >said && test ! -s said")
    assert len(host.mounted()) == 21, "the second run mounts nothing"
    host.ok("umount -a -F fstab")
    assert host.mounted() == []
    host.refused("umount -a -F fstab", "not a file system root directory")


def test_deadlock_is_avoided_exactly_where_the_real_one_does(host: Host) -> None:
    host.ok("mkdir -p m/s x a b; mount -t nullfs -o ro $PWD/m $PWD/a")
    host.refused("mount -t nullfs $PWD/m $PWD/a", "mount_nullfs: ", "Resource deadlock avoided")
    host.refused("mount -t nullfs $PWD/m/s $PWD/a/s", "Resource deadlock avoided")
    host.ok("mount -t nullfs $PWD/x $PWD/a/s")
    host.refused("mount -t nullfs $PWD/x $PWD/a/s", "Resource deadlock avoided")
    host.ok("mount -t nullfs $PWD/x $PWD/a && umount $PWD/a")  # another source stacks
    host.refused("mount -t nullfs -o nocover $PWD/b $PWD/a", "Device busy")
    host.refused("mkdir full; touch full/x; mount -t nullfs -o emptydir $PWD/b $PWD/full", "not empty")
    host.ok("mount -t nullfs -o emptydir,nocover $PWD/m $PWD/b")


def test_update(host: Host) -> None:
    host.ok("mkdir a b c; mount -t nullfs $PWD/a $PWD/b; mount -t tmpfs -o size=1m,mode=1777 tmpfs $PWD/c")
    host.refused("mount -u -o ro $PWD/b", "Operation not supported")
    host.refused("mount -t nullfs -o update,ro $PWD/a $PWD/b", "Operation not supported")
    host.ok("touch b/x c/x; mount -u -o ro $PWD/c")
    host.refused("touch c/y", "Read-only")
    assert host.ok("stat -c %a c; cat /proc/self/mountinfo | grep -c size=1024k").split() == ["1777", "1"]


def test_noauto_late_failok_and_already_mounted(host: Host) -> None:
    w = host.work
    host.write(
        "f",
        f"{w}/a {w}/b nullfs ro,noauto 0 0\n{w}/a {w}/c nullfs ro,late 0 0\n"
        f"{w}/a {w}/gone nullfs ro,failok 0 0\n"
        f"{w}/a {w}/d nullfs ro 0 0\n",
    )
    done = host("mkdir a b c d e; mount -a -F f")
    assert (done.code, done.err.count("No such file or directory")) == (0, 1)
    assert [line[1] for line in host.mounted()] == ["/d"]
    host.ok("mount -a -L -F f 2>/dev/null")
    assert [line[1] for line in host.mounted()] == ["/d", "/c"]
    host.write(
        "g", f"{w}/e {w}/d nullfs ro 0 0\n{w}/a {w}/nowhere nullfs ro 0 0\n{w}/a {w}/b nullfs rw 0 0\n"
    )
    host.refused("mount -a -F g", "nowhere: No such file or directory")
    assert [line[:2] for line in host.mounted()] == [("/a", "/d"), ("/a", "/c"), ("/a", "/b")], (
        "a changed source is silently ignored, and the loop goes on after a failure"
    )
    host.ok("umount $PWD/b && mount -F f $PWD/b && mount -a -t nonullfs -F g && mount -v | grep -q fsid")


def test_what_nullfs_carries_and_what_not(host: Host) -> None:
    host.ok("mkdir -p low/sub up bin ro; mount -t tmpfs tmpfs $PWD/low/sub; touch low/sub/hidden low/f")
    host.ok('mount -t nullfs $PWD/low $PWD/up; test -z "$(ls up/sub)"')  # sub-mounts are not carried
    host.ok("mount -t tmpfs -o nosuid,noexec tmpfs $PWD/bin; cp /bin/busybox bin/; mkdir x")
    host.refused("bin/busybox true", "Permission denied")
    host.ok("mount -t nullfs $PWD/bin $PWD/x && x/busybox true")  # nor is noexec of the lower file system
    host.ok("umount $PWD/x; mount -t nullfs -o noexec,nosymfollow $PWD/bin $PWD/x; ln -s busybox bin/link")
    host.refused("x/busybox true", "Permission denied")
    host.refused("cat x/link >/dev/null", "Too many levels of symbolic links")
    host.ok("mount -t nullfs -o ro $PWD/low $PWD/ro; mkdir over; mount -t nullfs -o rw $PWD/ro $PWD/over")
    host.refused("touch over/x", "Read-only")  # but a lower ro stays effective
    host.ok("touch file1 file2; echo 1 >file1; mount -t nullfs $PWD/file1 $PWD/file2; test $(cat file2) = 1")
    host.refused("mount -t nullfs $PWD/file1 $PWD/low", "must be same type")
    host.refused("mount -t tmpfs tmpfs $PWD/file1", "Not a directory")
    host.refused("ln up/f low/g && exit 0; ln up/f over/f", "link")


def test_listing(host: Host) -> None:
    host.ok("mkdir -p 'a b' c d real; ln -s real link; mount -t nullfs -o ro,nosuid \"$PWD/a b\" $PWD/c")
    host.ok("mount -t nullfs $PWD/link $PWD/d")
    assert f"{host.work}/a b on {host.work}/c (nullfs, local, read-only, nosuid)" in host.ok("mount")
    assert f"{host.work}/real on {host.work}/d" in host.ok("mount"), "canonical on both ends"
    for spelling in ("--libxo=json", "--libxo json", "--libxo:J", "--libxo:JP"):
        table = json.loads(host.ok(f"mount {spelling}"))["mount"]["mounted"]
        found = next(line for line in table if line["node"].endswith("/c"))
        assert (found["special"], found["opts"]) == (f"{host.work}/a b", ["local", "read-only", "nosuid"])
    table = json.loads(host.ok("mount --libxo=json -p"))["mount"]["fstab"]
    assert table[-1] == {
        "device": f"{host.work}/real",
        "mntpoint": f"{host.work}/d",
        "fstype": "nullfs",
        "opts": "rw",
        "dump": 0,
        "pass": 0,
    }
    assert f"{host.work}/a b {host.work}/c nullfs\tro,nosuid" in host.ok("mount -p")
    said = host.ok("mount -d -v -t nullfs -o ro $PWD/real $PWD/c; mount -d -t devfs devfs $PWD/c")
    assert f"exec: mount_nullfs -o ro {host.work}/real {host.work}/c\n" in said
    assert "mount_devfs" not in said


def test_mounts_of_others_are_seen(host: Host) -> None:
    # busybox stands for someone who mounts without asking our mount(8)
    host.ok(
        "mkdir a b c; busybox mount -t tmpfs other $PWD/a; mkdir a/x; busybox mount --bind $PWD/a/x $PWD/b"
    )
    assert host.mounted() == [("other", "/a", "tmpfs"), ("/a/x", "/b", "nullfs")]
    host.ok("mount -t nullfs $PWD/a $PWD/c; busybox umount $PWD/c $PWD/b")
    assert host.mounted() == [("other", "/a", "tmpfs")]


# --- umount ----


def test_umount_finds_a_source_by_name(host: Host) -> None:
    host.ok("mkdir m a b; mount -t nullfs $PWD/m $PWD/a; mount -t nullfs $PWD/m $PWD/b; umount $PWD/m")
    assert [line[1] for line in host.mounted()] == ["/a"], "the newest mount FROM m is gone"
    fsid = (
        next(line for line in host.ok("mount -v").splitlines() if "nullfs" in line)
        .split("fsid ")[1]
        .rstrip(")")
    )
    host.refused("umount 00000000deadbeef", "unknown file system")
    host.ok(f"umount {fsid}")
    host.refused("umount $PWD/m", "not a file system root directory")
    host.refused("umount $PWD/none", "No such file or directory")
    host.ok(
        'mount -t nullfs $PWD/m $PWD/a && ln -s a link && umount $PWD/link/ && test -z "$(mount -t nullfs)"'
    )


def test_busy(host: Host) -> None:
    host.ok("mkdir -p m/s a b; mount -t nullfs $PWD/m $PWD/a; mount -t nullfs $PWD/b $PWD/a/s")
    host.refused("umount $PWD/a", "Device busy")
    host.refused("exec 9>a/s/open; umount $PWD/a/s", "Device busy")
    host.refused("cd a/s; umount $OLDPWD/a/s", "Device busy")
    host.refused("umount -f -n $PWD/a/s", "mutually exclusive")
    host.refused("umount -l $PWD/a/s", "usage")
    host.ok("umount -v $PWD/a/s && umount $PWD/a")
    host.ok("mount -t tmpfs tmpfs $PWD/m; mount -t nullfs $PWD/m $PWD/a")
    host.refused("umount $PWD/m/", "Device busy")  # a nullfs pins its lower file system
    host.ok("umount -t nullfs $PWD/a && umount $PWD/m")


# --- devfs ----


def test_devfs_rulesets(host: Host) -> None:
    show = "ls dev; umount $PWD/dev"
    assert "mem" not in host.ok(f"mkdir dev; mount -t devfs -o ruleset=4 devfs $PWD/dev; {show}").split()
    assert {"mem", "ada0"} <= set(host.ok(f"mount -t devfs -o ruleset=77 devfs $PWD/dev; {show}").split())
    host.refused("mount -t devfs -o ruleset=jail devfs $PWD/dev")
    host.refused("mount -t devfs -o ruleset devfs $PWD/dev")
    assert "path fuse unhide" in host.ok("devfs rule -s 4 show")
    assert host.ok("devfs rule -s 77 show") == ""
    host.refused("devfs rule -s 4 apply", "usage")
    host.ok("personality set devfs unloaded")
    assert host.ok("devfs rule -s 4 show; devfs rule showsets") == ""
    assert "mem" in host.ok(f"mount -t devfs -o ruleset=4 devfs $PWD/dev; {show}").split()
    host.ok("printf '[local=10]\\nadd include $devfsrules_jail\\nadd path ada0 unhide\\n' >/etc/devfs.rules")
    host.ok("service devfs restart")
    shown = host.ok(f"mount -t devfs -o rw,ruleset=10 devfs $PWD/dev; {show}").split()
    assert ("ada0" in shown, "mem" in shown) == (True, False)
    host.refused("printf '[x=11]\\nadd path ad* hide\\n' >r; personality load-devfs-rules r", "quotes")
    host.ok("mkdir fd; mount -t fdescfs -o rw,linrdlnk fdescfs $PWD/fd; test -L fd/0; umount $PWD/fd")


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

FULL = """\
a {
  path = "%(w)s/j/$name";
  host.hostname = a.example;
  mount.fstab = "%(w)s/a.fstab";
  mount.devfs;
  devfs_ruleset = 4;
  exec.clean;
  exec.start = "/bin/sleep 1000 &", '/bin/sh -c "echo up; hostname; echo $PATH $HOME"';
  exec.stop = "/bin/touch /t/stopped";
  exec.poststop = 'echo $JNAME gone >>%(w)s/log';
  exec.consolelog = "%(w)s/log";
  stop.timeout = 1;
}
"""
FSTAB = (
    "%(w)s/m %(w)s/j/a nullfs ro,noauto 0 0 # a comment\n%(w)s/t %(w)s/j/a/t nullfs rw,nosuid,noexec 0 0\n"
)


def full(host: Host) -> None:
    host.write("/etc/ignored".lstrip("/"), "")
    host.write("a.conf", FULL % {"w": host.work})
    host.write("a.fstab", FSTAB % {"w": host.work})
    host.ok("base m; mkdir -p j/a t")


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
    assert (
        host.ok("for i in 1 2 3 4 5 6 7 8 9; do jls -j a >/dev/null 2>&1 || break; sleep 0.1; done; jls jid")
        == ""
    ), "without persist the jail ends with its last process"
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
    host.ok("jail -m name=b nopersist; sleep 0.2")
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
