"""What a FreeBSD jail's own files start with, so that it boots without an error on a read-only /etc.

Each is written when the base has none, and is the administrator's from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layout.core.model import Below, Directory, Entry, File

STATE = "/usr/local/var"
"""What describes s and must not be apart from it, as the jail sees it: out of t, out of the jail's reach."""

RC_CONF = {
    # /etc/motd leads to /var/run/motd, which rc.d/motd would fill with the host's version at each boot.
    "update_motd": "NO",
    # rc.d/tmp and rc.d/var mount a memory disk over what they find to be read-only.
    "tmpmfs": "NO",
    "varmfs": "NO",
    "populate_var": "NO",
    # The kernel's entropy is the host's.
    "entropy_file": "NO",
    "entropy_boot_file": "NO",
    "entropy_dir": "NO",
    "dumpdev": "NO",
    "sendmail_enable": "NONE",
    # No socket for other hosts, and no thundering herd of jails at the full minute.
    "syslogd_flags": "-ss",
    "cron_flags": "-J 60",
}
"""Settings of rc.conf(5). The host name is jail(8)'s to set."""

PERIODIC_CONF = {
    "daily_output": "/var/log/daily.log",
    "weekly_output": "/var/log/weekly.log",
    "monthly_output": "/var/log/monthly.log",
    "daily_status_security_output": "/var/log/security.log",
    # About the host's disks, pools, interfaces, kernel and packet filters.
    "daily_status_disks_enable": "NO",
    "daily_status_zfs_enable": "NO",
    "daily_status_network_enable": "NO",
    "security_status_kernelmsg_enable": "NO",
    "security_status_ipfwdenied_enable": "NO",
    "security_status_ipfwlimit_enable": "NO",
    "security_status_ipfdenied_enable": "NO",
    "security_status_ipf6denied_enable": "NO",
    "security_status_pfdenied_enable": "NO",
    # There is no sendmail(8) whose second queue could be looked at.
    "daily_status_include_submit_mailq": "NO",
    "daily_submit_queuerun": "NO",
    "daily_clean_hoststat_enable": "NO",
    # makewhatis(8) would write to /usr/share/man.
    "weekly_whatis_enable": "NO",
}
"""Settings of periodic.conf(5)."""

_YOURS = "made once by layout, yours from now on: layout manage NAME"


def files(name: str, rc_conf: Iterable[str]) -> tuple[Entry, ...]:
    """Return the entries of the read-only half of jail `name`; `rc_conf` has NAME=value of its profile."""
    s = f"s/{name}"
    wanted = dict(setting.split("=", 1) for setting in rc_conf)
    pkg = f'# pkg.conf(5), {_YOURS}\nPKG_DBDIR: "{STATE}/db/pkg"\nPKG_CACHEDIR: "{STATE}/cache/pkg"\n'
    make = (
        f"# make.conf(5), {_YOURS}\n"
        f"WRKDIRPREFIX?={STATE}/ports/work\n"
        f"DISTDIR?={STATE}/ports/distfiles\n"
        f"PACKAGES?={STATE}/ports/packages\n"
        f"PORT_DBDIR?={STATE}/db/ports\n"
        f"PKG_DBDIR?={STATE}/db/pkg\n"
    )
    merged = f"# etcupdate(8), {_YOURS}\nWORKDIR={STATE}/db/etcupdate\n"
    return (
        File(Below(f"{s}/etc/fstab"), "", 0o644, "scripts read it; its mounts are the host's business"),
        File(Below(f"{s}/etc/rc.conf"), _assignments("rc.conf", RC_CONF | wanted), 0o644, "how it boots"),
        File(
            Below(f"{s}/etc/periodic.conf"),
            _assignments("periodic.conf", PERIODIC_CONF),
            0o644,
            "without what is about the host",
        ),
        File(Below(f"{s}/etc/make.conf"), make, 0o644, "what builds ports writes nothing into t"),
        File(Below(f"{s}/etc/etcupdate.conf"), merged, 0o644, "where etcupdate(8) keeps its trees"),
        File(
            Below(f"{s}/usr-local/etc/pkg.conf"),
            pkg,
            0o644,
            "the package database stays with the packages, out of the jail's reach",
        ),
        Directory(Below(f"{s}/usr-local/var/db/etcupdate"), 0o755, "what its /etc was merged from"),
    )


def _assignments(file: str, settings: Mapping[str, str]) -> str:
    lines = "".join(f"{key}={quoted(value)}\n" for key, value in settings.items())
    return f"# {file}(5), {_YOURS}\n{lines}"


def quoted(value: str) -> str:
    """Return a value as sysrc(8) writes it: in double quotes, what sh(1) would expand in them escaped."""
    return '"' + "".join(f"\\{c}" if c in '\\"$`' else c for c in value) + '"'
