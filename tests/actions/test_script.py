"""`layout plan --script`: what the script makes is what init makes, and it does no harm."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from script_yard import Cli, both, mounts, moved_aside, run, script, small_tree, snapshot

JAILS = ("ldap", "bind")


@pytest.fixture(name="base", params=["host", "directory", "archive"])
def _base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of source."""
    if request.param == "host":
        return "host"
    tree = small_tree(tmp_path / "small tree's")
    if request.param == "directory":
        return str(tree)
    (tree / "etc/over").unlink()  # from an archive init takes no link above the root
    archive = tmp_path / "small:tree's.tar.gz"
    subprocess.run(["tar", "-czf", archive, "--force-local", "-C", tree, "."], check=True)
    return str(archive)


@pytest.mark.box
def test_the_script_makes_what_init_makes(cli: Cli, tmp_path: Path, base: str, shared: Any) -> None:
    root = tmp_path / "root"
    text = both(cli, root, *JAILS, "--base", base)
    assert len(mounts(root)) == 1 + 3 * len(JAILS)
    assert not any(entry[3] for entry in mounts(root))
    done = cli("--root", root, "--json", "init", *JAILS)
    assert (done.code, '"changes": []' in done.out) == (0, True), done.out
    assert cli("--root", root, "verify").code == 0
    nothing = script(cli, root, *JAILS)
    assert "nothing to do" in nothing
    assert not [line for line in nothing.splitlines() if not line.startswith("#")]
    before = snapshot(root), mounts(root)
    run(nothing)
    run(text)  # everything is there already
    assert (snapshot(root), mounts(root)) == before


