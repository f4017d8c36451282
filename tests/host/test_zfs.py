"""Real datasets: what layout asks of zfs(8) is so afterwards, by the mount table and by trying."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from layout.core.errors import LayoutError
from layout.core.zfs import Dataset, datasets
from layout.host import table
from layout.host import zfs as host
from layout.host.run import run
from tests.zfs_fuse import _pool, gone, zfs  # noqa: F401 - the fixture

pytestmark = pytest.mark.box

ID = "/usr/bin/id"


@pytest.fixture(name="both")
def _both(pool: str, tmp_path: Path):
    """Both datasets of a jail, made; destroyed afterwards, whatever is left of them."""
    root = str(tmp_path.resolve())
    found = datasets(pool, root, "finger", writable=True, exec_=True)
    for one in found:
        Path(one.mountpoint).parent.mkdir()
        host.create(one, pool)
    yield found
    for one in found:
        gone(one.name)


def options(dataset: Dataset) -> frozenset[str]:
    return next(m for m in reversed(table.read()) if m.target == dataset.mountpoint).options


def test_what_is_made_has_all_properties_and_flags(both) -> None:
    content, logs = both
    host.set_readonly(content, on=True)
    assert host.problems(content) == host.problems(logs) == []
    assert {"ro", "nosuid", "nodev"} <= options(content)
    assert {"rw", "nosuid", "nodev", "noexec"} <= options(logs)
    found = host.properties(content.name)
    assert [found[key] for key in ("setuid", "devices", "exec", "atime", "utf8only", "readonly")] == [
        "off",
        "off",
        "on",
        "off",
        "on",
        "on",
    ]


def test_zfs_fuse_heeds_no_flags_but_readonly_so_the_mount_has_them(both) -> None:
    """The positive control is a dataset with the same properties that layout has not hardened."""
    _, logs = both
    plain = Path(logs.mountpoint).parent / "plain"
    zfs("create", "-o", f"mountpoint={plain}", "-o", "exec=off", "-o", "setuid=off", logs.name + "x")
    for place in (plain, Path(logs.mountpoint)):
        shutil.copy(ID, place / "id")
        (place / "id").chmod(0o4755)
    run = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    assert "euid=0" in subprocess.run([*run, plain / "id"], capture_output=True, text=True, check=True).stdout
    with pytest.raises(PermissionError):
        subprocess.run([Path(logs.mountpoint) / "id"], check=False)
    gone(logs.name + "x")


def test_readonly_is_switched_and_nobody_writes_meanwhile(both) -> None:
    content, _ = both
    place = Path(content.mountpoint) / "file"
    place.write_text("one")
    host.set_readonly(content, on=True)
    with pytest.raises(OSError, match="Read-only"):
        place.write_text("two")
    # readonly=on of the dataset holds alone: also where the flag of the mount is taken away.
    subprocess.run(["mount", "-n", "-o", "remount,bind,rw", content.mountpoint], check=True)
    with pytest.raises(OSError, match="Read-only"):
        place.write_text("two")
    assert (content.mountpoint, "a mount without ro") in [problem[:2] for problem in host.problems(content)]
    host.set_readonly(content, on=False)
    place.write_text("two")
    host.set_readonly(content, on=True)
    assert (place.read_text(), host.problems(content)) == ("two", [])


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("setuid", "on", "setuid=on"),
        ("exec", "off", "exec=off"),
        # The flag of the mount still says ro, and zfs(8) with it; at the next boot it would be writable.
        ("readonly", "off", "readonly=on (temporary)"),
        ("atime", "on", "atime=on"),
    ],
)
def test_a_property_that_somebody_changed_is_seen(both, key: str, value: str, found: str) -> None:
    content, _ = both
    host.set_readonly(content, on=True)
    zfs("set", f"{key}={value}", content.name)
    assert (content.name, found) in [problem[:2] for problem in host.problems(content)]


def test_an_unmounted_one_is_seen_and_mounted_again_with_its_flags(both) -> None:
    content, _ = both
    host.set_readonly(content, on=True)
    host._patiently(lambda: run("zfs", "unmount", content.name))
    assert (content.mountpoint, "nothing mounted") in [problem[:2] for problem in host.problems(content)]
    assert host.mount(content)
    assert host.problems(content) == []
    assert not host.mount(content)


def test_what_is_busy_for_a_moment_is_waited_for(both) -> None:
    _, logs = both
    with subprocess.Popen(["sleep", "0.4"], cwd=logs.mountpoint) as holder:
        assert host.destroy(logs)
        assert holder.poll() is not None


def test_a_snapshot_brings_back_what_was_there(both) -> None:
    content, _ = both
    place = Path(content.mountpoint) / "file"
    place.write_text("one")
    whole = f"{content.name}@before"
    zfs("snapshot", whole)
    place.write_text("two")
    host._patiently(lambda: run("zfs", "rollback", whole))
    assert place.read_text() == "one"


def test_only_what_is_the_jails_own_is_destroyed(both) -> None:
    content, logs = both
    whole = f"{content.name}@kept"
    zfs("snapshot", whole)
    with pytest.raises(LayoutError, match="kept"):
        host.destroy(content)
    assert host.exists(content.name)
    zfs("destroy", whole)
    assert host.destroy(content)
    assert not host.exists(content.name)
    assert not host.destroy(content)
    assert host.exists(logs.name)


def test_there_is_no_second_dataset_of_a_name_and_none_without_its_parent(both, tmp_path: Path) -> None:
    content, _ = both
    with pytest.raises(LayoutError, match="none of this name yet"):
        host.create(content, "lpool/jails")
    other = datasets("lpool/nowhere", str(tmp_path), "x", writable=False, exec_=True)[0]
    with pytest.raises(LayoutError, match="lpool/nowhere: found no such dataset"):
        host.create(other, "lpool/nowhere")


def test_a_mount_over_it_is_not_taken_for_it(both) -> None:
    content, _ = both
    subprocess.run(["mount", "-n", "-t", "tmpfs", "none", content.mountpoint], check=True)
    with pytest.raises(LayoutError, match="a mount of none"):
        host.mounted(content)
    subprocess.run(["umount", "-n", content.mountpoint], check=True)
    assert host.mounted(content) is not None
    assert os.path.ismount(content.mountpoint)
