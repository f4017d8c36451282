"""The other designs on a real FreeBSD: OS-less, thin, full and service jails, and what is tried in them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layout.core.attacks import BAD
from layout.core.kinds import service
from layout.host import rc_services
from layout.host.freebsd import jails, rcconf

from .conftest import PRETENDED, system, table
from .test_service_jails import _probe  # noqa: F401

pytestmark = pytest.mark.freebsd

Run = Callable[..., str]
REPOSITORY = Path(__file__).resolve().parents[2]
FINGERD = REPOSITORY / "tests" / "actions" / "fingerd.c"
ADDRESS, PORT = "127.0.0.1", 10790

OSLESS = """\
kind = "osless"
description = "one static program"
[freebsd.osless]
program = "{place}/build/fingerd"
path = "srv/finger/bin/fingerd"
[[freebsd.mounts]]
source = "{place}/homes"
target = "home"
[freebsd.service]
command = ["/srv/finger/bin/fingerd", "127.0.0.1", "10790", "/home", "/log/queries"]
ready = {{ tcp = "127.0.0.1:10790", timeout = 30 }}
stop_timeout = 30
"""
THIN = """\
kind = "thin"
description = "the closure of one program"
[freebsd.service]
command = ["/bin/sleep", "5000"]
stop_signal = "INT"
stop_timeout = 30
user = "nobody"
"""
FULL = """\
kind = "full"
description = "a world of its own"
[freebsd.network]
ip4 = ["127.0.3.22/32"]
ip6 = ["disable"]
interface = "lo0"
[freebsd.service]
command = ["/bin/sleep", "5000"]
stop_timeout = 1
"""


class Product:
    """layout with ROOT below a place of its own."""

    def __init__(self, place: Path) -> None:
        self.root = place / "jails"
        self.root.mkdir(mode=0o700)
        (self.root / "etc/profiles").mkdir(parents=True)

    def profile(self, name: str, text: str) -> None:
        (self.root / f"etc/profiles/{name}.toml").write_text(text)

    def __call__(self, *words: str | Path, ok: bool = True) -> str:
        done = system(sys.executable, "-m", "layout", "--root", self.root, *words, cwd=REPOSITORY)
        assert "Traceback" not in done.stderr, done.stderr
        assert not ok or done.returncode == 0, done
        return done.stdout if ok else done.stdout + done.stderr

    def probed(self, name: str) -> int:
        """Return how much the probes tried; they must find nothing."""
        report: dict[str, Any] = json.loads(self("--json", "verify", "--probe", name))
        assert report["ok"], report
        return int(report["counts"]["probes"])

    def mounts(self) -> list[str]:
        top = f"{self.root}/"
        return [row["node"].removeprefix(top) for row in table() if row["node"].startswith(top)]


@pytest.fixture(name="product")
def _product(place: Path) -> Product:
    return Product(place)


def eventually(look: Callable[[], object], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def finger(query: str) -> str:
    with socket.create_connection((ADDRESS, PORT), timeout=30) as client:
        client.sendall(f"{query}\r\n".encode())
        text = b""
        while piece := client.recv(4096):
            text += piece
    return text.decode()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_an_osless_jail_is_started_stopped_and_reported_by_its_rc_script(
    place: Path, product: Product, run: Run
) -> None:
    (place / "build").mkdir()
    (place / "homes/alice").mkdir(parents=True)
    (place / "homes/alice/.plan").write_text("Alice plans.\n")
    run("cc", "-static", "-w", "-o", place / "build/fingerd", FINGERD)
    product.profile("finger", OSLESS.format(place=place))
    product("init", "finger")
    assert product.probed("finger") > 20
    product("start", "finger")
    assert "Alice plans." in finger("alice")
    script = product.root / "etc/rc.d/osless_finger"
    assert "is running as pid" in run("/bin/sh", script, "onestatus")
    jid = run("jls", "-j", "finger", "jid").strip()
    pid = (product.root / "etc/run/osless_finger.pid").read_text().strip()
    assert run("ps", "-o", "uid=", "-o", "jid=", "-p", pid).split() == ["65534", jid]
    # jail_attach(2), in the jail that runs.
    assert product.probed("finger") > 20
    run("/bin/sh", script, "onestop")
    assert system("/bin/sh", script, "onestatus").returncode == 1
    run("/bin/sh", script, "onestart")
    assert "is running as pid" in run("/bin/sh", script, "onestatus")
    assert "already running" in system("/bin/sh", script, "onestart").stderr
    product("stop", "finger")
    assert jails.find("finger") is None
    product("umount")
    assert product.mounts() == []
    product("destroy", "finger")


def test_a_thin_jail_is_there_while_its_program_runs_and_heeds_its_signal(
    place: Path, product: Product, run: Run
) -> None:
    open_to_others(place)
    product.profile("a", THIN)
    product("init", "a")
    assert product.mounts() == []
    product("start", "a")
    assert product.mounts()[:2] == ["j/a", "j/a/dev"]
    [pid] = jails.processes("a")
    assert run("ps", "-o", "user=", "-p", str(pid)).strip() == "nobody"
    assert product.probed("a") > 20
    # A shell that puts it into the background would leave it without INT, and it would have to be killed.
    assert "killed" not in product("stop", "a", ok=False)
    assert (jails.find("a"), product.mounts()) == (None, [])
    # The same by its script alone, and on other ways to end.
    script = place / "thin_a"
    script.write_text(product("render", "rc.d", "a"))
    shutil.rmtree(product.root / ".layout/thin")
    run("/bin/sh", script, "onestart")
    assert "is running as pid" in run("/bin/sh", script, "onestatus")
    assert "already running" in system("/bin/sh", script, "onestart").stderr
    run("killall", "-q", "-KILL", "-j", "a")
    assert eventually(lambda: not product.mounts())
    run("/bin/sh", script, "onestart")
    pidfile = product.root / ".layout/thin/a.pid"
    assert eventually(lambda: system("/bin/sh", script, "onestatus").returncode == 0)
    os.kill(int(pidfile.read_text()), 9)
    assert eventually(lambda: jails.find("a") is None and not product.mounts())
    run("/bin/sh", script, "onestart")
    assert "WARNING" not in run(
        "/bin/sh", script, "onestop", stderr=subprocess.STDOUT, capture_output=False, stdout=subprocess.PIPE
    )
    assert (jails.find("a"), product.mounts()) == (None, [])
    assert not (product.root / ".layout/thin/rc-a").exists()


def open_to_others(place: Path) -> None:
    for parent in (place, *place.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)


def test_a_full_jail_is_a_world_of_its_own(product: Product, base: Path) -> None:
    product.profile("cell", FULL)
    product("init", "cell", "--base", base)
    assert product.probed("cell") > 20
    product("start", "cell")
    assert (
        product("exec", "cell", "--", "/bin/sh", "-c", "echo inside >/etc/mine; cat /etc/mine") == "inside\n"
    )
    assert (product.root / "t/cell/etc/mine").read_text() == "inside\n"
    assert product.probed("cell") > 20
    product("stop", "cell")
    assert jails.find("cell") is None
    product("umount")
    product("destroy", "cell")


SITE = Path("/usr/local/etc/layout")


@pytest.fixture(name="site")
def _site(place: Path) -> Iterator[Path]:
    """A configuration of the host's own: a trial would touch no service."""
    if SITE.exists():
        pytest.skip(f"{SITE} is somebody's")
    SITE.mkdir(parents=True)
    (place / "jails").mkdir(mode=0o700)
    (SITE / "layout.toml").write_text(f'root = "{place}/jails"\n')
    yield SITE
    shutil.rmtree(SITE)


