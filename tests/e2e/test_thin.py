"""BIND of a real Debian in the closure of its program: it answers, and of its root nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from layout.core.accounts import account
from layout.core.advise import advise
from layout.core.model import Kind, Platform
from layout.host.program_facts import facts_of
from tests.e2e.house import Jails, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.skipif(shutil.which("dig") is None, reason="needs bind9-dnsutils"),
]

ADDRESS = "127.0.3.54"
PROFILE = """
kind = "thin"
description = "named of the base"
[linux.thin]
root = "mroot"
users = ["bind"]
[linux.network]
ip4 = ["{address}/32"]
interface = "lo"
[linux.service]
command = ["/usr/sbin/named", "-g", "-u", "bind", "-c", "/etc/bind/named.conf"]
capabilities = ["net_bind_service", "setuid", "setgid"]
reload_signal = "HUP"
ports = ["53/tcp", "53/udp"]
ready = {{ tcp = "{address}:53" }}
[[linux.service.run]]
path = "run/named"
owner = "bind"
[[linux.mounts]]
source = "{top}/etc"
target = "etc/bind"
[[linux.mounts]]
source = "{top}/cache"
target = "var/cache/bind"
writable = true
"""
CONF = """
options {{ directory "/var/cache/bind"; listen-on port 53 {{ {address}; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; }};
controls {{ }};
zone "example.test" {{ type primary; file "/etc/bind/db"; }};
"""
ZONE = "$TTL 60\n@ IN SOA ns root ( 1 60 60 600 60 )\n@ IN NS ns\nns IN A 192.0.2.53\nwww IN A 192.0.2.80\n"


@pytest.fixture(name="house", scope="module")
def _house(tmp_path_factory: pytest.TempPathFactory, cli: Callable[..., Any]) -> Iterator[Jails]:
    """ROOT with a thin jail of the base's named; and what the host has for it."""
    assert not processes("named")
    top = tmp_path_factory.mktemp("thin").resolve()
    house = Jails(top / "jails", cli)
    profiles = house.root / "etc/profiles"
    profiles.mkdir(parents=True)
    (profiles / "named.toml").write_text(PROFILE.format(address=ADDRESS, top=top), encoding="utf-8")
    (top / "etc").mkdir()
    (top / "cache").mkdir()
    (top / "etc/named.conf").write_text(CONF.format(address=ADDRESS), encoding="utf-8")
    (top / "etc/db").write_text(ZONE, encoding="utf-8")
    for path in (top, top.parent):
        path.chmod(0o755)
    house.json("init", "named", "--base", os.environ["LAYOUT_DEBIAN_BASE"])
    etc = house.root / "skel/s/etc"
    bind = account("bind", (etc / "passwd").read_text(), (etc / "group").read_text())
    assert bind is not None
    os.chown(top / "cache", bind.uid, bind.gid)
    yield house
    house.run("stop", "named")
    gone(house)


def gone(house: Jails) -> None:
    assert processes("named", "bwrap") == []
    assert os.listdir(house.root / "j/named") == []
    assert [path for path in house.mounts() if "named" in path] == []


def dig(name: str) -> str:
    words = ["dig", "+short", "+time=10", "+tries=3", f"@{ADDRESS}", name]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def pid_of(house: Jails) -> int:
    return int(house.json("status", "named")["jails"]["named"]["running"]["pid"])


def test_it_answers_and_has_nothing_but_its_closure(house: Jails) -> None:
    begin = time.monotonic()
    house.ok("start", "named")
    assert time.monotonic() - begin < 60
    assert dig("www.example.test") == "192.0.2.80"
    report = house.json("verify", "named")
    assert report["counts"]["errors"] == 0, report
    seen = Path(f"/proc/{pid_of(house)}/root")
    for path in ("bin/sh", "usr/bin/sh", "bin/bash", "usr/bin/dash", "usr/bin/perl", "etc/shadow"):
        assert not (seen / path).exists(), path
    assert (seen / "usr/sbin/named").exists()
    assert (seen / "etc/passwd").read_text().startswith("bind:*:")
    assert len((seen / "etc/passwd").read_text().splitlines()) == 1
    programs = [one for one in (seen / "usr").rglob("*") if one.is_file() and not one.is_symlink()]
    assert {one.name for one in programs if ".so" not in one.name} == {"named"}
    assert house.run("exec", "named", "--", "/bin/sh", "-c", "true").code == 127
    assert "BIND 9" in house.ok("exec", "named", "--", "/usr/sbin/named", "-v")
    log = (house.root / ".layout/log/named.log").read_text(encoding="utf-8")
    assert "libgcc_s" not in log
    assert house.ok("stop", "named") == "named: stopped\n"
    gone(house)


def test_a_killed_named_leaves_nothing_and_starts_again_at_once(house: Jails) -> None:
    house.ok("start", "named")
    os.kill(pid_of(house), signal.SIGKILL)
    end = time.monotonic() + 60
    while processes("named", "bwrap") and time.monotonic() < end:
        time.sleep(0.05)
    gone(house)
    begin = time.monotonic()
    house.ok("start", "named")
    assert time.monotonic() - begin < 60
    assert dig("www.example.test") == "192.0.2.80"
    house.ok("stop", "named")
    gone(house)
    assert [code for code in codes(house) if code.startswith("T")] == []


def codes(house: Jails) -> list[str]:
    report = house.json("verify", "named")
    return [finding["code"] for finding in report["jails"]["named"]["findings"]]


def test_advise_knows_named_for_one_that_is_thin(house: Jails) -> None:
    facts = facts_of("/usr/sbin/named", Platform.LINUX, str(house.root / "j/mroot"))
    assert facts.ports == ("53/tcp", "53/udp")
    found = advise(facts)
    assert found.kind is Kind.THIN, found.reasons
