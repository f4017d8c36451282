"""The mounts of jails on FreeBSD, under the strict personality: made, proven, taken away, never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.freebsd_host import _freebsd  # noqa: F401

if TYPE_CHECKING:
    from tests.freebsd_host import FreeBSD

pytestmark = pytest.mark.box

JAIL = [("j/mroot", "j/a"), ("s/a", "j/a/s"), ("t/a", "j/a/t")]
VIEW = [("j/mroot", "manage/a"), ("s/a", "manage/a/s"), ("t/a", "manage/a/t")]


def test_init_without_mounts_needs_nothing_of_linux(freebsd: FreeBSD) -> None:
    freebsd.does("init", "a", "b", "--no-mount", "--base", freebsd.small_base())
    assert freebsd.layout_mounts() == []
    assert (freebsd.root / "etc/fstab.d/a.fstab").read_text().count(" nullfs ") == 3


def test_an_archive_unpacks_without_system_calls_of_linux(freebsd: FreeBSD) -> None:
    freebsd.ok(f"tar -C {freebsd.small_base()} -cJf base.txz .")
    freebsd.does("init", "a", "--no-mount", "--base", freebsd.work / "base.txz")
    assert (freebsd.root / "j/mroot/bin/busybox").stat().st_size > 100_000


def test_init_mounts_and_proves_and_a_second_one_changes_nothing(freebsd: FreeBSD) -> None:
    freebsd.does("init", "a", "--base", freebsd.small_base())
    assert freebsd.layout_mounts() == JAIL
    assert freebsd.told("init", "a")["changes"] == []
    assert freebsd.findings("a") == []
    assert freebsd.told("status", "a")["jails"]["a"]["mounted"] == 3
    assert freebsd.does("show", "a").count("(not mounted)") == 0
    freebsd.refused(f"touch {freebsd.root}/j/a/new", "Read-only")
    freebsd.ok(f"touch {freebsd.root}/j/a/t/new")
    assert "3 mounts unmounted" in freebsd.does("umount", "a")
    assert freebsd.layout_mounts() == []
    assert "0 mounts unmounted" in freebsd.does("umount", "a")
    freebsd.does("destroy", "a")
    assert not (freebsd.root / "t/a").exists()


def test_the_writable_half_is_nullfs_and_a_devfs_with_its_ruleset(freebsd: FreeBSD) -> None:
    freebsd.does("init", "a", "--base", freebsd.small_base())
    freebsd.does("mount", "a", "--manage")
    assert freebsd.layout_mounts() == [*JAIL, *VIEW, ("devfs", "manage/a/dev")]
    assert "null" in freebsd.ok(f"ls {freebsd.root}/manage/a/dev").split()
    freebsd.does("umount", "a", "--manage")
    assert freebsd.layout_mounts() == JAIL
