"""Mounts appear whole, as planned, private, and never writable before they are read-only."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from layout.core import mountinfo
from layout.core.errors import LayoutError
from layout.core.model import Mount
from layout.host.beneath import open_root
from layout.host.linux import syscalls
from layout.host.linux.mounts import Mounter, Way, attributes, make_private_root, unmount, unmount_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

box = pytest.mark.box
each_way = pytest.mark.parametrize("way", list(Way), ids=lambda way: way.name.lower())


def mounts(below: Path) -> list[mountinfo.MountPoint]:
    return mountinfo.parse(Path("/proc/self/mountinfo").read_bytes(), os.fsencode(below))


@pytest.fixture(name="yard")
def _yard(root: Path) -> Iterator[Path]:
    """ROOT of one jail, with files to try to write to, below a shared mount."""
    for name in ("j/a", "j/mroot/s", "j/mroot/t", "j/mroot/dev", "s/a", "t/a/var", ".layout", "manage/a"):
        (root / name).mkdir(parents=True)
    for name in ("j/mroot/file", "s/a/file", "t/a/file"):
        (root / name).write_text(name, encoding="utf-8")
    yield root
    while found := mounts(root):
        targets = sorted({one.target for one in found}, key=len, reverse=True)
        subprocess.run(["umount", "-n", "-q", "-l", *targets], stderr=subprocess.DEVNULL)


def jail(root: Path, *more: Mount) -> tuple[Mount, ...]:
    ro = ("bind", "ro", "nosuid", "nodev", "private")
    return (
        Mount(f"{root}/j/mroot", f"{root}/j/a", "none", ro),
        Mount(f"{root}/s/a", f"{root}/j/a/s", "none", ro),
        Mount(f"{root}/t/a", f"{root}/j/a/t", "none", ("bind", "rw", "nosuid", "nodev", "noexec", "private")),
        *more,
    )


@contextlib.contextmanager
def mounter(root: Path, way: Way = Way.DETACHED, *, private: bool = False) -> Iterator[Mounter]:
    with open_root(str(root)) as opened, Mounter(opened, (), way, private=private) as made:
        yield made


def attach(root: Path, table: Sequence[Mount], way: Way = Way.DETACHED, *, private: bool = False) -> None:
    with mounter(root, way, private=private) as made:
        made.attach(table)


def detach(table: Sequence[Mount]) -> None:
    """Unmount; the poller may have a path of it in hand at any moment."""
    for mount in reversed(table):
        for _ in range(1000):
            with contextlib.suppress(OSError):
                unmount(mount.target)
                break


# --- what appears ---------------------------------------------------------------------------------


@box
@each_way
@pytest.mark.parametrize("own", [False, True], ids=["on a shared mount", "on a private bind of ROOT"])
def test_a_jail_appears_as_planned_and_private(yard: Path, shared: object, way: Way, own: bool) -> None:
    if own:
        with open_root(str(yard)) as root:
            make_private_root(root, recursive=False)
    attach(yard, jail(yard), way, private=own)
    found = [mount for mount in mounts(yard) if mount.target != str(yard)]
    assert [mount.target for mount in found] == [mount.target for mount in jail(yard)]
    for live, planned in zip(found, jail(yard), strict=True):
        assert live.propagation == ""
        assert set(planned.options) - {"bind", "private"} <= live.options
    for name in ("file", "s/file", "t/file"):
        with contextlib.suppress(OSError):
            (yard / "j/a" / name).write_text("written", encoding="utf-8")
    written = [
        name for name in ("j/mroot/file", "s/a/file", "t/a/file") if (yard / name).read_text() == "written"
    ]
    assert written == ["t/a/file"]


@box
@each_way
def test_a_private_dev_has_its_nodes(yard: Path, way: Way) -> None:
    options = ("rw", "nosuid", "noexec", "mode=755", "size=64k", "nr_inodes=64")
    dev = Mount("tmpfs", f"{yard}/j/a/dev", "tmpfs", options)
    attach(yard, jail(yard, dev), way)
    (yard / "j/a/dev/null").write_bytes(b"gone")
    assert len((yard / "j/a/dev/zero").open("rb").read(8)) == 8
    assert (yard / "j/a/dev/null").stat().st_mode & 0o777 == 0o666
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (yard / "j/a/dev/big").write_bytes(b"x" * 100_000)
    assert {"nosuid", "noexec"} <= mounts(yard)[-1].options


@box
@pytest.mark.parametrize("word", ["noatime", "relatime", "strictatime", "nodiratime"])
@each_way
def test_options_of_a_template_are_set(yard: Path, way: Way, word: str) -> None:
    options = ("bind", "ro", word, "private", "x-layout.jail=a")
    attach(yard, [Mount(f"{yard}/j/mroot", f"{yard}/j/a", "none", options)], way)
    assert (word in mounts(yard)[-1].options) == (word != "strictatime")  # the kernel shows that as nothing


@pytest.mark.parametrize("word", ["readonly", "noexe", "recursive", "rbind", "X-mount.mkdir"])
def test_an_option_that_is_not_known_is_refused(word: str) -> None:
    with pytest.raises(LayoutError, match=word):
        attributes(("bind", "ro", word))


@box
@each_way
def test_no_descriptor_is_left_open(yard: Path, way: Way) -> None:
    outside = Mount("/usr", f"{yard}/j/a/dev", "none", ("bind", "ro", "private"))
    before = os.listdir("/proc/self/fd")
    attach(yard, jail(yard, outside), way)
    assert (yard / "j/a/dev/bin").is_dir()
    detach(jail(yard, outside))
    with pytest.raises(LayoutError):
        attach(yard, jail(yard, Mount("/nosuch", f"{yard}/j/a/dev", "none", ("bind", "private"))), way)
    assert os.listdir("/proc/self/fd") == before


# --- all or nothing -------------------------------------------------------------------------------

OBSTACLES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "s is missing": (lambda root: ((root / "s/a/file").unlink(), (root / "s/a").rmdir()), "s/a", "nothing"),
    "t is missing": (lambda root: (root / "t/a").rename(root / "gone"), "t/a", "nothing"),
    "t is a link": (lambda root: swap(root / "t/a", root / "s/a"), "t/a", "link"),
    "t is a file": (lambda root: ((root / "t/a").rename(root / "g"), (root / "t/a").touch()), "t/a", "file"),
    "the mount point is missing": (lambda root: (root / "j/a").rmdir(), "j/a", "nothing"),
    "the mount point is a link": (lambda root: swap(root / "j/a", root / "s/a"), "j/a", "link"),
    "its parent is a link": (lambda root: swap(root / "j", root / "elsewhere/j"), "j/mroot", "link"),
    "s in mroot is missing": (lambda root: (root / "j/mroot/s").rmdir(), "j/a/s", "nothing"),
    "s in mroot is a link": (lambda root: swap(root / "j/mroot/s", root / "t/a"), "j/a/s", "link"),
}


def swap(path: Path, target: Path) -> None:
    """Put a link where a directory was, which is moved to where the link does not lead."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    if not target.exists():
        target.parent.mkdir(parents=True)
        aside.rename(target)
    path.symlink_to(target)


