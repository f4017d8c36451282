"""What root of a jail plants in t for the administrator, and what is seen of it outside the session."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

from layout.host import forked
from layout.host.attacks import files, frame, session
from layout.host.linux import process
from layout.host.linux.targets import BASE, HOME, IN_S, IN_T, ROOT, performed

_SCRIPT = "open({path!r}, 'w').write('x')\n"
_HONEST = "pass\n"
_EVIL = f"{IN_T}/evil"
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - of the jail


def prepare() -> None:
    """Put what is the administrator's own into the base: it is what the session should find."""
    for path, text in (
        ("/var/lib/dpkg/status", "Package: demo\n"),
        ("/var/lib/dpkg/info/demo.prerm", _HONEST),
        ("/var/db/ports/demo/options", _HONEST),
        ("/var/cache/debconf/config.dat", _HONEST),
        ("/var/lib/ucf/file", "as it was delivered\n"),
        ("/var/cache/ldconfig/aux-cache", ""),
        ("/var/log/messages", "a line\n"),
    ):
        _write(BASE + path, text)
    _write(f"{BASE}{_TEMPORARY[1]}/.keep", "")


def _write(path: str, text: str) -> None:
    files.directories(os.path.dirname(path))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant everything in a jail's t, and change every temporary file that appears there meanwhile."""
    t = f"{ROOT}/t/{name}"
    with contextlib.suppress(OSError):
        os.unlink(f"{t}/var/lib/dpkg")  # a link into mroot, for tools that know no other place
    payload = _SCRIPT.format(path=f"{IN_S}/pwned")
    for path, text in (
        ("var/lib/dpkg/info/demo.prerm", payload),
        ("var/db/ports/demo/options", payload),
        ("var/cache/debconf/config.dat", payload),
        ("var/lib/ucf/file", "as it was\n"),
        ("var/run/ld-elf.so.hints", _EVIL),
        ("tmp/fix", payload),
        ("var/tmp/fix", payload),
        (f"{IN_T[1:]}/fix", payload),
    ):
        _write(f"{t}/{path}", text)
    os.symlink(f"{IN_S}/file", f"{t}/var/log/link")
    os.unlink(f"{t}/var/log/messages")
    os.mkfifo(f"{t}/var/log/messages")
    _libraries(f"{t}{_EVIL}")
    watcher = forked.fork(lambda: _watch(tuple(t + one for one in _TEMPORARY)))
    try:
        yield
    finally:
        os.kill(watcher, signal.SIGKILL)
        os.waitpid(watcher, 0)


def _libraries(target: str) -> None:
    """Copy the libraries of the base, all but libc and the loader, without which nothing would start."""
    for path in files.below(BASE):
        name = os.path.basename(path)
        needed = name.startswith(("libc.", "ld-", "ld.", "libpthread"))
        if ".so" in name and not needed and not path.startswith(BASE + HOME):
            files.copy(path, f"{target}/{name}", 0o755)


def _watch(directories: tuple[str, ...]) -> int:
    process.prctl(1, signal.SIGKILL)
    while True:
        for directory in directories:
            with contextlib.suppress(OSError):
                fd = os.open(f"{directory}/{session.TEMPORARY}", os.O_WRONLY | os.O_TRUNC)
                os.write(fd, b"evil")
                os.close(fd)
        time.sleep(0.005)


def on_terminal(work: Callable[[], object]) -> tuple[str, bool]:
    """Run `work` in a child whose terminal is a new one, as an administrator's is.

    Returns what it printed, and whether somebody typed there: what is typed is for whoever reads next.
    """
    master, slave = os.openpty()
    after = termios.tcgetattr(slave)
    after[3] &= ~(termios.ECHO | termios.ICANON)

    def dress() -> None:
        os.setsid()
        termios.tcsetwinsize(slave, (24, 80))
        for fd in range(3):
            os.dup2(slave, fd)
        _controlling(0)
        os.close(slave)
        os.close(master)

    try:
        pid = forked.fork(lambda: performed(work, dress))
        said = _heard(master, pid)
        termios.tcsetattr(slave, termios.TCSANOW, after)
        typed = b""
        while select.select([slave], [], [], 0)[0]:
            typed += os.read(slave, 4096)
        return said, session.TYPED.strip() in typed
    finally:
        os.close(master)
        os.close(slave)


def _controlling(fd: int) -> None:
    import fcntl

    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def _heard(master: int, pid: int) -> str:
    data = b""
    end = time.monotonic() + frame.SECONDS + 3
    ended = False
    while time.monotonic() < end:
        if select.select([master], [], [], 0.02)[0]:
            data += os.read(master, 65536)
        elif ended:
            break
        elif os.waitpid(pid, os.WNOHANG)[0]:
            ended = True
    if not ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


def control(aim: frame.Aim) -> dict[str, Any]:
    """The control: the same on the administrator's own terminal, with all capabilities."""
    _, typed = on_terminal(lambda: session.terminal(aim))
    return {"worked": typed, "errnos": [], "said": "", "untried": False}
