"""The host's fstab: one block is ours, and every other byte stays."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from layout.core import hostblock
from layout.core.errors import LayoutError

OURS = "/jails/j/mroot /jails/j/a nullfs ro 0 0\n/jails/s/a /jails/j/a/s nullfs ro 0 0\n"
OTHER = "/jails/j/mroot /jails/j/b nullfs ro 0 0\n"
HOST = "/dev/da0s1a / ufs rw 1 1\n/dev/da0s1b none swap sw 0 0\n"

BYTES = st.binary().map(lambda data: data.decode("utf-8", "surrogateescape"))
PIECES = st.sampled_from(
    ["# BEGIN layout", "# END layout", " x", "\n", "\r\n", "#", "/a /b ufs rw", "\udcff", "\t", "\r"]
)
TEXTS = BYTES | st.lists(PIECES).map("".join)


def has_markers(text: str) -> bool:
    try:
        return hostblock.block(text) is not None
    except LayoutError:
        return True


@given(TEXTS)
def test_removal_undoes_installation(text: str) -> None:
    assume(not has_markers(text))
    installed = hostblock.install(text, OURS)
    assert installed.startswith(text)
    assert hostblock.block(installed) == OURS
    assert not hostblock.is_hand_edited(installed)
    assert hostblock.remove(installed) == text
    # Again, and with other lines: in place, and still undone by one removal.
    assert hostblock.install(installed, OURS) == installed
    assert hostblock.remove(hostblock.install(installed, OTHER)) == text


@given(TEXTS, TEXTS)
def test_what_was_added_below_stays(text: str, below: str) -> None:
    assume(below and not has_markers(text) and not has_markers(below))
    text += "" if text.endswith("\n") or not text else "\n"
    grown = hostblock.install(text, OURS) + below
    changed = hostblock.install(grown, OTHER)
    assert hostblock.block(changed) == OTHER
    assert changed.startswith(text)
    assert changed.endswith("# END layout\n" + below)
    assert hostblock.remove(changed) == text + below


def test_lines_added_below_do_not_run_into_those_above() -> None:
    assert (
        hostblock.remove(hostblock.install("/a /b ufs rw", OURS) + "/c /d ufs rw")
        == "/a /b ufs rw\n/c /d ufs rw"
    )


def test_the_block_is_readable() -> None:
    text = hostblock.install(HOST, OURS)
    head, begin, *rest = text.removeprefix(HOST[:-1]).split("\n")
    assert head == ""
    assert begin == f"# BEGIN layout (sha256 {hostblock.digest(OURS)})"
    assert rest == [*OURS.splitlines(), "# END layout", ""]


def test_a_block_in_the_middle_is_replaced_in_place() -> None:
    below = "/dev/acd0 /cdrom cd9660 ro,noauto 0 0\r\n"
    text = hostblock.install(hostblock.install(HOST, OURS) + below, OTHER)
    assert text == hostblock.install(HOST, OTHER) + below


def test_text_without_a_block_stays() -> None:
    assert hostblock.block(HOST) is None
    assert hostblock.remove(HOST) == HOST
    assert not hostblock.is_hand_edited(HOST)


def test_no_lines_are_no_block() -> None:
    assert hostblock.install(HOST, "") == HOST
    assert hostblock.install(hostblock.install(HOST, OURS), "") == HOST


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/a nullfs ro", "/a nullfs rw"),
        ("# END", "/x /y ufs rw\n# END"),
        ("(sha256 ", "(sha256 0"),
        ("\n", "\r\n"),
        (f" (sha256 {hostblock.digest(OURS)})", ""),
    ],
    ids=["changed", "added", "digest", "crlf", "no digest"],
)
def test_a_change_by_hand_is_seen_and_the_block_still_found(old: str, new: str) -> None:
    text = hostblock.install("", OURS).replace(old, new)
    assert hostblock.is_hand_edited(text)
    assert hostblock.remove(text) == ""
    assert not hostblock.is_hand_edited(hostblock.install(text, OURS))


def test_a_block_whose_last_newline_is_lost_is_removed() -> None:
    assert hostblock.remove(hostblock.install(HOST, OURS)[:-1]) == HOST
    assert hostblock.remove(hostblock.install(HOST[:-1], OURS)[:-1]) == HOST[:-1]


BEGIN, END = "# BEGIN layout (sha256 x)\n", "# END layout\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (BEGIN + END + BEGIN + END, 3),
        (END, 1),
        ("\n" + BEGIN, 2),
        (BEGIN + BEGIN + END, 2),
        (BEGIN + END + END, 3),
    ],
    ids=["two blocks", "end only", "begin only", "nested", "two ends"],
)
def test_broken_markers_are_refused_with_their_line(text: str, line: int) -> None:
    for work in (hostblock.block, hostblock.remove, hostblock.is_hand_edited):
        with pytest.raises(LayoutError, match=f"^/etc/fstab:{line}: "):
            work(text, "/etc/fstab")
    with pytest.raises(LayoutError, match=f"^/etc/fstab:{line}: "):
        hostblock.install(text, OURS, "/etc/fstab")


def test_markers_among_the_lines_are_refused() -> None:
    with pytest.raises(LayoutError, match="markers among the lines"):
        hostblock.install("", BEGIN + END)


@pytest.mark.parametrize(
    "line",
    [
        "/dev/x /jails/j/a ufs rw 0 0",
        "/dev/x\t/jails//j/a/ ufs rw 0 0\r",
        r"/dev/x /jails/\152/a ufs rw 0 0",
        "/jails/j/mroot  /jails/j/a/s  none  bind",
    ],
    ids=["plain", "spelling", "escape", "below"],
)
@pytest.mark.parametrize("installed", [False, True], ids=["first", "again"])
def test_a_foreign_line_for_our_mount_point_is_refused(line: str, installed: bool) -> None:
    above = hostblock.install("# head\n", OURS) if installed else "# head\n"
    text = f"{above}{line}\n"
    with pytest.raises(LayoutError) as caught:
        hostblock.install(text, OURS, "/etc/fstab")
    assert caught.value.path == f"/etc/fstab:{text.count(chr(10))}"
    assert "/jails/j/a" in caught.value.found


@pytest.mark.parametrize(
    "line",
    [
        "# /x /jails/j/a ufs rw",
        "/jails/j/a /x ufs rw",
        "/x /jails/j/ab ufs rw",
        r"/x /jails/j/a\q a",
        "/jails/j/a",
    ],
)
def test_other_foreign_lines_are_none_of_our_business(line: str) -> None:
    assert hostblock.remove(hostblock.install(line, OURS)) == line
