"""A ZFS of the tests' own: zfs-fuse with a pool in a file, that nobody else sees and that ends with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORIES = ("/run/zfs", "/run/lock/zfs")
_SOCKET = Path("/run/zfs/zfs_socket")
_STATE = Path("/var/lib/zfs")
_FUSE = Path("/dev/fuse")
_SIZE = 128 << 20
_SECONDS = 60


def zfs(*words: str) -> str:
    """Run zfs(8); return what it printed."""
    return subprocess.run(["zfs", *words], check=True, capture_output=True, text=True, timeout=120).stdout


def gone(name: str) -> None:
    """Destroy a dataset with all below it, if there is one: what was used a moment ago is busy."""
    end = time.monotonic() + 30
    while True:
        done = subprocess.run(["zfs", "destroy", "-r", name], capture_output=True, text=True, check=False)
        if done.returncode == 0 or "does not exist" in done.stderr:
            return
        assert time.monotonic() < end, done.stderr
        time.sleep(0.05)


def _why_not() -> str:
    if shutil.which("zfs-fuse") is None or shutil.which("zpool") is None:
        return "needs zfs-fuse"
    if not _STATE.is_dir():
        return "needs /var/lib/zfs, which the package zfs-fuse has"
    try:
        # tests/box leaves it out of /dev; it is the same for every opener.
        if not _FUSE.exists():
            os.mknod(_FUSE, 0o20600, os.makedev(10, 229))
        os.close(os.open(_FUSE, os.O_RDWR))
    except OSError as error:
        return f"needs /dev/fuse: {error.strerror}"
    return ""


@pytest.fixture(name="pool", scope="module")
def _pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a dataset to put jails below."""
    if why := _why_not():
        pytest.skip(why)
    work = tmp_path_factory.mktemp("pool")
    for path in _DIRECTORIES:
        Path(path).mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-n", "-t", "tmpfs", "-o", "mode=700", "none", str(_STATE)], check=True)
    # One that was killed leaves its socket, where nobody answers.
    _SOCKET.unlink(missing_ok=True)
    with (work / "log").open("w", encoding="utf-8") as log:
        daemon = subprocess.Popen(["zfs-fuse", "--no-daemon", "--no-kstat-mount"], stdout=log, stderr=log)
    try:
        end = time.monotonic() + _SECONDS
        while not _SOCKET.exists():
            assert daemon.poll() is None and time.monotonic() < end, (work / "log").read_text()
            time.sleep(0.02)
        image = work / "image"
        with image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run(["zpool", "create", "-m", "none", "lpool", str(image)], check=True, timeout=120)
        zfs("create", "-o", "mountpoint=none", "lpool/jails")
        yield "lpool/jails"
        subprocess.run(["zpool", "destroy", "-f", "lpool"], check=False, timeout=120)
    finally:
        daemon.kill()  # its pool is gone: there is nothing to be written
        daemon.wait()
        subprocess.run(["umount", "-n", "-l", str(_STATE)], check=True)