@pytest.mark.usefixtures("site")
def test_a_service_is_put_into_a_jail_and_taken_out(probe: str, run: Run) -> None:
    layout = [sys.executable, "-m", "layout"]
    run("service", probe, "onestart")
    assert rc_services.comes_up(probe)
    run(*layout, "init", probe, "--profile", "svc", cwd=REPOSITORY)
    assert rcconf.values([f"{probe}_svcj", f"{probe}_svcj_options"]) == {
        f"{probe}_svcj": "YES",
        f"{probe}_svcj_options": "net_basic",
    }
    assert jails.find(service.prison_name(probe)) is not None
    run(*layout, "verify", probe, cwd=REPOSITORY)
    run(*layout, "stop", probe, cwd=REPOSITORY)
    assert jails.find(service.prison_name(probe)) is None
    run(*layout, "start", probe, cwd=REPOSITORY)
    run(*layout, "destroy", probe, cwd=REPOSITORY)
    assert rcconf.values([f"{probe}_svcj"]) == {}


@pytest.mark.skipif(PRETENDED, reason="a stand-in has no kernel of its own to test")
def test_the_selftest_runs_and_nothing_gives_way(run: Run) -> None:
    before = (run("mount"), run("jls"))
    done = system(sys.executable, "-m", "layout", "--json", "selftest", cwd=REPOSITORY)
    assert "Traceback" not in done.stderr, done.stderr
    report = json.loads(done.stdout)
    verdicts = {
        (place["name"], one["id"]): one["verdict"] for place in report["places"] for one in place["results"]
    }
    # An old kernel is one of the findings; then the virtual machine is what is to be changed.
    bad = {key: value for key, value in verdicts.items() if value in BAD}
    assert {key for key in bad if key[1] != "patch-level"} == set(), bad
    assert done.returncode == (1 if bad else 0)
    assert (run("mount"), run("jls")) == before
