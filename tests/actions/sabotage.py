"""Ways to break a layout of two jails, `a` and `b`, each with what verify has to say about it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from yard import Yard, mount, umount

from layout.core.running import RunRecord
from layout.host import forked, records
from layout.host.beneath import Dir, open_root
from layout.host.linux import procs


class Row(NamedTuple):
    """A way to break the layout, and the finding that it has to make."""

    sabotage: Callable[[Yard], None]
    who: str
    """Whose finding it is: a jail's or "host"."""
    code: str
    severity: str = "error"
    quick: bool = True
    """--quick finds it as well."""
    only: bool = True
    """It is the only finding."""
    probe: bool = False
    """Only --probe finds it."""
    base: bool = False
    """Only --base finds it."""

    def __str__(self) -> str:
        return self.sabotage.__name__.strip("_")


REPOSITORY = Path(__file__).resolve().parents[2]
ROWS: list[Row] = []
AFTER = contextlib.ExitStack()
"""What is to be done after a sabotage, besides putting everything back."""


def row(
    who: str,
    code: str,
    *,
    severity: str = "error",
    quick: bool = True,
    only: bool = True,
    probe: bool = False,
    base: bool = False,
):
    """Add a sabotage to ROWS."""

    def add(sabotage: Callable[[Yard], None]) -> Callable[[Yard], None]:
        ROWS.append(Row(sabotage, who, code, severity, quick and not (probe or base), only, probe, base))
        return sabotage

    return add


def write(path: Path, text: str = "x", mode: int = 0o644) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def make_capable(path: Path, number: int = 21) -> None:
    """Give a file one capability, sys_admin for one, as setcap(8) does."""
    value = struct.pack("<5I", 0x02000001, 1 << number, 0, 0, 0)
    os.setxattr(path, "security.capability", value)


def move_aside(path: Path) -> None:
    """Out of the way, on the same mount."""
    yard_root = next(parent for parent in path.parents if parent.name == "jails")
    path.rename(yard_root / "aside")


@row("a", "S2-options")
def _root_remounted_rw(yard: Yard) -> None:
    mount("-o", "remount,bind,rw,nosuid,nodev", yard.root / "j/a")


@row("a", "S2-options")
def _s_remounted_rw(yard: Yard) -> None:
    mount("-o", "remount,bind,rw,nosuid,nodev", yard.root / "j/a/s")


@row("a", "S2-options")
def _t_remounted_ro(yard: Yard) -> None:
    mount("-o", "remount,bind,ro,nosuid,nodev,noexec", yard.root / "j/a/t")


@row("a", "S2-options")
def _root_without_nosuid(yard: Yard) -> None:
    mount("-o", "remount,bind,ro,suid,nodev", yard.root / "j/a")


@row("a", "S2-options")
def _t_without_nodev(yard: Yard) -> None:
    mount("-o", "remount,bind,rw,nosuid,dev,noexec", yard.root / "j/a/t")


@row("a", "S2-options")
def _t_without_noexec(yard: Yard) -> None:
    mount("-o", "remount,bind,rw,nosuid,nodev,exec", yard.root / "j/a/t")


@row("a", "S1-stacked", only=False)
def _tmpfs_over_s(yard: Yard) -> None:
    mount("-t", "tmpfs", "-o", "ro,nosuid,nodev", "none", yard.root / "j/a/s")


@row("a", "S1-source", only=False)
def _other_tree_over_root(yard: Yard) -> None:
    mount("--bind", "-o", "ro,nosuid,nodev", yard.root / "skel", yard.root / "j/a")


@row("a", "S1-stacked")
def _same_mount_twice(yard: Yard) -> None:
    mount("--bind", "-o", "rw,nosuid,nodev,noexec", yard.root / "t/a", yard.root / "j/a/t")


