"""destroy removes one jail and nothing else, and nothing at all while anything of it is in use."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from yard import Yard, mount, nest, umount, yard_at

from layout.actions.context import Context
from layout.actions.destroy import remaining
from layout.host.linux import systemd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with yard_at(tmp_path_factory.mktemp("destroy"), names=("a", "ab")) as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Yard:
    """Jails `a`, not mounted, and `ab`, mounted."""
    whole.renew()
    whole.ok("mount", "ab")
    return whole


def of(yard: Yard, name: str) -> list[str]:
    """Everything below ROOT with the jail's name."""
    paths = [*yard.root.glob(f"[jst]/{name}"), *yard.root.glob(f"manage/{name}")]
    paths += [*yard.root.glob(f".layout/jails/{name}.*"), *yard.root.glob(f"etc/fstab.d/{name}.*")]
    return sorted(str(path.relative_to(yard.root)) for path in paths)


def snapshot(path: Path) -> list[tuple[str, int, int, float]]:
    found = [(str(p), p.lstat()) for p in sorted(path.rglob("*"))]
    return [(name, s.st_mode, s.st_size, s.st_mtime) for name, s in found if not name.endswith("lock")]


@contextlib.contextmanager
def victim(yard: Yard) -> Iterator[Path]:
    """A tree that must stay as it is."""
    path = yard.root / "victim"
    (path / "deep/er").mkdir(parents=True)
    (path / "deep/er/data").write_text("precious", encoding="utf-8")
    before = snapshot(path)
    yield path
    assert snapshot(path) == before


def refused(yard: Yard, *words: str, name: str = "a") -> None:
    before = of(yard, name)
    trees = [snapshot(yard.root / half / name) for half in ("s", "t")]
    done = yard.run("destroy", name)
    assert done.code == 1
    for word in words:
        assert word in done.err
    assert of(yard, name) == before
    assert [snapshot(yard.root / half / name) for half in ("s", "t")] == trees


def test_a_jail_goes_and_its_neighbour_with_a_longer_name_stays(yard: Yard) -> None:
    assert len(of(yard, "a")) == 7
    yard.ok("destroy", "a")
    assert of(yard, "a") == []
    assert yard.verify() == []
    assert yard.run("status", "a").code == 1


def test_it_can_be_made_again(yard: Yard) -> None:
    (yard.root / "s/a/etc/mark").touch()
    yard.ok("destroy", "a")
    yard.ok("init", "a")
    assert not (yard.root / "s/a/etc/mark").exists()
    assert yard.verify() == []


@pytest.mark.parametrize("name", ["mroot", "../a", "a/../ab", "", "-rf", "nosuch"])
def test_what_is_no_jail_is_refused(yard: Yard, name: str) -> None:
    before = snapshot(yard.root)
    assert yard.run("destroy", "--", name).code in {1, 2}
    assert snapshot(yard.root) == before


# --- while anything of it is in use ---------------------------------------------------------------


def test_a_mounted_jail_is_refused(yard: Yard) -> None:
    refused(yard, "j/ab", "layout umount ab", name="ab")
    assert yard.verify("ab") == []


@pytest.mark.parametrize("place", ["j/a", "manage/a", "s/a", "t/a", "s/a/etc", "t/a/var/log"])
def test_a_mount_of_the_same_file_system_is_refused_and_what_it_shows_is_intact(
    yard: Yard, place: str
) -> None:
    with victim(yard) as precious:
        mount("--bind", precious, yard.root / place)
        refused(yard, f"{yard.root}/{place}", "a mount of")
        umount(yard.root / place)
    yard.ok("destroy", "a")


@pytest.mark.parametrize("order", ["alias first", "mount first"])
def test_a_mount_made_by_another_name_of_root_is_refused(yard: Yard, order: str) -> None:
    yard.ok("umount")
    alias = yard.elsewhere("alias")
    with victim(yard) as precious:
        if order == "alias first":
            mount("--bind", yard.root, alias)
            mount("--bind", precious, alias / "t/a/var/log")
        else:
            mount("--bind", precious, yard.root / "t/a/var/log")
            mount("--rbind", yard.root, alias)
        yard.ok("mount", "ab")
        refused(yard, "a mount of")
        umount("-R", alias)
        umount("-q", yard.root / "t/a/var/log") if order == "mount first" else None


def test_a_mount_that_the_bind_of_root_hides_is_refused(yard: Yard) -> None:
    yard.ok("umount")
    with victim(yard) as precious:
        mount("--bind", precious, yard.root / "t/a/var/log")
        mount("--bind", yard.root, yard.root)
        refused(yard, f"{yard.root}/t/a/var/log", "a mount of")
        umount(yard.root)
        umount(yard.root / "t/a/var/log")


@pytest.mark.parametrize("half", ["s/a", "t/a/var"])
def test_a_tree_that_is_shown_elsewhere_is_refused(yard: Yard, half: str) -> None:
    mount("--bind", yard.root / half, yard.elsewhere("shown"))
    refused(yard, str(yard.elsewhere("shown")))
    umount(yard.elsewhere("shown"))