@box
@each_way
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_jail_that_cannot_be_whole_does_not_appear(yard: Path, way: Way, obstacle: str) -> None:
    hinder, path, found = OBSTACLES[obstacle]
    hinder(yard)
    with pytest.raises(LayoutError) as raised:
        attach(yard, jail(yard), way)
    assert raised.value.path == f"{yard}/{path}"
    assert found in raised.value.found
    assert mounts(yard) == []


@box
@each_way
def test_no_mount_follows_a_link_that_the_jail_made_in_t(yard: Path, way: Way) -> None:
    victim = yard / "victim"
    (victim / "here").mkdir(parents=True)
    (yard / "t/a/var/way").symlink_to(victim)
    hostile = Mount(f"{yard}/s/a", f"{yard}/j/a/t/var/way/here", "none", ("bind", "ro", "private"))
    with pytest.raises(LayoutError, match="link"):
        attach(yard, jail(yard, hostile), way)
    assert mounts(yard) == []


@box
def test_a_stage_that_a_crash_left_is_cleared(yard: Path) -> None:
    stage = yard / ".layout/stage"
    stage.mkdir()
    for _ in range(2):
        subprocess.run(["mount", "-n", "--bind", yard / "j/mroot", stage], check=True)
    attach(yard, jail(yard), Way.CLASSIC)
    assert [mount.target for mount in mounts(yard)] == [mount.target for mount in jail(yard)]


