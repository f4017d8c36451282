"""The mounts of jails on FreeBSD, under the strict personality: made, proven, taken away, never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.freebsd_host import FreeBSD, _freebsd  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeBSD]:
    """One host with the jail a, all of it mounted, the writable view as well; each test leaves it so."""
    host = FreeBSD(tmp_path_factory.mktemp("whole").resolve())
    host.does("init", "a", "--manage", "boot", "--base", host.small_base())
    yield host
    host.close()


ROOT_OPTIONS, T_OPTIONS = "ro,nosuid", "rw,nosuid,noexec"
AGAIN_T = f"umount $R/j/a/t; mount -t nullfs -o {T_OPTIONS} $R/t/a $R/j/a/t"
SABOTAGE = {
    "t is gone": ("umount $R/j/a/t", {"S1-missing"}, f"mount -t nullfs -o {T_OPTIONS} $R/t/a $R/j/a/t"),
    "another t": (
        "umount $R/j/a/t; mount -t nullfs -o rw,nosuid,noexec $R/s/a $R/j/a/t",
        {"S1-source"},
        AGAIN_T,
    ),
    "a tmpfs for t": (
        "umount $R/j/a/t; mount -t tmpfs -o rw,nosuid,noexec tmpfs $R/j/a/t",
        {"S1-source"},
        AGAIN_T,
    ),
    "setuid files work in t": (
        "umount $R/j/a/t; mount -t nullfs -o rw,noexec $R/t/a $R/j/a/t",
        {"S2-options"},
        AGAIN_T,
    ),
    "programs run in t": (
        "umount $R/j/a/t; mount -t nullfs -o rw,nosuid $R/t/a $R/j/a/t",
        {"S2-options"},
        AGAIN_T,
    ),
    "t cannot be written": (
        "umount $R/j/a/t; mount -t nullfs -o ro,nosuid,noexec $R/t/a $R/j/a/t",
        {"S2-options"},
        AGAIN_T,
    ),
    "s can be written": (
        "umount $R/j/a/s; mount -t nullfs -o rw,nosuid $R/s/a $R/j/a/s",
        {"S2-options"},
        "umount $R/j/a/s; mount -t nullfs -o ro,nosuid $R/s/a $R/j/a/s",
    ),
    "a second mount on t": (
        "mount -t nullfs -o rw $R/s/a $R/j/a/t",
        {"S1-stacked", "S1-source", "S2-options"},
        "umount $R/j/a/t",
    ),
    "a mount over the whole jail": (
        "mkdir -p x/s x/t; mount -t nullfs -o ro,nosuid $R/x $R/j/a",
        {"S1-missing", "S1-source", "S1-stacked"},
        "umount $R/j/a",
    ),
    "one mount more": ("mount -t nullfs -o ro $R/s/a $R/j/a/usr", {"S1-extra"}, "umount $R/j/a/usr"),
    "a mount that is no jail's": (
        "mkdir j/none; mount -t nullfs -o ro $R/skel/s $R/j/none",
        {"S1-stray", "S5-stray"},
        "umount $R/j/none; rmdir j/none",
    ),
    "mroot writable elsewhere": (
        "mkdir ../x; mount -t nullfs $R/j/mroot $R/../x",
        {"S3-view"},
        "umount $R/../x; rmdir ../x",
    ),
    "t outside of root": (
        "mkdir ../x; mount -t nullfs $R/t/a $R/../x",
        {"S4-reachable"},
        "umount $R/../x; rmdir ../x",
    ),
    "all devices in the view": (
        "umount $R/manage/a/dev; mount -t devfs devfs $R/manage/a/dev",
        {"S2-devfs"},
        "umount $R/manage/a/dev; mount -t devfs -o rw,ruleset=4 devfs $R/manage/a/dev",
    ),
}


@pytest.mark.parametrize("kind", SABOTAGE)
def test_sabotage_of_mounts_is_found(whole: FreeBSD, kind: str) -> None:
    what, codes, repair = SABOTAGE[kind]
    at_root = f"cd {whole.root}; R=$PWD\n"
    whole.ok(at_root + what)
    try:
        found = whole.findings("--quick", "a")
        assert {finding["code"] for finding in found} == codes, found
    finally:
        whole.ok(at_root + repair)


def test_after_all_sabotage_the_jail_is_whole(whole: FreeBSD) -> None:
    assert whole.findings("a") == []
    assert sorted(whole.layout_mounts()) == sorted([*JAIL, *VIEW, ("devfs", "manage/a/dev")])


def test_what_another_mounted_is_never_mounted_over_nor_taken_away(whole: FreeBSD) -> None:
    at_root = f"cd {whole.root}; R=$PWD\n"
    foreign = "umount $R/j/a/t; mount -t tmpfs -o rw,nosuid,noexec tmpfs $R/j/a/t"
    whole.ok(at_root + foreign)
    before = whole.mounted()
    for words in (("mount", "a"), ("init", "a"), ("umount", "a")):
        assert "j/a/t: found " in whole.fails(*words)
    assert "mount" in whole.fails("destroy", "a")
    assert whole.mounted() == before
    whole.ok(at_root + AGAIN_T)
    whole.ok(f"{at_root} mount -t nullfs -o rw $R/s/a $R/j/a/t")
    assert "2 mounts on one point" in whole.fails("mount", "a")
    # The hint of it: each mount of a stack goes alone, by its fsid.
    whole.does("umount", "a")
    assert whole.layout_mounts() == []
    whole.does("mount", "a")


def test_a_name_that_is_a_source_takes_no_other_mount_away(whole: FreeBSD) -> None:
    root = whole.root
    whole.ok(f"mkdir other; mount -t nullfs {root}/j/a/t other")
    other = (f"/{root.name}/j/a/t", "/other", "nullfs")
    assert "in use" in whole.fails("umount", "a")
    assert other in whole.mounted()
    assert len(whole.layout_mounts()) == 7
    whole.ok("umount other")
    whole.does("umount", "a")
    whole.ok(f"mount -t nullfs {root}/j/a other")
    assert "0 mounts unmounted" in whole.does("umount", "a")
    assert "shows" in whole.fails("destroy", "a")
    assert (f"/{root.name}/j/a", "/other", "nullfs") in whole.mounted()
    whole.ok("umount other; rmdir other")
    whole.does("mount", "a")


def test_a_busy_jail_keeps_all_of_its_mounts_and_its_user_is_named(whole: FreeBSD) -> None:
    before = sorted(whole.mounted())
    pid = whole.ok(f"cd {whole.root}/j/a/t; sleep 600 >/dev/null 2>&1 & echo $!").strip()
    assert "j/a/t: found a mount in use" in whole.fails("umount", "a")
    assert sorted(whole.mounted()) == before
    whole.ok(f"kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.05; done")
    whole.ok(f"jail -q -c path={whole.root}/j/a name=inside persist")
    assert "in use by jail inside" in whole.fails("umount", "a")
    assert sorted(whole.mounted()) == before
    assert "mount" in whole.fails("destroy", "a")
    whole.ok("jail -r inside")
    whole.ok(f"jail -q -c path={whole.root}/t/a name=inside persist")
    whole.does("umount", "a")
    assert "jail inside" in whole.fails("destroy", "a")
    whole.ok("jail -r inside")
    whole.does("mount", "a")


def test_a_mount_that_fails_leaves_none_of_the_jail(whole: FreeBSD) -> None:
    whole.does("umount", "a")
    whole.ok(f"mv {whole.root}/t/a {whole.root}/t/away")
    assert f"{whole.root}/t/a: found no such directory" in whole.fails("mount", "a")
    assert whole.layout_mounts() == []
    whole.ok(f"mv {whole.root}/t/away {whole.root}/t/a; mv {whole.root}/j/mroot/t {whole.root}/j/mroot/t2")
    whole.ok(f"ln -s /var {whole.root}/j/mroot/t")
    assert "link" in whole.fails("mount", "a")
    assert whole.layout_mounts() == []
    whole.ok(f"rm {whole.root}/j/mroot/t; mv {whole.root}/j/mroot/t2 {whole.root}/j/mroot/t")
    whole.does("mount", "a")
    assert whole.findings("--quick", "a") == []


def test_a_ruleset_that_is_not_loaded_mounts_nothing(whole: FreeBSD) -> None:
    whole.does("umount", "a")
    whole.ok("personality set devfs unloaded")
    assert "hint: service devfs restart" in whole.fails("mount", "a")
    assert whole.layout_mounts() == []
    whole.ok("service devfs restart")
    whole.does("mount", "a")
    whole.ok("personality set devfs unloaded")
    assert whole.codes("--quick", "a") == {"S2-devfs"}
    whole.ok("service devfs restart")
    assert whole.findings("--quick", "a") == []


def test_after_a_reboot_layout_mount_makes_it_whole(whole: FreeBSD) -> None:
    whole.ok("reboot")
    assert whole.layout_mounts() == []
    assert whole.codes("--quick", "a") == {"S1-unmounted"}
    assert "7 mounts mounted" in whole.does("mount", "a")
    assert whole.findings("a") == []


def test_a_jail_conf_that_was_edited_is_a_finding(whole: FreeBSD) -> None:
    conf = whole.root / "etc/jail.conf.d/a.conf"
    text = conf.read_text()
    conf.write_text(text + "exec.start += '/bin/true';\n")
    assert whole.codes("a") == {"S12-jail-conf"}
    conf.write_text(text)


def test_a_jail_that_will_not_start_at_boot_is_a_finding_and_init_puts_it_right(freebsd: FreeBSD) -> None:
    freebsd.settle()
    freebsd.does("init", "a", "--base", freebsd.small_base())
    assert freebsd.findings("a") == []
    freebsd.ok("sysrc jail_list=")
    assert freebsd.codes("a") == {"S12-rc-conf"}
    freebsd.does("init", "a")
    assert freebsd.findings("a") == []
    assert freebsd.told("init", "a")["changes"] == []


def test_a_line_of_the_hosts_fstab_is_found_before_anything_changes(freebsd: FreeBSD) -> None:
    target = freebsd.root / "j/a/t"
    freebsd.ok(f"echo '/somewhere {target} nullfs rw,late 0 0' >>/etc/fstab")
    said = freebsd.fails("init", "a", "--base", freebsd.small_base())
    assert "/etc/fstab:" in said and str(target) in said
    assert not freebsd.root.exists()


def test_a_mount_without_libxo_will_do_while_no_path_has_a_blank(whole: FreeBSD) -> None:
    whole.does("umount", "a")
    whole.ok("personality set release 13.4-RELEASE")
    assert whole("mount --libxo=json").code != 0
    whole.does("mount", "a")
    assert whole.findings("--quick", "a") == []
    whole.ok("mkdir 'a b'; mount -t tmpfs tmpfs 'a b'")
    assert "libxo" in whole.fails("umount", "a")
    whole.ok(f"umount 'a b'; mount -t nullfs -o rw {whole.root}/s/a {whole.root}/j/a/t")
    assert "a name that fits several mounts" in whole.fails("umount", "a")
    whole.ok(f"umount {whole.root}/j/a/t")
    whole.does("umount", "a")
    whole.ok("personality set release 15.0-RELEASE")
    assert whole.layout_mounts() == []
    whole.does("mount", "a")


def test_a_mount_inside_a_source_is_refused_for_a_nullfs_would_not_show_it(whole: FreeBSD) -> None:
    whole.does("umount", "a")
    whole.ok(f"mkdir -p {whole.root}/t/a/deep; mount -t tmpfs tmpfs {whole.root}/t/a/deep")
    assert "t/a/deep: found a mount inside" in whole.fails("mount", "a")
    whole.ok(f"umount {whole.root}/t/a/deep; rmdir {whole.root}/t/a/deep")
    whole.does("mount", "a")


def test_half_a_destroyed_jail_is_recovered_and_a_line_in_fstab_is_a_finding(freebsd: FreeBSD) -> None:
    freebsd.does("init", "a", "b", "--no-mount", "--base", freebsd.small_base())
    record = freebsd.root / ".layout/jails/a.toml"
    freebsd.ok(f"sed -i 's/^state = .*/state = \"destroying\"/' {record}; rm -r {freebsd.root}/s/a")
    freebsd.ok(f"mkdir {freebsd.root}/j/.new-mroot")
    freebsd.ok(f"echo 'tmpfs {freebsd.root}/j/b tmpfs rw 0 0' >>/etc/fstab")
    assert freebsd.codes("--quick") >= {"S5-destroying", "S5-interrupted"}
    assert "S12-host-fstab" in freebsd.codes("b")
    freebsd.does("recover")
    assert sorted(path.name for path in (freebsd.root / "j").iterdir()) == ["b", "mroot"]
    assert not record.exists()


def test_what_another_mount_hides_goes_after_it(whole: FreeBSD) -> None:
    whole.ok(f"mkdir -p over/s over/t; mount -t nullfs -o ro {whole.work}/over {whole.root}/j/a")
    assert "mounts on one point" in whole.fails("mount", "a")
    assert "8 mounts unmounted" in whole.does("umount", "a")
    assert whole.layout_mounts() == []
    whole.does("mount", "a")


def test_a_root_with_odd_characters_in_its_name_will_do(freebsd: FreeBSD) -> None:
    freebsd.root = freebsd.work / "a b$#'é"
    freebsd.where = ["--root", str(freebsd.root)]
    freebsd.does("init", "a", "--base", freebsd.small_base())
    assert freebsd.layout_mounts() == JAIL
    assert freebsd.findings("a") == []
    freebsd.does("umount", "a")
    assert freebsd.layout_mounts() == []


def test_what_the_hosts_fstab_mounts_at_boot_is_what_layout_would_mount(freebsd: FreeBSD) -> None:
    freebsd.settle()
    freebsd.does("init", "a", "--boot", "fstab", "--base", freebsd.small_base())
    freebsd.does("fstab", "a", "--install")
    freebsd.ok("reboot")
    assert freebsd.layout_mounts() == JAIL
    assert freebsd.findings("a") == []
    assert "0 mounts mounted" in freebsd.does("mount", "a")
