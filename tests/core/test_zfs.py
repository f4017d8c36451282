"""Datasets of jails: what is asked of zfs(8), and what it says, read strictly."""

from __future__ import annotations

import pytest

from layout.core import zfs
from layout.core.errors import LayoutError, UsageError

CONTENT, LOGS = zfs.datasets("zroot/jails", "/jails", "finger", writable=True, exec_=True)


def test_the_content_cannot_be_written_and_the_logs_cannot_be_executed() -> None:
    assert (CONTENT.readonly, LOGS.readonly) == (True, False)
    assert (dict(CONTENT.properties)["exec"], dict(LOGS.properties)["exec"]) == ("on", "off")
    assert CONTENT.flags == ("ro", "nosuid", "nodev")
    assert LOGS.flags == ("nosuid", "nodev", "noexec")


@pytest.mark.parametrize("key", ["setuid", "devices", "atime"])
def test_both_are_made_without(key: str) -> None:
    assert all(dict(one.properties)[key] == "off" for one in (CONTENT, LOGS))


def test_the_command_says_all_of_it_while_the_dataset_is_made() -> None:
    assert " ".join(zfs.create(CONTENT.name, CONTENT.properties)) == (
        "zfs create -o mountpoint=/jails/s/finger -o setuid=off -o devices=off -o atime=off -o utf8only=on "
        "-o exec=on zroot/jails/s/finger"
    )


def test_a_jail_that_writes_nothing_has_one_dataset_and_nothing_in_it_is_executable() -> None:
    (only,) = zfs.datasets("zroot/jails", "/jails", "finger", writable=False, exec_=False)
    assert only.flags == ("ro", "nosuid", "nodev", "noexec")


def test_no_name_of_a_jail_meets_another_dataset() -> None:
    names = {
        one.name
        for jail in ("s", "t", "logs")
        for one in zfs.datasets("p/j", "/j", jail, writable=True, exec_=True)
    }
    assert len(names) == 6
    assert not names & set(zfs.groups("p/j"))


def test_properties_are_read_and_compared() -> None:
    text = "".join(
        f"{CONTENT.name}\t{key}\t{value}\tlocal\n"
        for key, value in {**dict(CONTENT.properties), "readonly": "on", "mounted": "yes"}.items()
    )
    assert zfs.differences(CONTENT, zfs.values(text, CONTENT.name)) == []
    loose = text.replace("setuid\toff", "setuid\ton").replace("readonly\ton", "readonly\toff")
    assert zfs.differences(CONTENT, zfs.values(loose, CONTENT.name)) == [
        ("setuid", "on", "off"),
        ("readonly", "off", "on"),
    ]
    assert zfs.differences(CONTENT, zfs.values(text, CONTENT.name), readonly=False) == [
        ("readonly", "on", "off")
    ]


@pytest.mark.parametrize("text", ["a\tsetuid\toff\n", "other\tsetuid\toff\t-\n", "\n"], ids=repr)
def test_output_of_another_form_is_an_error(text: str) -> None:
    with pytest.raises(LayoutError, match="name, property, value and source"):
        zfs.values(text, CONTENT.name)


@pytest.mark.parametrize(
    "name", ["zroot", "", "/zroot/x", "zroot/x/", "zroot//x", "zroot/x@y", "-o/x", "a b/c", "p/" + "x" * 200]
)
def test_only_a_file_system_below_a_pool_can_be_the_parent(name: str) -> None:
    with pytest.raises(UsageError, match=r"layout\.toml: zfs"):
        zfs.check_parent(name, "layout.toml: zfs")
    assert zfs.check_parent("zroot/jails", "") == "zroot/jails"
