"""`plan --script` on FreeBSD, run by dash under the strict personality, makes what init makes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from script_yard import check, same_by_script, small_tree, snapshot

from tests.freebsd_host import _freebsd  # noqa: F401

if TYPE_CHECKING:
    from tests.freebsd_host import FreeBSD

pytestmark = pytest.mark.box

PERSONALITY = Path(__file__).resolve().parents[1] / "personality/etc"
JAILS = ("ldap", "bind")


def tree_of(host: FreeBSD) -> str:
    """A base with everything that the split has to look after."""
    tree = small_tree(host.work / "small tree's")
    (tree / "var/run").unlink()
    (tree / "etc/over").unlink()
    (tree / "etc/master.passwd").write_text("root:*:0:0::0:0:Charlie &:/root:/bin/sh\n")
    return str(tree)


def script(host: FreeBSD, *words: str, lint: bool = False) -> str:
    text = host.does("plan", *words, "--script")
    check(text, lint)
    return text


def mounts(host: FreeBSD) -> list[str]:
    return [line for line in host.ok("mount -v").splitlines() if f" on {host.root}/" in line]


def without_ids(lines: list[str]) -> list[str]:
    """File system ids differ from mount to mount."""
    return [line.partition(", fsid")[0] for line in lines]


@pytest.mark.parametrize(
    ("kind", "preset", "manage", "jails"),
    [("directory", "hardened", "session", JAILS), ("archive", "classic", "boot", ("x",))],
)
def test_the_script_makes_what_init_makes(
    freebsd: FreeBSD, kind: str, preset: str, manage: str, jails: tuple[str, ...]
) -> None:
    base = tree_of(freebsd)
    if kind == "archive":
        archive = freebsd.work / "base.txz"
        subprocess.run(["tar", "-cJf", archive, "-C", base, "."], check=True)
        base = str(archive)
    words = (*jails, "--base", base, "--preset", preset, "--manage", manage)
    text = script(freebsd, *words, lint=True)
    freebsd.does("init", *words)
    expected, expected_mounts = snapshot(freebsd.root), without_ids(mounts(freebsd))
    assert len(expected_mounts) == (3 if manage == "session" else 7) * len(jails)
    freebsd.does("umount")
    freebsd.root.rename(freebsd.work / "of init")
    freebsd.write("script", text)
    freebsd.ok(f"cd /usr && CDPATH=/ TAR_OPTIONS=-v dash -s <{freebsd.work}/script")
    assert snapshot(freebsd.root) == expected
    assert without_ids(mounts(freebsd)) == expected_mounts
    assert [finding for finding in freebsd.findings() if finding["severity"] == "error"] == []
    nothing = script(freebsd, *words)
    assert "nothing to do" in nothing
    freebsd.ok(f"dash -s <{freebsd.work}/script")  # everything is there already
    assert snapshot(freebsd.root) == expected
    assert without_ids(mounts(freebsd)) == expected_mounts


def test_the_script_completes_var_with_its_flags(freebsd: FreeBSD) -> None:
    tree = Path(tree_of(freebsd))
    (tree / "etc/mtree").mkdir()
    for name in ("mtree/BSD.var.dist", "master.passwd", "group"):
        shutil.copy(PERSONALITY / name, tree / "etc" / name)
    shutil.rmtree(tree / "var")
    (tree / "tmp").unlink()
    words = ("a", "--no-mount", "--base", str(tree))
    assert same_by_script(freebsd, *words)[1] == 1
    freebsd.refused(f"rmdir {freebsd.root}/skel/t/var/empty", "Operation not permitted")


def test_what_the_kernel_is_too_old_for_is_refused_before_anything_changes(freebsd: FreeBSD) -> None:
    tree = Path(tree_of(freebsd))
    version = tree / "bin/freebsd-version"
    version.write_text('USERLAND_VERSION="15.0-RELEASE-p9"\n')
    text = script(freebsd, "a", "--no-mount", "--base", str(tree))
    version.write_text('USERLAND_VERSION="15.1-RELEASE"\n')
    said = freebsd.fails("init", "a", "--no-mount", "--base", tree, code=2)
    assert (
        "found userland 15.1-RELEASE, expected none that is newer than the running kernel, 15.0-REL" in said
    )
    assert not freebsd.root.exists()
    freebsd.write("script", text)
    freebsd.refused(f"dash -s <{freebsd.work}/script", "found userland 15.1-RELEASE, expected none")
    assert not (freebsd.root / "j/mroot").exists()
    # An archive is looked at when it is unpacked, and then nothing appears.
    subprocess.run(["tar", "-cJf", freebsd.work / "base.txz", "-C", tree, "."], check=True)
    freebsd.fails("init", "a", "--no-mount", "--base", freebsd.work / "base.txz", code=2)
    assert not list(freebsd.root.glob("*/*mroot*"))
