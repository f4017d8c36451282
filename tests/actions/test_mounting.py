"""layout mount and umount: exactly the planned mounts, whole jails only, and everything gone afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from yard import Yard, mount, mounts, umount, yard_at

from layout.actions import mounting
from layout.actions import mounting_linux as linux
from layout.actions.context import Context
from layout.host.linux.mounts import Way

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box

TEN = tuple(f"n{number}" for number in range(10))
each_way = pytest.mark.parametrize("way", list(Way), ids=lambda way: way.name.lower())


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with yard_at(tmp_path_factory.mktemp("mounting"), names=TEN) as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Yard:
    """Ten jails, not mounted."""
    whole.renew()
    return whole


def planned(yard: Yard, names: tuple[str, ...] = TEN) -> list[str]:
    return [f"{yard.root}/j/{name}{half}" for name in names for half in ("", "/s", "/t")]


def targets(yard: Yard) -> list[str]:
    return [one.target for one in yard.mounts()]


@contextlib.contextmanager
def namespace(propagation: str) -> Iterator[int]:
    """A process in a mount namespace made now; what it sees later is what was propagated."""
    words = ["unshare", "--mount", "--propagation", propagation, "sh", "-c", "echo ready; read _"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.communicate("")


def seen_by(pid: int, yard: Yard) -> list[str]:
    table = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8")
    return [line.split()[4] for line in table.splitlines() if str(yard.root) in line.split()[4]]


# --- exactly the planned mounts ---------------------------------------------------------------------------


@each_way
@pytest.mark.parametrize("propagation", ["slave", "unchanged"])
def test_ten_jails_are_thirty_mounts_and_nobody_else_sees_them(
    yard: Yard, shared: object, way: Way, propagation: str
) -> None:
    context = Context.find(str(yard.root), None)
    plans = context.jails(())
    with namespace(propagation) as other:
        assert sorted(mounting.mount(context.site, plans, attach=partial(linux.attach, way=way))) == sorted(
            planned(yard)
        )
        assert sorted(targets(yard)) == sorted([str(yard.root), *planned(yard)])
        assert {one.propagation for one in yard.mounts()} == {""}
        assert set(seen_by(other, yard)) <= {str(yard.root)}
        assert yard.verify() == []
        assert len(mounting.umount(context.site, plans)) == 30
        mounting.release_root(context.site)
        assert targets(yard) == []
        assert seen_by(other, yard) == []


def test_a_mount_on_one_half_of_a_shared_tree_would_be_seen(yard: Yard) -> None:
    with namespace("slave") as other:
        mount("--bind", yard.root / "s/n0", yard.root / "j/n0")
        assert seen_by(other, yard) == [f"{yard.root}/j/n0"]


def test_a_second_mount_and_a_second_umount_do_nothing(yard: Yard) -> None:
    assert "30 mounts" in yard.ok("mount")
    before = yard.mounts()
    assert "0 mounts" in yard.ok("mount")
    assert yard.mounts() == before
    assert "30 mounts" in yard.ok("umount")
    assert "0 mounts" in yard.ok("umount")
    assert yard.mounts() == []


def test_the_bind_of_root_goes_with_the_last_jail(yard: Yard) -> None:
    yard.ok("mount", "n0", "n1")
    yard.ok("umount", "n0")
    assert targets(yard)[0] == str(yard.root)
    yard.ok("umount", "n1")
    assert yard.mounts() == []


@pytest.mark.parametrize("half", ["s", "t"])
def test_what_is_missing_of_a_jail_is_completed(yard: Yard, half: str) -> None:
    yard.ok("mount", "n0")
    umount(yard.root / "j/n0" / half)
    assert "1 mount " in yard.ok("mount", "n0")
    assert yard.verify("n0") == []


@pytest.mark.parametrize(
    "name", ["with space", "tab\there", "back\\slash", "jäils-✓", "new\nline", "\\040", "#hash"]
)
def test_any_name_of_root_will_do(tmp_path: Path, name: str) -> None:
    with yard_at(tmp_path / name, names=("a",)) as yard:
        yard.ok("mount")
        assert [one.target for one in yard.mounts()[1:]] == planned(yard, ("a",))
        assert yard.verify() == []
        yard.ok("umount")
        assert yard.mounts() == []


@each_way
def test_the_writable_half_at_boot_is_four_mounts_more(yard: Yard, way: Way) -> None:
    yard.ok("init", "n0", "--manage", "boot", "--no-mount")
    context = Context.find(str(yard.root), None)
    assert (
        len(mounting.mount(context.site, context.jails(["n0"]), attach=partial(linux.attach, way=way))) == 7
    )
    assert yard.verify("n0") == []
    (yard.root / "manage/n0/etc/new").write_text("by the administrator\n", encoding="utf-8")
    assert (yard.root / "j/n0/etc/new").read_text(encoding="utf-8") == "by the administrator\n"
    (yard.root / "manage/n0/dev/null").write_bytes(b"gone")
    yard.ok("umount", "n0")
    assert yard.mounts() == []


def test_mount_manage_adds_the_writable_half_and_umount_manage_takes_it(yard: Yard) -> None:
    yard.ok("mount", "n0")
    assert "4 mounts" in yard.ok("mount", "--manage", "n0")
    assert yard.verify("n0") == [("n0", "S3-view", "error")]
    assert "4 mounts" in yard.ok("umount", "--manage", "n0")
    assert yard.verify("n0") == []


def test_the_preset_classic_has_the_options_of_the_message(yard: Yard) -> None:
    yard.ok("init", "n0", "--preset", "classic")
    inherited = {"relatime", "noatime"}
    assert [one.options - inherited for one in yard.mounts()[1:]] == [{"ro"}, {"ro"}, {"rw"}]


# --- file systems of one's own ------------------------------------------------------------------------------


def own(yard: Yard, path: str) -> Path:
    """Put what is at `path` on a tmpfs of its own."""
    place = yard.root / path if path else yard.root
    aside = yard.elsewhere("own")
    mode = place.stat().st_mode & 0o7777
    mount("-t", "tmpfs", "-o", f"nosuid,mode={mode:o}", "own", aside)
    subprocess.run(["cp", "-a", f"{place}/.", aside], check=True)
    mount("--bind", aside, place)
    umount(aside)
    return place


@pytest.mark.parametrize("path", ["", "t", "s", "j/mroot", "t/n0", "s/n0"], ids=lambda path: path or "ROOT")
def test_a_source_on_a_file_system_of_its_own_is_what_the_jail_shows(yard: Yard, path: str) -> None:
    place = own(yard, path)
    (yard.root / "t/n0/var/mine").touch()
    before = Counter(targets(yard))
    yard.ok("mount", "n0", "n1")
    assert (yard.root / "j/n0/t/var/mine").exists()
    assert yard.verify("n0", "n1") == []
    with contextlib.suppress(OSError):
        assert not (yard.root / "j/n0/etc/new").write_text("x")
    yard.ok("umount")
    assert Counter(targets(yard)) == before
    umount(place)
    assert yard.mounts() == []


def test_what_keeps_a_file_system_below_root_busy_keeps_the_bind_of_root_whole(yard: Yard) -> None:
    own(yard, "t")
    own(yard, "j/mroot")
    yard.ok("mount", "n0")
    with (yard.root / "t/n0/var/log/messages").open():
        yard.ok("umount", "n0")
        assert (yard.root / "t/n0/var/log/messages").exists()
        assert (yard.root / "j/mroot/bin/sh").exists()
        assert Counter(targets(yard))[f"{yard.root}/j/mroot"] == 2
    yard.ok("umount")
    assert sorted(targets(yard)) == [f"{yard.root}/j/mroot", f"{yard.root}/t"]


def test_jails_mounted_by_mount_8_are_accepted_and_stay(yard: Yard) -> None:
    for name in ("n0", "n1"):
        subprocess.run(["mount", "-a", "-T", yard.root / f"etc/fstab.d/{name}.fstab"], check=True)
    assert yard.verify("n0", "n1") == []
    assert "0 mounts" in yard.ok("mount", "n0")
    yard.ok("mount", "n2")
    assert (yard.root / "j/n0/t/var").is_dir()
    assert yard.verify("n0", "n1", "n2") == []
    assert sorted(targets(yard)) == sorted(planned(yard, ("n0", "n1", "n2")))
    yard.ok("umount")
    assert yard.mounts() == []


# --- all or nothing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "hint"), [("s/n1", "layout init"), ("t/n1", "layout init"), ("j/n1", "layout init")]
)
def test_a_jail_that_cannot_be_whole_is_not_mounted(yard: Yard, path: str, hint: str) -> None:
    (yard.root / path).rename(yard.root / "aside")
    done = yard.run("mount")
    assert done.code == 1
    assert f"{yard.root}/{path}: found nothing" in done.err
    assert hint in done.err
    assert set(targets(yard)) == {str(yard.root), *planned(yard, ("n0",))}


def test_a_jail_with_a_writable_half_that_cannot_be_has_neither(yard: Yard) -> None:
    yard.ok("init", "n0", "--manage", "boot", "--no-mount")
    (yard.root / "manage/n0").rmdir()
    done = yard.run("mount", "n0")
    assert (done.code, targets(yard)) == (1, [str(yard.root)])


def wrong_source(yard: Yard) -> None:
    umount(yard.root / "j/n0/t")
    mount("--bind", "-o", "nosuid,nodev,noexec", yard.root / "t/n1", yard.root / "j/n0/t")


def writable(yard: Yard) -> None:
    mount("-o", "remount,bind,rw,nosuid,nodev", yard.root / "j/n0")


def covered(yard: Yard) -> None:
    mount("-t", "tmpfs", "none", yard.root / "j/n0/s")


@pytest.mark.parametrize("spoil", [wrong_source, writable, covered], ids=lambda spoil: spoil.__name__)
def test_a_wrong_mount_in_place_is_refused_and_left_alone(yard: Yard, spoil) -> None:
    yard.ok("mount", "n0")
    spoil(yard)
    before = yard.mounts()
    done = yard.run("mount", "n0")
    assert done.code == 1
    assert "NAME" not in done.err
    assert yard.mounts() == before


def test_a_mount_where_the_jail_would_hide_it_is_refused(yard: Yard) -> None:
    (yard.root / "j/n0/s").mkdir()
    mount("-t", "tmpfs", "none", yard.root / "j/n0/s")
    done = yard.run("mount", "n0")
    assert (done.code, len(yard.mounts())) == (1, 1)
    assert f"umount {yard.root}/j/n0/s" in done.err


def test_killed_at_any_moment_it_leaves_whole_jails_only(tmp_path: Path) -> None:
    names = tuple(f"k{number}" for number in range(60))
    cut = 0
    with yard_at(tmp_path / "kill", names=names) as yard:
        for number in range(30):
            # On a machine with other work all may be mounted before anybody looks: then once more.
            if number >= 6 and cut:
                break
            with yard.process("mount") as process:
                while not yard.mounts() and process.poll() is None:
                    time.sleep(0.0005)
                time.sleep(random.Random(number).random() * 0.012)
                process.kill()
            counts = Counter(Path(target).relative_to(yard.root).parts[1] for target in targets(yard)[1:])
            assert set(counts.values()) <= {3}
            cut += 0 < len(counts) < 60
            yard.ok("umount")
            assert yard.mounts() == []
        assert cut > 0
        yard.ok("mount")
        assert len(yard.mounts()) == 181


# --- umount -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", ["j/n0", "j/n0/s", "j/n0/t/var"])
@pytest.mark.parametrize("manage", ["session", "boot"])
def test_a_busy_jail_stays_whole_and_the_holder_is_named(yard: Yard, held: str, manage: str) -> None:
    yard.ok("init", "n0", "--manage", manage)
    before = sorted(targets(yard))
    with subprocess.Popen(["sleep", "60"], cwd=yard.root / held) as sleeper:
        done = yard.run("umount", "n0")
        assert done.code == 1
        assert f"process {sleeper.pid} (sleep, working directory)" in done.err
        assert sorted(targets(yard)) == before
        assert yard.verify("n0") == []
        sleeper.kill()
    yard.ok("umount", "n0")
    assert yard.mounts() == []


def test_what_is_only_just_looked_at_is_waited_for(yard: Yard) -> None:
    yard.ok("mount", "n0")
    look = "import os, sys\nprint(flush=True)\nwhile True: os.close(os.open(sys.argv[1], os.O_RDONLY))"
    path = yard.root / "j/n0/t/var/log/messages"
    with subprocess.Popen([sys.executable, "-c", look, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yard.run("umount", "n0")
        process.kill()
    yard.ok("umount", "n0")
    assert yard.mounts() == []


@pytest.mark.parametrize("place", ["j/n1/t/var", "j/n1/s", "manage/n1"])
def test_a_foreign_mount_is_refused_before_anything_is_unmounted(yard: Yard, place: str) -> None:
    yard.ok("mount", "n0", "n1")
    mount("-t", "tmpfs", "mine", yard.root / place)
    (yard.root / place / "data").touch()
    before = yard.mounts()
    done = yard.run("umount", "n0", "n1")
    assert done.code == 1
    assert f"{yard.root}/{place}: found a mount of mine (tmpfs)" in done.err
    assert yard.mounts() == before


def test_the_same_mount_twice_goes_at_once(yard: Yard) -> None:
    yard.ok("mount", "n0")
    mount("--bind", yard.root / "t/n0", yard.root / "j/n0/t")
    yard.ok("umount", "n0")
    assert yard.mounts() == []


def test_nothing_is_ever_unmounted_lazily_or_by_force(yard: Yard, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    if subprocess.run(["which", "strace"], capture_output=True).returncode:
        pytest.skip("no strace")
    yard.ok("mount", "n0")
    words = ["strace", "-f", "-e", "trace=umount2", "-o", trace, sys.executable, "-m", "layout"]
    done = subprocess.run([*words, "--root", yard.root, "umount", "n0"], capture_output=True, text=True)
    if "PTRACE" in done.stderr:
        pytest.skip(done.stderr)
    calls = [line for line in trace.read_text(encoding="utf-8").splitlines() if "umount2(" in line]
    assert len(calls) == 4
    assert all("UMOUNT_NOFOLLOW)" in call for call in calls)
    assert mounts(yard.root) == []
    assert os.path.isdir(yard.root / "t/n0/var")


def test_in_a_user_namespace_the_nodes_of_dev_are_mounts_that_come_and_go_with_it(yard: Yard) -> None:
    layout = f"{sys.executable} -m layout --root {yard.root}"
    script = f"""
        set -e
        {layout} -q init n0 --manage boot >/dev/null
        {layout} verify n0
        echo gone >{yard.root}/manage/n0/dev/null
        ! (exec 9<{yard.root}/manage/n0/dev/full; exec {layout} umount n0)
        {layout} verify n0
        {layout} umount n0
        ! grep {yard.root} /proc/self/mountinfo
    """
    done = subprocess.run(["unshare", "-Ur", "-m", "sh", "-c", script], capture_output=True, text=True)
    if "unshare: " in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "open file 9" in done.stderr