@row("a", "S1-source", only=False)
def _t_of_another_jail(yard: Yard) -> None:
    umount(yard.root / "j/a/t")
    mount("--bind", "-o", "rw,nosuid,nodev,noexec", yard.root / "t/b", yard.root / "j/a/t")


@row("a", "S1-source")
def _source_replaced(yard: Yard) -> None:
    move_aside(yard.root / "t/a")
    subprocess.run(["cp", "-a", yard.root / "skel/t", yard.root / "t/a"], check=True)


@row("a", "S1-extra")
def _extra_mount_inside(yard: Yard) -> None:
    mount("-t", "tmpfs", "none", yard.root / "j/a/t/tmp")


@row("a", "S1-missing")
def _s_unmounted(yard: Yard) -> None:
    umount(yard.root / "j/a/s")


@row("a", "S1-missing")
def _t_unmounted(yard: Yard) -> None:
    umount(yard.root / "j/a/t")


@row("a", "S1-unmounted")
def _whole_jail_unmounted(yard: Yard) -> None:
    yard.ok("umount", "a")


@row("a", "S1-unmounted", only=False)
def _everything_hidden(yard: Yard) -> None:
    mount("--bind", yard.root, yard.root)


@row("a", "S2-propagation")
def _shared(yard: Yard) -> None:
    mount("--make-shared", yard.root / "j/a")


@row("host", "S1-stray", only=False)
def _mount_in_mroot(yard: Yard) -> None:
    mount("-t", "tmpfs", "none", yard.root / "j/mroot/usr/bin")


@row("host", "S1-stray", only=False)
def _mount_of_no_jail(yard: Yard) -> None:
    (yard.root / "j/x").mkdir()
    mount("-t", "tmpfs", "none", yard.root / "j/x")


@row("a", "S3-view")
def _writable_view_mounted(yard: Yard) -> None:
    yard.ok("mount", "--manage", "a")


@row("host", "S3-view")
def _mroot_writable_elsewhere(yard: Yard) -> None:
    mount("--bind", "--make-private", yard.root / "j/mroot", yard.elsewhere("mroot"))


@row("host", "S3-view")
def _part_of_mroot_writable_elsewhere(yard: Yard) -> None:
    mount("--bind", yard.root / "j/mroot/usr/bin", yard.elsewhere("bin"))


@row("host", "S3-view")
def _s_writable_elsewhere(yard: Yard) -> None:
    mount("--bind", yard.root / "s/b", yard.elsewhere("s"))


@row("host", "S3-view", only=False)
def _root_itself_writable_elsewhere(yard: Yard) -> None:
    mount("--bind", yard.root, yard.elsewhere("root"))


def start(yard: Yard, *words: str, grade: str = "full", notes: tuple[str, ...] = ()) -> None:
    """Let a process pass for the engine of jail a."""
    process = AFTER.enter_context(subprocess.Popen(words, start_new_session=True))
    AFTER.callback(process.kill)
    pass_for_engine(yard, process.pid, grade, notes)


def pass_for_engine(yard: Yard, pid: int, grade: str = "full", notes: tuple[str, ...] = ()) -> None:
    """Write a record that names a process as the engine of jail a."""
    known = procs.identify(pid)
    assert known is not None
    with open_root(str(yard.root / ".layout")) as state:
        state.make_dir("run", 0o700)
        records.write(
            state, "run/a.toml", RunRecord("bwrap", grade, records.now(), False, known, notes=notes)
        )


