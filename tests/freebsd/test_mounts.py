"""What nullfs, mount(8) and umount(8) do on a real FreeBSD: all that the code takes for granted.

The names in brackets are the paragraphs of mount_nullfs(8), mount(8), umount(8) and fstab(5).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from layout.core import mountlist
from layout.host.freebsd import table as product

from .conftest import PRETENDED, system, table

pytestmark = pytest.mark.freebsd

Run = Callable[..., str]


@pytest.fixture(name="pair")
def _pair(place: Path, run: Run) -> tuple[Path, Path]:
    """A source with a file in it, and a mount point."""
    source, target = place / "source", place / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").write_text("text\n")
    return source, target


def options(target: Path) -> set[str]:
    [row] = [row for row in table() if row["node"] == str(target)]
    return set(row["opts"])


def test_the_release_is_one_that_we_know(run: Run) -> None:
    assert int(run("uname", "-r").partition(".")[0]) >= 14


def test_libxo_has_the_keys_that_we_read(pair: tuple[Path, Path], run: Run) -> None:
    source, target = pair
    run("mount", "-t", "nullfs", "-o", "ro,nosuid,noexec", source, target)
    [row] = [row for row in table() if row["node"] == str(target)]
    assert (row["special"], row["fstype"]) == (str(source), "nullfs")
    assert {"read-only", "nosuid", "noexec"} <= set(row["opts"])
    assert len(row["fsid"]) == 16
    assert int(row["fsid"], 16)


def test_our_reader_takes_both_forms(pair: tuple[Path, Path], run: Run) -> None:
    source, target = pair
    run("mount", "-t", "nullfs", "-o", "ro,nosuid", source, target)
    [line] = [line for line in product.lines() if line.node == str(target)]
    assert (line.special, line.fstype) == (str(source), "nullfs")
    assert {"ro", "nosuid"} <= line.options
    [old] = [line for line in mountlist.from_fstab(run("mount", "-p")) if line.node == str(target)]
    assert (old.special, old.fstype) == (line.special, line.fstype)
    assert {"ro", "nosuid"} <= old.options
    assert [point for point in product.read(str(target)) if point.target == str(target)]


def test_the_table_is_in_the_order_of_mounting(place: Path, run: Run) -> None:
    for name in ("a", "z", "m"):
        (place / name).mkdir()
    for name in ("z", "a"):
        run("mount", "-t", "nullfs", "-o", "ro", place / "m", place / name)
    nodes = [row["node"] for row in table()]
    assert nodes.index(str(place / "z")) < nodes.index(str(place / "a"))


@pytest.mark.parametrize("option", ["nosuid", "noexec", "nosymfollow", "noatime"])
def test_nullfs_takes_an_option_and_shows_it(pair: tuple[Path, Path], run: Run, option: str) -> None:
    source, target = pair
    run("mount", "-t", "nullfs", "-o", f"rw,{option}", source, target)
    assert option in options(target)


def test_nodev_is_no_option(pair: tuple[Path, Path]) -> None:
    source, target = pair
    assert system("mount", "-t", "nullfs", "-o", "rw,nodev", source, target).returncode != 0


def test_nosymfollow_stops_links(pair: tuple[Path, Path], run: Run) -> None:
    source, target = pair
    (source / "link").symlink_to("file")
    run("mount", "-t", "nullfs", "-o", "rw,nosymfollow", source, target)
    assert (target / "file").read_text() == "text\n"
    with pytest.raises(OSError):
        (target / "link").read_text()


def test_read_only_refuses_root_and_shows_what_the_writable_view_writes(place: Path, run: Run) -> None:
    for name in ("source", "ro", "rw"):
        (place / name).mkdir()
    run("mount", "-t", "nullfs", "-o", "ro", place / "source", place / "ro")
    run("mount", "-t", "nullfs", "-o", "rw", place / "source", place / "rw")
    with pytest.raises(OSError, match="Read-only"):
        (place / "ro" / "new").touch()
    (place / "rw" / "new").write_text("seen")
    assert (place / "ro" / "new").read_text() == "seen"
    with pytest.raises(OSError, match="Read-only"):
        (place / "ro" / "new").chmod(0o600)
    assert system("chflags", "nodump", place / "ro" / "new").returncode != 0
    run("chflags", "schg", place / "rw" / "new")
    with pytest.raises(OSError):
        (place / "rw" / "new").unlink()
    run("chflags", "noschg", place / "rw" / "new")


def test_the_same_nullfs_again_is_a_deadlock(pair: tuple[Path, Path], run: Run) -> None:
    source, target = pair
    run("mount", "-t", "nullfs", "-o", "ro", source, target)
    again = system("mount", "-t", "nullfs", "-o", "ro", source, target)
    assert (again.returncode != 0, "deadlock" in again.stderr.lower()) == (True, True), again.stderr
    assert len([row for row in table() if row["node"] == str(target)]) == 1


def test_mount_a_takes_what_has_the_same_mount_point_and_type_for_mounted(place: Path, run: Run) -> None:
    for name in ("one", "two", "target"):
        (place / name).mkdir()
    file = place / "fstab"
    file.write_text(f"{place}/one {place}/target nullfs ro 0 0\n")
    run("mount", "-a", "-F", file)
    run("mount", "-a", "-F", file)
    file.write_text(f"{place}/two {place}/target nullfs ro 0 0\n")
    run("mount", "-a", "-F", file)
    assert [row["special"] for row in table() if row["node"] == f"{place}/target"] == [f"{place}/one"]


def test_a_nullfs_cannot_be_updated(pair: tuple[Path, Path], run: Run) -> None:
    source, target = pair
    run("mount", "-t", "nullfs", "-o", "ro", source, target)
    assert system("mount", "-u", "-o", "rw", target).returncode != 0
    assert "read-only" in options(target)


def test_nosuid_of_what_is_below_is_not_inherited(place: Path, run: Run) -> None:
    """Therefore it stands on every line of ours."""
    for name in ("lower", "plain", "closed"):
        (place / name).mkdir()
    os.chmod(place, 0o755)
    for parent in place.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    run("mount", "-t", "tmpfs", "-o", "rw,nosuid", "tmpfs", place / "lower")
    run("cp", "/usr/bin/id", place / "lower" / "id")
    (place / "lower" / "id").chmod(0o4755)
    run("mount", "-t", "nullfs", "-o", "ro", place / "lower", place / "plain")
    run("mount", "-t", "nullfs", "-o", "ro,nosuid", place / "lower", place / "closed")
    said = {
        name: run(place / name / "id", user="nobody", extra_groups=[])
        for name in ("lower", "plain", "closed")
    }
    assert "euid=0" not in said["lower"]
    assert "euid=0" not in said["closed"]
    assert "euid=0" in said["plain"]


def test_a_name_that_is_only_a_source_takes_down_what_is_mounted_from_it(
    pair: tuple[Path, Path], run: Run
) -> None:
    """Therefore umount is given a mount point that was looked up, or a file system id, and nothing else."""
    source, target = pair
    run("mount", "-t", "nullfs", "-o", "ro", source, target)
    run("umount", source)
    assert str(target) not in [row["node"] for row in table()]


def test_an_id_unmounts_what_it_belongs_to(pair: tuple[Path, Path], run: Run) -> None:
    source, target = pair
    run("mount", "-t", "nullfs", "-o", "ro", source, target)
    [row] = [row for row in table() if row["node"] == str(target)]
    run("umount", row["fsid"])
    assert str(target) not in [row["node"] for row in table()]


def test_what_is_busy_stays(pair: tuple[Path, Path], run: Run) -> None:
    source, target = pair
    run("mount", "-t", "nullfs", "-o", "ro", source, target)
    with open(target / "file", encoding="utf-8"):
        busy = system("umount", target)
        assert busy.returncode != 0
        assert "busy" in busy.stderr.lower()
    run("umount", target)


def test_mounts_of_the_source_are_not_seen(place: Path, run: Run) -> None:
    for name in ("source/inner", "target", "other"):
        (place / name).mkdir(parents=True)
    (place / "other" / "deep").touch()
    run("mount", "-t", "nullfs", "-o", "rw", place / "other", place / "source" / "inner")
    run("mount", "-t", "nullfs", "-o", "rw", place / "source", place / "target")
    assert (place / "source" / "inner" / "deep").exists()
    assert not (place / "target" / "inner" / "deep").exists()


def test_another_view_is_another_device(pair: tuple[Path, Path], run: Run) -> None:
    source, target = pair
    run("mount", "-t", "nullfs", "-o", "rw", source, target)
    if PRETENDED:  # bind mounts keep the number of the device
        assert (source / "file").stat().st_dev == (target / "file").stat().st_dev
    else:
        assert os.path.ismount(target)
    assert (source / "file").stat().st_ino == (target / "file").stat().st_ino
    with pytest.raises(OSError, match=r"[Cc]ross-device"):
        os.link(source / "file", target / "other")


def test_a_mount_over_a_nullfs_comes_and_goes_alone(pair: tuple[Path, Path], run: Run) -> None:
    """And its place in the table is above; what is mounted in it does not know what is covered."""
    source, target = pair
    (source / "var").mkdir()
    run("mount", "-t", "nullfs", "-o", "rw", source, target)
    run("mount", "-t", "tmpfs", "-o", "rw,nosuid,mode=755", "tmpfs", target)
    (target / "var").mkdir()
    run("mount", "-t", "nullfs", "-o", "rw,nosuid,noexec,nosymfollow", source / "var", target / "var")
    assert [row["fstype"] for row in table() if row["node"] == str(target)] == ["nullfs", "tmpfs"]
    [row] = [row for row in table() if row["node"] == str(target / "var")]
    assert row["special"] == str(source / "var")
    assert (source / "var").stat().st_ino == (target / "var").stat().st_ino
    run("umount", row["fsid"])
    [_, tmpfs] = [row for row in table() if row["node"] == str(target)]
    run("umount", tmpfs["fsid"])
    assert [row["fstype"] for row in table() if row["node"] == str(target)] == ["nullfs"]
    assert (target / "file").exists()


@pytest.mark.skipif(PRETENDED, reason="Linux refuses it in one mount namespace")
def test_a_mount_in_a_nullfs_goes_with_the_directory_below(pair: tuple[Path, Path], run: Run) -> None:
    """Why a session has no mount of its own on the jail's tmp."""
    source, target = pair
    (source / "tmp").mkdir()
    run("mount", "-t", "nullfs", "-o", "rw", source, target)
    run("mount", "-t", "tmpfs", "-o", "rw", "tmpfs", target / "tmp")
    (target / "tmp/mine").touch()
    (source / "tmp").rename(source / "gone")
    (source / "tmp").mkdir()
    assert not (target / "tmp/mine").exists()
    [row] = [row for row in table() if row["fstype"] == "tmpfs" and row["node"] == str(target / "tmp")]
    run("umount", row["fsid"])


