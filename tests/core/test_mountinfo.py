"""mountinfo: the kernel's list, taken apart by component and never trusted to be whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout.core import mountinfo
from layout.core.errors import LayoutError
from layout.core.mountinfo import MountPoint

RECORDED = (Path(__file__).parent.parent / "data" / "linux.mountinfo").read_bytes()
"""Linux 6.18, in a mount namespace of its own: jails a, ab and "odd name" below /mnt/jails, and oddities."""

ODD = "/mnt/odd/t\tn\nb\\h#\udcffe"


def targets(mounts: list[MountPoint]) -> list[str]:
    return [mount.target for mount in mounts]


def one(target: str) -> MountPoint:
    (found,) = [mount for mount in mountinfo.parse(RECORDED) if mount.target == target]
    return found


def test_every_field_has_its_place() -> None:
    assert one("/mnt/jails/j/a/t") == MountPoint(
        mount_id=66,
        parent_id=64,
        dev="0:39",
        root="/jails/t/a",
        target="/mnt/jails/j/a/t",
        options=frozenset({"rw", "nosuid", "nodev", "noexec", "relatime"}),
        propagation="",
        fstype="tmpfs",
        source="",
        super_options="rw",
    )


def test_the_mount_is_read_only_and_not_its_file_system() -> None:
    mount = one("/mnt/jails/j/a/s")
    assert "ro" in mount.options
    assert mount.super_options == "rw"


def test_no_line_is_lost_and_the_order_is_the_kernels() -> None:
    mounts = mountinfo.parse(RECORDED)
    assert len(mounts) == RECORDED.count(b"\n")
    assert [mount.mount_id for mount in mounts] == sorted(mount.mount_id for mount in mounts)


def test_the_upper_of_two_mounts_comes_later() -> None:
    lower, upper = [mount for mount in mountinfo.parse(RECORDED) if mount.target == "/dev/pts"]
    assert upper.parent_id == lower.mount_id


def test_names_are_decoded() -> None:
    mount = one(ODD)
    assert mount.source == "s p\t#"
    assert os.fsencode(mount.target) == b"/mnt/odd/t\tn\nb\\h#\xffe"
    assert one("/mnt/jails/j/odd name/s").root == "/jails/s/odd name"


@pytest.mark.parametrize(
    ("target", "propagation"),
    [
        ("/mnt/jails/j/a", ""),
        ("/mnt/jails/manage/a", "shared:1"),
        ("/mnt/slave", "master:1"),
        ("/mnt/both", "shared:3 master:1"),
        ("/mnt/unb", "unbindable"),
    ],
    ids=["private", "shared", "slave", "both", "unbindable"],
)
def test_propagation_is_told(target: str, propagation: str) -> None:
    assert one(target).propagation == propagation


def test_an_unlinked_source_is_told() -> None:
    assert one("/mnt/held").root == "/gone//deleted"


def test_super_options_may_hold_blanks_and_dashes() -> None:
    (mount,) = mountinfo.parse(b"1 2 0:3 / /a rw shared:1 future:2 - fuse.x - a - b c\n")
    assert mount[6:] == ("shared:1 future:2", "fuse.x", "-", "a - b c")


def test_a_prefix_is_compared_by_component() -> None:
    inside = ["/mnt/jails/j/a", "/mnt/jails/j/a/s", "/mnt/jails/j/a/t"]
    assert targets(mountinfo.below(mountinfo.parse(RECORDED), "/mnt/jails/j/a")) == inside
    assert targets(mountinfo.parse(RECORDED, b"/mnt/jails/j/a")) == inside
    assert targets(mountinfo.parse(RECORDED, b"/mnt/jails/j/a/")) == inside


@pytest.mark.parametrize(
    ("prefix", "count"),
    [
        ("/", 25),
        ("", 25),
        ("/mnt", 17),
        ("/mnt/jails/j/odd name", 3),
        ("/mnt/jails/j/odd", 0),
        (ODD, 1),
        ("/n", 0),
    ],
    ids=["root", "nothing", "deep", "blank", "half a name", "escapes", "absent"],
)
def test_below_and_a_filter_while_parsing_agree(prefix: str, count: int) -> None:
    found = mountinfo.below(mountinfo.parse(RECORDED), prefix)
    assert found == mountinfo.parse(RECORDED, os.fsencode(prefix))
    assert len(found) == count


# Pieces that lie close to the form, so that the search gets past the first field.
PIECES = st.sampled_from(
    [b"1", b" ", b" - ", b"\n", b"/a", b"/a/b", b"0:1", b"\\040", b"\\", b"rw,ro", b"\xff", b"x", b""]
)


@given(
    data=st.binary() | st.lists(PIECES).map(b"".join),
    prefix=st.sampled_from([b"/", b"/a", b"a", b" ", b"\xff#"]),
)
def test_damaged_input_gives_mounts_or_a_layout_error(data: bytes, prefix: bytes) -> None:
    try:
        mountinfo.parse(data, prefix)
    except LayoutError as error:
        assert error.path.startswith("/proc/self/mountinfo:")


@given(st.data())
def test_a_filter_finds_what_is_below_for_any_names(data: st.DataObject) -> None:
    names = st.lists(
        st.sampled_from([b"a", b"ab", b" ", b"\\", b"\n#", b"#", b"\\040", b"\xc3\xa9", b"\xff"])
    )
    paths = data.draw(st.lists(names.map(lambda parts: b"/" + b"/".join(parts)), min_size=1))

    def escape(path: bytes) -> bytes:
        return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in path)

    table = b"".join(b"1 2 0:3 / %s rw - x y z\n" % escape(path) for path in paths)
    assert targets(mountinfo.parse(table)) == [os.fsdecode(path) for path in paths]
    prefix = data.draw(st.sampled_from(paths))
    assert mountinfo.parse(table, prefix) == mountinfo.below(mountinfo.parse(table), os.fsdecode(prefix))


def test_a_line_that_was_cut_short_is_an_error() -> None:
    cut = RECORDED[: RECORDED.index(b" - tmpfs  rw")]
    with pytest.raises(LayoutError) as caught:
        mountinfo.parse(cut, name="/proc/7/mountinfo")
    assert caught.value.path == f"/proc/7/mountinfo:{cut.count(chr(10).encode()) + 1}"
    assert "TARGET" in caught.value.expected
