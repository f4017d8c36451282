"""What mount(8) of FreeBSD prints becomes the records of mountinfo: each nullfs as what it shows."""

from __future__ import annotations

import json

import pytest

from layout.core import mountlist
from layout.core.compare import Live
from layout.core.errors import LayoutError
from layout.core.mountlist import Line

RW = frozenset({"rw"})


def live(*lines: Line) -> Live:
    return Live(mountlist.mount_points([Line("zroot/ROOT", "/", "zfs", RW, "0" * 16), *lines]))


def nullfs(special: str, node: str, *words: str) -> Line:
    return Line(special, node, "nullfs", frozenset(words or ("rw",)))


def test_json_with_any_name_is_read() -> None:
    row = {"special": "/a b", "node": "/c\nd", "fstype": "nullfs", "opts": ["local", "read-only", "nosuid"]}
    text = json.dumps({"mount": {"mounted": [{**row, "fsid": "01ff000000000029"}]}})
    words = frozenset({"local", "ro", "nosuid"})
    assert mountlist.from_json(text) == [Line("/a b", "/c\nd", "nullfs", words, "01ff000000000029")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"mount": {"mounted": [{"special": "x"}]}}',
        '{"mount": {"mounted": [{"special": 1, "node": "/", "fstype": "zfs"}]}}',
        '{"mount": {"mounted": [{"special": "x", "node": "y", "fstype": "zfs", "opts": []}]}}',
        '{"mount": {"mounted": 3}}',
    ],
)
def test_other_json_is_an_error_in_words(text: str) -> None:
    with pytest.raises(LayoutError, match="a list of mounts"):
        mountlist.from_json(text)


def test_lines_are_read_unless_a_blank_makes_them_doubtful() -> None:
    found = mountlist.from_fstab("zroot/tmp\t\t/tmp\t\t\tzfs\trw,noexec\t0 0\n/long /node nullfs ro 0 0\n")
    assert found == [
        Line("zroot/tmp", "/tmp", "zfs", frozenset({"rw", "noexec"})),
        Line("/long", "/node", "nullfs", frozenset({"ro"})),
    ]
    for text in ("/a b /c nullfs rw 0 0", "/a /c nullfs rw", "/a c nullfs rw 0 0"):
        with pytest.raises(LayoutError, match="six fields"):
            mountlist.from_fstab(text)


def test_a_nullfs_is_what_its_source_showed_when_it_was_mounted() -> None:
    table = live(nullfs("/m", "/j", "ro"), nullfs("/s", "/j/s"), nullfs("/j/s", "/x"), nullfs("/t", "/m"))
    assert (table.at("/j")[-1].root, table.at("/j")[-1].super_options) == ("/m", "")
    assert table.at("/x")[-1].root == "/s"
    # Mounted later: /j shows what was there before.
    assert table.place("/m") == ("0" * 16, "/t")
    assert {mount.dev for mount in table.mounts} == {"0" * 16}


def test_a_source_on_a_file_system_of_its_own_is_told_apart() -> None:
    other = Line("zroot/t", "/t", "zfs", frozenset({"ro"}), "1" * 16)
    table = live(other, nullfs("/t/a", "/j"), nullfs("/t", "/k"))
    assert (table.at("/j")[-1].dev, table.at("/j")[-1].root) == ("1" * 16, "/a")
    assert (table.at("/k")[-1].dev, table.at("/k")[-1].root) == ("1" * 16, "/")
    assert table.at("/j")[-1].super_options == "ro"  # rw itself, on something that is not


def test_a_stack_has_the_newest_on_top_and_hides_what_lies_below() -> None:
    table = live(nullfs("/m", "/j"), nullfs("/s", "/j/s"), nullfs("/n", "/j"))
    assert [mount.source for mount in table.at("/j")] == ["/m", "/n"]
    assert table.at("/j/s") == []
