"""The confined session without a terminal: what it is, what it cannot do, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layout.host import forked
from layout.host.linux import namespaces_filter, process
from layout.host.linux.session import NINE

pytestmark = pytest.mark.box

DRIVER = str(Path(__file__).with_name("session_driver.py"))
PYTHON = os.path.realpath(sys.executable)


def driver(tmp_path: Path, *command: str, **told: object) -> list[str]:
    mountpoint = tmp_path / "manage" / "bind"
    mountpoint.mkdir(parents=True, exist_ok=True)
    told = {"mountpoint": str(mountpoint), "commands": [command], **told}
    return [sys.executable, "-B", DRIVER, json.dumps(told)]


def run(tmp_path: Path, *command: str, stdin: object = subprocess.DEVNULL, **told: object):
    done = subprocess.run(
        driver(tmp_path, *command, **told), stdin=stdin, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def sh(tmp_path: Path, script: str, **told: object):
    return run(tmp_path, "/bin/sh", "-c", script, **told)


def processes(word: str) -> list[int]:
    """Return the processes that this namespace shows with `word` among their arguments."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                arguments = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if word.encode() in arguments:
                found.append(int(entry))
    return found


@contextlib.contextmanager
def started(command: list[str], **options):
    """Start a process that does not outlive the test."""
    with subprocess.Popen(command, **options) as process_:
        try:
            yield process_
        finally:
            process_.kill()


def nap(number: int) -> str:
    """Return an argument of sleep(1) that nothing else on this machine has."""
    return str(10**9 + os.getpid() * 100 + number)


