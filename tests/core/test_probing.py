"""What probes should find is read off the plan, and anything but the expected answer is told."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import msgspec
import pytest

from layout.core import tinyprogram
from layout.core.model import Boot, Jail, JailPlan, Manage, Mount, Platform, Preset, Tables
from layout.core.mountinfo import MountPoint
from layout.core.probing import Attempt, Expected, Place, expect, judge

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT, T = Place("/", setuid=False), Place("/t", writable=True, executable=False, setuid=False)
OPEN = Place("/o", writable=True)
PROC = Place("/proc", system=True)
RUN = Place("/run/host", executable=False, engine=True)
SHM = Place("/dev/shm", writable=True, executable=False, engine=True)


def expected(*capabilities: str, platform: Platform = Platform.LINUX) -> Expected:
    return Expected(platform, "/j/a", (ROOT, OPEN, PROC, RUN, SHM, T), (), (), (), capabilities)


CASES = [
    ("A0-unprobed", Attempt("A0", "every mount", "/s", "/", "EIO")),
    ("A0-unprobed", Attempt("A0", "all of it", "/", "/", "no time left")),
    ("", Attempt("A0", "every mount", "/run/host", "/run/host", "EACCES")),
    ("A1-writable", Attempt("A1", "create", "/usr", "/")),
    ("A1-writable", Attempt("A1", "create", "/proc", "/proc")),
    ("A1-odd", Attempt("A1", "create", "/usr", "/", "ENOSPC")),
    ("", Attempt("A1", "create", "/usr", "/", "EROFS")),
    ("", Attempt("A1", "create", "/t/var", "/t")),
    ("", Attempt("A1", "create", "/t/var", "/t", "ENOSPC")),
    ("", Attempt("A1", "create", "/proc", "/proc", "ENOENT")),
    ("", Attempt("A1", "create", "/dev/shm", "/dev/shm")),
    ("A2-executable", Attempt("A2", "execve", "/t/var", "/t")),
    ("A2-executable", Attempt("A2", "mmap", "/dev/shm", "/dev/shm")),
    ("A2-odd", Attempt("A2", "execve", "/t/var", "/t", "ENOEXEC")),
    ("A2-odd", Attempt("A2", "execve", "/t/var", "/t", "EPERM")),
    ("", Attempt("A2", "execve", "/t/var", "/t", "EACCES")),
    ("", Attempt("A2", "mmap", "/t/var", "/t", "EPERM")),
    ("", Attempt("A2", "execve", "/o", "/o")),
    ("A3-changed", Attempt("A3", "utime", "/usr/x", "/")),
    ("A3-odd", Attempt("A3", "chmod", "/usr/x", "/", "EACCES")),
    ("A3-odd", Attempt("A3", "append", "/usr/x", "/", "EXDEV")),
    ("", Attempt("A3", "link", "/usr/x", "/", "EXDEV")),
    ("", Attempt("A3", "chown", "/usr/x", "/", "EPERM")),
    ("A4-allowed", Attempt("A4", "remount", "/", "/")),
    ("A4-allowed", Attempt("A4", "mknod of a block device", "/t/var", "/t")),
    ("A4-allowed", Attempt("A4", "chroot", "/", "/")),
    ("A4-odd", Attempt("A4", "umount", "/t", "/t", "EBUSY")),
    ("A4-odd", Attempt("A4", "mknod of a block device", "/t/var", "/t", "ENOSPC")),
    ("", Attempt("A4", "mknod of a block device", "/usr", "/", "EROFS")),
    ("", Attempt("A4", "open_by_handle_at", "/s", "/", "EPERM")),
    ("A5-setuid", Attempt("A5", "setuid", "/t", "/t", "setuid")),
    ("A5-odd", Attempt("A5", "setuid", "/t", "/t", "ENOEXEC")),
    ("", Attempt("A5", "setuid", "/t", "/t")),
    ("", Attempt("A5", "setuid", "/t", "/t", "EACCES")),
    ("", Attempt("A5", "setuid", "/o", "/o", "setuid")),
    ("A6-outside", Attempt("A6", "outside", "/..", "/", "another directory than /")),
    ("A6-outside", Attempt("A6", "descriptor", "process 7", "/", "a directory outside as fd/9")),
    ("A6-outside", Attempt("A6", "process", "processes", "/", "process 7, which is outside")),
    ("", Attempt("A6", "outside", "/..", "/")),
    ("A7-denied", Attempt("A7", "create", "/var", "/", "EROFS")),
    ("A7-denied", Attempt("A7", "read", "/etc", "/", "ENOENT")),
    ("A7-denied", Attempt("A7", "map a program", "/bin/sh", "/", "EPERM")),
    ("", Attempt("A7", "read", "/etc", "/")),
    ("A8-channel", Attempt("A8", "FIFO", "/usr/fifo", "/")),
    ("A8-channel", Attempt("A8", "socket", "/usr/socket", "/")),
    ("A8-odd", Attempt("A8", "socket", "/usr/socket", "/", "EIO")),
    ("A8-unseen", Attempt("A8", "look", "/usr", "/", "EIO")),
    ("", Attempt("A8", "socket", "/usr/socket", "/", "ECONNREFUSED")),
    ("", Attempt("A8", "look", "/usr", "/")),
]


@pytest.mark.parametrize(("code", "attempt"), CASES)
def test_only_the_expected_answer_passes(code: str, attempt: Attempt) -> None:
    assert [finding.code for finding in judge(expected(), [attempt])] == [code] * bool(code)


def test_every_code_is_documented_and_judged_and_no_other() -> None:
    source = (REPOSITORY / "layout/core/probing.py").read_text("utf-8")
    told = set(re.findall(r'"(A\d-[a-z]+)"', source)) | {"A1-odd", "A3-odd"}
    table = (REPOSITORY / "docs/findings.md").read_text("utf-8")
    assert set(re.findall(r"(?m)^\| `(A\d-[a-z]+)`", table)) == told
    assert {code for code, _ in CASES if code} == told


@pytest.mark.parametrize(
    ("capability", "attempt"),
    [
        ("sys_chroot", Attempt("A4", "chroot", "/", "/")),
        ("mknod", Attempt("A4", "mknod of a block device", "/t/var", "/t")),
    ],
)
def test_what_leads_nowhere_a_profile_may_allow(capability: str, attempt: Attempt) -> None:
    assert judge(expected(capability), [attempt]) == []


@pytest.mark.parametrize("action", ["remount", "umount", "open_by_handle_at", "open of a device node"])
def test_what_breaks_the_promise_no_profile_may_allow(action: str) -> None:
    every = ("sys_admin", "dac_read_search", "mknod")
    place = msgspec.structs.replace(T, devices=False)
    wanted = msgspec.structs.replace(expected(*every), places=(ROOT, place))
    assert [f.code for f in judge(wanted, [Attempt("A4", action, "/t", "/t")])] == ["A4-allowed"]


def test_root_of_a_jail_of_freebsd_may_change_its_root() -> None:
    attempt = Attempt("A4", "chroot", "/", "/")
    assert judge(expected(platform=Platform.FREEBSD), [attempt]) == []


def test_a_flood_in_one_place_is_counted() -> None:
    found = judge(expected(), [Attempt("A1", "create", f"/usr/{n}", "/") for n in range(50)])
    assert len(found) == 2
    assert found[-1].found.startswith("49 more")


def test_names_of_a_jail_are_escaped() -> None:
    (found,) = judge(expected(), [Attempt("A1", "create", "/usr/\x1b[2J\n\udcff", "/")])
    assert found.path.isprintable()


# --- from the plan -----------------------------------------------------------------------------------------


def plan(*mounts: Mount) -> JailPlan:
    jail = Jail("a", "default", Preset.HARDENED, Manage.SESSION, Platform.LINUX, Boot.NONE)
    return JailPlan(jail, (), Tables(mounts, ()))


def point(target: str, fstype: str, *options: str) -> MountPoint:
    return MountPoint(1, 0, "0:1", "/", target, frozenset(options), "", fstype, fstype, "")


MROOT = Mount("/r/j/mroot", "/r/j/a", "none", ("bind", "ro", "nosuid", "nodev"))
HALF = Mount("/r/t/a", "/r/j/a/t", "none", ("bind", "rw", "nosuid", "nodev", "noexec"))


def places(*live: MountPoint) -> dict[str, Place]:
    found = expect(plan(MROOT, HALF), live)
    assert found is not None
    return {place.path: place for place in found.places}


def test_what_may_be_done_is_what_the_table_says() -> None:
    assert places() == {
        "/": Place("/", setuid=False, devices=False, shared=True),
        "/t": Place("/t", writable=True, executable=False, setuid=False, devices=False),
    }


def test_a_socket_of_the_host_that_a_profile_shows_is_no_channel_of_ours() -> None:
    shown = Mount("/run/database", "/r/j/a/run/database", "none", ("bind", "ro", "nosuid", "noexec"))
    found = expect(plan(MROOT, shown), ())
    assert found is not None
    assert [place.shared for place in found.places] == [True, False]


def test_a_mount_that_is_not_planned_may_do_no_more_than_what_it_covers() -> None:
    found = places(point("/usr/bin", "tmpfs", "rw"), point("/t/tmp", "tmpfs", "rw"))
    assert not found["/usr/bin"].writable
    assert found["/t/tmp"].writable
    assert not found["/t/tmp"].executable


def test_an_engine_may_have_memory_of_its_own_but_not_executable() -> None:
    found = places(point("/run", "tmpfs", "rw"), point("/dev", "tmpfs", "ro"), point("/proc", "proc", "rw"))
    assert (found["/run"].writable, found["/run"].executable) == (True, False)
    assert not found["/dev"].writable
    assert found["/proc"].system
    assert not places(point("/run", "ext4", "rw"))["/run"].writable


def test_a_jail_of_a_world_of_its_own_may_write_and_execute_in_it() -> None:
    whole = Mount("/r/t/a", "/r/j/a", "none", ("bind", "rw"))
    found = expect(plan(whole), ())
    assert found is not None
    assert found.places == (Place("/", writable=True),)
    assert found.writable == ("/",)
    assert judge(found, [Attempt("A1", "create", "/etc", "/"), Attempt("A2", "execve", "/etc", "/")]) == []


def test_processes_of_the_host_are_a_warning_where_the_engine_has_no_others() -> None:
    seen = Attempt("A6", "process", "processes", "/", "process 7, which is outside")
    held = Attempt("A6", "descriptor", "process 7", "/", "a directory outside as fd/9")
    found = judge(msgspec.structs.replace(expected(), apart=False), [seen, held])
    assert [one.severity for one in found] == ["warning", "error"]
    assert [one.severity for one in judge(expected(), [seen])] == ["error"]


def test_a_jail_without_mounts_has_nothing_to_probe() -> None:
    assert expect(plan(), ()) is None


# --- the program -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["Linux", "FreeBSD"])
@pytest.mark.parametrize("machine", ["x86_64", "amd64", "aarch64", "riscv64", "sparc64"])
def test_the_program_is_elf_that_loads_whole(system: str, machine: str) -> None:
    data = tinyprogram.program(system, machine)
    assert data[:4] == b"\x7fELF"
    entry, table = struct.unpack_from("<QQ", data, 24)
    kind, flags, offset, where, _, size, memory, _ = struct.unpack_from("<IIQQQQQQ", data, table)
    assert (kind, flags, offset, size, memory) == (1, 5, 0, len(data), len(data))
    assert where <= entry <= where + size
    assert data[7] == (9 if system == "FreeBSD" else 0)
