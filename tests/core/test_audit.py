"""What follows from mount options, names and values, without a system to look at."""

from __future__ import annotations

import pytest

from layout.core.audit import KNOBS, Seen, as_jail_has_it, is_interpreter, knobs, powers, writable
from layout.core.model import Kind, Platform


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("rw,nosuid,nodev,noexec", ("write",)),
        ("rw,nosuid,nodev", ("write", "execute")),
        ("rw,nodev", ("write", "execute", "setuid")),
        ("rw,noexec,nodev", ("write",)),
        ("rw", ("write", "execute", "setuid", "devices")),
    ],
)
def test_options_say_what_root_can_do_in_a_mount(options: str, found: tuple[str, ...]) -> None:
    assert powers(frozenset(options.split(","))) == found


def test_of_two_mounts_on_a_path_the_last_counts() -> None:
    first = Seen("/s", "x", "none", frozenset({"rw"}))
    assert writable([first, first._replace(options=frozenset({"ro"}))], Kind.SHARED, Platform.LINUX) == ()
    assert [one.path for one in writable([first], Kind.SHARED, Platform.LINUX)] == ["/s"]


def test_a_path_is_named_as_the_jail_knows_it() -> None:
    assert as_jail_has_it("/t/var/log", Kind.SHARED) == "/var/log"
    assert as_jail_has_it("/s/usr-local/bin/sh", Kind.SHARED) == "/usr/local/bin/sh"
    assert as_jail_has_it("/t/variable", Kind.SHARED) == "/t/variable"
    assert as_jail_has_it("/t/var/log", Kind.FULL) == "/t/var/log"


@pytest.mark.parametrize(
    "name", ["sh", "bash", "dash", "busybox", "perl5.36.0", "python3.11", "gawk", "make"]
)
def test_an_interpreter_is_known_by_its_name(name: str) -> None:
    assert is_interpreter(name)


@pytest.mark.parametrize("name", ["named", "ssh", "push", "ls", "pythonista", "finger"])
def test_other_programs_are_none(name: str) -> None:
    assert not is_interpreter(name)


@pytest.mark.parametrize("platform", Platform)
def test_a_setting_is_judged_by_its_value_and_not_when_it_is_missing(platform: Platform) -> None:
    names = [one.name for one in KNOBS[platform]]
    assert len(names) == len(set(names))
    assert all(one.ok and not one.value for one in knobs(platform, {}))
    for setting in KNOBS[platform]:
        (good,) = (one for one in knobs(platform, {setting.name: str(setting.least)}) if one.value)
        (bad,) = (one for one in knobs(platform, {setting.name: str(setting.least - 1)}) if one.value)
        (odd,) = (one for one in knobs(platform, {setting.name: "unreadable"}) if one.value)
        assert (good.ok, bad.ok, odd.ok) == (True, False, False)
