"""A jail with a network of its own on Linux: who gets there, where it gets, and that nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from busybox_yard import BUSYBOX, busybox_yard, eventually, fetch, processes, profile
from net_yard import CLIENT, HOST, OUTSIDE, Outside, links, missing, tables
from yard import Yard

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
    pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}"),
]
each_engine = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name}"))
        for name in ("bwrap", "systemd-nspawn")
    ],
)

JAIL, GATEWAY = "10.79.0.2", "10.79.0.1"
GET = "GET /index.html HTTP/1.0\r\n\r\n"


def web(*, nat: bool = False, apply: bool = True, port: int = 2280, more: str = "") -> str:
    """Return a profile of httpd on port 80 of a jail's own network."""
    return f"""
[linux.network]
ip4 = ["{JAIL}/30"]
ip6 = ["disable"]
gateway = ["{GATEWAY}"]
external = "{OUTSIDE}"
nat = {str(nat).lower()}
apply = {str(apply).lower()}
{more}
[[linux.redirect]]
port = {port}
to = 80
[linux.service]
command = ["/bin/httpd", "-f", "-p", "80", "-h", "/srv"]
ports = ["80/tcp"]
ready = {{ tcp = "{JAIL}:80", timeout = 30 }}
"""


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("network"), ("a",)) as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard, client: Outside) -> Iterator[Yard]:
    """One jail that does not run; and nothing of its network may be left."""
    before = processes(), links(), tables()
    yield whole
    whole.run("stop", "a")
    assert eventually(lambda: not processes() - before[0]), processes() - before[0]
    assert (links(), tables()) == before[1:]
    assert whole.mounts() == []


def said_in(yard: Yard, *words: str) -> str:
    """Run a command in the jail; return its output."""
    with yard.process("exec", "a", "--", *words, stdin=subprocess.DEVNULL) as done:
        out, err = done.communicate(timeout=30)
    return out + err


@each_engine
def test_the_outside_gets_through_a_redirect_to_a_jail_and_nowhere_else(
    yard: Yard, client: Outside, engine: str
) -> None:
    profile(yard, "default", web())
    # A port below 1024 needs no root of the host in a network of its own.
    engine = engine.removeprefix("systemd-")
    assert yard.ok("start", "a", "--engine", engine).endswith(f"{engine}, full\n")
    assert client.ask(2280, say=GET).endswith("hello\n")
    assert "Error" in client.ask(80, JAIL, say=GET, seconds=0.5)
    assert fetch(80, JAIL).endswith("hello\n")
    assert fetch(2280, HOST).endswith("hello\n"), "the host itself"
    assert (
        "default via 10.79.0.1"
        in subprocess.run(
            ["nsenter", f"--net=/proc/{_pid(yard)}/ns/net", "ip", "route"], capture_output=True, text=True
        ).stdout
    )
    assert yard.ok("stop", "a") == "a: stopped\n"
    assert "Error" in client.ask(2280, say=GET, seconds=0.5)


def _pid(yard: Yard) -> int:
    return int(json.loads(yard.ok("--json", "status", "a"))["jails"]["a"]["running"]["pid"])


def test_without_rules_the_host_decides_and_nothing_is_applied(yard: Yard, client: Outside) -> None:
    """The control of the test above: the same packet gets to the jail where no rule of ours stops it."""
    profile(yard, "default", web(apply=False))
    before = tables()
    yard.ok("start", "a")
    assert tables() == before
    assert client.ask(80, JAIL, say=GET).endswith("hello\n")
    assert "Error" in client.ask(2280, say=GET, seconds=0.5)


@pytest.mark.parametrize("nat", [False, True])
def test_a_jail_begins_connections_to_the_outside_only_with_nat(
    yard: Yard, client: Outside, nat: bool
) -> None:
    profile(yard, "default", web(nat=nat))
    yard.ok("start", "a")
    with client.listening(4000) as heard:
        said = said_in(yard, "/bin/nc", "-w", "1", CLIENT, "4000")
        if nat:
            assert said == HOST, "the outside sees the host's address"
            assert heard.stdout is not None
            assert heard.stdout.readline() == f"{HOST}\n"
        else:
            assert "timed out" in said
    with socket.create_server((GATEWAY, 4001)):
        assert "timed out" in said_in(yard, "/bin/nc", "-w", "1", GATEWAY, "4001"), "never to the host"


