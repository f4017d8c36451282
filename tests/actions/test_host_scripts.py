"""The scripts for rc(8) and periodic(8), run by the rc.subr and the boot of the personality.

`layout` itself is played by a few lines of sh here, so that what it says and returns can be chosen.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.freebsd_host import SHIM, FreeBSD, _freebsd  # noqa: F401
from tests.personality.host import Host, _host  # noqa: F401

pytestmark = pytest.mark.box

SHARE = Path(__file__).resolve().parents[2] / "layout" / "share"

PROGRAM = """\
#!/bin/sh
work={work}
echo "$*" >>$work/called
while [ "${{1#-}}" != "$1" ]; do shift; done
case $1 in
mount)
    if [ -e $work/broken ]; then echo "layout: $2: found no s, expected one" >&2; exit 1; fi
    mount -t nullfs -o ro $work/m $work/j/$2 ;;
umount) umount $work/j/$2 ;;
verify)
    cat $work/said
    [ ! -e $work/bad ] ;;
esac
"""

# What periodic.conf(5) and security.functions give to scripts, in as many lines as ours needs.
DEFAULTS = """\
security_status_logdir=/var/log
security_status_diff_flags='-b -u'
source_periodic_confs() { [ ! -r /etc/periodic.conf ] || . /etc/periodic.conf; }
check_yesno_period() {
    eval "_value=\\$$1 _period=\\$${1%enable}period"
    case $_value in [Yy][Ee][Ss]) ;; *) return 1 ;; esac
    [ -z "$PERIODIC" ] || [ "$PERIODIC" = "security $_period" ]
}
"""
FUNCTIONS = """\
LOG=$security_status_logdir
check_diff() {
    _new=$(mktemp /tmp/check.XXXXXX) _rc=0
    cat >"$_new"
    if [ ! -f "$LOG/$1.today" ]; then _rc=1; echo; echo "No $LOG/$1.today"; cp "$_new" "$LOG/$1.today"; fi
    if ! cmp -s "$LOG/$1.today" "$_new"; then
        _rc=1
        echo
        echo "$3"
        diff $security_status_diff_flags "$LOG/$1.today" "$_new"
        mv "$LOG/$1.today" "$LOG/$1.yesterday"
        mv "$_new" "$LOG/$1.today"
    fi
    rm -f "$_new"
    exit $_rc
}
"""

FINE = "bind  ok\nldap  ok\n2 jails, {count} checks: 0 errors, 0 warnings\n"
BAD = (
    "bind  ok\nldap  FAILED\n  error S2-options /jails/j/ldap/s: found without ro, expected with ro\n"
    "    hint: layout umount ldap, then layout mount ldap\n2 jails, 200 checks: 1 error, 0 warnings\n"
)


def install(host: Host) -> None:
    """Put the played program and the real scripts in place."""
    host.write("prefix/bin/layout", PROGRAM.format(work=host.work))
    host.write("said", FINE.format(count=254))
    for template, path in (
        ("rc.d/layout", "layout"),
        ("rc.d/layout_verify", "layout_verify"),
        ("periodic/security/450.layout", "450.layout"),
    ):
        text = (SHARE / f"{template}.in").read_text()
        host.write(path, text.replace("%%PREFIX%%", f"{host.work}/prefix").replace("%%FLAGS%%", ""))
    host.write("defaults", DEFAULTS)
    host.write("functions", FUNCTIONS)
    host.ok(
        "chmod 755 prefix/bin/layout; mkdir -p m/in j/ldap j/bind /etc/periodic/security /var/log\n"
        "install -m 755 layout layout_verify /usr/local/etc/rc.d/\n"
        "cp defaults /etc/defaults/periodic.conf; cp functions /etc/periodic/security/security.functions"
    )


def called(host: Host) -> list[str]:
    """Return how the program was called since the last time."""
    path = host.work / "called"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_at_boot_named_jails_are_mounted_before_jail_and_all_are_verified_after_it(host: Host) -> None:
    install(host)
    host.ok("sysrc layout_enable=YES layout_mount='ldap bind'")
    said = host.ok("reboot")
    assert called(host) == ["--quiet mount ldap", "--quiet mount bind", "--quiet verify --quick"]
    assert [node for _, node, _ in host.mounted()] == ["/j/ldap", "/j/bind"]
    steps = [line.rpartition("/")[2] for line in said.splitlines() if line.startswith("rc: /")]
    assert steps.index("mountlate") < steps.index("layout") < steps.index("jail")
    assert steps.index("jail") < steps.index("layout_verify")
    stopped = host.ok("reboot --clean")
    assert stopped.index("rc.shutdown: /etc/rc.d/jail") < stopped.index("rc.d/layout\n")
    assert called(host)[:2] == ["--quiet umount ldap", "--quiet umount bind"]


def test_nothing_runs_unless_it_is_enabled(host: Host) -> None:
    install(host)
    host.ok("sysrc layout_mount=ldap; reboot")
    assert called(host) == []
    assert "Set layout_enable" in host.ok("service layout start")
    host.ok("service layout onestart; service layout_verify onestart; service layout verify")
    assert len(called(host)) == 2, "the third is disabled too: one more word is needed"
    host.ok("service layout oneverify")
    assert called(host) == ["verify"]


def test_a_jail_that_jail_mounts_is_left_to_it(host: Host) -> None:
    """Mounted twice, its nullfs would fail with EDEADLK, and the jail would not start."""
    install(host)
    host.write(
        "ldap.conf", f'ldap {{\n  path = "{host.work}/j/ldap";\n  mount.fstab = "{host.work}/f";\n}}\n'
    )
    host.ok("cp ldap.conf /etc/jail.conf.d/; sysrc layout_enable=YES layout_mount='ldap bind'")
    host.refused("service layout start", "ldap: jail(8) mounts it")
    assert called(host) == ["--quiet mount bind"]
    host.ok("service layout stop")
    assert called(host) == ["--quiet umount bind"]


def test_what_goes_wrong_is_said_and_the_boot_goes_on(host: Host) -> None:
    install(host)
    host.write("said", BAD)
    host.ok("touch broken bad; sysrc layout_enable=YES layout_mount='ldap bind'")
    done = host("reboot")
    assert done.code == 0
    assert "rc: done" in done.out
    assert "WARNING: ldap: not mounted: layout: ldap: found no s, expected one" in done.err
    assert "WARNING: bind: not mounted" in done.err
    assert "WARNING:   error S2-options /jails/j/ldap/s: found without ro" in done.err
    assert host.mounted() == []


def test_a_busy_jail_stays_mounted_and_is_named(host: Host) -> None:
    install(host)
    host.ok("sysrc layout_enable=YES layout_mount=ldap; service layout start")
    host.refused("cd j/ldap/in && service layout stop", "ldap: not unmounted")
    assert [node for _, node, _ in host.mounted()] == ["/j/ldap"]
    host.ok("service layout stop")
    assert host.mounted() == []


def periodic(host: Host) -> tuple[int, str]:
    """Run the script as periodic(8) does each day; return its status and what it says below its heading."""
    done = host("PERIODIC='security daily' host=box dash 450.layout")
    assert done.err == ""
    return done.code, done.out.removeprefix("\nVerifying the jails of layout:\n")


def test_periodic_is_silent_until_something_changes(host: Host) -> None:
    install(host)
    assert periodic(host) == (0, ""), "not enabled"
    assert called(host) == []
    host.ok("echo security_status_layout_enable=YES >/etc/periodic.conf")
    status, said = periodic(host)
    assert (status, "+bind  ok" in said, "checks" in said) == (1, True, False), (
        "the first time: what there is"
    )
    host.write("said", FINE.format(count=9999))
    assert periodic(host) == (0, ""), "more files in t are no news"

    host.write("said", BAD)
    host.ok("touch bad")
    status, said = periodic(host)
    assert status == 3, "shown whatever security_show_info says"
    assert "box layout verify diffs:" in said
    assert "-ldap  ok\n+ldap  FAILED\n+  error S2-options" in said
    assert periodic(host) == (0, ""), "the same again is no news"
    host.write("said", FINE.format(count=254))
    host.ok("rm bad")
    status, said = periodic(host)
    assert (status, "-ldap  FAILED" in said) == (1, True)
    assert host.ok("stat -c %a /var/log/layout.today") == "600\n"


def test_periodic_has_its_period_and_says_when_layout_is_gone(host: Host) -> None:
    install(host)
    host.ok("echo security_status_layout_enable=YES >/etc/periodic.conf")
    host.ok("echo security_status_layout_period=weekly >>/etc/periodic.conf")
    assert periodic(host) == (0, "")
    assert called(host) == []
    host.ok("echo security_status_layout_period=daily >>/etc/periodic.conf; rm prefix/bin/layout")
    status, said = periodic(host)
    assert (status, "is not there" in said) == (2, True)


REAL = """\
#!/bin/sh
unset LAYOUT_ROOT LAYOUT_CONFIG
export PYTHONPATH={shim}:{repository} LC_ALL=C.UTF-8
exec {python} -m layout "$@"
"""


def test_layout_itself_mounts_and_verifies_when_the_host_boots(freebsd: FreeBSD) -> None:
    host, root = freebsd, freebsd.root
    root.mkdir(mode=0o700)
    real = REAL.format(shim=SHIM, repository=SHARE.parents[1], python=sys.executable)
    host.write("prefix/bin/layout", real)
    for name in ("layout", "layout_verify"):
        text = (SHARE / "rc.d" / f"{name}.in").read_text().replace("%%PREFIX%%", f"{host.work}/prefix")
        host.write(name, text.replace("%%FLAGS%%", f"--root {root}"))
    host.ok("chmod 755 prefix/bin/layout; install -m 755 layout layout_verify /usr/local/etc/rc.d/")
    host.does("init", "bind", "--profile", "default", "--base", host.small_base(), "--boot", "none")
    host.ok("sysrc layout_enable=YES layout_mount=bind; service devfs restart")

    done = host("reboot")
    assert (done.code, "WARNING" in done.err) == (0, False), done
    assert [target for _, target in host.layout_mounts()] == ["j/bind", "j/bind/s", "j/bind/t"]
    assert host.findings() == []

    # Whatever is wrong with one jail, the boot ends, and the console says it.
    host.ok(f"mv {root}/s/bind/etc {root}/s/bind/gone; sysrc layout_mount='bind other'")
    done = host("reboot")
    assert (done.code, "rc: done" in done.out) == (0, True), done
    assert "WARNING: other: not mounted: layout: other: found no such jail" in done.err
    assert f"WARNING:   error S5-missing {root}/s/bind/etc" in done.err
    assert [target for _, target in host.layout_mounts()] == ["j/bind", "j/bind/s", "j/bind/t"]
    host.ok("sysrc layout_mount=bind; service layout stop")
    assert host.layout_mounts() == []
