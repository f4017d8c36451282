"""Jails as the kernel knows them: a holder process in namespaces of its own, chrooted into the jail's path.

The mount namespace is the host's, as on FreeBSD: what the host mounts below a jail's path appears in
the jail, and what a jail uses cannot be unmounted. No process in it may chroot, mount or trace.
"""

from __future__ import annotations

import _signal as signal  # without the library's enumerations, whose import takes longer than most programs
import _socket  # the small half of socket
import os
import sys
import time

import kernel

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any, NoReturn


# chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_nice audit_write setfcap
_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 23, 29, 31}
_IMMUTABLE, _NET_RAW = 9, 13
_NAMESPACES = {"pid": kernel.CLONE_NEWPID, "uts": kernel.CLONE_NEWUTS, "ipc": kernel.CLONE_NEWIPC}

Jail = dict


class suppressed:
    def __init__(self, *errors: type[Exception]) -> None:
        self.errors = errors

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self.errors)


def start_time(pid: int) -> str:
    """Tells a process from a later one with its number; "" if it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def alive(jail: Jail) -> bool:
    return start_time(jail["init"]) == jail["init_start"]


def jails(state: dict[str, Any]) -> list[Jail]:
    """The jails that exist, by jid; the state forgets those whose holder is gone."""
    for key in [key for key, jail in state["jails"].items() if not alive(jail)]:
        del state["jails"][key]
    return [state["jails"][key] for key in sorted(state["jails"], key=int)]


def find(state: dict[str, Any], name: str) -> Jail | None:
    for jail in jails(state):
        if jail["name"] == name or (name.isdigit() and jail["jid"] == int(name)):
            return jail
    return None


def _namespace(pid: int | str, name: str = "pid") -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{name}")
    except OSError:
        return ""


def _space(path: str) -> str:
    """What tells a jail's processes: their pid namespace; or uts, where root and pids are the host's."""
    return "uts" if path == "/" else "pid"


def processes(jail: Jail) -> list[int]:
    """The pids in the jail, without the holder."""
    return _within(jail["init"], _space(jail["path"]))


def _within(holder: int, space: str) -> list[int]:
    own = _namespace(holder, space)
    return [
        pid for pid in pids() if pid != holder and own and _namespace(pid, space) == own and start_time(pid)
    ]


def pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def jid_of(found: list[Jail]) -> dict[str, int]:
    """Jids by the namespace that tells a jail."""
    return {_namespace(jail["init"], _space(jail["path"])): jail["jid"] for jail in found}


# --- making one ----


def create(path: str, hostname: str | None, *, ipc: bool, network: bool) -> tuple[int, str]:
    """Start the holder of a new jail and return its pid and start time."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    middle = os.fork()
    if middle == 0:
        try:
            os.close(reader)
            os.setsid()
            # A pidfile below / is read on both sides, so a jail that has the host's root has its pids too.
            whole = _space(path) == "uts"
            flags = (0 if whole else kernel.CLONE_NEWPID) | (kernel.CLONE_NEWIPC if ipc else 0)
            flags |= (kernel.CLONE_NEWUTS if whole or hostname is not None else 0) | (
                0 if network else kernel.CLONE_NEWNET
            )
            kernel.unshare(flags)
            if hostname:
                _socket.sethostname(hostname)
            holder = os.fork()
            if holder == 0:
                _hold(path, writer)
            os.write(writer, f"{holder} ".encode())
        except OSError as error:
            os.write(writer, f"error {error.strerror}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(middle, 0)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        told = pipe.read()
    if "ready" not in told or "error" in told:
        raise OSError(0, told.partition("error ")[2] or "the holder did not start")
    pid = int(told.replace("ready", "").split()[0])
    return pid, start_time(pid)


def _hold(path: str, writer: int) -> NoReturn:
    """Process 1 of a jail: takes in orphans; without persist, ends with the last of the others."""
    try:
        lasting = [True]
        for number in range(1, signal.NSIG):
            with suppressed(OSError, ValueError):
                signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, lambda *_: lasting.__setitem__(0, True))
        signal.signal(signal.SIGUSR2, lambda *_: lasting.__setitem__(0, False))
        kernel.prctl(kernel.PR_SET_NAME, b"jail-holder")
        os.chroot(path)
        os.chdir("/")
        _drop(set())
        os.write(writer, b"ready")
        os.closerange(0, 4096)
        while True:
            with suppressed(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not lasting[0]:
                if path == "/":
                    if not _within(os.getpid(), "uts"):
                        os._exit(0)
                else:
                    try:
                        os.kill(-1, 0)
                    except ProcessLookupError:
                        os._exit(0)
            time.sleep(0.02)
    finally:
        os._exit(1)


def persist(jail: Jail, *, on: bool) -> None:
    jail["persist"] = on
    with suppressed(ProcessLookupError):
        os.kill(jail["init"], signal.SIGUSR1 if on else signal.SIGUSR2)


def settle(jail: Jail, seconds: float = 5) -> None:
    """After persist was cleared: an empty jail is gone before anyone can look."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and alive(jail) and not processes(jail):
        time.sleep(0.01)


# --- going in, and the end ----


def _drop(more: set[int]) -> None:
    for number in range(64):
        if number not in _CAPABILITIES | more:
            with suppressed(OSError):
                kernel.prctl(kernel.PR_CAPBSET_DROP, number)


def attach(jail: Jail) -> None:
    """jail_attach(2), for the children of this process; the caller forks next and calls confine() there."""
    names = ["uts", "ipc", "net", "pid"]
    descriptors = [os.open(f"/proc/{jail['init']}/ns/{name}", os.O_RDONLY) for name in names]
    for descriptor in descriptors:
        kernel.setns(descriptor, 0)
        os.close(descriptor)


def confine(jail: Jail) -> None:
    """In the child: into the root, and nothing that leads out of it."""
    os.chroot(jail["path"])
    os.chdir("/")
    os.closerange(3, 4096)
    more = {_IMMUTABLE} if jail["params"].get("allow.chflags") in (["true"], ["1"]) else set()
    if jail["params"].get("allow.raw_sockets") in (["true"], ["1"]):
        more.add(_NET_RAW)
    _drop(more)


def kill(jail: Jail) -> None:
    """jail_remove(2): everything in it dies at once, and it is over when this returns."""
    while _space(jail["path"]) == "uts" and alive(jail) and (left := processes(jail)):
        for pid in left:
            with suppressed(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    if alive(jail):
        with suppressed(ProcessLookupError):
            os.kill(jail["init"], signal.SIGKILL)
    while alive(jail):
        time.sleep(0.005)


def stop(jail: Jail, seconds: float) -> None:
    """SIGTERM to all in it, then wait for them."""
    for pid in processes(jail) if seconds else []:
        with suppressed(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while time.monotonic() < end and processes(jail):
        time.sleep(0.02)
