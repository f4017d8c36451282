"""The examples of docs/designs.md that need a real Debian, typed as they stand there: full and thin."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.house import processes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "actions"))
from net_yard import links, missing, outside, tables

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
]
TOP = Path(__file__).resolve().parents[2]
ZONE = 'options { directory "/var/cache/bind"; listen-on { 127.0.0.1; }; listen-on-v6 { none; }; };\n'


def examples(kind: str) -> list[str]:
    """Return the commands of the first example of a kind's section."""
    section = re.split(rf"^## {kind}$", (TOP / "docs/designs.md").read_text(), flags=re.MULTILINE)[1]
    return re.findall(r"^# (.+)$", section.partition("```console\n")[2].partition("```")[0], re.MULTILINE)


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Iterator[Path]:
    """ROOT, which no jail is left in."""
    for path in (tmp_path, tmp_path.parent):
        path.chmod(0o755)
    root = tmp_path.resolve() / "jails"
    root.mkdir(mode=0o700)
    yield root
    for words in ("stop", "umount", "destroy cell"):
        typed(f"layout {words}", root, check=False)
    assert f" {root}" not in Path("/proc/self/mountinfo").read_text()


def typed(command: str, root: Path, check: bool = True) -> str:
    """Run a line of the page as an administrator does, with ROOT and its profiles in the test's own place."""
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "LAYOUT_ROOT": str(root)}
    command = command.replace("/etc/layout/profiles", f"{root}/etc/profiles")
    done = subprocess.run(
        ["sh", "-c", re.sub(r"\S+-0123456789abcdef\S+", os.environ["LAYOUT_DEBIAN_BASE"], command)],
        env=env, capture_output=True, text=True, input="a long secret\na long secret\n", timeout=300,
    )  # fmt: skip
    assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.skipif(bool(missing("sysctl")), reason=f"needs {missing('sysctl')}")
def test_the_full_example_does_what_it_says(root: Path) -> None:
    """Without the build of the base, which the tests have made already."""
    before = links(), tables()
    with outside():
        said = {
            command: typed(command, root)
            for command in examples("full")
            if not command.startswith("layout base build")
        }
    assert said["layout start cell"].startswith("cell: running, process ")
    assert "ann:" in (root / "t/cell/etc/passwd").read_text()
    assert "dport 2222" in said["layout render nft cell"]
    assert "0 errors" in said["layout verify cell"]
    assert "S2-world" in said["layout verify cell"]
    assert (links(), tables()) == before


def test_the_thin_example_does_what_it_says(root: Path, tmp_path: Path) -> None:
    """With the base's BIND and its accounts in the place of the host's, which may have none."""
    for name in ("bind", "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "bind/named.conf").write_text(ZONE)
    text = (TOP / "profiles/named-thin.toml").read_text()
    text = text.replace('"/etc/bind"', f'"{tmp_path}/bind"').replace(
        '"/var/cache/bind"', f'"{tmp_path}/cache"'
    )
    (root / "etc/profiles").mkdir(parents=True, exist_ok=True)
    text = text.replace("[linux.thin]\n", '[linux.thin]\nroot = "mroot"\n')
    (root / "etc/profiles/named-thin.toml").write_text(text)
    typed(f"layout init named-thin --base {os.environ['LAYOUT_DEBIAN_BASE']}", root)
    passwd = (root / "skel/s/etc/passwd").read_text()
    (uid,) = re.findall(r"^bind:[^:]*:(\d+):", passwd, re.MULTILINE)
    shutil.chown(tmp_path / "cache", int(uid))
    said = {command: typed(command, root) for command in examples("thin")}
    assert said["layout start named-thin"].startswith("named-thin: running, process ")
    assert "BIND 9" in said["layout exec named-thin -- /usr/sbin/named -v"]
    assert "0 errors" in said["layout verify named-thin"]
    assert not processes("named")