def test_both_versions_of_ip_have_a_link(yard: Yard) -> None:
    text = web().replace('ip6 = ["disable"]', 'ip6 = ["fd00:79::2/64"]')
    profile(yard, "default", text.replace(f'["{GATEWAY}"]', f'["{GATEWAY}", "fd00:79::1"]'))
    forward = Path("/proc/sys/net/ipv6/conf/all/forwarding")
    before = forward.read_text()
    forward.write_text("1")
    try:
        yard.ok("start", "a")
        assert fetch(80, "fd00:79::2").endswith("hello\n")
        assert fetch(80, JAIL).endswith("hello\n")
        assert json.loads(yard.ok("--json", "status", "a"))["jails"]["a"]["running"]["grade"] == "full"
    finally:
        forward.write_text(before)


def test_a_dead_engine_leaves_rules_that_recover_removes(yard: Yard) -> None:
    profile(yard, "default", web())
    yard.ok("start", "a")
    record = (yard.root / ".layout/run/a.toml").read_text(encoding="utf-8")
    assert 'table = "layout-a"' in record
    os.kill(int(record.partition("pid = ")[2].split()[0]), signal.SIGKILL)
    assert eventually(lambda: json.loads(yard.ok("--json", "status", "a"))["jails"]["a"]["running"] is None)
    assert "layout-a" in tables()
    yard.ok("recover")
    assert "layout-a" not in tables()
    assert not (yard.root / ".layout/run/a.toml").exists()


@pytest.mark.parametrize("before", ["connect", "exists"])
def test_a_killed_start_leaves_nothing_unknown(yard: Yard, before: str) -> None:
    """Killed between the rules and the link, or before anything: what may be there is in the record."""
    profile(yard, "default", web())
    script = (
        "import os\nfrom layout.cli.main import run\nfrom layout.host.linux import veth\n"
        f"veth.{before} = lambda *words: os.kill(os.getpid(), 9)\n"
        f"run(['--root', '{yard.root}', 'start', 'a'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ("layout-a" in tables()) is (before == "connect")
    assert (yard.root / ".layout/run/a.toml").exists() is (before == "connect")
    # The process that was to become the engine sees that nobody is left to tell it so, and ends.
    assert eventually(lambda: json.loads(yard.ok("--json", "status", "a"))["jails"]["a"]["running"] is None)
    yard.ok("recover")
    assert "layout-a" not in tables()
    yard.ok("start", "a")


def test_a_start_that_fails_leaves_nothing(yard: Yard) -> None:
    before = links(), tables()
    profile(yard, "default", web().replace('"/bin/httpd"', '"/bin/false"'))
    assert yard.run("start", "a").code == 1
    assert (links(), tables()) == before


def test_a_port_that_a_daemon_of_the_host_has_is_not_taken_away(yard: Yard) -> None:
    profile(yard, "default", web())
    with socket.create_server(("0.0.0.0", 2280)):
        done = yard.run("start", "a")
    assert done.code == 1
    assert f"process {os.getpid()}" in done.err
    assert "redirect *:2280/tcp -> 10.79.0.2:80" in done.err
    yard.ok("start", "a")


def test_what_nobody_knows_of_is_left_alone(yard: Yard) -> None:
    profile(yard, "default", web())
    subprocess.run(["nft", "add", "table", "inet", "layout-a"], check=True)
    done = yard.run("start", "a")
    assert done.code == 1
    assert "nft delete table inet layout-a" in done.err
    assert "layout-a" in tables()
    subprocess.run(["nft", "delete", "table", "inet", "layout-a"], check=True)
    profile(yard, "default", web().replace(GATEWAY, HOST).replace(f"{JAIL}/30", "192.0.2.9/24"))
    done = yard.run("start", "a")
    assert done.code == 1
    assert f"{HOST}: found an address of {OUTSIDE}" in done.err


def test_a_host_that_passes_nothing_on_is_found_out(yard: Yard) -> None:
    profile(yard, "default", web())
    path = "/proc/sys/net/ipv4/ip_forward"
    with open(path, "w", encoding="ascii") as file:
        file.write("0")
    try:
        done = yard.run("start", "a")
    finally:
        with open(path, "w", encoding="ascii") as file:
            file.write("1")
    assert done.code == 1
    assert "sysctl net.ipv4.ip_forward=1" in done.err
