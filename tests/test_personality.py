"""The strict FreeBSD personality: it stays in the box; what mount, umount and devfs refuse and do.

Each test has a fresh pretended host (tests/personality/enter). Where a test shows a refusal, it also shows
that the same thing without the fault works. Jails, rc and the rest: tests/personality/test_*.py.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.personality.host import ENTER, HERE, Host, _host  # noqa: F401

pytestmark = pytest.mark.box


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
        "15.0-RELEASE-p14",
        "15.0-RELEASE-p14",
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
