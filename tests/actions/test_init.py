"""init makes what is missing and nothing else, however often it runs and whatever was damaged."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tomllib
from pathlib import Path

import pytest
from small_base import Entry, build, look

pytestmark = pytest.mark.box


@pytest.fixture(name="made")
def _made(root: Path, base: Path, layout) -> Path:
    """A ROOT with jails ldap and bind, not mounted."""
    assert layout("--root", root, "init", "--no-mount", "--base", base, "ldap", "bind").code == 0
    return root


def everything(root: Path) -> dict[str, Entry]:
    """All below ROOT, but for layout's own lock."""
    return {path: entry for path, entry in look(root).items() if path not in {".layout", ".layout/lock"}}


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


# --- a second run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["small", "host"])
def test_a_second_run_changes_nothing(root: Path, base: Path, layout, source: str) -> None:
    """Nor does it touch a time, a mode or a mount; and verify is content after both."""
    chosen = ["--base", base] if source == "small" else []
    first = layout("--root", root, "--json", "init", *chosen, "ldap", "bind")
    assert first.code == 0
    assert json.loads(first.out)["ok"]
    before, table = everything(root), mounts()
    second = layout("--root", root, "--json", "init", *chosen, "ldap", "bind")
    assert second.code == 0
    assert json.loads(second.out)["changes"] == []
    assert json.loads(second.out)["mounted"] == []
    assert everything(root) == before
    assert mounts() == table
    assert "0 changes\n" in layout("--root", root, "init", "bind").out
    assert layout("--root", root, "verify").code == 0
    assert layout("--root", root, "umount").code == 0


def test_the_dry_run_says_what_the_run_then_does(root: Path, base: Path, layout) -> None:
    words = ["--root", root, "--json", "init", "--no-mount", "--base", base, "ldap"]
    steps = json.loads(layout(*words, "--dry-run").out)["steps"]
    assert list(root.iterdir()) == []
    changes = json.loads(layout(*words).out)["changes"]
    planned = {step["path"].removeprefix(f"{root}/") for step in steps}
    assert {path.removeprefix(f"{root}/") for path in changes} - {".layout"} == planned - {
        f"{root}/.layout"
    } - {".layout"}
    assert json.loads(layout(*words, "--dry-run").out) == {"changes": 0, "steps": []}


def test_the_base_may_go_once_it_is_populated(root: Path, tmp_path: Path, layout) -> None:
    base = build(tmp_path / "base")
    words = ["--root", root, "init", "--no-mount", "--base", base]
    assert layout(*words, "a").code == 0
    shutil.rmtree(base)
    assert layout(*words, "a", "b").code == 0
    assert (root / "s/b/etc/passwd").exists()


def test_a_relative_source_is_recorded_as_absolute(root: Path, base: Path, layout, monkeypatch) -> None:
    """The same base by another spelling is no other base."""
    monkeypatch.chdir(base.parent)
    assert layout("--root", root, "init", "--no-mount", "--base", "base", "a").code == 0
    assert tomllib.loads((root / ".layout/bases/mroot.toml").read_text())["source"] == str(base)
    monkeypatch.chdir("/")
    assert "0 changes" in layout("--root", root, "init", "--no-mount", "--base", f"{base}/", "a").out


def test_modes_of_the_bases_own_directories_are_left_alone(root: Path, tmp_path: Path, layout) -> None:
    """usr/local 2775 of group staff, as Debian has it, is neither changed nor reported."""
    base = build(tmp_path / "base")
    (base / "usr/local").mkdir()
    os.chown(base / "usr/local", 0, 50)
    (base / "usr/local").chmod(0o2775)
    words = ["--root", root, "init", "--no-mount", "--base", base, "a"]
    assert layout(*words).code == 0
    assert "0 changes" in layout(*words).out
    for place in ("skel/s", "s/a"):
        assert stat.S_IMODE((root / place / "usr-local").stat().st_mode) == 0o2775


