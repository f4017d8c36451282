"""Bases for FreeBSD: what their MANIFEST says is so, and their jails boot on a read-only /etc."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from script_yard import Cli, run, script, small_tree, snapshot

from layout.actions import populate, split
from layout.core.model import Platform
from layout.host.freebsd import sets

pytestmark = pytest.mark.box
PERSONALITY = Path(__file__).resolve().parents[1] / "personality/etc"
FREEBSD = ("--platform", "freebsd", "--no-mount")


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    """A small FreeBSD root."""
    tree = small_tree(tmp_path / "tree")
    (tree / "var/run").unlink()
    (tree / "etc/over").unlink()
    (tree / "etc/master.passwd").write_text("root:*:0:0::0:0:Charlie &:/root:/bin/sh\n")
    return tree


@pytest.fixture(name="archive")
def _archive(tree: Path, tmp_path: Path) -> Path:
    """base.txz with its MANIFEST, as a release has them."""
    (tmp_path / "dist").mkdir()
    archive = tmp_path / "dist/base.txz"
    subprocess.run(
        ["tar", "-cJf", archive, "-C", tree, "."], check=True, env={"XZ_OPT": "-0", "PATH": "/bin"}
    )
    manifest(archive)
    return archive


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(archive: Path, path: Path | None = None, sha256: str = "", file: str = "") -> Path:
    path = path or archive.with_name("MANIFEST")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'{file or archive.name}\t{sha256 or digest(archive)}\t40\tbase\t"Base system (MANDATORY)"\ton\n'
    )
    return path


def record(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / ".layout/bases/mroot.toml").read_text())


def test_a_digest_as_in_the_manifest_is_recorded(layout: Cli, tmp_path: Path, archive: Path) -> None:
    root = tmp_path / "root"
    done = layout("--root", root, "init", "a", "--base", archive, *FREEBSD)
    assert done.code == 0, done.err
    assert f"base: sha256 as in {archive.with_name('MANIFEST')}" in done.err
    found = record(root)
    assert found["sha256"] == digest(archive)
    assert found["notes"] == [f"sha256 as in {archive.with_name('MANIFEST')}"]


def test_without_a_manifest_it_is_said_and_recorded(layout: Cli, tmp_path: Path, archive: Path) -> None:
    archive.with_name("MANIFEST").unlink()
    root = tmp_path / "root"
    done = layout("--root", root, "init", "a", "--base", archive, *FREEBSD)
    assert done.code == 0, done.err
    assert f"base: sha256 not checked: no MANIFEST beside {archive}" in done.err
    found = record(root)
    assert found["sha256"] == digest(archive)
    assert found["notes"][0].startswith("sha256 not checked")


@pytest.mark.parametrize(
    ("command", "trouble"),
    [(command, "another digest") for command in ("init", "plan", "dry-run", "script")]
    + [("init", trouble) for trouble in ("another name", "malformed", "cut short")],
)
def test_trouble_with_the_manifest_stops_everything(
    layout: Cli, tmp_path: Path, archive: Path, command: str, trouble: str
) -> None:
    beside = archive.with_name("MANIFEST")
    path, found = beside, ""
    match trouble:
        case "another digest":
            manifest(archive, sha256="0" * 64)
            path, found = archive, f"sha256 {digest(archive)}"
        case "another name":
            manifest(archive, file="kernel.txz")
            found = "no base.txz, only kernel.txz"
        case "malformed":
            beside.write_text(beside.read_text().replace("\t", " "))
            found = "in line 1"
        case _:
            beside.write_text(beside.read_text()[:-1])
            found = "a last line without its end"
    words = {
        "init": ("init",),
        "plan": ("plan",),
        "dry-run": ("init", "--dry-run"),
        "script": ("plan", "--script"),
    }[command]
    root = tmp_path / "root"
    done = layout("--root", root, *words, "a", "--base", archive, *FREEBSD)
    assert done.code == 1, done.out + done.err
    assert done.err.startswith(f"layout: {path}: found ")
    assert found in done.err
    assert "\nhint: " in done.err
    assert not root.exists()


def test_manifests_of_releases_on_the_host_count(
    layout: Cli, tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.with_name("MANIFEST").unlink()
    where = tmp_path / "MANIFESTS"
    monkeypatch.setattr(sets, "MANIFESTS", str(where))
    manifest(archive, where / "amd64-amd64-14.4-RELEASE", sha256="1" * 64)
    root = tmp_path / "root"
    done = layout("--root", root, "init", "a", "--base", archive, *FREEBSD)
    assert done.code == 1
    assert "that of one of amd64-amd64-14.4-RELEASE" in done.err
    assert not root.exists()
    genuine = manifest(archive, where / "amd64-amd64-15.1-RELEASE")
    assert layout("--root", root, "init", "a", "--base", archive, *FREEBSD).code == 0
    assert record(root)["notes"] == [f"sha256 as in {genuine}"]


def test_dist_is_what_the_installer_left(
    layout: Cli, tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    done = layout("--root", root, "init", "a", "--base", "dist", *FREEBSD)
    assert done.code == 2
    assert sets.DIST in done.err
    assert "hint: fetch base.txz and its MANIFEST" in done.err
    monkeypatch.setattr(sets, "DIST", str(archive))
    assert layout("--root", root, "init", "a", "--base", "dist", *FREEBSD).code == 0
    assert record(root)["source"] == str(archive)


def test_the_script_checks_the_digest_as_well(layout: Cli, tmp_path: Path, archive: Path) -> None:
    root = tmp_path / "root"
    words = ("a", "--base", str(archive), *FREEBSD)
    text = script(layout, root, *words, lint=True)
    kept = archive.read_bytes()
    archive.write_bytes(kept + b"x")
    done = run(text, code=1)
    assert f"found sha256 {digest(archive)}, expected" in done.stderr
    assert not (root / "j/.new-mroot").exists()
    archive.write_bytes(kept)
    run(text)
    made = snapshot(root)
    root.rename(tmp_path / "of the script")
    assert layout("--root", root, "init", *words).code == 0
    assert snapshot(root) == made


def test_a_jail_starts_with_files_of_its_own_and_they_are_the_administrators(
    layout: Cli, tmp_path: Path, tree: Path
) -> None:
    (tree / "etc/periodic.conf").write_text("the base's\n")
    (tree / "etc/newsyslog.conf").write_text("the base's\n")
    (tree / "etc/motd").symlink_to("/var/run/motd")
    (tree / "etc/os-release").unlink()
    (tree / "etc/os-release").symlink_to("../var/run/os-release")
    (tree / "var/run").mkdir()
    root = tmp_path / "root"
    words = ("--root", root, "init", "bind", "--base", tree, *FREEBSD)
    assert layout(*words).code == 0
    etc = root / "s/bind/etc"
    assert 'named_enable="YES"' in (etc / "rc.conf").read_text()
    assert (etc / "fstab").read_bytes() == (etc / "resolv.conf").read_bytes() == b""
    assert 'PKG_DBDIR: "/usr/local/var/db/pkg"' in (root / "s/bind/usr-local/etc/pkg.conf").read_text()
    assert (root / "s/bind/usr-local/var/db/etcupdate").is_dir()
    # What the base has stays as it is.
    assert (etc / "periodic.conf").read_text() == (etc / "newsyslog.conf").read_text() == "the base's\n"
    assert (etc / "motd").readlink() == Path("/var/run/motd")
    # In the jail /s/etc/os-release leads to /s/var and so to /var.
    assert (etc / "os-release").readlink() == Path("../var/run/os-release")
    assert (root / "s/bind/var").readlink() == Path("../var")
    (etc / "rc.conf").write_text("mine\n")
    (etc / "make.conf").unlink()
    done = layout("--root", root, "--json", "init", "bind", *FREEBSD)
    assert '"changes": [\n    "s/bind/etc/make.conf"\n  ]' in done.out
    assert (etc / "rc.conf").read_text() == "mine\n"


@pytest.fixture(name="bare")
def _bare(tree: Path) -> Path:
    """A base whose /var is only a specification."""
    shutil.rmtree(tree / "var")
    (tree / "etc/mtree").mkdir()
    for name in ("mtree/BSD.var.dist", "master.passwd", "group"):
        shutil.copy(PERSONALITY / name, tree / "etc" / name)
    (tree / "tmp").unlink()
    return tree


@pytest.mark.skipif(shutil.which("mtree") is None, reason="needs mtree (package mtree-netbsd)")
@pytest.mark.parametrize("empty", [False, True])
def test_var_is_rebuilt_from_the_bases_own_specification(
    layout: Cli, tmp_path: Path, bare: Path, empty: bool
) -> None:
    if empty:
        (bare / "var").mkdir()
    root = tmp_path / "root"
    words = ("a", "--base", str(bare), *FREEBSD)
    text = script(layout, root, *words, lint=True)
    assert layout("--root", root, "init", *words).code == 0
    for place in ("skel/t/var", "t/a/var"):
        spec = ["mtree", "-d", "-f", bare / "etc/mtree/BSD.var.dist", "-N", bare / "etc", "-p", root / place]
        done = subprocess.run([*map(str, spec), "-R", "flags"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, ""), done
    assert (root / "t/a/var/unbound").stat().st_uid == 59
    assert (root / "t/a/var/mail").stat().st_gid == 6
    made = snapshot(root)
    root.rename(tmp_path / "of init")
    run(text)
    assert snapshot(root) == made


def test_a_specification_that_is_not_understood_stops_it(layout: Cli, tmp_path: Path, bare: Path) -> None:
    (bare / "etc/mtree/BSD.var.dist").write_text(".\n account mode=rwx\n")
    root = tmp_path / "root"
    done = layout("--root", root, "init", "a", "--base", bare, *FREEBSD)
    assert done.code == 1
    assert "etc/mtree/BSD.var.dist, line 2: found mode 'rwx'" in done.err
    assert not (root / "j/mroot").exists()


def test_half_a_freebsd_is_refused(layout: Cli, tmp_path: Path, tree: Path) -> None:
    (tree / "etc/master.passwd").unlink()
    (tree / "usr/lib/os-release").write_text('VERSION_ID="15.0"\n')
    root = tmp_path / "root"
    words = ("a", "--base", str(tree), *FREEBSD)
    done = layout("--root", root, "init", *words)
    assert done.code == 2
    assert "found no etc/master.passwd" in done.err
    assert f"make distribution DESTDIR={tree}" in done.err
    assert not root.exists()


@pytest.mark.parametrize("kind", ["archive", "spec"])
def test_file_flags_are_set_where_the_files_are_in_the_end(
    layout: Cli, tmp_path: Path, bare: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on FreeBSD; what fchflags(2) is told is looked at, for Linux has none."""
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(populate, "running_platform", lambda: Platform.FREEBSD)
    monkeypatch.setattr(
        split, "put_flags", lambda top, flags: told.extend((top.path, *f) for f in flags) or 0
    )
    base = bare
    if kind == "archive":
        base = tmp_path / "base.tar"
        with tarfile.open(base, "w", format=tarfile.PAX_FORMAT) as tar:

            def flagged(info: tarfile.TarInfo) -> tarfile.TarInfo:
                flags = {
                    "./usr/bin/su": "schg,uarch",
                    "./usr/local/bin/tool": "sunlnk",
                    "./root/.profile": "uarch",
                }
                if info.name in flags:
                    info.pax_headers["SCHILY.fflags"] = flags[info.name]
                return info

            tar.add(bare, ".", filter=flagged)
    root = tmp_path / "root"
    done = layout("--root", root, "init", "a", "--base", base, *FREEBSD)
    assert done.code == 0, done.err
    wanted = {("skel/.new-t", "var/empty", 0x20000)}
    if kind == "archive":
        wanted |= {("j/.new-mroot", "usr/bin/su", 0x20000), ("skel/.new-s", "usr-local/bin/tool", 0x100000)}
    assert {(top.removeprefix(f"{root}/"), path, value) for top, path, value in told} == wanted
    assert not {"flags", "file flag"} & set(record(root)["left_out"])
