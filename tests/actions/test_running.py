"""layout start, stop, status and exec: a real daemon in a jail, under each engine, and what can go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from busybox_yard import BUSYBOX, busybox_yard, command_of, eventually, fetch, processes, profile, web
from yard import Yard

from layout.actions import prepare_linux
from layout.host.linux import procs

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


def engine(yard: Yard) -> int:
    """Return the process that keeps jail a."""
    record = (yard.root / ".layout/run/a.toml").read_text(encoding="utf-8")
    return int(record.partition("pid = ")[2].split()[0])


def test_a_command_ends_with_the_layout_that_was_killed(yard: Yard) -> None:
    yard.ok("start", "a")
    before = processes()
    with yard.process("exec", "a", "--", "/bin/sleep", "98", stdin=subprocess.DEVNULL) as inside:
        assert eventually(lambda: any(command_of(pid) == "/bin/sleep 98" for pid in processes() - before))
        inside.kill()
    assert eventually(lambda: not processes() - before)
    yard.ok("stop", "a")


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
    assert again.out.startswith("a: already running, process ")
    assert "running" not in again.err
    yard.ok("stop", "a")
    again = yard.run("stop", "a")
    assert (again.code, again.out) == (0, "")
    assert again.err == "a: not running\n"


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
        '[linux.service]\ncommand = ["/bin/sleep", "99"]\nready = { tcp = "127.0.0.1:8081", timeout = 3 }\n',
    )
    done = yard.run("start", "a")
    assert done.code == 1
    assert "not ready after 3 s: 127.0.0.1:8081: connection refused" in done.err
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
    os.kill(engine(yard), signal.SIGKILL)
    assert eventually(lambda: state(yard) is None)
    assert eventually(lambda: found["pid"] not in processes())
    assert eventually(lambda: len(before - processes()) == 3)
    yard.ok("start", "a")
    os.kill(int(str(state(yard)["pid"])), signal.SIGKILL)  # type: ignore[index]
    assert eventually(lambda: state(yard) is None)
    done = yard.run("stop", "a")
    assert (done.code, done.out) == (0, "")


def test_exec_has_the_rights_of_the_jail_and_passes_its_status_on(yard: Yard) -> None:
    yard.ok("start", "a")
    script = "grep -q 'NoNewPrivs:.*1' /proc/self/status || exit 1; test $$ -lt 100 || exit 2; exit 42"
    with yard.process("exec", "a", "--", "/bin/sh", "-c", script) as done:
        out, err = done.communicate(timeout=60)
    assert (done.returncode, out, err) == (42, "", "")
    with yard.process("exec", "b", "--", "/bin/true") as done:
        _, err = done.communicate(timeout=60)
    assert done.returncode == 1
    assert "not running" in err


# --- weaker grades, addresses, and the other commands -------------------------------------------------------


def test_a_low_port_costs_the_user_namespace_and_verify_says_so(yard: Yard) -> None:
    profile(yard, "default", web(80, more='capabilities = ["net_bind_service"]'))
    assert "weak" in yard.ok("start", "a")
    assert fetch(80).endswith("hello\n")
    found = state(yard)
    assert found is not None
    assert found["grade"] == "weak"
    assert "net_bind_service" in str(found["notes"])
    assert ("a", "S3-weak", "warning") in yard.verify()


def test_a_full_grade_is_a_user_of_the_host_without_any_rights(yard: Yard) -> None:
    yard.ok("start", "a")
    found = state(yard)
    assert found is not None
    with open(f"/proc/{found['pid']}/status", encoding="ascii") as file:
        fields = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert all(int(uid) >= 524288 for uid in fields["Uid"].split())
    assert int(fields["CapPrm"], 16) == 0
    assert [code for name, code, _ in yard.verify() if name == "a"] == []


def test_addresses_come_with_a_jail_and_go_with_it(yard: Yard) -> None:
    addresses = '[linux.network]\ninterface = "lo"\nip4 = ["127.0.7.1/32"]\n'
    profile(yard, "default", web(8080, "127.0.7.1", addresses))

    def there() -> bool:
        shown = subprocess.run(
            ["ip", "address", "show", "dev", "lo"], capture_output=True, text=True, check=True
        )
        return "127.0.7.1/32" in shown.stdout

    yard.ok("start", "a")
    assert there()
    assert fetch(8080, "127.0.7.1").endswith("hello\n")
    yard.ok("stop", "a")
    assert not there()
    profile(yard, "default", web(8080, "127.0.7.1", addresses.replace("lo", "nosuch0")))
    done = yard.run("start", "a")
    assert done.code == 1
    assert "nosuch0: found no such interface" in done.err


def test_a_running_jail_is_neither_unmounted_nor_destroyed(yard: Yard) -> None:
    yard.ok("start", "a")
    for command in ("umount", "destroy"):
        done = yard.run(
            command,
            "a",
        )
        assert done.code == 1, command
        assert "layout stop a" in done.err
    assert fetch(8080).endswith("hello\n")


def test_recover_takes_away_what_a_dead_service_left(yard: Yard) -> None:
    yard.ok("start", "a")
    os.kill(engine(yard), signal.SIGKILL)
    assert eventually(lambda: state(yard) is None)
    assert ("a", "S5-service", "warning") in yard.verify()
    yard.ok("recover")
    assert yard.mounts() == []
    assert yard.verify() == [("a", "S1-unmounted", "error"), ("b", "S1-unmounted", "error")]


def answers(port: int) -> bool:
    try:
        return fetch(port).endswith("hello\n")
    except ConnectionError:
        return False


@pytest.mark.parametrize("moment", [0.1, 0.25])
def test_layout_killed_during_start_leaves_what_the_next_command_understands(
    yard: Yard, moment: float
) -> None:
    before = processes()
    with yard.process("start", "a") as starting:
        time.sleep(moment + 0.3)
        starting.kill()
        starting.wait()
    running = state(yard)
    if running is None:
        assert eventually(lambda: not processes() - before), "an engine that no record knows"
    assert yard.run("start", "a").code == 0
    # One that layout had recorded is left as it runs, and may not listen yet.
    assert eventually(lambda: answers(8080))
    yard.ok("stop", "a")


def test_the_ready_check_can_be_a_command_in_the_jail_or_a_socket(yard: Yard) -> None:
    check = 'ready = { command = ["/bin/test", "-e", "/run/up"], timeout = 30 }'
    run = '[[linux.service.run]]\npath = "run/x"\nowner = "web"\ngroup = "webs"\nmode = "0750"\n'
    script = "/bin/sleep 0.3; /bin/touch /run/up; exec /bin/sleep 99"
    profile(yard, "default", f'[linux.service]\ncommand = ["/bin/sh", "-c", "{script}"]\n{check}\n{run}')
    yard.ok("start", "a")
    pid = state(yard)["pid"]  # type: ignore[index]
    found = os.stat(f"/proc/{pid}/root/run/x")
    with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
        base = int(file.read().split()[1])
    assert (found.st_uid - base, found.st_gid - base, found.st_mode & 0o7777) == (80, 81, 0o750)
    yard.ok("stop", "a")
    profile(
        yard,
        "default",
        web(8080).replace('tcp = "127.0.0.1:8080", timeout = 30', 'socket = "/run/s", timeout = 3'),
    )
    done = yard.run("start", "a")
    assert "not ready after 3 s: /run/s: no such file or directory" in done.err


def test_verify_looks_at_the_process_and_not_at_the_record(yard: Yard) -> None:
    profile(yard, "default", web(80, more='capabilities = ["net_bind_service"]'))
    yard.ok("start", "a")
    pid = str(state(yard)["pid"])  # type: ignore[index]
    assert yard.verify("a") == [("a", "S3-weak", "warning")]
    words = ["nsenter", "-t", pid, "-m", "/bin/mount", "-o", "remount,bind,rw,exec", "none", "/s"]
    subprocess.run(words, check=True, capture_output=True)
    assert ("a", "S3-running", "error") in yard.verify("a")


def test_exec_gives_a_terminal_of_the_jail_to_whoever_has_one(yard: Yard) -> None:
    yard.ok("start", "a")
    master, slave = os.openpty()
    script = "tty; test -t 0 && read line && echo got $line; exit 5"
    with yard.process("exec", "a", "--", "/bin/sh", "-c", script, stdin=slave) as done:
        os.close(slave)
        os.write(master, b"word\n")
        out, err = done.communicate(timeout=60)
    os.close(master)
    assert (done.returncode, out.splitlines(), err) == (5, ["/dev/pts/0", "got word"], "")


def test_two_jails_never_have_the_same_users_of_the_host(yard: Yard) -> None:
    """Their numbers come from their names, and two may come to the same."""
    yard.ok("start", "a")
    pid = state(yard)["pid"]  # type: ignore[index]
    assert isinstance(pid, int)
    mapped = procs.uid_map(pid)
    assert mapped is not None
    inside, first, count = mapped
    assert (inside, count) == (0, 65536)
    place = (first - 524288) // 65536
    assert prepare_linux.free_range(place, procs.mapped_ranges()) == first + 65536
    yard.ok("stop", "a")
    # The control.
    assert eventually(lambda: prepare_linux.free_range(place, procs.mapped_ranges()) == first, 30)
