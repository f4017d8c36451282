"""daemon(8): detach a command, with a pidfile of the command or of its supervisor (facts 2.9, 7.3)."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import signal
import sys
import time

import options as getopt
import state as kept

USAGE = (
    "usage: daemon [-cfr] [-p child_pidfile] [-P supervisor_pidfile] [-o output_file]\n"
    "              [-R restart_delay] [-t title] [-u user] command arguments ..."
)

_BEFORE = 0.15
"""Seconds between the pidfile and execve(2): on a real host few, but some (usr.sbin/daemon/daemon.c)."""


def _opened(path: str) -> int:
    """The pidfile, locked for as long as it is open; it ends daemon(8) when another holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        sys.exit(f"daemon: pidfile ``{path}'': {error.strerror}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(
            f"daemon: process already running, pid: {os.read(descriptor, 20).decode().strip()}",
            file=sys.stderr,
        )
        sys.exit(3)
    return descriptor


def _write(descriptor: int, pid: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(pid).encode(), 0)


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        sys.exit(f"daemon: unknown user: {name}")


def _command(words: list[str], account: pwd.struct_passwd | None, *, quiet: bool, output: int) -> None:
    """In the child: become the command."""
    try:
        # What the caller ignores stays ignored, as in every execve(2). (That of Python alone is undone.)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if quiet or output >= 0:
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(output if output >= 0 else null, 1)
            os.dup2(output if output >= 0 else null, 2)
        if account:
            groups = [group.gr_gid for group in grp.getgrall() if account.pw_name in group.gr_mem]
            os.setgroups([account.pw_gid, *groups])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        os.execvp(words[0], words)
    except OSError as error:
        print(f"daemon: {words[0]}: {error.strerror}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(1)


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, words = getopt.getopt(argv, "cfo:P:p:R:rt:u:")
    except getopt.GetoptError as error:
        print(f"daemon: illegal option -- {error.opt}\n{USAGE}", file=sys.stderr)
        return 1
    values, flags = dict(given), {flag for flag, _ in given}
    if not words or not values.get("-R", "1").isdigit():
        print(USAGE, file=sys.stderr)
        return 1
    account = _user(values["-u"]) if "-u" in values else None
    pidfiles = {flag: _opened(values[flag]) for flag in ("-p", "-P") if flag in values}
    output = (
        os.open(values["-o"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if "-o" in values
        else -1
    )
    sys.stdout.flush()
    if os.fork():
        return 0
    os.setsid()
    if "-c" in flags:
        os.chdir("/")
    quiet = "-f" in flags
    if not flags & {"-p", "-P", "-r", "-R", "-o"}:
        _command(words, account, quiet=quiet, output=output)
    return _supervise(words, account, pidfiles, values, output=output)


def _supervise(
    words: list[str],
    account: pwd.struct_passwd | None,
    pidfiles: dict[str, int],
    values: dict[str, str],
    *,
    output: int,
) -> int:
    """Wait for the command, start it again when asked to, pass SIGTERM on, and take the pidfiles away."""
    ended: list[bool] = []
    child = 0

    def terminate(*_: object) -> None:
        ended.append(True)
        if child:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, terminate)
    if "-P" in pidfiles:
        _write(pidfiles["-P"], os.getpid())
    delay = int(values.get("-R", "1"))
    while True:
        child = os.fork()
        if child == 0:
            if "-p" in pidfiles:
                _write(pidfiles["-p"], os.getpid())
                time.sleep(_BEFORE)
            _command(words, account, quiet="-f" in values, output=output)
        if "-f" in values:
            null = os.open("/dev/null", os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
        os.waitpid(child, 0)
        child = 0
        if ended or not {"-r", "-R"} & set(values):
            break
        time.sleep(delay)
        if ended:
            break
    for flag, descriptor in pidfiles.items():
        # pidfile_remove(3): only if it is the same file still.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(values[flag]), os.fstat(descriptor)):
                os.unlink(values[flag])
    return 0
