"""layout render unit and render nspawn: what systemd itself says of them, without a running systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from busybox_yard import BUSYBOX, busybox_yard, profile, web
from yard import Yard

from layout.actions.context import Context
from layout.core.errors import LayoutError
from layout.core.units import bare_path, quote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.box, pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")]
with_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")

SERVICE = web(
    8080,
    "127.0.7.9",
    """user = "web"
capabilities = ["net_bind_service"]
environment = ["A=x y%z"]
reload_signal = "HUP"
[[linux.service.run]]
path = "run/httpd/deep"
owner = "web"
group = "webs"
mode = "0750"
[linux.network]
interface = "lo"
ip4 = ["127.0.7.9/32"]
""",
)


@pytest.fixture(name="yard", scope="module")
def _yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("units")) as yard:
        profile(yard, "default", SERVICE)
        (yard.root / "j/mroot/usr/bin/setpriv").touch(mode=0o755)
        yield yard


HOST = "/usr/bin/nsenter --target=1 --mount --"
"""What leads out of a unit's mount namespace, which the commands around the service have too."""


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )


@with_systemd
def test_systemd_finds_no_fault_in_a_unit(yard: Yard, tmp_path: Path) -> None:
    unit = tmp_path / "layout-a.service"
    unit.write_text(yard.ok("render", "unit", "a"), encoding="utf-8")
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    said = [line for line in done.stderr.splitlines() if "layout-a" in line and "/bin/httpd" not in line]
    assert said == []
    unit.write_text(unit.read_text(encoding="utf-8") + "[Service]\nNoSuchKey=1\n", encoding="utf-8")
    assert "NoSuchKey" in analyze("verify", "--man=no", unit).stderr


@with_systemd
def test_systemd_counts_a_unit_among_the_well_protected(yard: Yard, tmp_path: Path) -> None:
    unit = tmp_path / "layout-a.service"
    unit.write_text(yard.ok("render", "unit", "a"), encoding="utf-8")
    done = analyze("security", "--offline=yes", "--no-pager", unit)
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert exposure is not None, done.stderr
    assert float(exposure[1]) < 3.0


def test_a_unit_knows_the_jail_and_its_own_accounts(yard: Yard) -> None:
    lines = yard.ok("render", "unit", "a").splitlines()
    root = yard.root
    for wanted in (
        f"AssertPathExists={root}/s/a/etc/passwd",
        f"RootDirectory={root}/j/a",
        # Its numbers are the jail's: systemd would look for User= in the host's own passwd(5).
        "ExecStart=/usr/bin/setpriv --reuid=80 --regid=81 --groups=81 --inh-caps=-all,+net_bind_service "
        "--ambient-caps=-all,+net_bind_service -- /bin/httpd -f -v -p 127.0.7.9:8080 -h /srv",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID",
        'Environment="A=x y%%z"',
        f"ExecStartPre=+{HOST} /usr/bin/install -d -o 80 -g 81 -m 0750 /run/layout/a/httpd/deep",
        "BindPaths=-/run/layout/a/httpd:/run/httpd",
        "NoExecPaths=-+/run/httpd",
        "ExecStartPre=+-/sbin/ip address add 127.0.7.9/32 dev lo",
        "ExecReload=+/bin/kill -HUP $MAINPID",
        "KillSignal=SIGTERM",
    ):
        assert wanted in lines
    assert any(
        line.startswith(f"ExecStartPre=+{HOST} ") and line.endswith(f"--root {root} mount a")
        for line in lines
    )


def test_another_run_of_layout_finds_the_same_site(tmp_path: Path) -> None:
    """`--root` of a site that is no trial would be one, whose profiles are below ROOT."""
    config = tmp_path / "site.toml"
    config.write_text('root = "/srv/jails"\n', encoding="utf-8")
    assert Context.find(None, None).options == ()
    assert Context.find(None, os.path.relpath(config)).options == ("--config", str(config))
    assert Context.find(str(tmp_path), None).options == ("--root", str(tmp_path))


def test_an_nspawn_file_maps_owners_where_the_service_needs_no_low_port(yard: Yard) -> None:
    profile(yard, "default", web(80))
    weak = yard.ok("render", "nspawn", "a")
    assert "PrivateUsers=no" in weak
    assert f"Bind={yard.root}/j/a/t:/t\n" in weak
    profile(yard, "default", web(8080))
    try:
        full = yard.ok("render", "nspawn", "a")
    finally:
        profile(yard, "default", SERVICE)
    assert "PrivateUsers=pick\n" in full
    assert "PrivateUsersOwnership=map\n" in full
    assert f"BindReadOnly={yard.root}/j/a/s:/s:idmap\n" in full
    assert "CAP_SYS_ADMIN" in re.search("DropCapability=(.*)", full)[1]  # type: ignore[index]


@pytest.mark.parametrize("words", [("unit",), ("unit", "a", "b"), ("nspawn", "a", "b")])
def test_a_file_is_for_one_jail(yard: Yard, words: tuple[str, ...]) -> None:
    done = yard.run("render", *words)
    assert done.code == 2
    assert "one jail" in done.err


HOSTILE = r"""
[linux.service]
command = ["/bin/sh", "-c", "echo %n $HOME"]
environment = ["A=\"b\" c\\d it's 50% $E"]
"""


def test_an_nspawn_file_can_quote_but_not_escape(yard: Yard) -> None:
    profile(yard, "default", HOSTILE)
    try:
        lines = yard.ok("render", "nspawn", "a").splitlines()
    finally:
        profile(yard, "default", SERVICE)
    assert r'''Environment="A="'"'"b"'"'" c\d it's 50% $E"''' in lines
    assert r'''Parameters=/bin/sh -c "echo %n $HOME"''' in lines


def test_a_setting_that_is_one_path_has_it_without_quotes() -> None:
    """As `RootDirectory="/a b"` it would be no absolute path, and the unit would not start."""
    assert bare_path('/a b/50%/$c "d" \\e') == '/a b/50%%/$c "d" \\e'
    for path in ("/a\nExecStart=/bin/sh", "/a\r", "/a ", "/a\\", "/a\udcff"):
        with pytest.raises(LayoutError, match="a unit can hold"):
            bare_path(path)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "x"', '"say \\"x\\""'),
        ("50%", "50%%"),
        ("$HOME", "$$HOME"),
        ("a;b", '"a;b"'),
        ("back\\slash", '"back\\\\slash"'),
        ("a\rb\nc\td", '"a\\x0db\\x0ac\\x09d"'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word: str, text: str) -> None:
    assert quote(word, command=True) == text
