"""The live mount table as paths see it, and its comparison with a plan: both are data."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from layout.core import mountinfo
from layout.core.compare import Live, compare, is_below, unplanned, views, writable_and_executable
from layout.core.findings import AT_MOST, error, named, report, warning
from layout.core.model import Mount

JAIL = (
    Mount("/jails/j/mroot", "/jails/j/a", "none", ("bind", "ro", "nosuid", "nodev", "private")),
    Mount("/jails/s/a", "/jails/j/a/s", "none", ("bind", "ro", "nosuid", "nodev", "private")),
    Mount("/jails/t/a", "/jails/j/a/t", "none", ("bind", "rw", "nosuid", "nodev", "noexec", "private")),
)
ROOT = "1 0 8:1 / / rw shared:1 - ext4 /dev/vda rw"
OWN = "10 1 8:1 /jails /jails rw - ext4 /dev/vda rw"
TABLE = (
    ROOT,
    OWN,
    "11 10 8:1 /jails/j/mroot /jails/j/a ro,nosuid,nodev - ext4 /dev/vda rw",
    "12 11 8:1 /jails/s/a /jails/j/a/s ro,nosuid,nodev - ext4 /dev/vda rw",
    "13 11 8:1 /jails/t/a /jails/j/a/t rw,nosuid,nodev,noexec - ext4 /dev/vda rw",
)


def live(*lines: str) -> Live:
    return Live(mountinfo.parse("\n".join(lines).encode("utf-8", "surrogateescape")))


def targets(table: Live) -> list[str]:
    return sorted(table.by_target)


def codes(table: Live) -> list[str]:
    return [finding.code for finding in compare(JAIL, table)]


def changed(number: int, old: str, new: str) -> tuple[str, ...]:
    lines = list(TABLE)
    assert old in lines[number]
    lines[number] = lines[number].replace(old, new)
    return tuple(lines)


# --- which mounts a path leads to ---------------------------------------------------------------------------


def test_what_lies_below_a_later_mount_is_left_out() -> None:
    hidden = ("20 1 0:9 / /jails/t rw - tmpfs none rw", "21 20 0:10 / /jails/t/a rw - tmpfs none rw")
    assert targets(live(ROOT, *hidden)) == ["/", "/jails/t", "/jails/t/a"]
    assert targets(live(ROOT, *hidden, OWN)) == ["/", "/jails"]
    assert targets(live(OWN, *reversed(hidden), ROOT)) == ["/", "/jails"]


def test_a_copy_in_a_later_mount_is_what_counts() -> None:
    table = live(ROOT, "20 1 0:9 / /jails/t rw - tmpfs a rw", OWN, "21 10 0:9 / /jails/t rw - tmpfs b rw")
    assert [mount.source for mount in table.at("/jails/t")] == ["b"]


def test_mounts_of_one_point_come_in_the_order_in_which_they_lie() -> None:
    stack = [
        "30 1 0:9 / /x rw - tmpfs bottom rw",
        "25 30 0:9 / /x rw - tmpfs middle rw",
        "28 25 0:9 / /x rw - tmpfs top rw",
        "29 30 0:9 / /x/under rw - tmpfs hidden rw",
    ]
    for order in (stack, stack[::-1]):
        table = live(ROOT, *order)
        assert [mount.source for mount in table.at("/x")] == ["bottom", "middle", "top"]
        assert table.at("/x/under") == []


def test_a_mount_is_not_hidden_by_one_with_a_similar_name() -> None:
    similar = ("20 1 0:9 / /jails/j/a rw - tmpfs n rw", "21 1 0:9 / /jails/j/ab rw - tmpfs n rw")
    assert len(live(ROOT, *similar, "22 1 0:9 / /jail rw - tmpfs n rw").by_target) == 4


def test_a_thousand_mounts_on_each_other_are_no_trouble() -> None:
    lines = [f"{n + 1} {n} 0:9 / /x rw - tmpfs {n} rw" for n in range(1, 3000)]
    assert len(live(ROOT, *lines).at("/x")) == 2999


def test_a_table_without_the_parents_is_taken_as_it_is() -> None:
    assert targets(live(*TABLE[2:])) == ["/jails/j/a", "/jails/j/a/s", "/jails/j/a/t"]


def test_every_mount_of_this_machine_that_findmnt_finds_by_path_is_reachable() -> None:
    table = Live(mountinfo.parse(Path("/proc/self/mountinfo").read_bytes()))
    for target, stack in table.by_target.items():
        if target.startswith("/proc/") or not os.path.lexists(target):
            continue
        done = subprocess.run(["stat", "-c", "%d", target], capture_output=True, text=True)
        if done.returncode == 0 and stack[-1].fstype != "btrfs":
            major, minor = map(int, stack[-1].dev.split(":"))
            assert int(done.stdout) == os.makedev(major, minor), target


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", ["/", "/jails", "/jails/j/a", "/jails/j/a/s", "/jails/j/a/t"]),
        ("/jails/j/a", ["/jails/j/a", "/jails/j/a/s", "/jails/j/a/t"]),
        ("/jails/j/a/", ["/jails/j/a/s", "/jails/j/a/t"]),
        ("/jails/j", ["/jails/j/a", "/jails/j/a/s", "/jails/j/a/t"]),
        ("/jails/j/ab", []),
        ("/jail", []),
    ],
)
def test_below_goes_by_components(path: str, expected: list[str]) -> None:
    assert sorted(live(*TABLE).below(path)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/jails/s/a", ("8:1", "/jails/s/a")),
        ("/jails/j/a", ("8:1", "/jails/j/mroot")),
        ("/jails/j/a/usr/bin", ("8:1", "/jails/j/mroot/usr/bin")),
        ("/etc", ("8:1", "/etc")),
        ("/", ("8:1", "/")),
    ],
)
def test_place_tells_what_a_path_shows(path: str, expected: tuple[str, str]) -> None:
    assert live(*TABLE).place(path) == expected


def test_a_name_is_below_another_only_by_components() -> None:
    assert is_below("/jails/j/a", "/jails/j/a")
    assert is_below("/jails/j/a/s", "/jails/j/a/")
    assert is_below("/jails", "/")
    assert not is_below("/jails/j/ab", "/jails/j/a")


# --- plan and table -----------------------------------------------------------------------------------------


def test_a_table_as_planned_has_no_findings() -> None:
    assert codes(live(*TABLE)) == []
    assert unplanned(JAIL, live(*TABLE), "/jails/j/a") == []
    assert writable_and_executable(JAIL, live(*TABLE), opted_out=False) == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (TABLE[:2], ["S1-unmounted"]),
        (TABLE[:4], ["S1-missing"]),
        (changed(2, " ro,", " rw,"), ["S2-options"]),
        (changed(3, "nosuid,", ""), ["S2-options"]),
        (changed(4, ",noexec", ""), ["S2-options"]),
        (changed(4, " rw,nosuid", " ro,nosuid"), ["S2-options"]),
        (changed(4, "vda rw", "vda ro,errors=remount-ro"), ["S2-options"]),
        (changed(3, "nodev -", "nodev shared:7 -"), ["S2-propagation"]),
        (changed(3, "nodev -", "nodev master:7 -"), ["S2-propagation"]),
        (changed(4, "/jails/t/a /", "/jails/t/b /"), ["S1-source"]),
        (changed(4, "/jails/t/a /", "/jails/t/a//deleted /"), ["S1-source"]),
        (changed(4, "8:1", "8:2"), ["S1-source"]),
        ((*TABLE, TABLE[4].replace("13 11", "14 13")), ["S1-stacked"]),
    ],
)
def test_each_difference_has_its_code(lines: tuple[str, ...], expected: list[str]) -> None:
    assert codes(live(*lines)) == expected


def test_more_than_was_asked_for_is_fine() -> None:
    assert codes(live(*changed(2, "ro,", "ro,noexec,relatime,nosymfollow,"))) == []


def test_a_source_on_a_file_system_of_its_own_is_known() -> None:
    own = "14 10 0:9 / /jails/t rw - tmpfs t rw"
    assert codes(live(*TABLE, own)) == ["S1-source"]
    assert codes(live(*TABLE[:4], own, TABLE[4].replace("8:1 /jails/t/a", "0:9 /a"))) == []


def test_what_nobody_planned_is_named() -> None:
    table = live(
        *TABLE, "14 13 0:9 / /jails/j/a/t/tmp rw - tmpfs x rw", "15 10 0:9 / /jails/j/ab rw - tmpfs x rw"
    )
    assert [finding.path for finding in unplanned(JAIL, table, "/jails/j/a")] == ["/jails/j/a/t/tmp"]


@pytest.mark.parametrize(("opted_out", "severity"), [(True, "warning"), (False, "error")])
def test_writable_and_executable_is_told(opted_out: bool, severity: str) -> None:
    planned = (*JAIL[:2], Mount(JAIL[2].source, JAIL[2].target, "none", ("bind", "rw", "private")))
    table = live(*changed(4, ",noexec", ""))
    found = writable_and_executable(planned, table, opted_out=opted_out)
    assert [(f.code, f.severity, f.path) for f in found] == [("S2-writable-exec", severity, "/jails/j/a/t")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("20 1 8:1 /jails/j/mroot /mnt rw - ext4 x rw", ["/jails/j/mroot"]),
        ("20 1 8:1 /jails/j/mroot/usr /mnt rw - ext4 x rw", ["/jails/j/mroot/usr"]),
        ("20 1 8:1 /jails/j/mroot2 /mnt rw - ext4 x rw", []),
        ("20 1 8:1 /jails /mnt rw - ext4 x rw", ["/jails"]),
        ("20 1 8:1 / /mnt rw - ext4 x rw", []),
        ("20 1 8:2 /jails/j/mroot /mnt rw - ext4 x rw", []),
        ("20 10 8:1 /jails/j/mroot /jails/j/mroot rw - ext4 x rw", []),
    ],
)
def test_views_of_a_tree_elsewhere_are_found(line: str, expected: list[str]) -> None:
    table = live(*TABLE[:2], line)
    trees = {("8:1", "/jails/j/mroot"): "/jails/j/mroot"}
    found = views(trees, {("8:1", "/jails"): "/jails"}, table.mounts)
    assert [path for _, path in found] == expected


def test_a_tree_that_is_a_file_system_is_found_as_well() -> None:
    table = live(ROOT, "20 1 0:9 / /jails/j/mroot rw - zfs m rw", "21 1 0:9 /usr /mnt rw - zfs m rw")
    assert [path for _, path in views({("0:9", "/"): "/jails/j/mroot"}, {}, table.mounts)] == [
        "/jails/j/mroot/usr"
    ]


# --- the report ---------------------------------------------------------------------------------------------


def test_warnings_alone_are_ok() -> None:
    found = report([], {"a": [warning("S3-session", "/x", "y", "z")]}, 7)
    assert (found.ok, found.jails["a"].ok) == (True, True)
    assert (found.counts.checks, found.counts.errors, found.counts.warnings) == (7, 0, 1)
    assert not report([error("S4-mode", "/x", "y", "z")], {}, 1).ok


def test_many_findings_of_one_code_are_counted_in_the_last() -> None:
    many = [error("S7-setuid", f"/{n}", "x", "y") for n in range(AT_MOST + 5)]
    found = report([], {"a": [*many, error("S7-device", "/d", "x", "y")]}, 1)
    assert found.counts.errors == AT_MOST + 6
    kept = found.jails["a"].findings
    assert len(kept) == AT_MOST + 2
    assert (kept[-1].path, kept[-1].found) == (many[-1].path, "5 more like these, this one the last")
    assert kept[-2].code == "S7-device"


def test_a_finding_holds_nothing_that_a_terminal_would_obey() -> None:
    found = named(error("S7-setuid", "/\x1b[2J\n\udcff", "a\r", "b\0", "layout init NAME \x9b"), "bind")
    for text in (found.path, found.found, found.expected, found.hint):
        assert text.isprintable()
    assert found.hint.startswith("layout init bind")
