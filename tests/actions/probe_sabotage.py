"""Ways to break a layout of two jails, `a` and `b`, that the probes have to find, each by its own code."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from busybox_yard import profile
from sabotage import AFTER, pass_for_engine, row, start
from yard import Yard, mount, umount

from layout.core.errors import LayoutError
from layout.core.running import RunRecord
from layout.host import forked, records
from layout.host.beneath import open_root
from layout.host.linux import probe, procs, syscalls


def found(code: str):
    """Add a sabotage that the probes of jail a find by this code, whatever else is found."""
    return row("a", code, only=False, probe=True)


def remount(options: str, target: object) -> None:
    mount("-o", f"remount,bind,{options}", target)


# --- A0 ----------------------------------------------------------------------------------------------------


@found("A0-unprobed")
def _nobody_in_the_jail_to_follow(yard: Yard) -> None:
    start(yard, "sleep", "60")


@found("A0-unprobed")
def _a_record_that_names_a_process_of_the_host(yard: Yard) -> None:
    start(yard, "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "sleep 60 & wait; :")
    with open_root(str(yard.root / ".layout")) as state:
        known = records.read(state, "run/a.toml", RunRecord).process
    wait_for(lambda: procs.first_of_jail(known.pid))


# --- A1 to A3 ----------------------------------------------------------------------------------------------


@found("A1-writable")
def _root_remounted_writable(yard: Yard) -> None:
    remount("rw,nosuid,nodev", yard.root / "j/a")


@found("A1-writable")
def _memory_over_programs(yard: Yard) -> None:
    mount("-t", "tmpfs", "none", yard.root / "j/a/usr/bin")


@found("A1-odd")
def _proc_over_programs(yard: Yard) -> None:
    mount("-t", "proc", "none", yard.root / "j/a/usr/bin")


@found("A2-executable")
def _t_remounted_exec(yard: Yard) -> None:
    remount("rw,nosuid,nodev,exec", yard.root / "j/a/t")


@found("A2-executable")
def _memory_in_t(yard: Yard) -> None:
    mount("-t", "tmpfs", "none", yard.root / "j/a/t/tmp")


def full_memory(yard: Yard) -> None:
    """Nothing can be written there: what is copied is empty, and no program."""
    place = yard.root / "j/a/t/tmp"
    mount("-t", "tmpfs", "-o", "size=4k", "none", place)
    (place / "full").write_bytes(bytes(4096))


@found("A2-odd")
def _full_memory_in_t(yard: Yard) -> None:
    full_memory(yard)


@found("A3-changed")
def _s_remounted_writable(yard: Yard) -> None:
    remount("rw,nosuid,nodev", yard.root / "j/a/s")


@found("A3-odd")
def _leases_on_files_of_a_writable_s(yard: Yard) -> None:
    remount("rw,nosuid,nodev", yard.root / "j/a/s")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    AFTER.callback(signal.signal, signal.SIGIO, before)
    for path in (yard.root / "s/a").rglob("*"):
        if path.is_file() and not path.is_symlink():
            held = AFTER.enter_context(path.open("rb"))
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_RDLCK)


# --- A4 and A5 ---------------------------------------------------------------------------------------------


def capability(yard: Yard, name: str) -> None:
    profile(yard, "default", f'[linux.service]\ncapabilities = ["{name}"]\n')


@found("A4-allowed")
def _capability_to_mount(yard: Yard) -> None:
    capability(yard, "sys_admin")


@found("A4-allowed")
def _capability_to_open_by_handle(yard: Yard) -> None:
    capability(yard, "dac_read_search")


def with_device_nodes(yard: Yard) -> None:
    capability(yard, "mknod")
    remount("rw,nosuid,dev,noexec", yard.root / "j/a/t")


@found("A4-allowed")
def _device_nodes_in_t(yard: Yard) -> None:
    with_device_nodes(yard)


@found("A4-odd")
def _device_nodes_without_a_device(yard: Yard) -> None:
    with_device_nodes(yard)


@found("A5-setuid")
def _t_remounted_suid_and_exec(yard: Yard) -> None:
    remount("rw,suid,nodev,exec", yard.root / "j/a/t")


@found("A5-odd")
def _full_memory_over_t(yard: Yard) -> None:
    umount(yard.root / "j/a/t")
    mount("-t", "tmpfs", "-o", "size=4k", "none", yard.root / "j/a/t")
    (yard.root / "j/a/t/full").write_bytes(bytes(4096))


# --- A6 ----------------------------------------------------------------------------------------------------


def confined(yard: Yard, *, hidden: bool = False, open_file: bool = False) -> None:
    """Put a process into jail a as an engine would, but leave a directory of the host open.

    `hidden`: a child of it holds the directory, in a mount namespace of its own. `open_file`: it is a file
    that can be written.
    """
    if open_file:
        (yard.top / "precious").write_text("x")
        AFTER.callback((yard.top / "precious").unlink)

    def engine() -> int:
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
        syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        os.waitpid(forked.fork(service), 0)
        return 0

    def service() -> int:
        if open_file:
            outside = os.open(yard.top / "precious", os.O_RDWR)
        else:
            outside = os.open(yard.top, os.O_RDONLY | os.O_DIRECTORY)
        with open_root(str(yard.root / "j/a")) as root:
            probe._pivot(root.fd)
        if hidden:
            forked.fork(hide)
            os.close(outside)
        signal.pause()
        return 0

    def hide() -> int:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        signal.pause()
        return 0

    keeper = forked.fork(engine)
    AFTER.callback(os.waitpid, keeper, 0)
    pass_for_engine(yard, keeper)
    first = wait_for(lambda: procs.first_of_jail(keeper))
    AFTER.callback(os.kill, first, signal.SIGKILL)
    wait_for(lambda: Path(f"/proc/{first}/mountinfo").read_text().count("\n") == 3)
    if hidden:
        child = wait_for(lambda: procs.children(first)[0])
        wait_for(lambda: procs.namespace(child, "mnt") != procs.namespace(first, "mnt"))


@found("A6-outside")
def _process_with_a_directory_of_the_host(yard: Yard) -> None:
    confined(yard)


@found("A6-outside")
def _process_with_a_file_of_the_host(yard: Yard) -> None:
    confined(yard, open_file=True)


@found("A6-outside")
def _process_that_hides_a_directory_of_the_host(yard: Yard) -> None:
    confined(yard, hidden=True)


# --- A7 and A8 ---------------------------------------------------------------------------------------------


@found("A7-denied")
def _t_remounted_read_only(yard: Yard) -> None:
    remount("ro,nosuid,nodev,noexec", yard.root / "j/a/t")


@found("A7-denied")
def _s_not_there(yard: Yard) -> None:
    umount(yard.root / "j/a/s")


@found("A7-denied")
def _root_remounted_noexec(yard: Yard) -> None:
    remount("ro,nosuid,nodev,noexec", yard.root / "j/a")


@found("A7-denied")
def _var_led_elsewhere_by_the_jail(yard: Yard) -> None:
    (yard.root / "t/a/var").rename(yard.root / "t/a/old")
    (yard.root / "t/a/var").symlink_to("/etc")


@found("A8-channel")
def _fifo_near_in_mroot(yard: Yard) -> None:
    os.mkfifo(yard.root / "j/mroot/usr/channel")


@found("A8-channel")
def _fifo_deep_in_mroot(yard: Yard) -> None:
    place = yard.root / "j/mroot/usr/share/a/b/c"
    place.mkdir(parents=True)
    os.mkfifo(place / "channel")


def listen(path: Path, waiting: int = 5) -> socket.socket:
    """Listen on a socket whose path may be too long for an address."""
    listener = AFTER.enter_context(socket.socket(socket.AF_UNIX))
    with contextlib.chdir(path.parent):
        listener.bind(path.name)
        path.chmod(0o600)
        listener.listen(waiting)
    return listener


@found("A8-channel")
def _somebody_listens_in_s(yard: Yard) -> None:
    listen(yard.root / "s/a/etc/socket")


@found("A8-odd")
def _somebody_listens_and_never_answers(yard: Yard) -> None:
    path = yard.root / "s/a/etc/socket"
    listen(path, 0)
    with contextlib.chdir(path.parent):
        for _ in range(2):
            client = AFTER.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(path.name)


@found("A8-unseen")
def _fifo_below_a_mount(yard: Yard) -> None:
    place = yard.root / "j/mroot/usr/bin"
    os.mkfifo(place / "channel")
    mount("-t", "tmpfs", "-o", "ro", "none", yard.root / "j/a/usr/bin")


def wait_for(what: Callable[[], object]) -> int:
    """Wait until something is there; return it."""
    from busybox_yard import eventually

    last: list[object] = []

    def there() -> bool:
        with contextlib.suppress(OSError, LayoutError, IndexError):
            last[:] = [what()]
        return bool(last and last[0])

    assert eventually(there)
    return int(last[0])
