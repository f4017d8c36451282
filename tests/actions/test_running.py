"""layout start, stop, status and exec: a real daemon in a jail, under each engine, and what can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from busybox_yard import BUSYBOX, busybox_yard, eventually, fetch, processes, profile, web
from yard import Yard

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
]


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("running")) as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Iterator[Yard]:
    """Two jails, nothing mounted, nothing running; and nothing may be left."""
    before = processes()
    profile(whole, "default", web(8080))
    yield whole
    for name in whole.names:
        whole.run("stop", name)
    assert eventually(lambda: not processes() - before), processes() - before
    assert whole.mounts() == []


def state(yard: Yard, name: str = "a") -> dict[str, object] | None:
    """Return what status says of the service."""
    found = json.loads(yard.ok("--json", "status", name))["jails"][name]["running"]
    assert found is None or isinstance(found, dict)
    return found


def test_a_service_runs_and_ends_and_nothing_is_left(yard: Yard) -> None:
    assert state(yard) is None
    assert "running" in yard.ok("start", "a")
    assert fetch(8080).endswith("hello\n")
    found = state(yard)
    assert found is not None
    assert found["engine"] == "bwrap"
    with open(f"/proc/{found['pid']}/cmdline", encoding="utf-8") as file:
        assert file.read().startswith("/bin/httpd\0-f")
    assert "response:200" in (yard.root / ".layout/log/a.log").read_text(encoding="utf-8")
    assert yard.ok("stop", "a") == "a: stopped\n"
    assert state(yard) is None
    assert not (yard.root / ".layout/run/a.toml").exists()


def test_a_jail_that_was_mounted_stays_mounted(yard: Yard) -> None:
    yard.ok("mount", "a")
    before = yard.mounts()
    yard.ok("start", "a")
    yard.ok("stop", "a")
    assert yard.mounts() == before
    yard.ok("umount", "a")


def test_starting_and_stopping_twice_is_no_error_and_says_so(yard: Yard) -> None:
    yard.ok("start", "a")
    again = yard.run("start", "a")
    assert again.code == 0
    assert "already running" in again.err
    yard.ok("stop", "a")
    again = yard.run("stop", "a")
    assert (again.code, again.out) == (0, "")
    assert "not running" in again.err


def test_a_service_that_ends_at_once_shows_its_last_words(yard: Yard) -> None:
    script = "printf 'no\\\\033[1mway' >&2; exit 3"
    profile(yard, "default", f'[linux.service]\ncommand = ["/bin/sh", "-c", "{script}"]\n')
    done = yard.run("start", "a")
    assert done.code == 1
    assert "ended at once" in done.err
    assert "no\\x1b[1mway" in done.err
    assert state(yard) is None


def test_a_service_that_is_never_ready_is_stopped_again(yard: Yard) -> None:
    profile(
        yard,
        "default",
        '[linux.service]\ncommand = ["/bin/sleep", "99"]\nready = { tcp = "127.0.0.1:8081", timeout = 1 }\n',
    )
    done = yard.run("start", "a")
    assert done.code == 1
    assert "not ready after 1 s: 127.0.0.1:8081: connection refused" in done.err
    assert state(yard) is None


def test_a_taken_port_is_found_before_anything_starts(yard: Yard) -> None:
    yard.ok("start", "a")
    done = yard.run("start", "b")
    assert done.code == 1
    assert "(httpd) listening on 127.0.0.1" in done.err
    assert not (yard.root / ".layout/log/b.log").exists()


def test_an_engine_killed_from_outside_leaves_a_stopped_jail_that_starts_again(yard: Yard) -> None:
    yard.ok("start", "a")
    found = state(yard)
    assert found is not None
    before = processes()
    record = (yard.root / ".layout/run/a.toml").read_text(encoding="utf-8")
    engine = int(record.partition("pid = ")[2].split()[0])
    os.kill(engine, signal.SIGKILL)
    assert eventually(lambda: state(yard) is None)
    assert found["pid"] not in processes()
    assert len(before - processes()) == 3
    yard.ok("start", "a")
    os.kill(int(str(state(yard)["pid"])), signal.SIGKILL)  # type: ignore[index]
    assert eventually(lambda: state(yard) is None)
    done = yard.run("stop", "a")
    assert (done.code, done.out) == (0, "")


def test_exec_has_the_rights_of_the_jail_and_passes_its_status_on(yard: Yard) -> None:
    yard.ok("start", "a")
    script = "grep -q 'NoNewPrivs:.*1' /proc/self/status || exit 1; test $$ -lt 100 || exit 2; exit 42"
    with yard.process("exec", "a", "--", "/bin/sh", "-c", script) as done:
        out, err = done.communicate(timeout=20)
    assert (done.returncode, out, err) == (42, "", "")
    with yard.process("exec", "b", "--", "/bin/true") as done:
        _, err = done.communicate(timeout=20)
    assert done.returncode == 1
    assert "not running" in err