def test_state_directories_belong_to_the_jails_own_users(made: Path) -> None:
    """openldap is 101 in the small base; bind has a group only, so root owns its directories."""
    ldap = (made / "t/ldap/var/lib/ldap").stat()
    assert (ldap.st_uid, ldap.st_gid, stat.S_IMODE(ldap.st_mode)) == (101, 103, 0o700)
    bind = (made / "t/bind/var/cache/bind").stat()
    assert (bind.st_uid, bind.st_gid, stat.S_IMODE(bind.st_mode)) == (0, 104, 0o775)


def test_root_is_closed_and_nothing_unfinished_is_left(made: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE((made / ".layout").stat().st_mode) == 0o700
    assert [path for path in made.rglob("*") if path.name.startswith(".new-")] == []
    assert not (made / ".layout/commit.toml").exists()


# --- damage --------------------------------------------------------------------------------------------

DAMAGES = {
    "a link of mroot": ("j/mroot/usr/local",),
    "a mount point in mroot": ("j/mroot/dev",),
    "a mount point": ("j/ldap", "manage/ldap"),
    "the read-only half": ("s/ldap",),
    "etc": ("s/ldap/etc",),
    "var": ("t/ldap/var",),
    "the writable half": ("t/ldap",),
    "a state directory": ("t/ldap/var/lib/ldap",),
    "a table": ("etc/fstab.d/ldap.fstab",),
    "all tables": ("etc",),
    "the record": (".layout/jails/ldap.toml",),
    "the host name": ("s/ldap/etc/hostname",),
    "a skeleton": ("skel/s",),
    "mroot": ("j/mroot",),
    "mroot and both skeletons": ("j/mroot", "skel/s", "skel/t"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_only_what_is_missing_is_made(made: Path, layout, damage: tuple[str, ...]) -> None:
    """And it is as it was; what the administrator changed elsewhere in s stays."""
    (made / "s/ldap/root/.profile").write_text("mine\n")
    (made / "s/bind/etc/passwd").write_text("mine too\n")
    before = everything(made)
    for path in damage:
        if (made / path).is_dir() and not (made / path).is_symlink():
            shutil.rmtree(made / path)
        else:
            (made / path).unlink()
    done = layout("--root", made, "--json", "init", "--no-mount", "ldap", "bind")
    assert done.code == 0, done.err
    assert json.loads(done.out)["changes"] != []
    after = everything(made)
    assert after.keys() == before.keys()

    def damaged(path: str) -> bool:
        return any(path == gone or path.startswith(f"{gone}/") for gone in damage)

    def plain(path: str, entry: Entry) -> tuple[object, ...]:
        fresh = entry.content if not path.endswith(("machine-id", ".toml")) else ""
        if path == "s/ldap/root/.profile" and damaged(path):
            fresh = ""  # it went with the half it was in
        return entry.mode, entry.uid, entry.gid, fresh, entry.xattrs

    for path in before:
        assert plain(path, after[path]) == plain(path, before[path]), path
        if stat.S_ISREG(before[path].mode) and not damaged(path) and not path.startswith(".layout/bases"):
            assert after[path] == before[path], path
    assert "0 changes" in layout("--root", made, "init", "--no-mount", "ldap", "bind").out


def test_damage_below_mounts_is_repaired(root: Path, base: Path, layout) -> None:
    words = ["--root", root, "init", "--base", base, "ldap"]
    assert layout(*words).code == 0
    shutil.rmtree(root / "s/ldap/root")
    (root / "j/mroot/sys").unlink()
    assert layout("--root", root, "verify").code == 1
    assert layout(*words).code == 0
    assert (root / "j/ldap/root/.profile").read_text() == "umask 022\n"
    assert len([line for line in mounts() if f"{root}/j/ldap " in line]) == 1


def test_a_changed_mode_is_set_right(made: Path, layout) -> None:
    made.chmod(0o755)
    (made / "j/mroot/proc").chmod(0o777)
    done = layout("--root", made, "--json", "init", "--no-mount", "ldap")
    assert json.loads(done.out)["changes"] == [".", "j/mroot/proc"]
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_what_the_jail_made_of_its_state_directory_stays(made: Path, layout) -> None:
    (made / "t/ldap/var/lib/ldap").chmod(0o777)
    os.chown(made / "t/ldap/var/lib/ldap", 7, 7)
    assert "0 changes" in layout("--root", made, "init", "--no-mount", "ldap").out
    assert (made / "t/ldap/var/lib/ldap").stat().st_uid == 7


# --- conflicts -----------------------------------------------------------------------------------------


def _file(path: Path, victim: Path) -> None:
    path.write_text("in the way")


def _link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _directory(path: Path, victim: Path) -> None:
    path.mkdir()


CONFLICTS = [
    ("j/mroot/var", _file, "a file", "a symbolic link to t/var"),
    ("j/mroot/var", _directory, "a directory", "a symbolic link to t/var"),
    ("j/mroot/etc", _link, "a symbolic link to", "a symbolic link to s/etc"),
    ("j/mroot/dev", _link, "a symbolic link", "a directory"),
    ("j/ldap", _file, "a file", "a directory"),
    ("s/ldap", _link, "a symbolic link", "a directory"),
    ("s/ldap/etc", _link, "a symbolic link", "a directory"),
    ("s/ldap/etc/machine-id", _directory, "a directory", "a file"),
    ("t/ldap/var", _link, "a symbolic link", "a directory"),
    ("t/ldap/var", _file, "a file", "a directory"),
    ("t/ldap/var/lib", _link, "a symbolic link", "a directory"),
    ("t/ldap/var/lib/ldap", _link, "a symbolic link", "a directory"),
    ("skel/t", _link, "a symbolic link", "a directory"),
    ("skel/s/etc", None, "nothing", "the pristine etc"),
    (".layout/bases/mroot.toml", None, "a directory without a base's record", "a base or nothing"),
]


@pytest.mark.parametrize(
    ("path", "put", "found", "expected"),
    CONFLICTS,
    ids=[f"{path}-{put.__name__[1:] if put else 'gone'}" for path, put, *_ in CONFLICTS],
)
def test_a_conflict_stops_before_anything_is_written(
    made: Path, tmp_path: Path, layout, path: str, put, found: str, expected: str
) -> None:
    """A link to outside leads nowhere: the victim is untouched, and so is everything below ROOT."""
    victim = build(tmp_path / "victim")
    if (made / path).is_dir() and not (made / path).is_symlink():
        shutil.rmtree(made / path)
    else:
        (made / path).unlink()
    if put is not None:
        put(made / path, victim)
    (made / "t/bind/tmp").rmdir()  # something that a run without the conflict would make
    before, outside = everything(made), look(victim)
    done = layout("--root", made, "init", "--no-mount", "ldap", "bind", "new")
    assert done.code == 1
    assert done.out == ""
    assert f"found {found}" in done.err
    assert f"expected {expected}" in done.err
    assert "hint: nothing was changed" in done.err
    assert everything(made) == before
    assert look(victim) == outside


def test_a_table_edited_by_hand_is_not_overwritten(made: Path, layout) -> None:
    table = made / "etc/fstab.d/ldap.fstab"
    table.write_text(table.read_text().replace("nosuid", "suid"))
    before = everything(made)
    done = layout("--root", made, "init", "--no-mount", "ldap", "new")
    assert (done.code, done.out) == (1, "")
    assert "found a file edited by hand" in done.err
    assert everything(made) == before


def test_another_base_is_refused(made: Path, layout) -> None:
    done = layout("--root", made, "init", "--no-mount", "--base", "host", "ldap")
    assert done.code == 2
    assert "no base yet, or the same" in done.err