# --- no window ------------------------------------------------------------------------------------

POLLER = """
import errno, os, sys
paths = [os.fsencode(path) for path in sys.argv[1:]]
seen = {"refused": 0, "absent": 0, "WRITTEN": 0}
import signal
def stop(*_):
    print(seen["refused"], seen["absent"], seen["WRITTEN"], flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    for path in paths:
        try:
            os.close(os.open(path, os.O_WRONLY))
            seen["WRITTEN"] += 1
        except OSError as error:
            seen["refused" if error.errno == errno.EROFS else "absent"] += 1
"""


@contextlib.contextmanager
def poller(root: Path) -> Iterator[list[int]]:
    """Try to open files at the targets for writing all the time; tell how that went at the end."""
    paths = [root / "j/a/file", root / "j/a/s/file"]
    counts: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-c", POLLER, *paths], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield counts
        finally:
            process.send_signal(signal.SIGTERM)
            counts += map(int, process.stdout.readline().split())


@box
@each_way
def test_nothing_read_only_is_writable_at_its_target_for_a_moment(yard: Path, way: Way) -> None:
    with open_root(str(yard)) as root:
        make_private_root(root, recursive=False)
    with poller(yard) as counts, mounter(yard, way, private=True) as made:
        end = time.monotonic() + 120
        for _ in range(200):
            made.attach(jail(yard)[:2])
            detach(jail(yard)[:2])
            assert time.monotonic() < end
    refused, absent, written = counts
    assert refused > 20
    assert absent > 20
    assert written == 0


@box
def test_the_poller_sees_the_window_of_a_bind_and_a_remount(yard: Path) -> None:
    source, target = os.fsencode(yard / "j/mroot"), os.fsencode(yard / "j/a")
    with poller(yard) as counts:
        for _ in range(50):
            syscalls.mount(source, target, None, syscalls.MS_BIND)
            time.sleep(0.0005)
            with contextlib.suppress(OSError):  # EBUSY: a file is open for writing already
                syscalls.mount(
                    b"none", target, None, syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY
                )
            detach(jail(yard)[:1])
    assert counts[2] > 0


# --- the bind of ROOT, and unmounting -------------------------------------------------------------


@box
@pytest.mark.parametrize("recursive", [False, True])
def test_file_systems_below_root_stay_visible_when_asked_for(yard: Path, recursive: bool) -> None:
    subprocess.run(["mount", "-n", "-t", "tmpfs", "none", yard / "t"], check=True)
    (yard / "t/inside").touch()
    with open_root(str(yard)) as root:
        make_private_root(root, recursive=recursive)
    assert (yard / "t/inside").exists() is recursive
    assert [mount.propagation for mount in mounts(yard)[1:]] == [""] * (1 + recursive)


@box
def test_unmounting_several_is_all_or_nothing(yard: Path) -> None:
    attach(yard, jail(yard))
    targets = [mount.target for mount in reversed(jail(yard))]
    with (yard / "j/a/s/file").open(), pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        unmount_all(targets)
    assert sorted(mount.target for mount in mounts(yard)) == sorted(targets)
    unmount_all(targets)
    assert mounts(yard) == []


@box
def test_a_link_to_a_mount_is_not_followed(yard: Path) -> None:
    attach(yard, jail(yard))
    (yard / "link").symlink_to(yard / "j/a/t")
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        unmount(f"{yard}/link")
    assert len(mounts(yard)) == 3
