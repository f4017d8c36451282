"""The block in the host's fstab: ours is kept, everybody else's lines stay as they are, byte for byte."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from yard import Yard, mount, yard_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.box

DEBIAN = b"""# /etc/fstab: static file system information.
#
# <file system> <mount point>   <type>  <options>       <dump>  <pass>
UUID=0a1b2c3d-0000-4000-8000-0123456789ab /               ext4    errors=remount-ro 0       1
/dev/disk/by-label/caf\xe9\\040du\\040coin /srv/caf\xe9\\040du\\040coin xfs nofail,x-systemd.automount 0 2
//server/share  /mnt/share\tcifs  credentials=/root/.smb,_netdev 0 0
tmpfs /tmp tmpfs mode=1777,nosuid,nodev 0 0

   # indented comment, and a line that is none:
garbage
"""
FSTABS = {
    "none": None,
    "empty": b"",
    "debian": DEBIAN,
    "without a final newline": DEBIAN.rstrip(b"\n"),
    "with CR LF": DEBIAN.replace(b"\n", b"\r\n"),
    "with CR LF, unfinished": DEBIAN.replace(b"\n", b"\r\n").removesuffix(b"\r\n"),
    "blank lines at its end": DEBIAN + b"\n\n\n",
    "a backup of ours in a comment": DEBIAN + b"#/jails/j/mroot /jails/j/a none bind 0 0\n",
}


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with yard_at(tmp_path_factory.mktemp("fstab") / "with space") as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Yard:
    whole.renew()
    return whole


@pytest.fixture(name="fstab")
def _fstab(yard: Yard) -> Path:
    """The file that --root puts in the place of /etc/fstab."""
    return yard.root / "etc/fstab"


@pytest.mark.parametrize("text", FSTABS.values(), ids=FSTABS)
def test_install_and_remove_leave_every_other_byte_alone(yard: Yard, fstab: Path, text: bytes | None) -> None:
    if text is not None:
        fstab.write_bytes(text)
        fstab.chmod(0o640)
    yard.ok("fstab", "--install")
    installed = fstab.read_bytes()
    assert installed.startswith(text or b"")
    assert yard.ok("fstab").encode() in installed
    assert fstab.stat().st_mode & 0o777 == (0o644 if text is None else 0o640)
    assert "as it should be" in yard.ok("fstab", "--install")
    assert fstab.read_bytes() == installed
    yard.ok("fstab", "--remove")
    assert fstab.read_bytes() == (text or b"")
    assert "as it should be" in yard.ok("fstab", "--remove")


def test_lines_around_the_block_may_change(yard: Yard, fstab: Path) -> None:
    fstab.write_bytes(DEBIAN)
    yard.ok("fstab", "--install", "a")
    fstab.write_bytes(b"# first\n" + fstab.read_bytes() + b"# last\n")
    yard.ok("fstab", "--install")
    assert fstab.read_bytes().count(b"/j/b") == 3
    yard.ok("fstab", "--remove")
    assert fstab.read_bytes() == b"# first\n" + DEBIAN + b"# last\n"


@pytest.mark.parametrize("option", ["--install", "--remove"])
def test_a_block_edited_by_hand_is_refused_without_force(yard: Yard, fstab: Path, option: str) -> None:
    fstab.write_bytes(DEBIAN)
    yard.ok("fstab", "--install", "a")
    edited = fstab.read_bytes().replace(b"bind,ro", b"bind,rw", 1)
    fstab.write_bytes(edited)
    done = yard.run("fstab", option)
    assert (done.code, fstab.read_bytes()) == (1, edited)
    assert "edited by hand" in done.err
    assert "--force" in done.err
    yard.ok("fstab", option, "--force")
    assert b"bind,rw,nosuid,nodev,private" not in fstab.read_bytes()


@pytest.mark.parametrize("place", ["j/a", "j/a/s", "j/a/", "j/../j/a"])
def test_a_foreign_line_for_our_mount_point_is_refused(yard: Yard, fstab: Path, place: str) -> None:
    target = f"{yard.root}/{place}".replace(" ", "\\040")
    if ".." in place:
        target = target.replace("/j/../", "//./")  # other words for the same path that fstab(5) allows
    text = DEBIAN + f"/dev/vdb {target} ext4 defaults 0 0\n".replace("//./j", "/j").encode()
    fstab.write_bytes(text)
    done = yard.run("fstab", "--install")
    assert (done.code, fstab.read_bytes()) == (1, text)
    assert f"etc/fstab:{text.count(10)}" in done.err.replace("\\n", "")
    assert "another line for the mount point" in done.err


@pytest.mark.parametrize("spoil", [b"# BEGIN layout\n", b"# END layout\n"], ids=["begin", "end"])
def test_markers_that_make_no_block_are_refused(yard: Yard, fstab: Path, spoil: bytes) -> None:
    fstab.write_bytes(DEBIAN + spoil)
    assert yard.run("fstab", "--install").code == 1
    assert fstab.read_bytes() == DEBIAN + spoil


def test_a_link_in_the_place_of_the_file_is_refused(yard: Yard, fstab: Path) -> None:
    real = yard.root / "etc/real"
    real.write_bytes(DEBIAN)
    fstab.symlink_to("real")
    assert yard.run("fstab", "--install").code == 1
    assert (fstab.is_symlink(), real.read_bytes()) == (True, DEBIAN)


@pytest.mark.parametrize("preset", ["hardened", "classic"])
@pytest.mark.parametrize("manage", ["session", "boot"])
def test_findmnt_accepts_every_table(yard: Yard, fstab: Path, preset: str, manage: str) -> None:
    yard.ok("init", "a", "b", "--preset", preset, "--manage", manage)
    yard.ok("fstab", "--install")
    for table in (fstab, *(yard.root / "etc/fstab.d").glob("*.fstab")):
        done = subprocess.run(["findmnt", "--verify", "--tab-file", table], capture_output=True, text=True)
        assert (done.returncode, "[E]" in done.stdout) == (0, False), done.stdout + done.stderr
        # What lies in the writable half can be reached only while that is mounted.
        blocks = re.findall(r"(?m)^(/.*)\n((?: +\[W\].*\n)+)", done.stdout)
        assert manage == "session" or not blocks
        assert all(f"{yard.root}/manage/" in target and "unreachable" in text for target, text in blocks)


@pytest.mark.parametrize(("manage", "count"), [("session", 6), ("boot", 14)])
def test_mount_8_makes_of_it_what_verify_accepts(yard: Yard, fstab: Path, manage: str, count: int) -> None:
    yard.ok("init", "a", "b", "--manage", manage, "--no-mount")
    yard.ok("fstab", "--install")
    mount("-a", "-T", fstab)
    assert len(yard.mounts()) == count
    assert yard.verify() == []


def test_a_table_for_freebsd_is_printed_anywhere(yard: Yard) -> None:
    out = yard.ok("fstab", "--platform", "freebsd", "--preset", "classic", "--manage", "boot", "a")
    words = [line.split()[2:4] for line in out.splitlines()]
    assert words == [
        ["nullfs", "ro"],
        ["nullfs", "ro"],
        ["nullfs", "rw"],
        *[["nullfs", "rw"]] * 3,
        ["devfs", "rw"],
    ]
