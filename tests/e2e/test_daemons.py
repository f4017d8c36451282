"""BIND, OpenLDAP and Heimdal answer from roots that they cannot change, under each engine of Linux."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.house import ADDRESSES, DAEMONS, NAMES, Jails, addresses, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

ENGINES = {"bwrap": "bwrap", "nspawn": "systemd-nspawn"}
REFUSED = {"EROFS", "EACCES", "EPERM"}
OPEN = {f"{when}write:{place}" for when in ("", "then-") for place in ("/tmp", "/var", "/var/tmp")}
# Memory that is empty at each start; what is written there cannot be executed either.
MEMORY = {f"{when}write:{place}" for when in ("", "then-") for place in ("/dev", "/dev/shm", "/run")}


def dig(jails: Jails, name: str) -> str:
    """Ask the running name server, from inside its jail."""
    return jails.ok(
        *("exec", "bind", "--", "dig", "+short", "+time=10", "+tries=3", f"@{ADDRESSES['bind']}", name)
    ).strip()


def results(text: str) -> dict[str, str]:
    found = dict(line.rsplit(" ", 1) for line in text.splitlines())
    assert len(found) > 40, text  # all of it ran
    return found


@pytest.fixture(name="engine", scope="module", params=ENGINES)
def _engine(request: pytest.FixtureRequest, jails: Jails) -> Iterator[str]:
    """The three jails running under one engine; stopped again, with nothing left of it."""
    engine: str = request.param
    if shutil.which(ENGINES[engine]) is None:
        pytest.skip(f"no {ENGINES[engine]}")
    before, others = jails.mounts(), addresses()
    done = jails.json("start", *NAMES, "--engine", engine)
    assert done["ok"]
    assert {state["engine"] for state in done["running"].values()} == {engine}
    yield engine
    stopped = jails.json("stop", *NAMES)["stopped"]
    assert sorted(stopped) == sorted(NAMES)
    assert processes(*DAEMONS) == []
    assert jails.mounts() == before
    assert addresses() == others
    jails.verified()


def test_a_second_init_changes_nothing(jails: Jails) -> None:
    assert jails.json("init", *NAMES, "--example")["changes"] == []
    jails.verified()


def test_each_daemon_gives_the_right_answer(jails: Jails, engine: str) -> None:
    assert dig(jails, "ldap.example.test") == ADDRESSES["ldap"]
    entry = jails.ok(
        *("exec", "ldap", "--", "ldapsearch", "-x", "-LLL", "-H", f"ldap://{ADDRESSES['ldap']}"),
        *("-b", "dc=example,dc=test", "cn=alice", "mail"),
    )
    assert "mail: alice@example.test" in entry
    script = "export KRB5CCNAME=/tmp/cc; kinit --password-file=STDIN alice && klist && kdestroy"
    ticket = jails.ok("exec", "heimdal", "--", "/bin/sh", "-c", script, stdin="rabbit\n")
    assert "krbtgt/EXAMPLE.TEST@EXAMPLE.TEST" in ticket
    wrong = jails.run("exec", "heimdal", "--", "/bin/sh", "-c", script, stdin="hare\n")
    assert wrong.code != 0


def test_status_and_verify_tell_the_truth_while_they_run(jails: Jails, engine: str) -> None:
    shown = jails.json("status")["jails"]
    for name in NAMES:
        state = shown[name]["running"]
        assert state["engine"] == engine
        daemon = Path(f"/proc/{state['pid']}/comm").read_text().strip()
        assert daemon in DAEMONS[:3]
    jails.verified()


def test_starting_what_runs_and_destroying_it_changes_nothing(jails: Jails, engine: str) -> None:
    before = {name: jails.json("status")["jails"][name]["running"]["pid"] for name in NAMES}
    jails.ok("start", *NAMES)
    assert jails.run("destroy", "ldap").code == 1
    assert {name: jails.json("status")["jails"][name]["running"]["pid"] for name in NAMES} == before


@pytest.mark.parametrize("name", NAMES)
def test_root_in_the_jail_can_change_nothing_but_var_and_tmp(
    jails: Jails, engine: str, probe: Path, name: str
) -> None:
    """Nor run what it writes, mount, make a device, or reach what speaks for the whole host."""
    install(jails, probe, name)
    found = results(jails.ok("exec", name, "--", "/usr/local/sbin/probe", "/usr/local/sbin/probe"))
    assert found.pop("sysrq") in REFUSED | {"ENOENT"}  # not every kernel has it
    allowed = {what for what, result in found.items() if result == "ok"}
    assert OPEN <= allowed <= OPEN | MEMORY
    surprises = {
        what: result for what, result in found.items() if what not in allowed and result not in REFUSED
    }
    assert surprises == {}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_attempts_succeed_with_all_capabilities(jails: Jails, probe: Path, name: str) -> None:
    """The control: in nothing but a chroot they work, so it is the jail that refuses them."""
    install(jails, probe, name)
    jail = jails.root / "j" / name
    script = 'mount -t proc proc "$0/proc"; exec chroot "$0" /usr/local/sbin/probe /usr/local/sbin/probe'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, jail],
        capture_output=True,
        text=True,
    )
    found = results(done.stdout)
    refused = {
        what for what, result in found.items() if result != "ok" and not what.endswith(("/dev/shm", "/run"))
    }
    # Read-only and noexec hold until it remounts, which is one of the things that it can do here.
    assert not {what for what in refused if what.startswith(("then-", "remount", "mount", "chroot", "core"))}
    assert {"write:/etc", "write:/usr", "exec:/tmp", "exec:/var"} <= refused
    jails.verified()


def install(jails: Jails, probe: Path, name: str) -> None:
    target = jails.root / "s" / name / "usr-local/sbin/probe"
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(probe, target)


def serves(jails: Jails, name: str, address: str) -> None:
    """Wait until the running name server says so."""
    deadline = time.monotonic() + 60
    while (found := dig(jails, name)) != address:
        assert time.monotonic() < deadline, f"named says {found!r} for {name}, not {address}"
        time.sleep(0.1)


def test_a_zone_edited_through_manage_is_served_after_a_reload(jails: Jails, engine: str) -> None:
    name, zone = f"new-{engine}.example.test", "/etc/bind/db.example.test"
    assert dig(jails, name) == ""
    refused = jails.run("exec", "bind", "--", "/bin/sh", "-c", f"echo x >>{zone}")
    assert refused.code != 0
    assert "Read-only file system" in refused.err
    serial = int(time.time())

    def edit(script: str) -> None:
        done = jails.run("manage", "bind", "--", "sed", "-i", script, zone)
        assert done.code == 0
        assert f"changed  {zone}" in done.err

    edit(f"s/( [0-9]* /( {serial} /; $ a new-{engine} IN A 192.0.2.7")
    jails.ok("manage", "bind", "--", "rndc", "-s", ADDRESSES["bind"], "reload")
    serves(jails, name, "192.0.2.7")
    # The profile's signal does the same.
    edit(f"s/( {serial} /( {serial + 1} /; s/192.0.2.7/192.0.2.8/")
    os.kill(jails.json("status")["jails"]["bind"]["running"]["pid"], signal.SIGHUP)
    serves(jails, name, "192.0.2.8")


def test_a_package_installed_in_the_base_reaches_every_jail(jails: Jails) -> None:
    """With the user that it makes, the same number in each, and what an administrator has added kept."""
    near = Path(os.environ["LAYOUT_DEBIAN_BASE"]).parents
    debs = [file for directory in near for file in directory.glob("debs/*.deb")]
    if not debs:
        pytest.skip("no package beside the base (.ci/base)")
    jails.ok("start", "bind")  # unless an engine of the tests above still has it
    jails.ok("manage", "ldap", "--", "sh", "-c", "echo site:x:4242: >>/etc/group")
    install = "cat >/tmp/new.deb && apt-get install -y -qq --no-install-recommends /tmp/new.deb"
    package = debs[0].read_bytes().decode("utf-8", "surrogateescape")
    done = jails.run("manage", "--base", "--", "/bin/sh", "-c", install, stdin=package)
    assert done.code == 0, done.err + done.out
    lines = set()
    for name in NAMES:
        found = [
            line
            for line in (jails.root / f"s/{name}/etc/passwd").read_text().splitlines()
            if line.startswith("uuidd:")
        ]
        assert len(found) == 1
        lines.update(found)
    assert len(lines) == 1
    assert "site:x:4242:\n" in (jails.root / "s/ldap/etc/group").read_text()
    assert "uuidd:x:" in (jails.root / "s/ldap/etc/group").read_text()
    # The jail that runs has it at once, and still cannot change it.
    assert "uuidd" in jails.ok("exec", "bind", "--", "uuidd", "--version")
    assert "ii  uuid-runtime" in jails.ok("exec", "bind", "--", "dpkg", "-l", "uuid-runtime")
    assert dig(jails, "kdc.example.test") == ADDRESSES["heimdal"]
    assert jails.json("base", "verify")["counts"]["errors"] == 0
    jails.verified()
