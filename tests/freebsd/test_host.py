"""What devfs, rc(8), periodic(8) and pkg(8) do on a real FreeBSD, with the scripts that layout gives them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from layout.host.freebsd import devfs

from .conftest import PRETENDED, system

pytestmark = pytest.mark.freebsd

Run = Callable[..., str]
SHARE = Path(__file__).resolve().parents[2] / "layout" / "share"
PROGRAM = """\
#!/bin/sh
echo "$*" >>{place}/called
case "$*" in *verify*) cat {place}/said; exit $(cat {place}/status) ;; esac
"""


@pytest.fixture(name="scripts")
def _scripts(place: Path) -> Path:
    """The scripts for the host, beside a played program that they call."""
    program = place / "bin" / "layout"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(place=place))
    program.chmod(0o755)
    (place / "said").write_text("bind  ok\n1 jail, 100 checks: 0 errors, 0 warnings\n")
    (place / "status").write_text("0")
    for template in ("rc.d/layout", "rc.d/layout_verify", "periodic/security/450.layout"):
        text = (SHARE / f"{template}.in").read_text()
        path = place / Path(template).name
        path.write_text(text.replace("%%PREFIX%%", str(place)).replace("%%FLAGS%%", ""))
        path.chmod(0o755)
    return place


def test_ruleset_4_is_loaded_or_can_be(run: Run) -> None:
    if not devfs.rules(4):
        run("service", "devfs", "restart")
    rules = devfs.require(4, "/dev")
    assert not devfs.is_shown("mem", rules)
    assert devfs.is_shown("null", rules)


def test_a_devfs_with_ruleset_4_shows_only_that(place: Path, run: Run) -> None:
    if not devfs.rules(4):
        run("service", "devfs", "restart")
    (place / "dev").mkdir()
    run("mount", "-t", "devfs", "-o", "rw,ruleset=4", "devfs", place / "dev")
    nodes = devfs.nodes(str(place / "dev"))
    assert {"null", "zero", "urandom"} <= set(nodes)
    assert not {"mem", "kmem", "io", "pf"} & set(nodes)
    rules = devfs.require(4, str(place / "dev"))
    assert [node for node in nodes if not devfs.is_shown(node, rules)] == []


def test_a_ruleset_that_nobody_has_loaded_hides_nothing(place: Path, run: Run) -> None:
    """Therefore verify and mount look for the ruleset first."""
    assert devfs.rules(4711) == []
    (place / "dev").mkdir()
    run("mount", "-t", "devfs", "-o", "rw,ruleset=4711", "devfs", place / "dev")
    assert "mem" in devfs.nodes(str(place / "dev"))


def test_rcorder_puts_our_scripts_where_they_belong(scripts: Path, run: Run) -> None:
    base = sorted(str(path) for path in Path("/etc/rc.d").iterdir() if path.is_file())
    order = run("rcorder", *base, scripts / "layout", scripts / "layout_verify").split()
    names = [Path(path).name for path in order]
    assert names.index("mountlate") < names.index("layout") < names.index("jail")
    assert names.index("jail") < names.index("layout_verify")


def test_rc_subr_runs_our_scripts(scripts: Path, run: Run) -> None:
    assert "layout_enable=" in run("/bin/sh", scripts / "layout", "rcvar").replace('"', "")
    run("/bin/sh", scripts / "layout", "onestart", env=os.environ | {"layout_mount": "bind"})
    assert (scripts / "called").read_text() == "--quiet mount bind\n"
    run("/bin/sh", scripts / "layout_verify", "onestart")
    assert (scripts / "called").read_text().splitlines()[-1] == "--quiet verify --quick"
    (scripts / "status").write_text("1")
    (scripts / "said").write_text("bind  FAILED\n")
    failed = system("/bin/sh", scripts / "layout_verify", "onestart")
    assert failed.returncode != 0
    assert "bind  FAILED" in failed.stdout + failed.stderr


def test_service_jails_never_take_our_scripts(scripts: Path, run: Run) -> None:
    """With svcj_all_enable, a script that mounts would run in a jail: NAME_svcj=NO stands in it."""
    environment = os.environ | {"svcj_all_enable": "YES", "layout_mount": "bind"}
    run("/bin/sh", scripts / "layout", "onestart", env=environment)
    assert (scripts / "called").read_text() == "--quiet mount bind\n"
    assert "svcj-layout" not in run("jls", "name")


@pytest.fixture(name="periodic")
def _periodic() -> object:
    """A periodic.conf.local that says YES, taken away afterwards; nothing left of what was said."""
    conf = Path("/etc/periodic.conf.local")
    if conf.exists():
        pytest.skip(f"{conf} is somebody's")
    conf.write_text("security_status_layout_enable=YES\n")
    yield conf
    conf.unlink()
    for name in ("today", "yesterday"):
        Path(f"/var/log/layout.{name}").unlink(missing_ok=True)


@pytest.mark.usefixtures("periodic")
def test_periodic_s_own_functions_show_only_what_changed(scripts: Path) -> None:
    if not Path("/etc/periodic/security/security.functions").exists():
        pytest.skip("no security.functions here")

    def daily() -> tuple[int, str]:
        done = system(
            "/bin/sh", scripts / "450.layout", env=os.environ | {"PERIODIC": "security daily", "host": "box"}
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    status, said = daily()
    assert (status, "+bind  ok" in said) == (1, True)
    (scripts / "said").write_text("bind  ok\n1 jail, 999 checks: 0 errors, 0 warnings\n")
    assert daily() == (0, "\nVerifying the jails of layout:\n")
    (scripts / "said").write_text("bind  FAILED\n1 jail, 999 checks: 1 error, 0 warnings\n")
    (scripts / "status").write_text("1")
    status, said = daily()
    assert (status, "-bind  ok" in said, "+bind  FAILED" in said) == (3, True, True)


def test_mandoc_reads_our_pages(run: Run) -> None:
    for page in (SHARE / "man").iterdir():
        run("mandoc", "-T", "lint", "-W", "warning", page)


def test_sh_reads_what_we_render(scripts: Path, run: Run) -> None:
    for name in ("layout", "layout_verify", "450.layout"):
        run("/bin/sh", "-n", scripts / name)


@pytest.mark.skipif(PRETENDED or shutil.which("pkg") is None, reason="no real pkg")
def test_pkg_installs_through_the_links_of_a_base(place: Path, run: Run) -> None:
    """A packaged directory that is a symbolic link in ROOT: files go where the link leads, the link stays."""
    for name in ("stage/var/db/hello", "root/t/var/db", "root/usr"):
        (place / name).mkdir(parents=True)
    (place / "root" / "var").symlink_to("t/var")
    (place / "stage" / "var" / "db" / "hello" / "file").write_text("hello\n")
    (place / "manifest").write_text(
        "name: hello\nversion: 1\norigin: misc/hello\ncomment: hello\ndesc: hello\n"
        "www: none\nmaintainer: none\nprefix: /\n"
    )
    (place / "plist").write_text("/var/db/hello/file\n")
    run("pkg", "create", "-M", place / "manifest", "-p", place / "plist", "-r", place / "stage", "-o", place)
    [package] = place.glob("hello-1*.pkg")
    run("pkg", "-r", place / "root", "add", package)
    assert (place / "root" / "var").is_symlink()
    assert (place / "root" / "t" / "var" / "db" / "hello" / "file").read_text() == "hello\n"
