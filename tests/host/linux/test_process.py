"""Process-level calls: descriptors, capabilities, death signal, signals as descriptors."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import time

import pytest

from layout.host import forked
from layout.host.attacks import keyring
from layout.host.linux import namespaces_filter, process


def in_child(check) -> int:
    """Run `check` in a forked process; returns its exit status, 99 when it raised."""

    def child() -> int:
        try:
            return int(check() or 0)
        except BaseException:
            return 99

    return os.waitstatus_to_exitcode(os.waitpid(forked.fork(child), 0)[1])


def test_a_forked_child_ends_with_what_its_function_returns() -> None:
    assert in_child(lambda: 7) == 7


def test_a_forked_child_that_raises_ends_without_reaching_its_callers_code(capfd) -> None:
    def child() -> int:
        raise RuntimeError("never shown")

    assert os.waitstatus_to_exitcode(os.waitpid(forked.fork(child), 0)[1]) == 1
    assert "RuntimeError" not in capfd.readouterr().err


def test_fork_leaves_the_signal_mask_of_the_parent_as_it_was() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    in_child(lambda: 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_every_descriptor_but_those_named_is_closed() -> None:
    kept, lost = os.open("/", os.O_RDONLY), os.open("/", os.O_RDONLY)
    high = 300
    os.dup2(lost, high)

    def check() -> int:
        process.close_descriptors({kept})
        os.fstat(kept)
        return sum(1 for fd in (lost, high) if is_open(fd))

    assert in_child(lambda: sum(1 for fd in (lost, high) if is_open(fd))) == 2  # control
    assert in_child(check) == 0
    for fd in (kept, lost, high):
        os.close(fd)


def test_descriptors_are_closed_without_close_range_too(monkeypatch) -> None:
    lost = os.open("/", os.O_RDONLY)
    monkeypatch.setattr(process, "_close_range", lambda *_: -1)

    def check() -> int:
        process.close_descriptors()
        return is_open(lost)

    assert in_child(check) == 0
    os.close(lost)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_the_table_names_every_capability_of_this_kernel() -> None:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    assert len(process.CAPABILITIES) >= last + 1
    assert process.CAPABILITIES["CHOWN"] == 0
    assert process.CAPABILITIES["SYS_ADMIN"] == 21
    assert process.CAPABILITIES["CHECKPOINT_RESTORE"] == 40


def test_the_sets_read_are_those_that_proc_shows() -> None:
    sets = process.capability_sets()
    shown = {}
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("Cap"):
                name, value = line.split()
                shown[name] = int(value, 16)
    assert shown == {
        "CapInh:": sets.inheritable,
        "CapPrm:": sets.permitted,
        "CapEff:": sets.effective,
        "CapBnd:": sets.bounding,
        "CapAmb:": sets.ambient,
    }


@pytest.mark.box
def test_capabilities_not_named_are_gone_for_good_also_for_root_after_execve() -> None:
    wanted = process.capability_mask(["CHOWN", "KILL"])
    before = process.capability_sets()
    assert before.permitted & ~wanted, "control: there was more to lose"

    def check() -> int:
        if process.keep_capabilities(["CHOWN", "KILL"]) != wanted:
            return 1
        test = f'grep -q "CapEff:[[:space:]]*{wanted:016x}" /proc/self/status'
        return os.execv("/bin/sh", ["sh", "-c", test])

    assert in_child(check) == 0


@pytest.mark.box
def test_a_capability_that_is_not_held_is_left_out() -> None:
    def check() -> int:
        process.keep_capabilities(["CHOWN", "SETPCAP"])
        return process.keep_capabilities(["CHOWN", "SYS_ADMIN"]) != process.capability_mask(["CHOWN"])

    assert in_child(check) == 0


def test_a_process_dies_with_its_parent() -> None:
    read, write = os.pipe()

    def parent() -> int:
        own = os.pidfd_open(os.getpid())

        def child() -> int:
            process.die_with_parent(own)
            os.write(write, str(os.getpid()).encode())
            time.sleep(60)
            return 0

        forked.fork(child)
        time.sleep(60)
        return 0

    pid = forked.fork(parent)
    grandchild = os.pidfd_open(int(os.read(read, 20)))
    assert not process.has_ended(grandchild), "control: it lives while its parent does"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert select.select([grandchild], [], [], 30)[0]
    for fd in (read, write, grandchild):
        os.close(fd)


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    pid = forked.fork(lambda: 0)
    parent = os.pidfd_open(pid)
    os.waitpid(pid, 0)

    def check() -> int:
        try:
            process.die_with_parent(parent)
        except ProcessLookupError:
            return 0
        return 1

    assert in_child(check) == 0
    os.close(parent)


def test_signals_come_as_bytes_and_their_handlers_come_back() -> None:
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        with forked.SignalInbox((signal.SIGUSR1,)) as inbox:
            assert inbox.take() == ()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert select.select([inbox.fd], [], [], 30)[0]
            assert inbox.take() == (signal.SIGUSR1,)
        assert not seen
        os.kill(os.getpid(), signal.SIGUSR1)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_command_gets_default_signals_and_an_empty_mask() -> None:
    """But for 32 and 33, which belong to the C library: a caller that ignores them cannot be undone."""
    script = """
        grep -Eq 'SigBlk:.0{16}$' /proc/self/status &&
            grep -Eq 'SigIgn:.0{7}(0|1)(0|8)0{7}$' /proc/self/status
    """

    def check() -> int:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        forked.restore_default_signals()
        os.execv("/bin/sh", ["sh", "-c", script])

    assert in_child(check) == 0


def keys(call: int, *arguments: object) -> int:
    """Return what add_key(2), request_key(2) or keyctl(2) says: 0, 1, 2."""
    first = keyring._ADD
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(first + call, *arguments)
    return -ctypes.get_errno() if found < 0 else int(found)


SESSION, JOIN, SEARCH = -3, 1, 10


def secret() -> int:
    """Look for the key of these tests in the session keyring."""
    return keys(2, SEARCH, SESSION, b"user", b"layout-test", 0)


def in_a_session_with_a_key(check) -> int:
    def child() -> int:
        if keys(2, JOIN, None) == -errno.ENOSYS or keys(0, b"user", b"layout-test", b"x", 1, SESSION) < 0:
            return 77
        assert secret() > 0  # the control
        return int(check() or 0)

    return in_child(child)


def test_the_keys_of_whoever_starts_a_jail_stay_with_him() -> None:
    def check() -> None:
        process.leave_keyrings()
        assert secret() == -errno.ENOKEY

    status = in_a_session_with_a_key(check)
    if status == 77:
        pytest.skip("no keys here (keyrings(7))")
    assert status == 0


def test_all_who_call_keyctl_have_the_same_number_for_it() -> None:
    assert {machine: number + 2 for machine, number in keyring._CALLS.items()} == process._KEYCTL
    for machine, ((_, _, _, first), *_) in namespaces_filter._MACHINES.items():
        assert process._KEYCTL.get(machine, 219) == first + 2


@pytest.mark.skipif(not namespaces_filter.is_known(), reason="no filter for this machine")
def test_behind_the_filter_there_are_no_keys() -> None:
    def check() -> None:
        process.forbid_new_privileges()
        assert namespaces_filter.apply()
        for found in (secret(), keys(0, b"user", b"x", b"x", 1, SESSION), keys(1, b"user", b"x", None, 0)):
            assert found == -errno.ENOSYS

    assert in_a_session_with_a_key(check) in {0, 77}
