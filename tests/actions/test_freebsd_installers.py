"""Bases that pkg(8) and make(1) install under the strict personality, and the script that does the same."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from script_yard import same_by_script

from layout.actions import installed
from layout.core.pkgbase import DEFAULT_SET
from layout.host.beneath import open_root
from layout.host.run import CommandError
from tests.freebsd_host import _freebsd  # noqa: F401

if TYPE_CHECKING:
    from tests.freebsd_host import FreeBSD

pytestmark = pytest.mark.box

ETC = Path(__file__).resolve().parents[1] / "personality/etc"
CONFIGURATION = "/usr/local/etc/layout/pkgbase.conf"


def world(top: Path) -> Path:
    """What makes a small FreeBSD root."""
    busybox = shutil.which("busybox")
    assert busybox, "the tests need busybox"
    for name in ("bin", "etc/mtree", "usr/lib", "usr/bin"):
        (top / name).mkdir(parents=True)
    for name in ("bin/sh", "usr/bin/su"):
        shutil.copy(busybox, top / name)
    (top / "usr/bin/su").chmod(0o4755)
    for name in ("mtree/BSD.var.dist", "master.passwd", "group"):
        shutil.copy(ETC / name, top / "etc" / name)
    (top / "usr/lib/os-release").write_text('NAME=FreeBSD\nVERSION_ID="15.0"\n')
    return top


def repository(host: FreeBSD, name: str = DEFAULT_SET) -> None:
    """A package repository of this host, and the configuration that names it."""
    tree = world(host.work / "world")
    (tree / "+MANIFEST").write_text(f'name: "{name}"\nversion: "15.0"\n')
    (host.work / "repository").mkdir()
    archive = host.work / f"repository/{name}-15.0.pkg"
    subprocess.run(["tar", "-cf", archive, "-C", tree, "."], check=True)
    configuration = f'FreeBSD-base: {{\n  url: "pkg+file://{host.work}/repository",\n  enabled: yes\n}}\n'
    host.write("pkgbase.conf", configuration)
    host.ok(f"mkdir -p /usr/local/etc/layout; cp {host.work}/pkgbase.conf {CONFIGURATION}")


def record(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / ".layout/bases/mroot.toml").read_text())


def sources(host: FreeBSD, version: str = "15.0") -> None:
    """A source tree of FreeBSD whose make(1) installs a small root."""
    host.write(
        "src/Makefile",
        "world = ../world\n"
        "installworld:\n\tmkdir -p $(DESTDIR)/etc\n\tcp -Rp $(world)/bin $(world)/usr $(DESTDIR)/\n"
        "distribution:\n\tcp -Rp $(world)/etc $(DESTDIR)/\n",
    )
    host.write("src/sys/conf/newvers.sh", f'TYPE="FreeBSD"\nREVISION="{version}"\nBRANCH="RELEASE"\n')


def test_packages_make_a_base(freebsd: FreeBSD) -> None:
    repository(freebsd)
    text, _ = same_by_script(freebsd, "a", "--no-mount", "--base", "pkgbase")
    for word in ("IGNORE_OSVERSION=yes", "ABI=FreeBSD:15:", "VERSION_MINOR=0", "update -r FreeBSD-base"):
        assert word in text
    found = record(freebsd.root)
    assert found["source"] == "pkgbase"
    assert [one["path"] for one in found["setuid"]] == ["usr/bin/su"]
    # The database describes mroot and is part of it, out of reach of the jail.
    assert (freebsd.root / f"j/mroot/usr/lib/sysimage/pkg/{DEFAULT_SET}").is_dir()
    assert not (freebsd.root / "t/a/var/db/pkg/local.sqlite").exists()
    assert (freebsd.root / "t/a/var/unbound").stat().st_uid == 59
    assert not (freebsd.root / ".layout/pkgbase").exists()
    assert freebsd.told("init", "a", "--no-mount", "--base", "pkgbase")["changes"] == []


def test_another_set_and_one_that_is_not_there(freebsd: FreeBSD) -> None:
    repository(freebsd, "FreeBSD-set-base-jail")
    said = freebsd.fails("init", "a", "--no-mount", "--base", "pkgbase")
    assert f"No packages available to install matching '{DEFAULT_SET}'" in said
    assert not list(freebsd.root.glob("*/*mroot*"))
    assert not (freebsd.root / ".layout/pkgbase").exists()
    freebsd.does("init", "a", "--no-mount", "--base", "pkgbase:FreeBSD-set-base-jail")
    assert record(freebsd.root)["source"] == "pkgbase:FreeBSD-set-base-jail"


def test_what_cannot_be_installed_is_refused_before_anything_changes(freebsd: FreeBSD) -> None:
    words = ("init", "a", "--no-mount", "--base")
    # No fingerprints on this host, and no repository of its own.
    said = freebsd.fails(*words, "pkgbase")
    assert "/usr/share/keys/pkgbase-15: found nothing, expected the fingerprints" in said
    assert "found '-x', expected the name of a set" in freebsd.fails(*words, "pkgbase:-x", code=2)
    assert "found no Makefile" in freebsd.fails(*words, f"src:{freebsd.work}", code=2)
    freebsd.ok("personality set release 14.4-RELEASE")
    assert "expected FreeBSD 15.0 or later" in freebsd.fails(*words, "pkgbase", code=2)
    assert not freebsd.root.exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_sources_make_a_base(freebsd: FreeBSD) -> None:
    world(freebsd.work / "world")
    sources(freebsd, "15.1")
    words = ("a", "--no-mount", "--base", f"src:{freebsd.work}/src")
    said = freebsd.fails("init", *words, code=2)
    assert "sys/conf/newvers.sh: found 15.1-RELEASE, expected none that is newer than" in said
    sources(freebsd)
    text, _ = same_by_script(freebsd, *words)
    assert f"make -C {freebsd.work}/src distribution DESTDIR={freebsd.root}/j/.new-mroot" in text
    assert (freebsd.root / "j/mroot/usr/bin/su").stat().st_mode & 0o4000
    # What make says is what is said.
    freebsd.root.rename(freebsd.work / "of the script")
    freebsd.write("src/Makefile", "installworld:\n\t@echo no world was built >&2; false\n")
    assert "no world was built" in freebsd.fails("init", *words)
    assert not list(freebsd.root.glob("*/*mroot*"))


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_sources_make_the_world_of_a_full_jail(freebsd: FreeBSD) -> None:
    """The profile names its source, so --base may be left out; nothing is shared."""
    world(freebsd.work / "world")
    sources(freebsd)
    text = f'kind = "full"\ndescription = "x"\n[freebsd.full]\nsource = "src:{freebsd.work}/src"\n'
    freebsd.write("jails/etc/profiles/cell.toml", text)
    freebsd.ok(f"chmod 700 {freebsd.root}")
    freebsd.does("init", "cell", "--no-mount")
    at = freebsd.root / "t/cell"
    assert (at / "usr/bin/su").stat().st_mode & 0o4000
    assert (at / "var/log").is_dir(), "completed from its own etc/mtree/BSD.var.dist"
    assert not (freebsd.root / "j/mroot").exists()
    assert f'source = "src:{freebsd.work}/src"' in (freebsd.root / ".layout/jails/cell.toml").read_text()
    freebsd.write("src/Makefile", "installworld:\n\t@echo no world was built >&2; false\n")
    freebsd.write("jails/etc/profiles/other.toml", text)
    assert "no world was built" in freebsd.fails("init", "other", "--no-mount")
    assert [path.name for path in (freebsd.root / "t").iterdir()] == ["cell"]


def test_fingerprints_go_first_and_nothing_is_left_behind(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    (keys / "trusted").mkdir(parents=True)
    (keys / "trusted/awskms-15").write_text("function: sha256\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "state").mkdir()
    look = f"cat {tmp_path}/state/pkgbase/*.conf {tmp_path}/base{keys}/trusted/* >{tmp_path}/base/seen; false"
    made = installed.Installer((("sh", "-c", look),), "FreeBSD-base: {}\n", str(keys))
    with (
        open_root(str(tmp_path / "base")) as base,
        open_root(str(tmp_path / "state")) as state,
        pytest.raises(CommandError),
    ):
        installed.install(made, base, state)
    assert (tmp_path / "base/seen").read_text() == "FreeBSD-base: {}\nfunction: sha256\n"
    assert list((tmp_path / "state").iterdir()) == []
