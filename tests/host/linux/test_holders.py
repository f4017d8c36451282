"""Who holds a mount or stands in a tree is found, whatever it holds and in whichever namespace it is."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from layout.host.linux import holders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.box

HOLD = {
    "a working directory": ("import os; os.chdir(path)", "working directory"),
    "an open file": ("f = open(path + '/file')", "open file"),
    "a directory that is only named": ("import os; d = os.open(path, os.O_PATH)", "open file"),
    "a mapped file": (
        "import mmap\n"
        "with open(path + '/file') as f: m = mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)\n"
        "import os\nfor n in range(3, 20):\n  try: os.close(n)\n  except OSError: pass",
        "mapped file",
    ),
    "a root": ("import os; d = os.open('/', 0); os.chroot(path); os.fchdir(d)", "root"),
}


@contextlib.contextmanager
def process(path: Path, code: str, *before: str) -> Iterator[int]:
    """A process that does something with `path` and then waits."""
    script = f"import sys\npath = sys.argv[1]\n{code}\nprint('ready', flush=True)\nsys.stdin.read()"
    words = [*before, sys.executable, "-c", script, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "ready\n"
        yield child.pid
        child.stdin.close()


@pytest.fixture(name="mounted")
def _mounted(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "mounted"
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x", encoding="utf-8")
    target.mkdir()
    subprocess.run(["mount", "-n", "--bind", "--make-private", tmp_path / "source", target], check=True)
    yield target
    subprocess.run(["umount", "-n", target], check=True)


@pytest.mark.parametrize("what", HOLD)
def test_what_keeps_a_mount_busy_is_named(mounted: Path, what: str) -> None:
    assert holders.of(str(mounted)) == []
    code, word = HOLD[what]
    with process(mounted, code) as pid:
        assert subprocess.run(["umount", "-n", mounted], stderr=subprocess.DEVNULL).returncode != 0
        (found,) = holders.of(str(mounted))
        assert (found.pid, found.what.startswith(word)) == (pid, True)
        assert f"process {pid} (python" in holders.describe([found])


def test_a_process_beside_the_mount_does_not_hold_it(mounted: Path) -> None:
    with process(mounted.with_name("source"), HOLD["a working directory"][0]):
        assert holders.of(str(mounted)) == []


def test_a_copy_in_another_namespace_does_not_keep_the_mount_busy(mounted: Path) -> None:
    with process(mounted, HOLD["a working directory"][0], "unshare", "--mount"):
        assert holders.of(str(mounted)) == []


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    """mroot, and the two halves of jails `a` and `ab`."""
    for name in ("mroot/s", "mroot/t", "s/a", "s/ab", "t/a/var", "t/ab/var"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def below(tree: Path, name: str) -> list[int]:
    found = holders.below([f"{tree}/{half}/{name}" for half in ("s", "t")], f"{tree}/mroot")
    return [holder.pid for holder in found]


def test_who_stands_in_a_tree_is_found_by_component(tree: Path) -> None:
    with (
        process(tree / "t/a/var", HOLD["a working directory"][0]) as inside,
        process(tree / "t/ab", "import os; os.chdir(path)"),
    ):
        assert below(tree, "a") == [inside]


JAIL = (
    "import ctypes, os\nmount = lambda *a: ctypes.CDLL(None).mount(*a)\nos.chdir(path)\n"
    "mount(b'none', b'/', None, 0x4000 | 1 << 18, None)\n"
    "mount(b'mroot', b'mroot', None, 0x1000, None)\n"
    "mount(b's/%s', b'mroot/s', None, 0x1000, None)\nmount(b't/%s', b'mroot/t', None, 0x1000, None)\n"
    "{}"
)


@pytest.mark.parametrize(
    ("stands", "name", "found"),
    [
        ("os.chroot('mroot'); os.chdir('/')", "a", True),
        ("os.chroot('mroot'); os.chdir('/t/var')", "a", True),
        ("os.chdir('mroot/t')", "a", True),
        ("os.chroot('mroot'); os.chdir('/')", "ab", False),
        ("os.chdir('/')", "a", False),
    ],
    ids=["jail", "jail, in its var", "in t", "another jail", "only a copy of the mounts"],
)
def test_a_jail_in_its_own_namespace_is_found(tree: Path, stands: str, name: str, found: bool) -> None:
    """Its paths lead nowhere on the host; what is mounted where it stands tells whose it is."""
    code = JAIL.replace("%s", name).format(stands)
    with process(tree, code, "unshare", "--mount") as pid:
        assert os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
        assert (below(tree, "a") == [pid]) is found


def test_nobody_known_is_said_so() -> None:
    assert holders.describe([]) == "something that /proc does not show"
    many = [holders.Holder(n, "sh", "root") for n in range(1, 6)]
    assert holders.describe(many).endswith("process 3 (sh, root) and 2 more")