@pytest.mark.parametrize("place", ["j/a", "t/a/var/log", "s/a"])
def test_a_process_that_stands_in_it_is_named(yard: Yard, place: str) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=yard.root / place) as sleeper:
        refused(yard, f"process {sleeper.pid} (sleep, working directory)")
        sleeper.kill()


def test_a_process_with_its_root_in_it_is_named(yard: Yard) -> None:
    code = "import os, sys; d = os.open('/', 0); os.chroot(sys.argv[1]); os.fchdir(d); print(); input()"
    words = [sys.executable, "-uc", code, yard.root / "t/a"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        refused(yard, f"process {process.pid}", "root")
        process.kill()


def test_an_open_session_is_named(yard: Yard) -> None:
    lock = yard.root / ".layout/manage-a.lock"
    lock.write_text("process 1 (layout manage a)\n", encoding="utf-8")
    with lock.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(yard, "process 1 (layout manage a)")
    yard.ok("destroy", "a")


# --- whatever is in it ----------------------------------------------------------------------------


def deep(path: Path) -> None:
    nest(path, 5000)


def immutable(path: Path) -> None:
    (path / "sub").mkdir()
    (path / "sub/file").touch()
    for flag, name in (("+i", "sub/file"), ("+a", "sub")):
        done = subprocess.run(["chattr", flag, path / name], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(done.stderr)


def odd(path: Path) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b" ", b"\x1b[2J", "✓".encode(), b"x" * 255):
        Path(os.fsdecode(os.fsencode(path) + b"/" + name)).mkdir()
    os.mkfifo(path / "fifo")
    os.mknod(path / "null", 0o20666, os.makedev(1, 3))


def links(path: Path) -> None:
    (path / "out").symlink_to(path.parents[4] / "victim")
    (path / "up").symlink_to("../../../..")
    (path / "loop").symlink_to("loop")


@pytest.mark.parametrize("fill", [deep, immutable, odd, links], ids=lambda fill: fill.__name__)
@pytest.mark.parametrize("half", ["t/a/var/log", "s/a/etc"])
def test_anything_in_it_goes_and_nothing_else(yard: Yard, fill, half: str) -> None:
    with victim(yard):
        fill(yard.root / half)
        yard.ok("destroy", "a")
        assert of(yard, "a") == []
    assert yard.verify() == []


# --- crashes --------------------------------------------------------------------------------------

CRASH = """
import os, sys
from layout.cli.main import run
left = int(sys.argv[1])
def crash(event, arguments):
    global left
    if event in {"os.remove", "os.rmdir", "os.rename"}:
        left -= 1
        if left < 0:
            os._exit(9)
sys.addaudithook(crash)
sys.exit(run(["--root", sys.argv[2], "destroy", "a"]))
"""


@pytest.mark.parametrize("again", [("destroy", "a"), ("recover",)], ids=["destroy", "recover"])
@pytest.mark.parametrize("moment", [0, 1, 2, 6, 18, 20])
def test_what_a_crash_left_is_finished(yard: Yard, moment: int, again: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, str(moment), yard.root])
    assert done.returncode == 9
    found = yard.verify("--quick")
    assert (("a", "S5-destroying", "error") in found) is (moment > 0)
    assert [entry for entry in found if entry[0] == "ab"] == []
    yard.ok(*again)
    if not of(yard, "a"):
        assert yard.verify() == []
    else:
        assert (moment, again) == (0, ("recover",))


def test_a_jail_that_is_half_gone_is_only_there_to_be_destroyed(yard: Yard) -> None:
    subprocess.run([sys.executable, "-c", CRASH, "6", yard.root])
    assert yard.run("mount", "a").code == 1
    done = yard.run("init", "a")
    assert done.code == 1
    assert "layout destroy a" in done.err
    yard.ok("destroy", "a")
    assert yard.verify() == []


@pytest.mark.parametrize(
    ("unit", "is_told"),
    [("[Unit]\nRequiresMountsFor={root}\n", True), ("[Service]\n", True), (None, True), ("", False)],
    ids=["for this ROOT", "written by hand", "masked", "for another ROOT"],
)
def test_an_installed_unit_is_named_when_it_may_be_that_of_the_jail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str | None, is_told: bool
) -> None:
    context = Context.find(str(tmp_path / "root"), None)
    monkeypatch.setattr(systemd, "INSTALLED", str(tmp_path))
    assert remaining(context, "a") == ""
    place = tmp_path / "layout-a.service"
    if unit is None:
        place.symlink_to("/dev/null")
    else:
        text = unit or "[Unit]\nRequiresMountsFor=/jails\n"
        place.write_text(text.format(root=context.site.root), encoding="utf-8")
    assert ("is still there" in remaining(context, "a")) is is_told