@pytest.mark.box
@pytest.mark.parametrize("shell", ["bash", "busybox"])
def test_any_posix_shell_runs_it(cli: Cli, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    root = tmp_path / "root"
    text = script(cli, root, "ldap", "--base", str(small_tree(tmp_path / "tree")))
    command = ["bash", "--posix", "-s"] if shell == "bash" else ["busybox", "sh", "-s"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert cli("--root", root, "verify").code == 0


@pytest.mark.box
@pytest.mark.parametrize("name", ["it's a root", 'tab\tand "$(quotes)`', "back\\slash\nand newline\n"])
@pytest.mark.parametrize("manage", ["session", "boot"])
def test_odd_roots_and_the_writable_view_at_boot(cli: Cli, tmp_path: Path, name: str, manage: str) -> None:
    root = tmp_path / name
    tree = small_tree(tmp_path / f"base of {name}")
    both(cli, root, "ldap", "--base", str(tree), "--manage", manage)
    assert len(mounts(root)) == (4 if manage == "session" else 8)
    assert cli("--root", root, "verify").code == 0


@pytest.mark.box
@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_the_script_for_freebsd_makes_what_init_makes(cli: Cli, tmp_path: Path, kind: str) -> None:
    tree = small_tree(tmp_path / "tree")
    (tree / "var/run").unlink()
    (tree / "etc/over").unlink()
    if kind == "archive":
        subprocess.run(["tar", "-cJf", f"{tree}.txz", "-C", tree, "."], check=True)
        tree = tree.with_name("tree.txz")
    root = tmp_path / "root"
    args = (*JAILS, "--base", str(tree), "--platform", "freebsd", "--no-mount")
    text = script(cli, root, *args, lint=True)
    assert cli("--root", root, "init", *args).code == 0
    expected = snapshot(root)
    root.rename(tmp_path / "of init")
    run(text)
    assert snapshot(root) == expected
    assert "nothing to do" in script(cli, root, *args)


@pytest.mark.box
@pytest.mark.parametrize(
    ("path", "make", "found"),
    [
        ("j/ldap", "file", "a file, expected a directory"),
        ("s", "link", "a symbolic link to /usr, expected a directory"),
        ("t/ldap", "link", "a symbolic link to /usr, expected a directory"),
        ("skel/s", "dir", "a directory, expected nothing, or a base with its record"),
        ("etc", "link", "a symbolic link to /usr, expected a directory"),
        ("etc/fstab.d/ldap.fstab", "file", "another text, expected what was there"),
        ("etc/fstab.d/ldap.fstab", "link", "a symbolic link to /usr, expected a regular file"),
        (".layout/jails/ldap.toml", "file", "another record, expected none, or the same"),
    ],
)
def test_what_came_in_between_stops_it(cli: Cli, tmp_path: Path, path: str, make: str, found: str) -> None:
    root = tmp_path / "root"
    text = script(cli, root, "ldap", "--no-mount")
    where = root / path
    where.parent.mkdir(parents=True)
    root.chmod(0o700)
    for parent in where.relative_to(root).parents:
        if str(parent) != ".":
            (root / parent).chmod(0o700 if str(parent).startswith(".layout") else 0o755)
    if make == "file":
        where.write_text("precious\n")
    elif make == "link":
        where.symlink_to("/usr")
    else:
        where.mkdir()
    status = os.lstat(where)
    done = run(text, code=1)
    assert f"layout: {where}: found {found}" in done.stderr
    assert os.lstat(where).st_ino == status.st_ino
    assert not [name for _, names, files in os.walk(root) for name in names + files if ".new-" in name]


@pytest.mark.box
def test_another_mode_or_mount_stops_it(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "root"
    text = script(cli, root, "ldap")
    root.mkdir(mode=0o700)
    (root / "j").mkdir(mode=0o700)
    assert f"{root}/j: found another mode or owner, expected mode 0755" in run(text, code=1).stderr
    (root / "j").chmod(0o755)
    run(text)
    subprocess.run(["mount", "-o", "remount,bind,rw", root / "j/ldap/s"], check=True)
    before = mounts(root)
    assert f"{root}/j/ldap/s: found another mount, or none" in run(text, code=1).stderr
    assert mounts(root) == before


@pytest.mark.box
def test_an_unsafe_root_is_refused(cli: Cli, tmp_path: Path) -> None:
    text = script(cli, tmp_path / "a/root", "ldap", "--no-mount")
    (tmp_path / "a").symlink_to(tmp_path)
    assert f"{tmp_path}/a: found a symbolic link" in run(text, code=1).stderr
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o775)
    assert "only root can write to" in run(text, code=1).stderr
    (tmp_path / "a").chmod(0o755)
    nobody = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", "dash", "-s"],
        input=text,
        capture_output=True,
        text=True,
    )
    assert nobody.returncode == 1
    assert "layout: this script: found user 65534, expected root" in nobody.stderr
    assert os.listdir(tmp_path / "a") == []


@pytest.mark.box
def test_a_hostile_archive_is_refused(cli: Cli, tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    archive = tmp_path / "hostile.tar"
    subprocess.run(["tar", "-cf", archive, "-C", tree, "."], check=True)
    text = script(cli, tmp_path / "root", "ldap", "--base", str(archive), "--no-mount")
    subprocess.run(
        ["tar", "-rPf", archive, "--transform", "s,.*,x/../../../victim,", tree / "etc/passwd"], check=True
    )
    done = run(text, code=1)
    assert "found the entry x/../../../victim, expected names below the root" in done.stderr
    assert not list(tmp_path.rglob("victim"))
    assert os.listdir(tmp_path / "root/j") == os.listdir(tmp_path / "root/skel") == []


@pytest.mark.box
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_an_interruption_it_goes_on(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    root = tmp_path / "root"
    text = script(cli, root, *JAILS)
    finals = ("j/mroot", "skel/s", "skel/t", "s/ldap", "t/ldap", "s/bind", "t/bind")
    for delay in (0.15, 0.4, 0.8, 1.2):
        with subprocess.Popen(
            ["dash", "-s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            process.stdin.write(text)
            process.stdin.close()
            time.sleep(delay)
            if process.poll() is None:
                os.killpg(process.pid, number)
        for final in finals:
            if (root / final).exists() and final.startswith(("s/", "t/")):
                assert (root / final / ("etc/hostname" if final[0] == "s" else "var")).exists()
        if number is signal.SIGTERM:
            assert not list(root.rglob(".new-*"))
    run(text)
    assert cli("--root", root, "verify").code == 0
    assert '"changes": []' in cli("--root", root, "--json", "init", *JAILS).out


@pytest.mark.box
def test_an_interrupted_commit_is_finished_by_either(cli: Cli, tmp_path: Path) -> None:
    text = script(cli, tmp_path / "root", "ldap", "--no-mount")
    root = tmp_path / "root"
    stopped = text.replace("    promote skel/.new-t skel/t\n", "    kill -KILL $$\n")
    assert stopped != text
    for finish in ("script", "init", "recover"):
        run(stopped, code=-9)
        assert (root / ".layout/commit.toml").exists()
        assert not (root / ".layout/bases/mroot.toml").exists()
        if finish == "recover":
            assert cli("--root", root, "recover").code == 0
        if finish in {"script", "recover"}:
            run(text)
        assert cli("--root", root, "init", "ldap").code == 0
        assert cli("--root", root, "verify").code == 0
        moved_aside(cli, root)
        root.with_name("of init").rename(tmp_path / finish)


@pytest.mark.box
def test_only_what_is_missing_is_made(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert cli("--root", root, "init", *JAILS, "--base", str(small_tree(tmp_path / "tree"))).code == 0
    whole, all_mounts = snapshot(root), mounts(root)
    assert cli("--root", root, "umount").code == 0
    (root / "j/mroot/etc").unlink()
    (root / "j/mroot/run").rmdir()
    (root / "j/mroot/dev").chmod(0o777)
    shutil.rmtree(root / "t/ldap/var/lib/ldap")
    shutil.rmtree(root / "t/bind/var")
    shutil.rmtree(root / "s/bind")
    (root / "s/ldap/etc/hostname").unlink()
    table = root / "etc/fstab.d/ldap.fstab"
    table.unlink()
    table.parent.chmod(0o755)
    text = script(cli, root, *JAILS, lint=True)
    assert "begin_base" not in text
    assert "make_directory 0755 'j/ldap'" not in text
    assert "copy_tree 'skel/s' 's/.new-ldap'" not in text
    run(text)
    assert snapshot(root) == whole
    assert mounts(root) == all_mounts


@pytest.mark.box
def test_a_lost_skeleton_is_populated_again(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert cli("--root", root, "init", "ldap", "--no-mount").code == 0
    whole = snapshot(root)
    shutil.rmtree(root / "skel/t")
    (root / "j/mroot/marker").write_text("stays\n")
    run(script(cli, root, "ldap", "--no-mount", lint=True))
    (root / "j/mroot/marker").unlink()
    assert snapshot(root) == whole


@pytest.mark.box
def test_a_jail_is_mounted_whole_or_not_at_all(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "it's root"
    text = script(cli, root, *JAILS)
    broken = text.replace("stage_bind 't/bind' '/t'", "stage_bind 't/bound' '/t'")
    assert broken != text
    assert f"{root}/t/bound: found nothing, expected a directory" in run(broken, code=1).stderr
    assert {mount[1] for mount in mounts(root)} == {
        str(root),
        f"{root}/j/ldap",
        f"{root}/j/ldap/s",
        f"{root}/j/ldap/t",
    }
    assert not (root / ".layout/stage").exists()
    run(script(cli, root, *JAILS))
    assert cli("--root", root, "verify").code == 0


@pytest.mark.box
def test_nothing_in_t_is_followed(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert cli("--root", root, "init", "ldap", "bind", "--no-mount").code == 0
    victim = tmp_path / "victim"
    victim.mkdir()
    shutil.rmtree(root / "t/ldap/var/lib/ldap")
    text = script(cli, root, "ldap", "--no-mount")
    shutil.rmtree(root / "t/ldap/var/lib")
    (root / "t/ldap/var/lib").symlink_to(victim)
    assert f"{root}/t/ldap/var/lib: found a symbolic link to {victim}" in run(text, code=1).stderr
    assert os.listdir(victim) == []


@pytest.mark.box
def test_a_changed_table_and_record_are_replaced(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert cli("--root", root, "init", "ldap", "--no-mount").code == 0
    (root / "etc/fstab.d/ldap.fstab").chmod(0o640)
    text = script(cli, root, "ldap", "--no-mount", "--preset", "classic", lint=True)
    table = root / "etc/fstab.d/ldap.fstab"
    former = table.read_text()
    table.write_text(former + "# edited\n")
    assert f"{table}: found another text" in run(text, code=1).stderr
    table.write_text(former)
    run(text)
    assert stat.S_IMODE(table.stat().st_mode) == 0o640
    assert "nosuid" not in table.read_text()
    assert 'preset = "classic"' in (root / ".layout/jails/ldap.toml").read_text()
    assert "nothing to do" in script(cli, root, "ldap", "--no-mount")


@pytest.mark.box
def test_two_runs_exclude_each_other(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "root"
    text = script(cli, root, "ldap", "--no-mount")
    run(text)
    with subprocess.Popen(
        ["flock", root / ".layout/lock", "sh", "-c", "echo; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        assert "found a lock held by another run" in run(text, code=1).stderr
        holder.communicate(b"\n")


@pytest.mark.parametrize("preset", ["classic", "hardened"])
@pytest.mark.parametrize("manage", ["session", "boot"])
def test_mounts_of_freebsd_are_spelled_line_by_line(
    cli: Cli, tmp_path: Path, preset: str, manage: str
) -> None:
    tree = tmp_path / "tree"
    for name in ("etc", "bin"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/sh").touch()
    root = tmp_path / "it's root"
    args = ("--base", str(tree), "--platform", "freebsd", "--preset", preset, "--manage", manage)
    text = script(cli, root, "ldap", *args, lint=True)
    quoted = str(root).replace("'", "'\\''")
    words = "ro" if preset == "classic" else "ro,nosuid"
    lines = text.split("begin_mounts\n")[1].splitlines()
    assert f"attach 'nullfs' '{words}' '{quoted}/j/mroot' 'j/ldap'" in lines
    assert f"attach 'nullfs' '{words}' '{quoted}/s/ldap' 'j/ldap/s'" in lines
    assert ("require_ruleset 4" in lines) == (preset == "hardened" and manage == "boot")
    assert any("'manage/ldap/dev'" in line for line in lines) == (manage == "boot")
    assert "noauto" not in "".join(lines)
    assert '[ "$(uname -s)" = FreeBSD ]' in text
    without = script(cli, root, "ldap", *args, "--no-mount")
    assert "mount -t" not in without