def until(condition, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def descendants(pid: int) -> list[int]:
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [found for child in children for found in descendants(child)]


# --- status


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("/bin/sh", "-c", "exit 0"), 0),
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("there-is-no-such-program",), 127),
        (("/etc/passwd/program",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_the_exit_status_is_that_of_the_command(tmp_path, command, status) -> None:
    assert run(tmp_path, *command).returncode == status


def test_a_program_that_is_not_there_is_named(tmp_path) -> None:
    assert run(tmp_path, "no\nsuch").stderr == "layout: no\\nsuch: not found in bind\n"


def test_a_second_session_in_the_same_process_works_and_leaves_it_able_to_fork(tmp_path) -> None:
    commands = [["sh", "-c", "echo first; exit 1"], ["sh", "-c", "echo second; echo $$"]]
    done = run(tmp_path, commands=commands)
    assert (done.returncode, done.stdout) == (0, "first\nsecond\n2\n")


@pytest.mark.parametrize(
    ("fail", "words", "status"),
    [
        ("layout", ["/some/path: found this, expected that", "hint: do it"], 1),
        ("os", ["/nonexistent/directory: found no such file"], 1),
        ("bug", ["ValueError: a mistake", "report it"], 1),
        ("nothing", ["/manage/bind"], 1),
    ],
)
def test_an_error_of_the_setting_up_is_raised_in_the_caller(tmp_path, fail, words, status) -> None:
    done = sh(tmp_path, "echo never", fail=fail)
    assert done.returncode == status
    assert not done.stdout
    for word in words:
        assert word in done.stderr


# --- what is inside


def test_only_the_nine_capabilities_are_left(tmp_path) -> None:
    nine = process.capability_mask(NINE)
    assert nine.bit_count() == 9
    assert process.capability_sets().effective & ~nine, "control: the caller has more"
    shown = sh(tmp_path, "grep ^Cap /proc/self/status").stdout.split()
    values = dict(zip(shown[::2], (int(value, 16) for value in shown[1::2]), strict=True))
    assert values == {"CapInh:": 0, "CapPrm:": nine, "CapEff:": nine, "CapBnd:": nine, "CapAmb:": 0}


def test_the_host_name_is_the_jails_inside_only(tmp_path) -> None:
    before = os.uname().nodename
    assert before != "bind"
    assert sh(tmp_path, "uname -n").stdout == "bind\n"
    assert os.uname().nodename == before


def test_the_hosts_processes_are_invisible_and_process_1_is_ours(tmp_path) -> None:
    with started(["sleep", nap(8)]) as outside:
        try:
            assert until(lambda: outside.pid in processes(nap(8))), "control: it can be seen outside"
            done = sh(
                tmp_path,
                "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'; echo; cat /proc/1/comm; ls -d /proc/[0-9]*",
            )
        finally:
            outside.kill()
    assert nap(8) not in done.stdout
    assert "\nlayout-session\n" in done.stdout
    assert {"/proc/1", "/proc/2"} <= set(done.stdout.split())


def test_what_process_1_holds_in_memory_is_closed_to_the_session(tmp_path) -> None:
    script = "for f in environ maps mem; do cat /proc/1/$f >/dev/null && echo READ $f; done; ls /proc/1/root/"
    done = sh(tmp_path, script + "; cat /proc/2/environ >/dev/null && echo control")
    assert done.stdout == "control\n"


def test_no_descriptor_above_2_is_inside(tmp_path) -> None:
    command = ["/bin/sh", "-c", "ls /proc/self/fd"]
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    control = subprocess.run(command, pass_fds=[fd], capture_output=True, text=True)
    os.close(fd)
    assert str(fd) in control.stdout.split(), "control: an open descriptor is inherited"
    assert run(tmp_path, *command, leak="/").stdout.split() == ["0", "1", "2", "3"]  # 3 is of ls itself


def test_a_lock_of_the_caller_is_held_by_no_process_of_the_session(tmp_path) -> None:
    lock = tmp_path / "lock"
    with started(driver(tmp_path, "sleep", nap(9), lock=str(lock)), stdin=subprocess.DEVNULL) as caller:
        try:
            assert until(lambda: processes(nap(9)))
            children = descendants(caller.pid)
            assert len(children) == 3

            def holders(pids: list[int]) -> list[int]:
                links = {pid: [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()] for pid in pids}
                return [pid for pid in pids if str(lock) in links[pid]]

            assert holders([caller.pid]) == [caller.pid], "control"
            assert until(lambda: not holders(children))
        finally:
            caller.terminate()


def test_the_environment_is_exactly_this(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SECRET", "of the administrator")
    monkeypatch.setenv("TERM", "xterm-256color")
    done = run(tmp_path, "env", environment={"DPKG_ADMINDIR": "/s/db/dpkg"})
    assert dict(line.split("=", 1) for line in done.stdout.splitlines()) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "LAYOUT_MANAGE": "bind",
        "TMPDIR": "/tmp",
        "PS1": "[manage:bind] $PWD # ",
        "DPKG_ADMINDIR": "/s/db/dpkg",
    }


def test_a_strange_TERM_stays_outside(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "x/../../etc")
    assert sh(tmp_path, "echo $TERM").stdout == "dumb\n"


def test_the_working_directory_is_the_root_and_files_are_made_0644(tmp_path) -> None:
    assert sh(tmp_path, "pwd -P; umask").stdout == "/\n0022\n"


def test_the_mounts_of_the_host_are_gone_inside_and_those_inside_never_come_out(tmp_path, shared) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    inside = sh(tmp_path, "cat /proc/self/mountinfo").stdout
    assert " /proc/sys ro," in inside
    assert str(tmp_path) not in inside
    assert "shared:" not in inside
    assert Path("/proc/self/mountinfo").read_text() == before


# --- what cannot be done


def in_user_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


REFUSED = {
    "mount": "mount -t tmpfs none /mnt",
    "remount": "mount -o remount,bind,rw /usr",
    "unmount": "umount /proc/sys",
    "device": "mknod /tmp/disk$$ b 254 0",
    "hostname": "hostname other",
    "kernel log": "dmesg",
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(tmp_path, what) -> None:
    command = REFUSED[what]
    done = sh(tmp_path, f"mkdir /mnt && echo control; {command} && echo DONE")
    assert done.stdout == "control\n", done.stdout
    assert "not found" not in done.stderr, done.stderr
    if what == "mount" or (what == "device" and not in_user_namespace()):  # control: root outside can
        assert subprocess.run(["unshare", "-m", "sh", "-c", command]).returncode == 0


def test_the_escape_from_a_chroot_stays_in_the_session(tmp_path) -> None:
    escape = (
        "import os; os.mkdir('/tmp/x'); os.chroot('/tmp/x')\n"
        "for _ in range(64): os.chdir('..')\n"
        "os.chroot('.')\n"
        f"print('ESCAPED' if os.path.exists({str(tmp_path / 'host-only')!r}) else 'inside')"
    )
    (tmp_path / "host-only").touch()
    cage = tmp_path / "cage"
    (cage / "tmp").mkdir(parents=True)
    control = subprocess.run(
        [sys.executable, "-c", f"import os; os.chroot({str(cage)!r}); os.chdir('/'); exec({escape!r})"],
        capture_output=True,
        text=True,
    )
    assert control.stdout == "ESCAPED\n", "control: it works against chroot(8)"
    done = run(tmp_path, PYTHON, "-I", "-c", escape)
    assert done.stdout == "inside\n", done.stderr


def test_the_kernels_settings_cannot_be_written(tmp_path) -> None:
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))  # control: root outside can
    done = sh(
        tmp_path,
        "true > /proc/sys/kernel/core_pattern && echo WRITTEN; true > /proc/sysrq-trigger && echo WRITTEN",
    )
    assert "WRITTEN" not in done.stdout
    assert "core_pattern: Read-only file system" in done.stderr


def test_a_user_namespace_inside_uncovers_nothing(tmp_path) -> None:
    done = sh(
        tmp_path,
        "unshare -Urm true && echo control\n"
        "unshare -Urm umount /proc/sys && echo OPEN\n"
        "unshare -Urm mount -o remount,bind,rw /proc/sys && echo OPEN\n"
        "unshare -Urmpf mount -t proc proc /proc && echo OPEN\n"
        "unshare -Urm sh -c 'true > /proc/sys/kernel/core_pattern' && echo OPEN",
    )
    # The wall behind the filter, which machines without one have alone.
    assert done.stdout == ("" if namespaces_filter.is_known() else "control\n")


# --- descriptors 0, 1, 2


def test_a_directory_is_refused_before_anything_is_started(tmp_path) -> None:
    done = run(tmp_path, "true", directory=True)
    assert done.returncode == 2
    assert "standard input of bind: found a directory" in done.stderr


def test_files_of_the_host_cross_as_bytes_only(tmp_path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text("precious\n" * 20000)
    target.touch(0o600)
    script = (
        "cat; chmod 4755 /proc/self/fd/1; echo x 1<>/proc/self/fd/0\n"
        "stat -L -c %F /proc/self/fd/0 /proc/self/fd/1 >&2"
    )
    with source.open() as stdin, target.open("w") as stdout:
        done = subprocess.run(
            driver(tmp_path, "sh", "-c", script),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 0
    assert done.stderr.count("fifo") == 2
    assert source.read_text() == target.read_text() == "precious\n" * 20000
    assert target.stat().st_mode & 0o7777 == 0o600


def test_two_descriptors_of_one_file_keep_their_order(tmp_path) -> None:
    target = tmp_path / "log"
    script = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done"
    with target.open("w") as log:
        subprocess.run(driver(tmp_path, "sh", "-c", script), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    assert target.read_text().split() == [f"{word}{i}" for i in range(1, 6) for word in ("out", "err")]


def test_output_that_could_not_be_written_is_an_error(tmp_path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        with (small / "out").open("w") as stdout:
            done = subprocess.run(
                driver(tmp_path, "sh", "-c", "head -c 300000 /dev/zero || true"),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                timeout=120,
            )
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert done.returncode == 1
    assert "no space left on device" in done.stderr


def test_the_null_device_is_the_sessions_own(tmp_path) -> None:
    ours = os.stat("/dev/null")
    same = f"{ours.st_dev}:{ours.st_ino}"
    # Nothing is changed before it is known whose it is: this very test once reached a host.
    script = f"test $(stat -c %d:%i /dev/null) = {same} && echo bound && exit; chmod 600 /proc/self/fd/0"
    done = sh(tmp_path, script + "; stat -L -c %a /proc/self/fd/0 /dev/null")
    if done.stdout == "bound\n":
        pytest.skip("mknod is not allowed here: /dev/null is the outer one, bound")
    assert done.stdout == "600\n600\n"
    assert os.stat("/dev/null").st_mode == ours.st_mode


KEYS_AND_NAMESPACES = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
first, unshare = (248, 272) if os.uname().machine == "x86_64" else (217, 97)
calls = (first, (b"user", b"x", b"x", 1, -4)), (first + 2, (1, None)), (unshare, (0x10000000,))
for call, arguments in calls:
    found = libc.syscall(call, *arguments)
    print(errno.errorcode[ctypes.get_errno()] if found < 0 else "worked")
"""


@pytest.mark.skipif(not namespaces_filter.is_known(), reason="no filter for this machine")
def test_a_session_has_no_keys_of_the_host_and_makes_no_user_namespace(tmp_path) -> None:
    done = run(tmp_path, PYTHON, "-I", "-c", KEYS_AND_NAMESPACES)
    assert done.stdout.split() == ["ENOSYS", "ENOSYS", "EPERM"], done.stderr
    # The control, where this host lets anybody make one.
    outside = subprocess.run([PYTHON, "-I", "-c", KEYS_AND_NAMESPACES], capture_output=True, text=True)
    made = subprocess.run(["unshare", "-U", "true"], capture_output=True, check=False).returncode == 0
    assert (outside.stdout.split()[2] == "worked") == made


def test_closed_descriptors_become_the_null_device(tmp_path) -> None:
    command = driver(tmp_path, "sh", "-c", "stat -L -c %t:%T /proc/self/fd/0 /proc/self/fd/2")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 0<&- 2>&-', "sh", *command], stdout=subprocess.PIPE, text=True, timeout=120
    )
    assert done.stdout == "1:3\n1:3\n"


def test_a_pipe_ends_when_the_command_closes_it(tmp_path) -> None:
    with started(
        driver(tmp_path, "sh", "-c", "echo word; exec >&- 2>&-; sleep 600"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as caller:
        try:
            assert caller.stdout.read(5) == b"word\n"
            # The caller's own copy is the only one left: none in the keeper, none in process 1.
            assert until(lambda: all(no_pipe(pid) for pid in descendants(caller.pid)))
        finally:
            caller.terminate()


def no_pipe(pid: int) -> bool:
    return not any(os.readlink(fd).startswith("pipe:") for fd in Path(f"/proc/{pid}/fd").iterdir())


# --- the end

DAEMON = "setsid nohup sleep {0} </dev/null >/dev/null 2>&1 & "


def test_a_daemon_left_behind_ends_with_the_session(tmp_path) -> None:
    done = sh(tmp_path, DAEMON.format(nap(1)) + "sleep 0.2; ls -d /proc/[0-9]* | wc -l")
    assert int(done.stdout) >= 3, "control: the daemon ran"
    assert processes(nap(1)) == []


def test_nothing_is_left_when_the_caller_is_killed(tmp_path) -> None:
    with started(
        driver(tmp_path, "sh", "-c", DAEMON.format(nap(2)) + f"sleep {nap(3)}"), stdin=subprocess.DEVNULL
    ) as caller:
        assert until(lambda: processes(nap(2)) and processes(nap(3))), "control: both ran"
        (daemon,) = processes(nap(2))
        namespace = os.readlink(f"/proc/{daemon}/ns/mnt")
        assert namespace != os.readlink("/proc/self/ns/mnt")
        caller.kill()
        caller.wait()

        def nothing() -> bool:
            return not (processes(nap(2)) or processes(nap(3)) or namespaces(namespace))

        assert until(nothing)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def namespaces(link: str) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.readlink(f"/proc/{entry}/ns/mnt") == link:
                    found.append(entry)
            except OSError:
                continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_caller_ends_the_session_in_order(tmp_path, number) -> None:
    script = "trap 'echo asked; exit 5' TERM HUP; " + DAEMON.format(nap(4)) + f"sleep {nap(5)} & wait"
    with started(
        driver(tmp_path, "sh", "-c", script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as caller:
        assert until(lambda: processes(nap(5)))
        caller.send_signal(number)
        out, _ = caller.communicate(timeout=60)
    assert out == "asked\n"
    assert caller.returncode == 128 + number
    assert processes(nap(4)) == []


def test_a_command_that_ignores_the_request_is_killed(tmp_path) -> None:
    with started(
        driver(tmp_path, "sh", "-c", f"trap '' TERM HUP; sleep {nap(6)}; sleep {nap(6)}"),
        stdin=subprocess.DEVNULL,
    ) as caller:
        assert until(lambda: processes(nap(6)))
        caller.terminate()
        assert caller.wait(60) == 143
    assert processes(nap(6)) == []


def test_a_time_that_was_over_before_the_session_began_ends_that_and_not_the_caller(tmp_path) -> None:
    done = run(tmp_path, "sh", "-c", f"sleep {nap(8)}", late=0.4)
    assert done.returncode == 128 + signal.SIGALRM
    assert processes(nap(8)) == []


def test_an_interrupt_reaches_the_command_and_not_the_caller(tmp_path) -> None:
    with started(
        driver(tmp_path, "sh", "-c", f"trap 'echo interrupted; exit 9' INT; sleep {nap(7)} & wait"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as caller:
        assert until(lambda: processes(nap(7)))
        caller.send_signal(signal.SIGINT)
        out, _ = caller.communicate(timeout=60)
    assert (out, caller.returncode) == ("interrupted\n", 9)


# --- a user namespace


def test_root_of_a_user_namespace_has_the_same_session(tmp_path) -> None:
    wrapped = [
        "unshare",
        "-Ur",
        *driver(
            tmp_path,
            "sh",
            "-c",
            "grep CapEff /proc/self/status; uname -n; echo $$; true > /proc/sys/kernel/core_pattern; pwd",
        ),
    ]
    if subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    done = subprocess.run(wrapped, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    nine = process.capability_mask(NINE)
    assert done.stdout.split()[1:] == [f"{nine:016x}", "bind", "2", "/"], done.stderr
    assert "Read-only file system" in done.stderr


def test_without_root_it_is_an_error(tmp_path) -> None:
    wrapped = ["unshare", "-U", *driver(tmp_path, "true")]
    done = subprocess.run(wrapped, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "expected root" in done.stderr


# --- process 1 itself


def test_process_1_loads_no_code_once_the_root_has_changed() -> None:
    def check() -> int:
        import colorsys  # noqa: F401 - control: it can be loaded

        forked.load_nothing_more()
        try:
            import imaplib  # noqa: F401
        except ImportError:
            return 0
        return 1

    assert "imaplib" not in sys.modules
    pid = forked.fork(check)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
