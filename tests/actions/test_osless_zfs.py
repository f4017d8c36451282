"""Kind osless on datasets of a real ZFS: made, proven, deployed to and destroyed, nothing else touched."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from osless_yard import NAME, PROGRAM, Finger, finger, fingerd, move_program, remove_stranger
from yard import clear_mounts, mounts

from tests.zfs_fuse import _pool, gone, zfs  # noqa: F401 - the fixture

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]


@pytest.fixture(name="jail")
def _jail(pool: str, tmp_path: Path) -> Iterator[Finger]:
    tmp_path.chmod(0o755)
    found = Finger(tmp_path.resolve())
    (found.root / "etc/layout.toml").write_text(f'zfs = "{pool}"\n', encoding="utf-8")
    found.profile()
    try:
        found.ok("init", NAME)
        yield found
    finally:
        found.run("stop", NAME)
        clear_mounts(found.root)
    for half in ("s", "t"):
        gone(f"{pool}/{half}/{NAME}")


def properties(name: str) -> dict[str, str]:
    keys = "setuid,devices,exec,atime,utf8only,readonly,mountpoint"
    lines = zfs("get", "-H", "-o", "property,value", keys, name).splitlines()
    return dict(line.split("\t") for line in lines)


def test_the_datasets_are_as_the_source_has_them_and_the_jail_runs(jail: Finger, pool: str) -> None:
    content, logs = f"{pool}/s/{NAME}", f"{pool}/t/{NAME}"
    quiet = {"setuid": "off", "devices": "off", "atime": "off", "utf8only": "on"}
    assert properties(content) == {
        **quiet, "exec": "on", "readonly": "on", "mountpoint": f"{jail.root}/s/{NAME}",
    }  # fmt: skip
    assert properties(logs) == {
        **quiet, "exec": "off", "readonly": "off", "mountpoint": f"{jail.root}/t/{NAME}",
    }  # fmt: skip
    assert jail.codes() == set()
    assert "0 changes" in jail.ok("init", NAME)
    jail.ok("start", NAME)
    assert finger("alice", 1079) == "fingerd one\r\nAlice plans.\r\n"
    # Not even root of the host writes to it, and what the jail writes cannot be executed by anybody.
    with pytest.raises(OSError, match="Read-only"):
        (jail.root / "s" / NAME / "etc/finger.conf").write_text("x")
    log = jail.root / "t" / NAME
    assert "finger alice" in (log / "queries").read_text(encoding="utf-8")
    shutil.copy("/bin/true", log / "true")
    with pytest.raises(PermissionError):
        subprocess.run([log / "true"], check=False)
    assert jail.codes() == set()


def test_a_deploy_goes_through_and_one_that_fails_is_taken_back(jail: Finger, pool: str) -> None:
    jail.ok("start", NAME)
    new = jail.top / "build/new"
    shutil.copy(fingerd('-DVERSION="two"'), new)
    jail.ok("update", NAME, new)
    assert finger("alice", 1079).startswith("fingerd two")
    assert properties(f"{pool}/s/{NAME}")["readonly"] == "on"
    shutil.copy(fingerd("-DBROKEN"), new)
    assert "the file from before is back and runs" in jail.fails("update", NAME, new)
    assert finger("alice", 1079).startswith("fingerd two")
    assert properties(f"{pool}/s/{NAME}")["readonly"] == "on"
    assert jail.codes() == set()


@pytest.mark.parametrize(
    ("half", "change"),
    [("s", "readonly=off"), ("s", "setuid=on"), ("t", "exec=on"), ("s", "mountpoint=none")],
)
def test_verify_finds_a_dataset_that_is_not_as_planned(
    jail: Finger, pool: str, half: str, change: str
) -> None:
    jail.ok("umount", NAME)
    zfs("set", change, f"{pool}/{half}/{NAME}")
    assert "O5-dataset" in jail.codes()
    jail.ok("init", NAME)
    assert jail.codes() == set()


def test_an_unmounted_dataset_is_mounted_with_the_jail_and_a_lost_one_keeps_it_from_mounting(
    jail: Finger, pool: str
) -> None:
    jail.ok("umount", NAME)
    zfs("umount", f"{pool}/s/{NAME}")
    assert "O5-dataset" in jail.codes()
    jail.ok("mount", NAME)
    assert jail.codes() == set()
    assert (jail.root / "j" / NAME / PROGRAM).exists()
    jail.ok("umount", NAME)
    gone(f"{pool}/t/{NAME}")
    assert "no such dataset" in jail.fails("mount", NAME)
    assert mounts(jail.root / "j") == []


def test_a_deploy_and_the_way_back_see_the_dataset_and_not_the_bare_directory(
    jail: Finger, pool: str
) -> None:
    """An interrupted deploy that had found nothing below an unmounted dataset would take the program away."""
    content, program = f"{pool}/s/{NAME}", jail.root / "s" / NAME / PROGRAM

    def unmounted() -> None:
        clear_mounts(jail.root)
        assert not program.exists()

    old = program.read_bytes()
    unmounted()
    jail.ok("update", NAME, fingerd('-DVERSION="two"'))
    assert program.read_bytes() != old
    # Killed while the tree was open.
    state = jail.root / ".layout/update"
    (state / f"{NAME}.old").write_bytes(old)
    text = f'path = "s/{NAME}/{PROGRAM}"\nmode = 365\nhad = true\nran = false\nproven = false\n'
    (state / f"{NAME}.toml").write_text(text, encoding="utf-8")
    unmounted()
    zfs("set", "readonly=off", content)
    assert "undone" in jail.ok("recover")
    assert program.read_bytes() == old
    assert properties(content)["readonly"] == "on"
    jail.ok("mount", NAME)
    assert jail.codes() == set()


def test_pools_imported_at_boot_have_each_dataset_once_and_a_deploy_goes_through(
    jail: Finger, pool: str
) -> None:
    """zfs(8) mounts them before ROOT is bound on itself, and without the flags that it does not heed."""
    profiles = jail.root / "etc/profiles"
    shutil.copy(profiles / f"{NAME}.toml", profiles / "second.toml")
    places = [f"{jail.root}/{half}/{name}" for name in (NAME, "second") for half in ("s", "t")]
    try:
        jail.ok("init", "second")
        name = pool.partition("/")[0]
        said = subprocess.run(["zpool", "status", name], check=True, capture_output=True, text=True).stdout
        device = next(word for word in said.split() if word.startswith("/"))
        clear_mounts(jail.root)
        subprocess.run(["zpool", "export", name], check=True, timeout=30)
        subprocess.run(["zpool", "import", "-d", str(Path(device).parent), name], check=True, timeout=30)
        assert [len(mounts(place)) for place in places] == [1, 1, 1, 1]
        assert "O5-dataset" in jail.codes("--no-probe", NAME)
        # One of them alone: the other's must not be there twice either.
        jail.ok("mount", NAME)
        assert [len(mounts(place)) for place in places] == [1, 1, 1, 1]
        jail.ok("mount")
        assert jail.codes() == set()
        jail.ok("start", NAME)
        jail.ok("update", NAME, fingerd('-DVERSION="two"'))
        assert finger("alice", 1079).startswith("fingerd two")
        assert jail.codes() == set()
    finally:
        jail.run("stop", NAME)
        clear_mounts(jail.root)
        for half in ("s", "t"):
            gone(f"{pool}/{half}/second")


def test_destroy_destroys_its_own_datasets_and_no_others(jail: Finger, pool: str) -> None:
    zfs("create", "-o", "mountpoint=none", f"{pool}/s/other")
    jail.ok("umount", NAME)
    zfs("snapshot", f"{pool}/s/{NAME}@kept")
    assert "@kept" in jail.fails("destroy", NAME)
    assert (jail.root / "s" / NAME / PROGRAM).exists()
    zfs("destroy", f"{pool}/s/{NAME}@kept")
    jail.ok("destroy", NAME)
    left = zfs("list", "-H", "-r", "-o", "name", pool).split()
    assert left == [pool, f"{pool}/s", f"{pool}/s/other", f"{pool}/t"]
    gone(f"{pool}/s/other")
    assert not (jail.root / "s" / NAME).exists()


def test_a_directory_that_is_there_already_is_not_hidden(pool: str, tmp_path: Path) -> None:
    one = Finger(tmp_path.resolve())
    tmp_path.chmod(0o755)
    one.profile()
    one.ok("init", "--no-mount", NAME)
    (one.root / "etc/layout.toml").write_text(f'zfs = "{pool}"\n', encoding="utf-8")
    assert "an empty one" in one.fails("init", NAME, code=2)
    (one.root / "etc/layout.toml").write_text('zfs = "lpool/nowhere"\n', encoding="utf-8")
    one.ok("destroy", NAME)
    assert "no such dataset" in one.fails("init", NAME)


def test_the_old_program_of_a_read_only_dataset_is_taken_away_and_hints_work_there(
    jail: Finger, pool: str
) -> None:
    move_program(jail)
    tree = jail.root / "s" / NAME
    remove_stranger(jail, f"zfs set readonly=off {pool}/s/{NAME} && mount -o remount,bind,rw {tree}")
    assert properties(f"{pool}/s/{NAME}")["readonly"] == "on"
