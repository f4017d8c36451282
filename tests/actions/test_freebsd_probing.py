"""The probes on a pretended FreeBSD host: in a throw-away jail, and in the live one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.freebsd_host import FreeBSD

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box

ENOUGH = 130
PROFILE = """\
kind = "shared"
description = "a daemon in the foreground"
[freebsd.service]
command = ["/bin/sleep", "100000"]
stop_timeout = 1
"""


@pytest.fixture(name="host", scope="module")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeBSD]:
    """One host with the jail a, mounted by layout; each test leaves it so."""
    host = FreeBSD(tmp_path_factory.mktemp("probing").resolve())
    host.does("init", "a", "--base", host.small_base(), "--boot", "none")
    yield host
    host.close()


def probed(host: FreeBSD) -> tuple[set[str], int]:
    """Return the codes that the probes of jail a find, and how much they tried."""
    found = host.told("verify", "--quick", "--probe", "a")
    codes = {f["code"] for f in found["jails"]["a"]["findings"]}
    return {code for code in codes if code.startswith("A")}, found["counts"]["probes"]


def tree(host: FreeBSD) -> str:
    return host.ok(f"cd {host.root}; find j s t manage -printf '%p %y %m %U %G %n %T@ %s %l\\n' | sort")


def test_a_whole_jail_has_nothing_and_nothing_is_left(host: FreeBSD) -> None:
    before, mounted = tree(host), host.mounted()
    codes, count = probed(host)
    assert codes == set()
    assert count > ENOUGH
    assert tree(host) == before
    assert host.mounted() == mounted
    assert host.ok("jls name") == ""


@pytest.mark.parametrize(
    ("half", "options", "codes"),
    [
        ("s", "rw,nosuid", {"A1-writable", "A3-changed"}),
        ("t", "rw,nosuid", {"A2-executable"}),
        ("t", "rw", {"A2-executable", "A5-setuid"}),
        ("t", "ro,nosuid,noexec", {"A7-denied"}),
    ],
    ids=["s writable", "t executable", "t with setuid", "t read-only"],
)
def test_a_mount_without_its_options_is_found(
    host: FreeBSD, half: str, options: str, codes: set[str]
) -> None:
    target, source = f"{host.root}/j/a/{half}", f"{host.root}/{half}/a"
    host.ok(f"umount {target}; mount -t nullfs -o {options} {source} {target}")
    try:
        before = tree(host)
        assert codes <= probed(host)[0]
        assert tree(host) == before
    finally:
        host.ok(f"umount {target}")
        host.does("mount", "a")


def test_a_fifo_of_the_base_is_used(host: FreeBSD) -> None:
    fifo = host.root / "j/mroot/usr/channel"
    host.ok(f"mkfifo {fifo}")
    try:
        assert probed(host)[0] == {"A8-channel"}
    finally:
        fifo.unlink()


def test_a_jail_that_cannot_be_made_is_not_passed(host: FreeBSD) -> None:
    host.write("jails/etc/profiles/default.toml", PROFILE + '[freebsd.jail]\nallow = ["vmm"]\n')
    try:
        assert probed(host) == ({"A0-unprobed"}, 0)  # this release does not know that word
    finally:
        host.ok(f"rm {host.root}/etc/profiles/default.toml")


def test_what_a_killed_probe_left_is_ended(host: FreeBSD) -> None:
    left = f"jail -c name=layout-probe-a-999999 path={host.root}/j/a persist"
    host.ok(left)
    assert probed(host)[0] == set()
    assert host.ok("jls name") == ""
    host.ok(left)
    assert "left by a probe" in host.does("recover")
    assert host.ok("jls name") == ""


def test_a_live_jail_is_attached_to_and_start_probes_it(host: FreeBSD) -> None:
    host.write("jails/etc/profiles/default.toml", PROFILE)
    host.does("init", "a")
    try:
        started = host.told("start", "a")
        assert started["findings"] == {}
        assert started["ok"]
        assert started["probes"] > ENOUGH
        before = host.ok("jls -q jid name")
        codes, count = probed(host)
        assert codes == set()
        assert count > ENOUGH
        assert host.ok("jls -q jid name") == before
    finally:
        host.does("stop", "a")