@row("a", "S3-running")
def _service_with_all_capabilities(yard: Yard) -> None:
    start(yard, "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "sleep 60 & wait; :")
    with open_root(str(yard.root / ".layout")) as state:
        record = records.read(state, "run/a.toml", RunRecord)
    for _ in range(3000):
        if procs.daemon_of(record.process.pid) is not None:
            return
        time.sleep(0.01)
    raise AssertionError("nothing runs")


@row("a", "S3-weak", severity="warning")
def _service_without_guarantees(yard: Yard) -> None:
    start(yard, "sleep", "60", grade="weak", notes=("root of the jail is root of the host",))


@row("a", "S5-service", severity="warning")
def _service_ended_by_itself(yard: Yard) -> None:
    start(yard, "sleep", "60")
    AFTER.close()


@row("a", "S3-session", severity="warning")
def _session_open(yard: Yard) -> None:
    lock = write(yard.root / ".layout/manage-a.lock", "process 1 (layout manage a)\n")
    held = AFTER.enter_context(lock.open("r+b"))
    fcntl.flock(held, fcntl.LOCK_EX)


def again(yard: Yard, name: str, text: str) -> None:
    """Give jail a another profile, and make it anew."""
    (yard.root / "etc/profiles").mkdir(parents=True)
    write(yard.root / f"etc/profiles/{name}.toml", f'kind = "shared"\ndescription = "open"\n{text}\n')
    yard.ok("umount", "a")
    record = yard.root / ".layout/jails/a.toml"
    write(record, record.read_text("utf-8").replace('"default"', f'"{name}"'))
    yard.ok("init", "a")


def template(yard: Yard, old: str, new: str) -> None:
    """Change the template of the mount tables, and make all jails by it."""
    text = (REPOSITORY / "fstab.d/linux-hardened.fstab.in").read_text("utf-8")
    assert old in text
    write(yard.root / "etc/fstab.d/linux-hardened.fstab.in", text.replace(old, new))
    yard.ok("umount")
    yard.run("init", "a", "b")


@row("a", "S2-template", only=False)
def _template_without_ro(yard: Yard) -> None:
    template(yard, "${ROOT}/j/${NAME}/s none bind,ro,", "${ROOT}/j/${NAME}/s none bind,noexec,")


@row("a", "S2-template", only=False)
def _template_without_nodev(yard: Yard) -> None:
    template(yard, "bind,rw,nosuid,nodev,${noexec}", "bind,rw,nosuid,${noexec}")


@row("host", "S3-shared", only=False)
def _two_jails_share_a_tree(yard: Yard) -> None:
    line = "${ROOT}/etc/common ${ROOT}/j/${NAME}/t/tmp none bind,rw,nosuid,nodev,noexec,private 0 0"
    (yard.root / "etc/common").mkdir()
    template(yard, "\n\n# What its", f"\n{line}\n\n# What its")


@row("host", "S3-shared", only=False)
def _jail_sees_a_part_of_what_another_writes(yard: Yard) -> None:
    mount("--bind", yard.root / "t/b/var/log", yard.root / "j/a/t/tmp")


@row("a", "S3-left", quick=False)
def _process_in_a_jail_that_does_not_run(yard: Yard) -> None:
    def survive() -> int:
        os.chroot(yard.root / "j/a")
        os.chdir("/")
        os.write(ready, b"1")
        signal.pause()
        return 0

    there, ready = os.pipe()
    pid = forked.fork(survive)
    AFTER.callback(os.waitpid, pid, 0)
    AFTER.callback(os.kill, pid, signal.SIGKILL)
    os.close(ready)
    assert os.read(there, 1)
    os.close(there)


@row("a", "S3-linked", quick=False)
def _file_of_s_that_is_in_t_too(yard: Yard) -> None:
    os.link(yard.root / "s/a/etc/passwd", yard.root / "t/a/var/passwd")


@row("a", "S3-linked", quick=False)
def _program_of_mroot_that_is_in_t_too(yard: Yard) -> None:
    os.link(yard.root / "j/mroot/bin/sh", put(yard, "var/tmp/names").with_name("sh"))


@row("a", "S3-linked", quick=False)
def _record_that_is_in_t_too(yard: Yard) -> None:
    os.link(yard.root / ".layout/jails/a.toml", yard.root / "t/a/tmp/record")


@row("b", "S3-linked", quick=False, only=False)
def _file_of_two_jails(yard: Yard) -> None:
    os.link(put(yard, "var/channel"), yard.root / "t/b/var/channel")


@row("host", "S4-config")
def _profile_that_anybody_may_write(yard: Yard) -> None:
    (yard.root / "etc/profiles").mkdir(exist_ok=True)
    write(yard.root / "etc/profiles/mine.toml", 'kind = "shared"\ndescription = "x"\n', mode=0o666)


@row("host", "S4-config")
def _configuration_behind_a_link_that_a_group_may_write(yard: Yard) -> None:
    file = write(yard.top / "layout.toml", mode=0o664, text="")
    AFTER.callback(file.unlink)
    (yard.root / "etc/layout.toml").symlink_to(file)


@row("host", "S4-config")
def _templates_that_anybody_may_replace(yard: Yard) -> None:
    (yard.root / "etc/fstab.d").chmod(0o777)


@row("a", "S4-backing", severity="warning")
def _t_on_a_file_system_with_setuid(yard: Yard) -> None:
    yard.ok("umount", "a")
    mount("-t", "tmpfs", "-o", "mode=755", "none", yard.root / "t/a")
    subprocess.run(["cp", "-a", f"{yard.root}/skel/t/.", yard.root / "t/a"], check=True)
    yard.ok("mount", "a")


def limited(yard: Yard, options: str) -> None:
    """Give t of jail a a file system of its own."""
    yard.ok("umount", "a")
    mount("-t", "tmpfs", "-o", f"mode=755,nosuid,{options}", "none", yard.root / "t/a")
    subprocess.run(["cp", "-a", f"{yard.root}/skel/t/.", yard.root / "t/a"], check=True)
    yard.ok("mount", "a")


@row("a", "S10-space", severity="warning")
def _t_nearly_full(yard: Yard) -> None:
    limited(yard, "size=10m")


@row("a", "S10-space", severity="warning")
def _t_without_inodes(yard: Yard) -> None:
    limited(yard, "size=30m,nr_inodes=400")


@row("host", "S10-space")
def _no_room_left(yard: Yard) -> None:
    write(yard.root / "etc/layout.toml", 'min_space = "999P"\n')


@row("host", "S10-space")
def _no_inodes_left(yard: Yard) -> None:
    write(yard.root / "etc/layout.toml", "min_inodes = 9000000000000000000\n")


@row("a", "S10-quota", only=False)
def _no_limit_though_one_is_required(yard: Yard) -> None:
    write(yard.root / "etc/layout.toml", "require_quota = true\n")


def put(yard: Yard, path: str) -> Path:
    """Make a file in t of jail a, as its root does."""
    file = yard.root / "t/a" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    return write(file)


@row("a", "S7-autorun", severity="warning", quick=False)
def _crontab_in_t(yard: Yard) -> None:
    put(yard, "var/spool/cron/crontabs/root")


@row("a", "S7-autorun", severity="warning", quick=False)
def _job_of_at_in_t(yard: Yard) -> None:
    put(yard, "var/spool/cron/atjobs/a0000101c0ffee")


@row("a", "S7-autorun", severity="warning", quick=False)
def _scripts_of_packages_in_t(yard: Yard) -> None:
    put(yard, "var/lib/dpkg/info/bash.prerm")


@row("a", "S7-autorun", severity="warning", quick=False)
def _crontabs_behind_a_link(yard: Yard) -> None:
    put(yard, "var/new/crontabs/root")
    (yard.root / "t/a/var/spool").mkdir()
    (yard.root / "t/a/var/spool/cron").symlink_to("../new")


@row("a", "S9-pending", severity="warning", quick=False)
def _change_of_the_base_not_merged(yard: Yard) -> None:
    (yard.root / ".layout/merge/1").mkdir(parents=True)
    write(yard.root / ".layout/merge/1/jails.toml", 'created = "2026-01-01T00:00:00Z"\njails = ["a"]\n')


@row("host", "S9-changed", base=True)
def _content_of_mroot_changed(yard: Yard) -> None:
    path = yard.root / "j/mroot/bin/sh"
    path.write_text(path.read_text("utf-8")[::-1], encoding="utf-8")


@row("host", "S9-changed", base=True)
def _mode_of_the_skeleton_changed(yard: Yard) -> None:
    (yard.root / "skel/s/etc/passwd").chmod(0o755)


@row("host", "S9-missing", base=True)
def _file_of_the_skeleton_gone(yard: Yard) -> None:
    (yard.root / "skel/t/var/log/messages").unlink()


@row("host", "S9-extra", base=True)
def _file_new_in_the_skeleton(yard: Yard) -> None:
    write(yard.root / "skel/s/etc/rc.local", mode=0o755)


@row("host", "S9-special", base=True)
def _fifo_in_the_skeleton(yard: Yard) -> None:
    os.mkfifo(yard.root / "skel/s/etc/fifo")


@row("host", "S9-manifest", base=True)
def _manifest_gone(yard: Yard) -> None:
    (yard.root / ".layout/bases/mroot.mtree").unlink()


@row("host", "S9-drift", severity="warning", quick=False)
def _program_new_in_mroot(yard: Yard) -> None:
    write(yard.root / "j/mroot/usr/bin/tool", mode=0o755)


@row("host", "S9-drift", severity="warning", quick=False)
def _program_of_mroot_longer(yard: Yard) -> None:
    write(yard.root / "j/mroot/bin/sh", "another and longer", mode=0o755)


@row("host", "S9-drift", severity="warning", quick=False)
def _program_of_mroot_gone(yard: Yard) -> None:
    (yard.root / "j/mroot/bin/sh").unlink()


@row("a", "S2-suid", severity="warning")
def _setuid_allowed_by_the_profile(yard: Yard) -> None:
    again(yard, "open", "suid = true")


@row("a", "S2-writable-exec", severity="warning")
def _programs_in_t_allowed_by_the_profile(yard: Yard) -> None:
    again(yard, "open", "exec = true")


@row("a", "S2-writable-exec", only=False)
def _template_without_noexec(yard: Yard) -> None:
    template(yard, ",${noexec}", "")


@row("a", "S1-platform", severity="warning", only=False)
def _record_of_another_platform(yard: Yard) -> None:
    path = yard.root / ".layout/jails/a.toml"
    write(path, path.read_text("utf-8").replace('"linux"', '"freebsd"'))


@row("host", "S4-reachable")
def _t_reachable_past_the_mode_of_root(yard: Yard) -> None:
    mount("--bind", yard.root / "t/a/var", yard.elsewhere("var"))


@row("host", "S4-mode")
def _root_open_to_all(yard: Yard) -> None:
    yard.root.chmod(0o755)


@row("host", "S4-mode", only=False)
def _root_of_a_user(yard: Yard) -> None:
    os.chown(yard.root, 1, 1)


@row("host", "S4-parent")
def _parent_open_to_all(yard: Yard) -> None:
    AFTER.callback(yard.top.chmod, 0o700)
    yard.top.chmod(0o777)


@row("host", "S5-link")
def _link_changed(yard: Yard) -> None:
    (yard.root / "j/mroot/etc").unlink()
    (yard.root / "j/mroot/etc").symlink_to("/etc")


@row("host", "S5-missing")
def _link_removed(yard: Yard) -> None:
    (yard.root / "j/mroot/usr/local").unlink()


@row("host", "S5-link")
def _link_replaced_by_directory(yard: Yard) -> None:
    (yard.root / "j/mroot/var").unlink()
    (yard.root / "j/mroot/var").mkdir()


@row("host", "S5-missing")
def _mount_point_in_mroot_removed(yard: Yard) -> None:
    (yard.root / "j/mroot/proc").rmdir()


@row("host", "S5-mode")
def _mount_point_with_another_mode(yard: Yard) -> None:
    (yard.root / "j/mroot/dev").chmod(0o700)


@row("a", "S5-missing", only=False)
def _mount_point_of_jail_removed(yard: Yard) -> None:
    yard.ok("umount", "a")
    (yard.root / "j/a").rmdir()


@row("host", "S5-missing")
def _skeleton_damaged(yard: Yard) -> None:
    move_aside(yard.root / "skel/s/etc")


@row("host", "S5-base", only=False)
def _base_record_gone(yard: Yard) -> None:
    (yard.root / ".layout/bases/mroot.toml").unlink()


@row("host", "S5-base", only=False)
def _base_record_broken(yard: Yard) -> None:
    write(yard.root / ".layout/bases/mroot.toml", "source = 1")


@row("a", "S5-record")
def _jail_record_broken(yard: Yard) -> None:
    write(yard.root / ".layout/jails/a.toml", "name = [\x1b")


@row("a", "S5-record")
def _jail_record_of_another(yard: Yard) -> None:
    write(yard.root / ".layout/jails/a.toml", (yard.root / ".layout/jails/b.toml").read_text("utf-8"))


@row("host", "S5-stray", only=False)
def _jail_record_gone(yard: Yard) -> None:
    (yard.root / ".layout/jails/a.toml").unlink()


@row("a", "S5-destroying")
def _half_destroyed(yard: Yard) -> None:
    path = yard.root / ".layout/jails/a.toml"
    write(path, path.read_text("utf-8").replace('"ready"', '"destroying"'))


@row("a", "S5-profile")
def _profile_gone(yard: Yard) -> None:
    path = yard.root / ".layout/jails/a.toml"
    write(path, path.read_text("utf-8").replace('profile = "default"', 'profile = "gone"'))


@row("a", "S5-missing", only=False)
def _s_gone(yard: Yard) -> None:
    yard.ok("umount", "a")
    move_aside(yard.root / "s/a")


@row("a", "S5-missing", only=False)
def _t_gone(yard: Yard) -> None:
    yard.ok("umount", "a")
    move_aside(yard.root / "t/a")


@row("a", "S5-link")
def _var_made_a_link_by_the_jail(yard: Yard) -> None:
    (yard.root / "t/a/var").rename(yard.root / "t/a/old")
    (yard.root / "t/a/var").symlink_to("/etc")


@row("host", "S5-interrupted")
def _copy_left_by_a_crash(yard: Yard) -> None:
    (yard.root / "s/.new-c").mkdir()


@row("a", "S12-fstab", quick=False)
def _table_edited(yard: Yard) -> None:
    path = yard.root / "etc/fstab.d/a.fstab"
    write(path, path.read_text("utf-8").replace("bind,ro", "bind,rw"))


@row("a", "S12-fstab", quick=False)
def _table_gone(yard: Yard) -> None:
    (yard.root / "etc/fstab.d/a.manage.fstab").unlink()


@row("a", "S8-unseen", quick=False)
def _table_replaced_by_fifo(yard: Yard) -> None:
    (yard.root / "etc/fstab.d/a.fstab").unlink()
    os.mkfifo(yard.root / "etc/fstab.d/a.fstab")


@row("host", "S12-host-fstab", quick=False)
def _host_fstab_edited(yard: Yard) -> None:
    yard.ok("fstab", "--install")
    path = yard.root / "etc/fstab"
    write(path, path.read_text("utf-8").replace("bind,ro", "bind,rw", 1))


@row("host", "S12-host-fstab", quick=False)
def _host_fstab_with_a_jail_that_is_gone(yard: Yard) -> None:
    yard.ok("fstab", "--install", "a", "c")


@row("a", "S6-setuid", quick=False)
def _setuid_in_s(yard: Yard) -> None:
    write(yard.root / "s/a/usr-local/new", mode=0o4755)


@row("a", "S6-setuid", quick=False, only=False)
def _setuid_of_the_base_given_to_a_user(yard: Yard) -> None:
    path = yard.root / "s/a/usr-local/sbin/site-su"
    os.chown(path, 1, 1)
    path.chmod(0o4755)


@row("a", "S6-special", quick=False)
def _socket_in_s(yard: Yard) -> None:
    os.mknod(yard.root / "s/a/etc/socket", stat.S_IFSOCK | 0o666)


@row("a", "S6-device", quick=False)
def _device_in_s(yard: Yard) -> None:
    os.mknod(yard.root / "s/a/etc/disk", stat.S_IFBLK | 0o600, os.makedev(7, 200))


@row("a", "S6-loose", quick=False)
def _world_writable_in_s(yard: Yard) -> None:
    write(yard.root / "s/a/etc/rc.conf", mode=0o666)


@row("a", "S6-loose", quick=False)
def _s_itself_world_writable(yard: Yard) -> None:
    (yard.root / "s/a").chmod(0o777)


@row("host", "S6-setuid", quick=False)
def _setuid_new_in_mroot(yard: Yard) -> None:
    write(yard.root / "j/mroot/usr/bin/rootshell", mode=0o6755)


@row("host", "S6-special", quick=False)
def _fifo_in_mroot(yard: Yard) -> None:
    os.mkfifo(yard.root / "j/mroot/usr/channel")


@row("host", "S6-loose", quick=False)
def _world_writable_in_mroot(yard: Yard) -> None:
    write(yard.root / "j/mroot/usr/lib.so", mode=0o757)


@row("host", "S6-setuid", quick=False)
def _content_of_a_setuid_file_changed(yard: Yard) -> None:
    path = yard.root / "j/mroot/usr/bin/su"
    text = path.read_text("utf-8")
    path.write_text(text[::-1], encoding="utf-8")
    path.chmod(0o4755)
    assert len(text) > 1


@row("a", "S6-setuid", quick=False)
def _content_of_a_setuid_file_in_s_changed(yard: Yard) -> None:
    write(yard.root / "s/a/usr-local/sbin/site-su", "another", mode=0o4755)


@row("host", "S6-device", quick=False)
def _device_in_mroot(yard: Yard) -> None:
    os.mknod(yard.root / "j/mroot/usr/bin/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))


@row("host", "S8-unseen", quick=False)
def _tree_too_deep_in_mroot(yard: Yard) -> None:
    (yard.root / "j/mroot/usr" / "/".join(["d"] * 300)).mkdir(parents=True)


@row("a", "S8-unseen", quick=False)
def _too_many_entries_in_t(yard: Yard) -> None:
    # As many as the limit is would take a minute to make.
    walk = sys.modules["layout.host.beneath.walk"]
    AFTER.enter_context(mock.patch.object(walk, "ENTRY_LIMIT", 400))
    for number in range(500):
        (yard.root / f"t/a/tmp/{number}").touch()


@row("a", "S8-unseen", quick=False)
def _tree_too_deep_in_s(yard: Yard) -> None:
    (yard.root / "s/a/etc" / "/".join(["d"] * 300)).mkdir(parents=True)


def broken_disk(name: str, inside: str) -> None:
    """Let nobody look at one entry, as when a disk fails."""
    lstat = Dir.lstat

    def failing(here: Dir, path: str) -> os.stat_result | None:
        if path == name and here.path.endswith(inside):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return lstat(here, path)

    AFTER.enter_context(mock.patch.object(Dir, "lstat", failing))


@row("host", "S8-unseen")
def _entry_of_mroot_on_a_broken_disk(yard: Yard) -> None:
    broken_disk("local", "/mroot/usr")


@row("a", "S8-unseen")
def _entry_of_s_on_a_broken_disk(yard: Yard) -> None:
    broken_disk("root", "/s/a")


@row("a", "S5-mode")
def _mount_point_of_a_session_with_another_mode(yard: Yard) -> None:
    (yard.root / "manage/a").chmod(0o777)


@row("host", "S6-capability", quick=False)
def _capability_in_mroot(yard: Yard) -> None:
    make_capable(yard.root / "j/mroot/bin/sh")


@row("a", "S6-capability", quick=False)
def _capability_in_s(yard: Yard) -> None:
    make_capable(write(yard.root / "s/a/usr-local/tool", mode=0o755))


@row("a", "S7-capability", quick=False)
def _capability_in_t(yard: Yard) -> None:
    make_capable(write(yard.root / "t/a/var/tool"))


@row("host", "S6-owner", quick=False)
def _file_in_mroot_of_a_user(yard: Yard) -> None:
    os.chown(yard.root / "j/mroot/bin/sh", 1, 0)


@row("host", "S6-owner", quick=False)
def _link_in_mroot_of_a_user(yard: Yard) -> None:
    (yard.root / "j/mroot/usr/link").symlink_to("bin")
    os.lchown(yard.root / "j/mroot/usr/link", 1, 0)


@row("a", "S6-owner", severity="warning", quick=False)
def _files_in_s_of_a_user(yard: Yard) -> None:
    os.chown(yard.root / "s/a/etc/hosts", 1, 0)
    os.chown(yard.root / "s/a/usr-local", 1, 0)


@row("host", "S6-loose", quick=False)
def _group_writable_in_mroot(yard: Yard) -> None:
    (yard.root / "j/mroot/usr/bin").chmod(0o775)


@row("a", "S6-loose", quick=False)
def _group_writable_in_s(yard: Yard) -> None:
    (yard.root / "s/a/etc/hosts").chmod(0o664)


@row("host", "S5-into-t", quick=False)
def _link_of_mroot_into_t(yard: Yard) -> None:
    (yard.root / "j/mroot/usr/lib").symlink_to("../var/lib")


@row("host", "S5-into-t", quick=False)
def _absolute_link_of_mroot_into_t(yard: Yard) -> None:
    (yard.root / "j/mroot/bin/tool").symlink_to("/t/tmp/tool")


@row("a", "S7-setuid", quick=False)
def _setuid_in_t(yard: Yard) -> None:
    write(yard.root / "j/a/t/var/sh", mode=0o4755)


@row("a", "S7-setuid", quick=False)
def _setgid_deep_in_t(yard: Yard) -> None:
    here = os.open(yard.root / "t/a/tmp", os.O_DIRECTORY)
    for _ in range(100):  # the path is longer than PATH_MAX
        os.mkdir("d" * 60, dir_fd=here)
        below = os.open("d" * 60, os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.mknod("sh", stat.S_IFREG | 0o755, dir_fd=here)
    file = os.open("sh", os.O_RDONLY, dir_fd=here)
    os.fchmod(file, 0o2755)
    os.close(file)
    os.close(here)


@row("a", "S7-device", quick=False)
def _device_in_t(yard: Yard) -> None:
    os.mknod(yard.root / "t/a/var/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))


@row("a", "S8-unseen", quick=False)
def _tree_too_deep_in_t(yard: Yard) -> None:
    (yard.root / "t/a/var" / "/".join(["d"] * 300)).mkdir(parents=True)


@row("a", "S8-unseen", quick=False)
def _mount_hides_a_setuid_file_of_t(yard: Yard) -> None:
    file = write(yard.root / "t/a/var/sh", mode=0o4755)
    mount("--bind", write(yard.elsewhere("files") / "harmless"), file)


@row("a", "S8-unseen", quick=False)
def _mount_hides_a_setuid_file_of_s(yard: Yard) -> None:
    file = write(yard.root / "s/a/usr-local/sh", mode=0o4755)
    mount("--bind", write(yard.elsewhere("files") / "harmless"), file)


@row("a", "S8-unseen", quick=False)
def _mount_hides_a_part_of_t(yard: Yard) -> None:
    mount("-t", "tmpfs", "none", yard.root / "t/a/var/mail")