def test_a_socket_made_in_one_view_answers_in_the_other(
    pair: tuple[Path, Path], run: Run, monkeypatch
) -> None:
    source, target = pair
    run("mount", "-t", "nullfs", "-o", "rw", source, target)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        monkeypatch.chdir(target)  # paths of sockets are short
        server.bind("s")
        server.listen()
        monkeypatch.chdir(source)
        client.connect("s")
    monkeypatch.chdir("/")


def test_escapes_are_decoded_and_a_line_needs_ro_or_rw(place: Path, run: Run) -> None:
    (place / "a b#c").mkdir()
    (place / "target").mkdir()
    (place / "a b#c" / "seen").touch()
    file = place / "fstab"
    file.write_text(f"{place}/a\\040b\\043c {place}/target nullfs ro 0 0\n")
    run("mount", "-a", "-F", file)
    assert (place / "target" / "seen").exists()
    run("umount", place / "target")
    file.write_text(f"{place}/a\\040b\\043c {place}/target nullfs late,nosuid 0 0\n")
    assert "Inappropriate" in system("mount", "-a", "-l", "-F", file).stderr
    assert not (place / "target" / "seen").exists()


def test_late_and_failok_do_what_keeps_the_boot_going(place: Path, run: Run) -> None:
    file = place / "fstab"
    file.write_text(f"{place}/gone {place}/gone nullfs ro,late 0 0\n")
    run("mount", "-a", "-F", file)
    assert system("mount", "-a", "-L", "-F", file).returncode != 0
    file.write_text(f"{place}/gone {place}/gone nullfs ro,late,failok 0 0\n")
    run("mount", "-a", "-L", "-F", file)
