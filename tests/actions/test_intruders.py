"""What root of the host puts into a running jail, where only its own processes see it, is found."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from busybox_yard import BUSYBOX, busybox_yard, eventually, profile
from yard import Yard

from layout.core import gateprogram
from layout.host import forked
from layout.host.linux import probe, procs, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("nsenter") is None, reason="needs util-linux"),
]

APART = '[linux.service]\ncommand = ["/bin/sleep", "1000"]\n'
GRADES = {"full": APART, "weak": f'{APART}ports = ["81/tcp"]\n'}
ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {package}"))
    for name, program, package in (
        ("bwrap", "bwrap", "bubblewrap"),
        ("nspawn", "systemd-nspawn", "systemd-container"),
    )
]


@pytest.fixture(name="yard", scope="module")
def _yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("intruders"), names=("a",)) as yard:
        (yard.top / "victim").mkdir()
        yield yard


@contextlib.contextmanager
def started(yard: Yard, grade: str, engine: str) -> Iterator[int]:
    """Start jail a; yields its first process."""
    profile(yard, "default", GRADES[grade])
    yard.ok("start", "a", "--engine", engine)
    try:
        record = (yard.root / ".layout/run/a.toml").read_text()
        first = procs.first_of_jail(int(record.partition("pid = ")[2].split()[0]))
        assert first is not None
        yield first
    finally:
        yard.run("stop", "a")


def intruders(yard: Yard) -> list[tuple[str, str]]:
    """Return path and words of what does not belong into jail a, by the quick look that cron takes."""
    report: Any = json.loads(yard.run("--json", "verify", "--quick", "a").out)
    found = report["jails"]["a"]["findings"]
    return [(f["path"].partition(" of process")[0], f["found"]) for f in found if f["code"] == "S3-running"]


def audited(yard: Yard) -> list[str]:
    """Return what the audit says of jail a that its plan does not."""
    report: Any = json.loads(yard.ok("--json", "audit", "a"))
    return list(report["jails"]["a"]["beyond"])


def within(pid: int, *words: str) -> None:
    subprocess.run(["nsenter", "-t", str(pid), "-m", "--", "/bin/busybox", *words], check=True)


MOUNTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "other programs over s": (("-o", "bind,ro", "/bin", "/s/etc"), "/s/etc", "a mount of"),
    "memory in t": (
        ("-t", "tmpfs", "-o", "nosuid,nodev,noexec", "x", "/t/tmp"),
        "/t/tmp",
        "a mount of tmpfs",
    ),
    "the same tree again": (("-o", "bind,ro,nosuid,nodev", "/s", "/s"), "/s", "more than one mount"),
    "s over t": (("-o", "bind", "/s", "/t"), "/t", "more than one mount"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("grade", GRADES)
def test_a_mount_that_only_the_jail_sees_is_found(yard: Yard, engine: str, grade: str) -> None:
    with started(yard, grade, engine) as first:
        assert intruders(yard) == audited(yard) == []
        for name, (words, path, found) in MOUNTS.items():
            within(first, "mount", *words)
            assert any(p == path and f.startswith(found) for p, f in intruders(yard)), name
            within(first, "umount", path)
        assert intruders(yard) == []


@pytest.mark.parametrize("where", ["/run", "/dev", "/proc/sys"])
def test_a_directory_of_the_host_among_the_mounts_of_an_engine_is_found(yard: Yard, where: str) -> None:
    with started(yard, "weak", "bwrap") as first:
        tree = syscalls.open_tree(syscalls.AT_FDCWD, bytes(yard.top / "victim"))

        def put() -> int:
            syscalls.setns(os.open(f"/proc/{first}/ns/mnt", os.O_RDONLY), syscalls.CLONE_NEWNS)
            syscalls.move_mount(tree, syscalls.AT_FDCWD, where.encode())
            return 0

        assert os.waitpid(forked.fork(put), 0)[1] == 0
        os.close(tree)
        # And without the options that the engine gave what was there.
        # As root of a user namespace, single nodes are mounts of their own, now out of sight below.
        told = {path for path, _ in intruders(yard)}
        assert where in told
        assert {path for path in told if path != where and not path.startswith(f"{where}/")} == set()


ENTERED = {
    ("-m", "-p"): "CapEff with",
    ("-m",): "no no_new_privs",
    ("-p",): "the mounts of the host",
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("grade", GRADES)
def test_a_process_that_has_more_than_the_jail_is_found(yard: Yard, engine: str, grade: str) -> None:
    with started(yard, grade, engine) as first, contextlib.ExitStack() as stack:
        before = procs.of_jail(first)
        for flags in ENTERED:
            words = ["nsenter", "-t", str(first), *flags, "--", "/bin/sleep", "1000"]
            intruder = stack.enter_context(subprocess.Popen(words, start_new_session=True))
            stack.callback(os.killpg, intruder.pid, signal.SIGKILL)
        assert eventually(lambda: len(procs.of_jail(first)) >= len(before) + len(ENTERED))
        told = {words for _, words in intruders(yard)}
        beyond = audited(yard)
        for found in ENTERED.values():
            assert any(words.startswith(found) for words in told), told
            assert any(found in words for words in beyond), beyond


def test_who_only_looks_in_is_no_intruder(yard: Yard) -> None:
    with started(yard, "weak", "bwrap"):
        others = [yard.process("verify", "a") for _ in range(3)]
        others.append(yard.process("exec", "a", "--", "/bin/sleep", "1", stdin=subprocess.DEVNULL))
        begun = time.monotonic()
        while time.monotonic() - begun < 2:
            assert intruders(yard) == []
        for other in others:
            said = other.communicate()
            assert other.returncode == 0, said


@pytest.mark.parametrize(("seconds", "stays"), [("0.6", False), ("1000", True)])
def test_what_somebody_brings_in_is_told_of_when_he_keeps_it(yard: Yard, seconds: str, stays: bool) -> None:
    """A child of probes or of exec is in the jail an instant before it has closed what leads there."""
    outside = os.open(yard.top, os.O_RDONLY | os.O_DIRECTORY)
    words = ["/bin/busybox", "sleep", seconds]
    try:
        with started(yard, "weak", "bwrap") as first:
            enter = ["nsenter", "-t", str(first), "-p", "-m", *words]
            quiet: Any = {
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.DEVNULL,
                "stderr": subprocess.DEVNULL,
            }
            with subprocess.Popen(enter, pass_fds=(outside,), start_new_session=True, **quiet) as other:
                try:
                    assert eventually(lambda: procs.children(other.pid))
                    (child,) = procs.children(other.pid)
                    held, looked = probe.held_outside(first, ())
                    told = {attempt.outcome for attempt in held if attempt.path == f"process {child}"}
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(other.pid, signal.SIGKILL)
            assert looked >= 2
            assert told == ({f"a directory outside as fd/{outside}"} if stays else set())
    finally:
        os.close(outside)


def started_with(yard: Yard, grade: str, engine: str, script: str) -> Path:
    """Start jail a with a script as its service; return its log, which has nothing of before."""
    text = GRADES[grade].replace('"/bin/sleep", "1000"', f'"/bin/sh", "-c", "{script}"')
    profile(yard, "default", text)
    log = yard.root / ".layout/log/a.log"
    log.unlink(missing_ok=True)
    yard.ok("start", "a", "--engine", engine)
    return log


UNSHARE = "/bin/busybox unshare -U /bin/busybox true"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("grade", GRADES)
def test_nobody_in_a_jail_makes_a_user_namespace(yard: Yard, engine: str, grade: str) -> None:
    """In one of his own, a user could mount memory, write to it and execute from it.

    Not in its first moment either, before layout has seen it.
    """
    assert subprocess.run(UNSHARE.split(), check=False).returncode == 0  # the control
    script = f"if {UNSHARE}; then echo made; else echo refused; fi; exec sleep 1000"
    log = started_with(yard, grade, engine, script)
    try:
        assert eventually(lambda: last_word(log) in {"made", "refused"})
        assert last_word(log) == "refused"
        with yard.process("exec", "a", "--", *UNSHARE.split(), stdin=subprocess.DEVNULL) as done:
            _, said = done.communicate()
        assert done.returncode == 1
        assert "unshare(" in said
    finally:
        yard.run("stop", "a")


def last_word(log: Path) -> str:
    return log.read_text().split()[-1] if log.exists() and log.read_text().split() else ""


AT_ONCE = (
    "for d in /run /dev/shm /dev; do cp /bin/busybox $d/x && $d/x true && echo ran $d; done; "
    "echo done; exec sleep 1000"
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("grade", GRADES)
def test_nothing_written_is_executed_in_the_first_moment_of_a_service(
    yard: Yard, engine: str, grade: str
) -> None:
    log = started_with(yard, grade, engine, AT_ONCE)
    try:
        assert eventually(lambda: last_word(log) == "done", 30)
        assert "ran" not in log.read_text()
        assert "ermission denied" in log.read_text()  # it was written, and tried
    finally:
        yard.run("stop", "a")


def test_a_service_is_never_let_in_when_its_start_is_killed(yard: Yard) -> None:
    """What waits for its jail to be closed ends with whoever was to close it."""
    code = gateprogram.program(os.uname().machine)
    if code is None:
        pytest.skip("no gate for this machine")
    reader, writer = os.pipe()
    path = yard.top / "gate"
    path.write_bytes(code)
    path.chmod(0o755)
    words = [str(path), "/bin/busybox", "readlink", "/proc/self/fd/0"]
    with subprocess.Popen(words, stdin=reader, stdout=subprocess.PIPE) as waiting:
        os.close(reader)
        os.close(writer)
        assert waiting.communicate(timeout=30) == (b"", None)
    assert waiting.returncode == 127
    done = subprocess.run(words, input=b"1", capture_output=True, check=True, timeout=30)
    assert done.stdout == b"/dev/null\n"  # the control
    done = subprocess.run([str(path), "/no/such"], input=b"1", capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (127, b"layout: the program of the service cannot be executed\n")


LOST = [("/run", 0x02, "nosuid"), ("/run", 0x08, "noexec"), ("/dev/shm", 0x04, "nodev")]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_option_that_a_mount_of_the_engine_has_lost_is_found(yard: Yard, engine: str) -> None:
    with started(yard, "weak", engine) as first:
        for path, flag, word in LOST:
            assert changed(first, path, clear=flag)
            assert intruders(yard) == [(path, f"without {word}")]
            assert changed(first, path, add=flag)
        assert intruders(yard) == []


def test_under_a_user_namespace_the_options_are_locked_by_the_kernel(yard: Yard) -> None:
    with started(yard, "full", "bwrap") as first:
        for path, flag in (("/t", 0x08), ("/s", 0x01), ("/", 0x01), ("/run", 0x08)):
            assert not changed(first, path, clear=flag)
            assert changed(first, path, add=flag)  # the control


def changed(pid: int, path: str, *, clear: int = 0, add: int = 0) -> bool:
    """Change the options of a mount of a jail, as root of the host; say whether that could be done."""

    def change() -> int:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
        syscalls.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), syscalls.CLONE_NEWNS)
        fd = os.open(path[1:] or ".", os.O_PATH, dir_fd=root)
        syscalls.mount_setattr(fd, attr_clr=clear, attr_set=add)
        return 0

    return os.waitpid(forked.fork(change), 0)[1] == 0


def test_who_lives_in_a_jail_without_a_record_is_found(yard: Yard) -> None:
    with started(yard, "full", "bwrap"):
        record = yard.root / ".layout/run/a.toml"
        aside = record.rename(record.with_name("aside"))
        try:
            assert ("a", "S3-left", "error") in yard.verify()
        finally:
            aside.rename(record)
        assert yard.verify() == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@pytest.mark.parametrize(
    ("grade", "engine"),
    [pytest.param(g, *e.values, marks=e.marks) for g, e in zip(GRADES, ENGINES, strict=True)],
)
def test_a_service_that_is_another_user_than_its_profile_says_is_found(
    yard: Yard, engine: str, grade: str
) -> None:
    give_setpriv(yard.root / "j/mroot")
    as_web = GRADES[grade].replace("\n", '\nuser = "web"\n', 1)
    with started(yard, grade, engine):
        assert intruders(yard) == []
        profile(yard, "default", as_web)
        assert {found for _, found in intruders(yard)} == {"Uid 0", "Gid 0"}
        profile(yard, "default", as_web.replace("web", "nosuch"))
        assert [found for _, found in intruders(yard)] == ["no user nosuch"]
        profile(yard, "default", as_web)
        yard.ok("restart", "a", "--engine", engine)
        assert intruders(yard) == []
        # One of more groups, and another user: what the jail's own files say counts.
        group = yard.root / "s/a/etc/group"
        before = group.read_text()
        try:
            group.write_text(f"{before}more:x:90:web\n")
            assert [found for _, found in intruders(yard)] == ["Groups none"]
        finally:
            group.write_text(before)
        profile(yard, "default", as_web.replace("web", "nobody"))
        assert {found for _, found in intruders(yard)} == {"Uid 80", "Gid 81", "Groups 81"}


def give_setpriv(base: Path) -> None:
    """Put setpriv(1) of the host, with its libraries, into the base."""
    program = shutil.which("setpriv")
    assert program is not None
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    paths = [word for word in libraries.split() if word.startswith("/")]
    for path, place in ((program, "/usr/bin/setpriv"), *zip(paths, paths, strict=True)):
        target = base / place[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
