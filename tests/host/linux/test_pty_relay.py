"""The session's own terminal, driven through a pseudoterminal that stands for the administrator's."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from layout.host.pty_relay import Pump, Relay, Terminal
from tests.screen import Screen

DRIVER = str(Path(__file__).with_name("session_driver.py"))
PYTHON = os.path.realpath(sys.executable)


class Outer(Screen):
    """A caller of session.run on a terminal of its own, whose master we hold."""

    def __init__(self, tmp_path: Path, *command: str, wrap: tuple[str, ...] = (), **told: object) -> None:
        mountpoint = tmp_path / "manage" / "bind"
        mountpoint.mkdir(parents=True, exist_ok=True)
        told = {"mountpoint": str(mountpoint), "commands": [command], "verbose": True, **told}
        arguments = [*wrap, sys.executable, "-B", DRIVER, json.dumps(told)]
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 30, 90, 0, 0))
            os.execvp(arguments[0], arguments)
        self.before = termios.tcgetattr(self.master)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def rest(self) -> str:
        """Return all output up to the end."""
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return self.text
            self.text += data.decode()

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self.master)


@pytest.fixture(name="outer")
def _outer(tmp_path):
    made = []

    def make(*command: str, **told: object) -> Outer:
        made.append(Outer(tmp_path, *command, **told))
        return made[-1]

    yield make
    for outer in made:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(outer.pid, signal.SIGKILL)
            outer.wait()
        with contextlib.suppress(OSError):
            os.close(outer.master)


box = pytest.mark.box


@box
def test_the_shell_has_a_terminal_that_it_can_name_and_a_prompt_that_names_the_jail(outer) -> None:
    shell = outer()
    shell.expect(r"\[manage:bind\] / # ")
    shell.send("tty; cd /usr\n")
    shell.expect(r"[\r\n]/dev/pts/\d+\r\n")
    shell.expect(r"\[manage:bind\] /usr # ")
    shell.send("exit 5\n")
    shell.expect("status=5")
    assert shell.wait() == 5


@box
@pytest.mark.parametrize("program", ["/bin/dash", "/bin/bash", "/usr/bin/busybox"])
def test_every_usual_shell_shows_the_prompt(outer, program) -> None:
    if not os.path.exists(program):
        pytest.skip(f"there is no {program}")
    arguments = {"/bin/bash": ["--norc"], "/usr/bin/busybox": ["sh"]}.get(program, [])
    shell = outer(program, *arguments)
    shell.expect(r"\[manage:bind\] / # ")
    shell.send("exit\n")
    shell.expect("status=0")


@box
def test_the_window_size_is_copied_and_follows(outer) -> None:
    script = "stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    shell = outer("sh", "-c", script)
    shell.expect(r"30 90\r\nready\r\n")
    shell.resize(50, 120)
    shell.expect(r"50 120\r\n")
    shell.expect("status=0")


@box
def test_the_interrupt_key_reaches_the_session_and_not_the_caller(outer) -> None:
    shell = outer("sh")
    shell.expect(r"\[manage:bind\]")
    shell.send("sleep 87102; echo rc=$?\n")
    shell.expect(r"sleep 87102")
    shell.until_it_runs("sleep", "87102")
    shell.send("\x03")
    shell.send("echo alive=$?\n")
    shell.expect(r"alive=130\r\n")
    os.kill(shell.pid, 0)
    shell.send("exit 4\n")
    shell.expect("status=4")


@box
def test_job_control_works_inside(outer) -> None:
    shell = outer("bash", "--norc")
    shell.expect(r"\[manage:bind\]")
    shell.send("sleep 87103\n")
    shell.until_it_runs("sleep", "87103")
    shell.send("\x1a")
    shell.expect(r"Stopped")
    shell.send("kill %1; exit\n")


@box
def test_the_terminal_is_raw_during_the_session_and_as_before_after_it(outer) -> None:
    shell = outer("sh")
    shell.expect(r"\[manage:bind\]")
    assert not shell.attributes()[3] & termios.ICANON, "control: it was changed"
    shell.send("stty -echo; exit\n")
    shell.expect("status=0")
    assert shell.attributes() == shell.before


@box
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_the_terminal_is_put_back_after_a_signal(outer, number) -> None:
    shell = outer()
    shell.expect(r"\[manage:bind\]")
    assert shell.attributes() != shell.before
    os.kill(shell.pid, number)
    shell.expect(f"status={128 + number}")
    assert shell.attributes() == shell.before


@box
def test_the_terminal_is_put_back_when_the_program_is_not_there(outer) -> None:
    shell = outer("there-is-no-such-program")
    shell.expect(r"not found in bind\r\n")
    shell.expect("status=127")
    assert shell.attributes() == shell.before


@box
def test_a_stop_from_outside_puts_the_terminal_back_meanwhile(outer) -> None:
    shell = outer("sh")
    shell.expect(r"\[manage:bind\]")
    os.kill(shell.pid, signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(shell.pid, os.WUNTRACED)[1])
    assert shell.attributes() == shell.before
    os.kill(shell.pid, signal.SIGCONT)
    shell.send("echo again\n")
    shell.expect(r"\r\nagain\r\n")
    assert not shell.attributes()[3] & termios.ICANON


@box
def test_a_terminal_that_goes_away_ends_the_session(outer) -> None:
    shell = outer("sh", "-c", "trap '' HUP; echo begun; sleep 87101; sleep 87101", verbose=False)
    shell.expect("begun")
    os.close(shell.master)
    assert shell.wait() == 128 + signal.SIGHUP


INJECT = (
    "import fcntl, os, termios\n"
    "fd = os.open('/dev/tty', os.O_RDWR)\n"
    "for byte in b'touch /tmp/PWNED\\n': fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))\n"
)


@box
def test_input_pushed_into_a_terminal_stays_in_the_session(outer) -> None:
    control = outer(commands=[], inject=True, pending=True)
    found = control.expect(r"pending=(b'.*')").group(1)
    if "PWNED" not in found:
        pytest.skip("this kernel lets nobody push input (dev.tty.legacy_tiocsti)")
    with open("/proc/sys/dev/tty/legacy_tiocsti", encoding="ascii") as file:
        if file.read().strip() != "1":
            pytest.skip("this kernel lets nobody without CAP_SYS_ADMIN push input")
    attacked = outer(PYTHON, "-I", "-c", INJECT, pending=True)
    attacked.expect("status=0")
    assert attacked.expect(r"pending=(b'.*')").group(1) == "b''"


@box
def test_no_descriptor_of_the_session_is_the_outer_terminal(outer) -> None:
    shell = outer("sh", "-c", "stat -L -c %d:%i /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2")
    found = shell.expect(r"(\d+:\d+)\r\n(\d+:\d+)\r\n(\d+:\d+)\r\n").groups()
    assert len(set(found)) == 1
    ours = os.stat(os.ttyname(os.open(f"/proc/{shell.pid}/fd/0", os.O_RDWR | os.O_NOCTTY)))
    assert found[0] != f"{ours.st_dev}:{ours.st_ino}"


@box
def test_all_output_arrives_also_what_is_written_last(outer) -> None:
    shell = outer("seq", "1", "60000")
    numbers = shell.rest().replace("status=0\r\n", "").split()
    assert numbers == [str(number) for number in range(1, 60001)]


@box
def test_the_last_words_of_a_signalled_session_arrive(outer) -> None:
    shell = outer("sh", "-c", "trap 'echo farewell; exit' TERM HUP; echo begun; sleep 600 & wait")
    shell.expect("begun")
    os.kill(shell.pid, signal.SIGTERM)
    shell.expect("farewell")
    shell.expect("status=143")


@box
def test_a_pipe_stays_a_pipe_beside_a_terminal(outer) -> None:
    script = "cat; test -t 0 || echo no-keys >&2; test -t 2 && echo a-screen >&2"
    shell = outer("sh", "-c", script, wrap=("sh", "-c", 'echo word | "$@" | tr a-z A-Z', "sh"))
    output = shell.rest()
    for word in ("WORD", "no-keys", "a-screen", "STATUS=0"):
        assert word in output


@box
def test_a_terminal_that_is_not_wanted_is_refused(outer) -> None:
    refused = outer("true", terminal=False)
    refused.expect("standard input of bind: found a terminal")
    assert refused.wait() == 2


@box
def test_a_terminal_can_be_asked_for_without_having_one(tmp_path) -> None:
    mountpoint = tmp_path / "manage"
    mountpoint.mkdir()
    told = {"mountpoint": str(mountpoint), "commands": [["sh", "-c", "tty; cat"]], "terminal": True}
    done = subprocess.run(
        [sys.executable, "-B", DRIVER, json.dumps(told)],
        input="word\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "/dev/pts/0" in done.stdout.splitlines(), done.stderr
    assert done.stdout.count("word") == 2  # typed, and read
    assert done.returncode == 0


# --- without a session


def pump_all(pump: Pump, limit: int = 1000) -> None:
    for _ in range(limit):
        wanted = dict(pump.wants())
        if not wanted:
            return
        poll = select.poll()
        for fd, mask in wanted.items():
            poll.register(fd, mask)
        pump.move(dict(poll.poll(1000)))
    raise AssertionError("it never ends")


def test_a_pump_waits_for_a_slow_reader_and_loses_nothing() -> None:
    source, feed = os.pipe()
    drain, sink = os.pipe()
    os.set_blocking(sink, False)
    os.set_blocking(feed, False)
    pump = Pump(source, sink)
    sent = 0
    for _ in range(100):
        with contextlib.suppress(BlockingIOError):
            sent += os.write(feed, bytes(4096))
        ready = select.select([source] if dict(pump.wants()).get(source) else [], [sink], [], 0)
        pump.move({**dict.fromkeys(ready[0], select.POLLIN), **dict.fromkeys(ready[1], select.POLLOUT)})
    assert source not in dict(pump.wants()), "it stops reading when nobody takes anything"
    os.close(feed)
    received = 0
    os.set_blocking(drain, False)
    for _ in range(1000):
        with contextlib.suppress(BlockingIOError):
            received += len(os.read(drain, 65536))
        wanted = dict(pump.wants())
        if not wanted:
            break
        pump.move(wanted)
    while True:
        try:
            received += len(os.read(drain, 65536))
        except BlockingIOError:
            break
    assert received == sent
    for fd in (source, drain, sink):
        os.close(fd)


def test_a_pump_says_farewell_and_closes_what_is_its_own() -> None:
    source, feed = os.pipe()
    drain, sink = os.pipe()
    os.write(feed, b"words")
    os.close(feed)
    pump_all(Pump(source, sink, own=sink, farewell=b"\x04"))
    assert os.read(drain, 100) == b"words\x04"
    assert os.read(drain, 100) == b""
    os.close(source)
    os.close(drain)


def failure_of_writing_to(sink: int) -> OSError | None:
    source, feed = os.pipe()
    os.write(feed, b"words")
    relay = Relay()
    relay.outputs.append(Pump(source, sink))
    pump_all(relay.outputs[0])
    assert relay.outputs[0].broken
    for fd in (source, feed, sink):
        os.close(fd)
    return relay.failure()


def test_a_full_disk_is_a_failure_and_a_reader_that_left_is_none() -> None:
    full = failure_of_writing_to(os.open("/dev/full", os.O_WRONLY))
    assert full is not None
    assert full.errno == errno.ENOSPC
    drain, sink = os.pipe()
    os.close(drain)
    assert failure_of_writing_to(sink) is None


def test_a_terminal_is_put_back_when_the_work_raises() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with pytest.raises(ZeroDivisionError), Terminal(slave, keys=True, screen=True):
        assert termios.tcgetattr(slave) != before
        raise ZeroDivisionError
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_a_terminal_whose_screen_is_anothers_keeps_its_carriage_returns() -> None:
    master, slave = pty.openpty()
    with Terminal(slave, keys=True, screen=False):
        attributes = termios.tcgetattr(slave)
        assert attributes[1] & termios.OPOST
        assert not attributes[3] & termios.ICANON
    os.close(master)
    os.close(slave)
