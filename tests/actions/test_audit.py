"""The audit says what root of a jail can write, execute and reach, and follows nothing that he planted."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from busybox_yard import BUSYBOX, busybox_yard, profile, web
from yard import Yard, mount, nest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.box, pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")]
needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")


@pytest.fixture(name="yard", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("audit"), ("a",)) as yard:
        yield yard


@pytest.fixture(name="fresh")
def _fresh(yard: Yard) -> Iterator[Yard]:
    yield yard
    yard.run("stop", "a")
    yard.run("umount", "a")
    shutil.rmtree(yard.root / "etc/profiles", ignore_errors=True)
    yard.renew()


def audit(yard: Yard, code: int = 0) -> dict[str, Any]:
    done = yard.run("--json", "audit", "a")
    assert done.code == code, done.err + done.out
    document = json.loads(done.out)
    assert document["ok"] == (code == 0)
    found: dict[str, Any] = document["jails"]["a"]
    return found


def writable(found: dict[str, Any]) -> dict[str, list[str]]:
    return {one["path"]: one["powers"] for one in found["writable"]}


def test_a_jail_that_is_not_mounted_is_told_by_its_plan(fresh: Yard) -> None:
    found = audit(fresh)
    assert (found["state"], found["seen_by"]) == ("unmounted", "the plan")
    assert writable(found) == {"/t": ["write"]}
    assert found["writable"][0]["shown_as"] == ["/tmp", "/var"]
    assert "/bin/busybox" in next(one["paths"] for one in found["residue"] if one["id"] == "interpreters")


def test_what_is_mounted_is_what_counts(fresh: Yard) -> None:
    """The control: a mount that is weaker than planned is told as it is."""
    fresh.ok("mount", "a")
    found = audit(fresh)
    assert (found["state"], writable(found)) == ("mounted", {"/t": ["write"]})
    mount("-o", "remount,bind,rw,nosuid,nodev", fresh.root / "j/a/s")
    mount("-o", "remount,bind,rw,suid,dev,exec", fresh.root / "j/a/t")
    found = audit(fresh)
    assert writable(found) == {
        "/s": ["write", "execute"],
        "/t": ["write", "execute", "setuid", "devices"],
    }
    assert found["writable"][0]["shown_as"] == ["/etc", "/root", "/usr/local", "/usr/X11R6"]


@needs_bwrap
def test_a_running_jail_is_told_by_its_process(fresh: Yard) -> None:
    more = 'capabilities = ["net_bind_service", "setuid"]'
    profile(fresh, "default", web(8099, more=more))
    fresh.ok("start", "a", "--engine", "bwrap")
    found = audit(fresh)
    assert found["state"] == "running" and found["seen_by"].startswith("process ")
    assert set(writable(found)) >= {"/t", "/run", "/dev/shm"}
    assert {power for powers in writable(found).values() for power in powers} == {"write"}
    assert {one["name"] for one in found["capabilities"]} == {"net_bind_service", "setuid"}
    assert "no_new_privs" in found["confinement"]
    assert {one["path"] for one in found["devices"]} >= {"/dev/null", "/dev/zero"}
    assert "listens on 127.0.0.1 8099/tcp" in found["network"]


def test_what_root_of_the_jail_left_in_t_is_named(fresh: Yard) -> None:
    t = fresh.root / "t/a/var"
    shutil.copy(BUSYBOX, t / "su")
    (t / "su").chmod(0o4755)
    os.mkfifo(t / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(t / "socket"))
    os.mknod(t / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (t / "spool/cron/crontabs").mkdir(parents=True)
    (t / "spool/cron/crontabs/root").write_text("* * * * * /var/su\n")
    fresh.ok("mount", "a")
    found = audit(fresh)
    assert [(one["path"], one["works"]) for one in found["setuid"]] == [("/var/su", False)]
    assert ("/var/null", False) in [(one["path"], one["works"]) for one in found["devices"]]
    assert {one["path"] for one in found["sockets"]} == {"/var/pipe", "/var/socket"}
    assert [(one["path"], one["holds"]) for one in found["autorun"]] == [("/var/spool/cron/crontabs", "root")]
    text = fresh.ok("audit", "a")
    assert "/var/su" in text and "without effect here" in text


def test_settings_of_the_kernel_are_read_not_guessed(fresh: Yard) -> None:
    knobs = {one["name"]: one for one in audit(fresh)["knobs"]}
    path = "/proc/sys/fs/protected_symlinks"
    with open(path, encoding="ascii") as file:
        assert knobs["fs.protected_symlinks"]["value"] == file.read().strip()
    assert all(one["ok"] for one in knobs.values() if not one["value"])


def test_a_hostile_t_leads_nowhere_and_moves_no_cursor(fresh: Yard) -> None:
    t = fresh.root / "t/a"
    outside = fresh.elsewhere("victim")
    (outside / "secret-name").write_text("x")
    shutil.rmtree(t / "var/spool", ignore_errors=True)
    (t / "var/spool").symlink_to(outside)
    (t / "var/lib").rename(t / "var/lib.old") if (t / "var/lib").exists() else None
    (t / "var/lib").symlink_to("/etc")
    hostile = t / "var/\x1b]0;owned\x07\n"
    hostile.write_bytes(BUSYBOX.read_bytes()[:64])
    hostile.chmod(0o4755)
    nest(t / "var", 300)
    begin = time.monotonic()
    done = fresh.run("audit", "a")
    assert time.monotonic() - begin < 60
    assert done.code == 1
    assert "could not look" in done.out and "levels deep" in done.out
    assert "secret-name" not in done.out
    assert not {c for c in done.out if ord(c) < 32} - {"\n"}
    document = json.loads(fresh.run("--json", "audit", "a").out)
    assert "secret-name" not in json.dumps(document)
    assert "\\x1b" in document["jails"]["a"]["setuid"][0]["path"]
    subprocess.run(["rm", "-rf", t / "var/d"], check=True)


def test_a_user_is_told_to_be_root(fresh: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = fresh.run("audit", "a")
    assert done.code == 1
    assert "hint: run it as root" in done.err
