"""The base against its manifest: what was changed behind layout's back is found, by mtree(8) as well."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_base import archive, build
from yard import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from yard import Said

pytestmark = pytest.mark.box


@pytest.fixture(scope="module", params=["directory", "tar.zst", "host"])
def made(request, tmp_path_factory) -> Iterator[Path]:
    """A ROOT with a base of each source."""
    top = tmp_path_factory.mktemp("bases")
    match request.param:
        case "directory":
            source = build(top / "base")
        case "host":
            source = "host"
        case kind:
            source = archive(build(top / "base"), top, kind)
    done = layout("--root", top / "jails", "init", "--no-mount", "--base", source, "a")
    assert done.code == 0, done.err
    yield top / "jails"
    shutil.rmtree(top)


@pytest.fixture
def root(made: Path) -> Iterator[Path]:
    """The same, put back after the test."""
    kept = made.parent / "kept"
    subprocess.run(["cp", "-a", made, kept], check=True)
    yield made
    shutil.rmtree(made)
    kept.rename(made)


def codes(root: Path) -> list[tuple[str, str]]:
    done = layout("--root", root, "--json", "base", "verify")
    report = json.loads(done.out)
    assert report["jails"] == {}
    found = [(f["code"], os.path.relpath(f["path"], root)) for f in report["host"]["findings"]]
    assert done.code == bool(found) == (not report["ok"])
    return found


def _edit(root: Path) -> None:
    """Change one byte and nothing else, its time included."""
    path = root / "j/mroot/usr/lib/os-release"
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _relink(root: Path) -> None:
    (root / "j/mroot/tmp").unlink()
    (root / "j/mroot/tmp").symlink_to("usr")


def _swap(root: Path) -> None:
    (root / "j/mroot/usr/lib/os-release").unlink()
    (root / "j/mroot/usr/lib/os-release").symlink_to("/etc/passwd")


SABOTAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "content": (_edit, "S9-changed", "j/mroot/usr/lib/os-release"),
    "mode": (lambda root: (root / "j/mroot/usr/bin").chmod(0o777), "S9-changed", "j/mroot/usr/bin"),
    "owner": (lambda root: os.chown(root / "j/mroot/usr/bin", 5, 5), "S9-changed", "j/mroot/usr/bin"),
    "link": (_relink, "S9-changed", "j/mroot/tmp"),
    "kind": (_swap, "S9-changed", "j/mroot/usr/lib/os-release"),
    "missing": (
        lambda root: (root / "j/mroot/usr/lib/os-release").unlink(),
        "S9-missing",
        "j/mroot/usr/lib/os-release",
    ),
    "extra": (
        lambda root: (root / "j/mroot/usr/lib/new*\nline").touch(),
        "S9-extra",
        "j/mroot/usr/lib/new*\\nline",
    ),
    "fifo": (lambda root: os.mkfifo(root / "j/mroot/usr/fifo"), "S9-special", "j/mroot/usr/fifo"),
    "skeleton": (
        lambda root: (root / "skel/s/etc").chmod(0o700),
        "S9-changed",
        "skel/s/etc",
    ),
}


def mtree(root: Path, manifest: str, tree: str) -> int:
    """Return the status of mtree(8); 2 as well for what is missing or extra, which it only prints."""
    words = ["mtree", "-f", root / f".layout/bases/{manifest}.mtree", "-p", root / tree]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode in {0, 2}, done.stderr
    return done.returncode or 2 * bool(done.stdout)


def test_a_new_base_is_as_its_manifest_says(made: Path) -> None:
    assert codes(made) == []


@pytest.mark.skipif(shutil.which("mtree") is None, reason="no mtree (Debian: mtree-netbsd)")
def test_mtree_accepts_the_same_manifests(made: Path) -> None:
    assert mtree(made, "mroot", "j/mroot") == 0
    assert mtree(made, "skel", "skel") == 0


@pytest.mark.parametrize("what", SABOTAGE)
def test_what_was_changed_is_found_and_can_be_accepted(root: Path, what: str) -> None:
    sabotage, code, path = SABOTAGE[what]
    sabotage(root)
    assert codes(root) == [(code, path)]
    if shutil.which("mtree") is not None:
        both = (mtree(root, "mroot", "j/mroot"), mtree(root, "skel", "skel"))
        assert both == ((0, 2) if path.startswith("skel") else (2, 0))
    done = layout("--root", root, "base", "verify", "--update")
    if code == "S9-special":
        assert done.code == 1
        assert codes(root) == [(code, path)]
        return
    assert (done.code, done.out.split()[:2]) == (0, ["accepted", code])
    assert codes(root) == []


def test_a_second_update_has_nothing_to_write(made: Path) -> None:
    done = json.loads(layout("--root", made, "--json", "base", "verify", "--update").out)
    assert done == {"ok": True, "accepted": [], "written": []}


def test_a_base_without_a_manifest_is_told_so_and_gets_one(root: Path) -> None:
    (root / ".layout/bases/mroot.mtree").unlink()
    assert codes(root) == [("S9-manifest", ".layout/bases/mroot.mtree")]
    assert layout("--root", root, "base", "verify", "--update").code == 0
    assert codes(root) == []


def test_a_manifest_that_nobody_can_read_is_no_pass(root: Path) -> None:
    (root / ".layout/bases/mroot.mtree").write_text("#mtree\nrubbish\n")
    assert [code for code, _ in codes(root)] == ["S8-unseen"]


def test_verify_looks_at_the_base_when_told(root: Path) -> None:
    _edit(root)
    words: tuple[Said, Said] = (
        layout("--root", root, "--json", "verify", "--quick"),
        layout("--root", root, "--json", "verify", "--quick", "--base"),
    )
    found = [[f["code"] for f in json.loads(one.out)["host"]["findings"]] for one in words]
    assert ("S9-changed" in found[0], "S9-changed" in found[1]) == (False, True)


def test_the_list_says_where_the_base_came_from(made: Path, tmp_path: Path) -> None:
    base = json.loads(layout("--root", made, "--json", "base", "list").out)["mroot"]
    assert base["manifest"] is True
    assert base["record"]["source"] in layout("--root", made, "base", "list").out
    none = layout("--root", tmp_path / "none", "--json", "base", "list")
    assert (none.code, json.loads(none.out)["mroot"]) == (0, None)


def test_a_root_without_a_base_cannot_be_verified(tmp_path: Path) -> None:
    done = layout("--root", tmp_path, "base", "verify")
    assert (done.code, done.out) == (1, "")
    assert "layout init" in done.err
