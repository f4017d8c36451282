"""Running commands for jail(8) and jexec(8), outside and inside a jail (facts 2.4 and 2.8)."""

from __future__ import annotations

import _signal as signal
import grp
import os
import pwd
import sys
import time

import kernel
import prison

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from collections.abc import Callable

META = set("!\"$&'()*;<>?[\\]`{|}~")


class Failed(Exception):
    """A command could not be run, and why."""


class How:
    """The circumstances of one command."""

    def __init__(self, jail: prison.Jail | None, *, clean: bool = False, home: bool = False) -> None:
        self.jail = jail  # inside, if any
        self.clean, self.home = clean, home
        self.user = ""
        self.system_user = False  # look the user up on the host
        self.log = ""
        self.timeout = 0
        self.env: dict[str, str] = {}
        self.lasting = False  # goes on after us


def words(command: str) -> tuple[list[str], bool]:
    """The argument vector of one exec.* value, and whether it goes to the background."""
    command = command.strip()
    background = command.endswith(" &") and not set(command[:-2]) & META
    if background:
        command = command[:-2].strip()
    if set(command) & META:
        if command.endswith("&") and not command.endswith("&&"):
            return ["/bin/sh", "-c", command[:-1].strip()], True
        return ["/bin/sh", "-c", command], False
    return command.split(), background


def run(argv: list[str], how: How, *, background: bool = False) -> int:
    """Run it and return its wait status as a shell would show it."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(how.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if how.log else -1
    how.lasting = background
    child = os.fork()
    if child == 0:
        # A process of its own joins the pid namespace, so that later children of ours stay on the host.
        _child(argv, how, how.jail, log)
    if log >= 0:
        os.close(log)
    if background:
        return 0
    return _wait(child, how.timeout)


def _child(argv: list[str], how: How, jail: prison.Jail | None, log: int) -> None:
    try:
        if log >= 0:
            os.dup2(log, 1)
            os.dup2(log, 2)
        account = pwd.getpwnam(how.user) if how.user and how.system_user else None
        groups = _groups(account) if account else []
        if jail:
            if not how.lasting:
                kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            prison.attach(jail)
            inner = os.fork()
            if inner:
                status = _wait(inner, 0)
                os._exit(status if status >= 0 else 128 - status)
            if not how.lasting:
                kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            prison.confine(jail)
        os._exit(_become(argv, how, account, groups))
    except Failed as error:
        print(f"jail: {error}", file=sys.stderr)
    except KeyError:
        print(f"jail: {how.user}: no such user", file=sys.stderr)
    except OSError as error:
        print(f"jail: {argv[0]}: {error.strerror}", file=sys.stderr)
    except BaseException as error:  # never back into the parent's code
        print(f"jail: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(127)


def _groups(account: pwd.struct_passwd) -> list[int]:
    return [account.pw_gid] + [group.gr_gid for group in grp.getgrall() if account.pw_name in group.gr_mem]


def _local_account(user: str) -> tuple[pwd.struct_passwd, list[int]]:
    """From /etc/passwd and /etc/group of wherever we are: libc's lookups may have been cached outside."""
    for line in _lines("/etc/master.passwd") or _lines("/etc/passwd"):
        fields = line.split(":")
        if fields[0] == user and len(fields) >= 7:
            home, shell = fields[-2:]
            account = pwd.struct_passwd((user, "*", int(fields[2]), int(fields[3]), "", home, shell))
            groups = [g.split(":") for g in _lines("/etc/group")]
            return account, [account.pw_gid] + [int(g[2]) for g in groups if user in g[-1].split(",")]
    raise Failed(f"getpwnam: {user}: no passwd entry in the jail")


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in file if ":" in line]
    except OSError:
        return []


def _become(argv: list[str], how: How, account: pwd.struct_passwd | None, groups: list[int]) -> int:
    user = how.user or ("root" if how.clean else "")
    if user and account is None:
        account, groups = _local_account(user)
    env = dict(os.environ) | how.env
    if how.clean:
        env = {"PATH": "/bin:/usr/bin", "TERM": os.environ.get("TERM", "dumb")}
    if account:
        if how.clean:
            env |= {"HOME": account.pw_dir, "SHELL": account.pw_shell or "/bin/sh", "USER": account.pw_name}
        if how.home:
            try:
                os.chdir(account.pw_dir)
            except OSError as error:
                raise Failed(f"chdir {account.pw_dir}: {error.strerror}") from error
        if account.pw_uid or account.pw_gid or groups != [0]:
            os.setgroups(groups)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    env = {name: value for name, value in env.items() if not (how.jail and name.startswith("LAYOUT_BOX"))}
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        # What the caller ignores stays ignored, as in every execve(2); SIGPIPE is ignored by Python alone.
        if number == signal.SIGPIPE or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    return _exec(argv, env)


def _exec(argv: list[str], env: dict[str, str]) -> int:
    """execvp(3); os.execvpe would import a module, and in a jail there is none."""
    places = [""] if "/" in argv[0] else [f"{place}/" for place in env.get("PATH", "").split(":")]
    for place in places[:-1]:
        with prison.suppressed(FileNotFoundError, NotADirectoryError, PermissionError):
            os.execve(f"{place}{argv[0]}", argv, env)
    os.execve(f"{places[-1]}{argv[0]}", argv, env)


def _wait(child: int, timeout: int) -> int:
    """The exit status, or minus the signal; signals that we get go to the child."""

    def forward(number: int, _frame: object) -> None:
        with prison.suppressed(ProcessLookupError):
            os.kill(child, number)

    old: list[tuple[int, object]] = []
    handlers: dict[int, Callable[[int, object], None]] = {signal.SIGTERM: forward, signal.SIGHUP: forward}
    for number in (signal.SIGINT, signal.SIGQUIT):
        handlers[number] = lambda *_: None
    for number, handler in handlers.items():
        old.append((number, signal.signal(number, handler)))
    end = time.monotonic() + timeout if timeout else None
    try:
        while True:
            pid, code = os.waitpid(child, os.WNOHANG if end else 0)
            if pid:
                return os.waitstatus_to_exitcode(code)
            if end and time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return -signal.SIGALRM
            time.sleep(0.01)
    finally:
        for number, handler in old:
            signal.signal(number, handler)  # type: ignore[arg-type]
