"""The audit on FreeBSD: mounts by the host's table, privileges by jls(8), settings by sysctl(8)."""

from __future__ import annotations

import pytest

from tests.freebsd_host import FreeBSD, _freebsd  # noqa: F401

pytestmark = pytest.mark.box

SLEEPS = """\
kind = "shared"
description = "a daemon in the foreground"
[freebsd.service]
command = ["/bin/sleep", "100000"]
stop_timeout = 2
"""


def test_a_jail_of_freebsd_is_told_mounted_running_and_stopped(freebsd: FreeBSD) -> None:
    base = freebsd.small_base()
    freebsd.write("profile", SLEEPS)
    freebsd.ok(f"mkdir -p {freebsd.root}/etc/profiles; cp profile {freebsd.root}/etc/profiles/a.toml")
    freebsd.does("init", "a", "--base", base)
    document = freebsd.told("audit", "a")
    found = document["jails"]["a"]
    assert document["ok"], found["unseen"]
    assert (found["platform"], found["state"]) == ("freebsd", "mounted")
    powers = {one["path"]: one["powers"] for one in found["writable"]}
    assert powers["/t"] == ["write"]
    assert "/" not in powers and "/s" not in powers
    assert "enforce_statfs=2" in found["confinement"]
    assert {one["name"] for one in found["capabilities"]} <= {"allow.reserved_ports", "allow.suser"}
    values = {one["name"]: one["value"] for one in found["knobs"]}
    assert values["kern.securelevel"] == "-1"
    assert not next(one for one in found["knobs"] if one["name"] == "kern.securelevel")["ok"]
    freebsd.does("start", "a")
    found = freebsd.told("audit", "a")["jails"]["a"]
    assert found["state"] == "running"
    assert any(one.startswith("jail a, jid ") for one in found["confinement"])
    assert {"/dev/null", "/dev/zero"} <= {one["path"] for one in found["devices"]}
    freebsd.does("stop", "a")
    freebsd.does("umount", "a")
    assert freebsd.told("audit", "a")["jails"]["a"]["state"] == "unmounted"


def test_what_a_jail_left_where_something_runs_it_is_named(freebsd: FreeBSD) -> None:
    base = freebsd.small_base()
    freebsd.does("init", "a", "--base", base)
    tabs = freebsd.root / "t/a/var/cron/tabs"
    freebsd.ok(f"mkdir -p {tabs}; echo '@reboot /var/x' >{tabs}/root")
    found = freebsd.told("audit", "a")["jails"]["a"]
    assert {"path": "/var/cron/tabs", "reader": "cron(8)", "holds": "root"} in found["autorun"]
    assert "cron/tabs" in freebsd.does("audit", "a")
