"""Below ROOT nothing is reached through a link or across a mount, however deep, wide or hostile a tree is."""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections import Counter
from pathlib import Path

import pytest

from layout.core.errors import LayoutError
from layout.host.beneath import (
    Dir,
    load_tree,
    open_root,
    read_tree,
    remove_tree,
    resolve,
    snapshot,
    symlinks,
    walk,
    write_items,
)

pytestmark = pytest.mark.box
WAYS = ["openat2", "walk"]


@pytest.fixture(name="top")
def _top(tmp_path: Path) -> Dir:
    with open_root(str(tmp_path.resolve())) as top:
        yield top


@pytest.fixture(name="way", params=WAYS)
def _way(request, monkeypatch) -> str:
    """Both ways to open a directory: that of Linux, and that of FreeBSD and old kernels."""
    monkeypatch.setattr(
        resolve, "_chosen", [resolve._openat2_to if request.param == "openat2" else resolve.walk_to]
    )
    return str(request.param)


def bind(source: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(os.fsencode(source), os.fsencode(target), None, 4096, None) == 0


def unbind(target: Path) -> None:
    assert ctypes.CDLL(None).umount2(os.fsencode(target), 2) == 0


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


# --- links and paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/etc", "..", "a/..", "a/../b", "a\0b"])
def test_a_path_that_is_not_below_is_a_mistake(top: Dir, way: str, path: str) -> None:
    with pytest.raises(ValueError, match=r"not a path below|null byte"):
        top.open(path)


@pytest.mark.parametrize("path", ["link", "link/inside", "dir/link", "dir/link/inside", "file", "file/x"])
def test_no_link_and_no_file_is_passed(top: Dir, tmp_path: Path, way: str, path: str) -> None:
    (tmp_path / "dir/inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / "dir/link").symlink_to("/")
    (tmp_path / "file").write_text("")
    before = descriptors()
    with pytest.raises(LayoutError) as caught:
        top.open(path)
    assert "link or a file" in caught.value.found
    assert str(tmp_path) in caught.value.path
    assert descriptors() == before


def test_what_is_missing_is_missing(top: Dir, way: str) -> None:
    with pytest.raises(FileNotFoundError):
        top.open("a/b")
    assert top.lstat("a/b") is None


def test_root_is_opened_without_following_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(LayoutError) as caught:
        open_root(f"{tmp_path.resolve()}/link/x")
    assert caught.value.path == f"{tmp_path.resolve()}/link"


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "device"])
def test_only_a_regular_file_is_read_and_never_waited_for(top: Dir, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/etc/passwd")
        case "directory":
            path.mkdir()
        case _:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    with pytest.raises(LayoutError):
        top.read("x")


def test_a_file_is_read_up_to_a_limit(top: Dir, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert top.read("x", 5) == b"12345"
    with pytest.raises(LayoutError, match="at most 4"):
        top.read("x", 4)


def test_a_file_is_written_whole_in_place_of_whatever_is_there(top: Dir, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("safe")
    (tmp_path / "x").symlink_to("victim")
    top.write_whole("x", b"new", 0o640)
    assert (tmp_path / "victim").read_text() == "safe"
    assert (tmp_path / "x").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "x").lstat().st_mode) == 0o640
    (tmp_path / "dir").mkdir()
    with pytest.raises(OSError, match="directory"):
        top.write_whole("dir", b"new", 0o640)
    assert sorted(os.listdir(tmp_path)) == ["dir", "victim", "x"]


def test_a_sweep_takes_left_over_files_of_a_write_only(top: Dir, tmp_path: Path) -> None:
    for name in (".x.toml.0123456789ab", ".y.0123456789ab", ".x.toml.short", "x.0123456789ab"):
        (tmp_path / name).write_text("")
    (tmp_path / ".d.0123456789ab").mkdir()
    assert top.sweep("x.toml") == 1
    assert top.sweep() == 1
    assert sorted(os.listdir(tmp_path)) == [".d.0123456789ab", ".x.toml.short", "x.0123456789ab"]


def test_a_rename_never_replaces(top: Dir, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(FileExistsError):
        top.rename("a", "b")


# --- deep, wide, mounted -------------------------------------------------------------------------------


def make_deep(parent: Dir, levels: int) -> None:
    """A chain of directories that no path string could name, with a setuid file at its end."""
    fd = os.dup(parent.fd)
    for _ in range(levels):
        os.mkdir("d" * 9, 0o755, dir_fd=fd)
        below = os.open("d" * 9, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, 0o4755, dir_fd=fd))
    os.close(fd)


def test_a_tree_of_5000_levels(top: Dir, tmp_path: Path, way: str) -> None:
    """It is reported as too deep by whoever must see everything, and removed all the same."""
    (tmp_path / "t").mkdir()
    with top.open("t") as tree:
        make_deep(tree, 5000)
        before = descriptors()
        assert any("levels" in why for _, why in walk(tree).unseen)
        for look in (load_tree, lambda d: list(snapshot(d)), lambda d: list(symlinks(d))):
            with pytest.raises(LayoutError, match="levels"):
                look(tree)
    assert remove_tree(top, "t") == 5002
    assert len(descriptors()) == len(before) - 1
    assert os.listdir(tmp_path) == []


def test_a_tree_that_is_wider_than_descriptors(top: Dir, tmp_path: Path) -> None:
    """1,500 directories in one, more than a process may have open at once."""
    (tmp_path / "t").mkdir()
    for number in range(1500):
        (tmp_path / f"t/{number}").mkdir()
        (tmp_path / f"t/{number}/l").symlink_to("x")
    with top.open("t") as tree:
        assert walk(tree).entries == 3000
        assert walk(tree).unseen == []
        assert len(list(snapshot(tree))) == 3000
        assert len(list(symlinks(tree))) == 1500
        items = load_tree(tree)
        assert len(items) == 3001
        top.make_dir("copy", 0o700)
        with top.open("copy") as copy:
            assert write_items(items, copy).entries == 3001
    assert remove_tree(top, "t") == 3001


@pytest.mark.parametrize("at", ["inside", "deep/inside", ""], ids=["inside", "deep", "itself"])
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_mount_inside_stops_a_removal_and_its_source_is_untouched(
    top: Dir, tmp_path: Path, at: str, kind: str
) -> None:
    """A bind mount of the same file system, which st_dev does not show."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_text("safe")
    target = tmp_path / "t" / at
    if kind == "directory":
        target.mkdir(parents=True)
        bind(tmp_path / "victim", target)
    else:
        target.parent.mkdir(exist_ok=True, parents=True)
        target.write_text("")
        bind(tmp_path / "victim/file", target)
    with pytest.raises(LayoutError, match="a mount point"):
        remove_tree(top, "t")
    assert (tmp_path / "victim/file").read_text() == "safe"
    unbind(target)
    assert remove_tree(top, "t") > 0
    assert os.listdir(tmp_path) == ["victim"]


def test_a_mount_inside_is_not_copied_and_not_walked(top: Dir, tmp_path: Path) -> None:
    (tmp_path / "t/inside").mkdir(parents=True)
    bind(tmp_path / "t/inside", tmp_path / "t/inside")
    with top.open("t") as tree:
        with pytest.raises(LayoutError, match="a mount point"):
            list(read_tree(tree))
        assert walk(tree).unseen == [("inside", "a mount point")]
        for look in (snapshot, symlinks):
            with pytest.raises(OSError, match="cross"):
                list(look(tree))
    unbind(tmp_path / "t/inside")


# --- copies --------------------------------------------------------------------------------------------


def test_a_copy_keeps_what_there_is(top: Dir, tmp_path: Path) -> None:
    """Files larger than what is held in memory, setuid bits of another owner, read-only directories."""
    source = tmp_path / "a"
    (source / "closed").mkdir(parents=True)
    (source / "closed/big").write_bytes(os.urandom(3 << 20))
    (source / "suid").write_text("x")
    os.chown(source / "suid", 5, 6)
    (source / "suid").chmod(0o6711)
    os.link(source / "suid", source / "closed/again")
    (source / "closed/link").symlink_to("no where")
    os.mkfifo(source / "fifo")
    (source / "closed").chmod(0o1555)
    for path in ("closed", "suid", "closed/big"):
        os.utime(source / path, ns=(1, 1_234_567_891))
    left_out: Counter[str] = Counter()
    top.make_dir("b", 0o700)
    with top.open("a") as here, top.open("b") as there:
        written = write_items(load_tree(here, left_out), there)
    copy = tmp_path / "b"
    assert left_out == {"FIFO": 1}
    assert not (copy / "fifo").exists()
    for path in ("closed", "closed/big", "suid", "closed/again", "closed/link"):
        one, two = (source / path).lstat(), (copy / path).lstat()
        assert (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns, one.st_nlink) == (
            (two.st_mode, two.st_uid, two.st_gid, two.st_mtime_ns, two.st_nlink)
        ), path
    assert (copy / "closed/big").read_bytes() == (source / "closed/big").read_bytes()
    assert (copy / "suid").stat().st_ino == (copy / "closed/again").stat().st_ino
    assert sorted(item.path for item in written.setuid) == ["closed/again", "suid"]


# --- races ---------------------------------------------------------------------------------------------

OPERATIONS = {
    "open": lambda top: top.open("a/b").close(),
    "read": lambda top: top.read("a/b/file"),
    "lstat": lambda top: top.lstat("a/b/file"),
    "write_whole": lambda top: top.write_whole("a/b/file", b"new", 0o600),
    "make_dir": lambda top: top.make_dir("a/b/new", 0o711),
    "make_link": lambda top: top.make_link("a/b/new", "x"),
    "change_link": lambda top: top.change_link("a/b/link", "x"),
    "unlink": lambda top: top.unlink("a/b/file"),
    "rmdir": lambda top: top.rmdir("a/b/empty"),
    "rename": lambda top: top.rename("a/b/file", "a/new"),
    "chown_chmod": lambda top: top.chown_chmod("a/b", 0o711, 9, 9),
    "remove_tree": lambda top: remove_tree(top, "a"),
    "load_tree": lambda top: [item.data for item in load_tree(top)],
    "write_items": lambda top: write_items(load_tree(Dir(os.dup(top.fd), ""))[:1], top.open("a/b/empty")),
    "walk": walk,
}
CONTROL = {
    "write by path": lambda top: Path(f"{top.path}/a/b/file").write_text("x"),
    "read by path": lambda top: [Path(f"{top.path}/a/b/file").read_bytes()],
}
"""What the attacker must win against, or the tests prove nothing."""


def plant(place: Path, text: str) -> None:
    (place / "b/empty").mkdir(parents=True)
    (place / "b/file").write_text(text)
    (place / "b/link").symlink_to("file")


@pytest.mark.parametrize("swapped", ["a", "a/b"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_swap_at_any_call_reaches_the_victim(tmp_path: Path, way: str, name: str, swapped: str) -> None:
    """Before each call in turn, a directory on the way becomes a link to the victim's (security.md E6)."""
    honest = swaps = 0
    victim = tmp_path / "victim"
    plant(victim, "VICTIM")
    before = _state(victim)
    for point in range(1, 200):
        tree = tmp_path / f"{point}"
        plant(tree / "a", "mine")
        outcome = _attacked(tree, victim, name, swapped, point)
        assert _state(victim) == before, point
        assert outcome != "WON", point
        swaps += outcome != "not swapped"
        honest += outcome != "refused"
        if outcome == "not swapped":
            break
    assert honest > 0
    assert swaps > 0 or name in {"lstat", "open"}


@pytest.mark.parametrize("name", CONTROL)
def test_the_attacker_wins_against_paths(tmp_path: Path, way: str, name: str) -> None:
    victim = tmp_path / "victim"
    plant(victim, "VICTIM")
    before = _state(victim)
    plant(tmp_path / "1/a", "mine")
    outcome = _attacked(tmp_path / "1", victim, name, "a", 1)
    assert outcome == "WON" or _state(victim) != before


def _state(place: Path) -> list[tuple[object, ...]]:
    found = []
    for path in [place, *sorted(place.rglob("*"))]:
        s = path.lstat()
        found.append((str(path), s.st_mode, s.st_uid, s.st_nlink, s.st_size, s.st_mtime_ns, s.st_ctime_ns))
    return found


def _attacked(tree: Path, victim: Path, name: str, swapped: str, point: int) -> str:
    """Run one operation in a process of its own, with a swap before its call number `point`."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(send, _attack(tree, victim, name, swapped, point).encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        outcome = pipe.read()
    os.waitpid(pid, 0)
    assert outcome, "the attacker broke"
    return outcome


def _attack(tree: Path, victim: Path, name: str, swapped: str, point: int) -> str:
    state = {"count": 0, "on": False}
    way = resolve._chosen[0]

    def told(*arguments, **options) -> int:  # openat2 by ctypes is no audited event of its own
        sys.audit("os.openat2")
        return way(*arguments, **options)

    resolve._chosen[:] = [told]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not state["on"] or not (event.startswith("os.") or event == "open"):
            return
        state["count"] += 1
        if state["count"] == point:
            state["on"] = False
            (tree / swapped).rename(tree / "aside")
            (tree / swapped).symlink_to(victim / swapped[2:])

    top = open_root(str(tree.resolve()))
    sys.addaudithook(hook)
    state["on"] = True
    try:
        result = (OPERATIONS | CONTROL)[name](top)
    except (LayoutError, OSError):
        result = "refused"
    state["on"] = False
    if state["count"] < point:
        return "not swapped"
    if b"VICTIM" in (result if isinstance(result, bytes | list) else []):  # what was read
        return "WON"
    return "refused" if result == "refused" else "done"
