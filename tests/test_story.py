"""The main job as a newcomer meets it, from init to destroy, on the real kernel."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import message

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., "object"]

NAMES = ("ldap", "bind", "heimdal")
CLOSED = (
    "/",
    "/etc",
    "/root",
    "/usr",
    "/usr/bin",
    "/usr/local",
    "/usr/local/bin",
    "/srv",
    "/s",
    "/s/etc",
    "/dev",
)
OPEN = ("/var", "/var/log", "/tmp")


def in_jail(root: Path, name: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as root inside the read-only root of a jail."""
    return subprocess.run(
        ["chroot", f"{root}/j/{name}", "/bin/sh", "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
    )


def mounts_below(root: Path) -> int:
    table = Path("/proc/self/mountinfo").read_text()
    return sum(line.split()[4].startswith(str(root)) for line in table.splitlines())


@pytest.mark.box
def test_three_jails_from_init_to_destroy(root: Path, cli, shared) -> None:
    """Done means: read-only roots, a change by manage, a proof, a sabotage found, nothing left."""
    done = cli("init", *NAMES, "--root", root, "--json")
    assert done.code == 0, done.err
    first = json.loads(done.out)
    assert first["ok"]
    assert first["verify"]["counts"]["errors"] == 0
    assert mounts_below(root) == 1 + 3 * len(NAMES)  # ROOT's private bind of itself, and the planned ones

    again = json.loads(cli("init", *NAMES, "--root", root, "--json").out)
    assert again["changes"] == []

    for name in NAMES:
        for place in CLOSED:
            said = in_jail(root, name, f"touch {place}/.x").stderr
            assert "Read-only file system" in said, f"{name}:{place}: {said}"
        for place in OPEN:
            assert in_jail(root, name, f"touch {place}/.x && rm {place}/.x").returncode == 0
        assert in_jail(root, name, "cp /bin/true /tmp/.x && /tmp/.x").returncode == 126  # noexec
        assert in_jail(root, name, "rm /tmp/.x; . /etc/os-release && echo $ID").stdout.strip()

    done = cli("manage", "bind", "--root", root, "--", "sh", "-c", "echo zone >/etc/zones; exit 3")
    assert done.code == 3
    assert "added    /etc/zones" in done.err
    assert in_jail(root, "bind", "cat /etc/zones").stdout == "zone\n"
    assert in_jail(root, "ldap", "cat /etc/zones").returncode != 0

    assert cli("verify", "--root", root).code == 0
    subprocess.run(["mount", "-o", "remount,bind,rw", f"{root}/j/heimdal/s"], check=True)
    broken = cli("verify", "--root", root, "--json")
    assert broken.code == 1
    found = json.loads(broken.out)
    assert not found["jails"]["heimdal"]["ok"]
    assert found["jails"]["bind"]["ok"]
    codes = {f["code"] for f in found["jails"]["heimdal"]["findings"]}
    assert codes == {"S2-options", "A1-writable", "A3-changed"}  # seen, and really written to

    assert cli("umount", "--root", root).code == 0
    assert mounts_below(root) == 0
    for name in NAMES:
        assert cli("destroy", name, "--root", root).code == 0
    assert cli("status", "--root", root).out.split()[0] == "NAME"
    assert {path.name for path in (root / "s").iterdir()} == set()


@pytest.mark.box
def test_a_classic_jail_with_its_writable_view_always_mounted(root: Path, cli, shared) -> None:
    """The layout of the message itself: verify says what is weaker about it, and fails for nothing."""
    done = cli("init", "bind", "--root", root, "--preset", "classic", "--manage", "boot", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["verify"]
    assert found["counts"]["errors"] == 0
    assert "S2-writable-exec" in {f["code"] for f in found["jails"]["bind"]["findings"]}
    assert mounts_below(root) == 1 + 7
    view = root / "manage" / "bind"
    subprocess.run(["chroot", view, "/bin/sh", "-c", "echo x >/etc/new && echo y >/dev/null"], check=True)
    assert in_jail(root, "bind", "cat /etc/new").stdout == "x\n"
    assert cli("umount", "--root", root).code == 0
    assert mounts_below(root) == 0


@pytest.mark.box
@pytest.mark.skipif(
    "LAYOUT_DEBIAN_BASE" not in os.environ, reason="LAYOUT_DEBIAN_BASE names no archive (.ci/run)"
)
def test_a_real_debian_from_an_archive(root: Path, cli, shared) -> None:
    """mmdebstrap's rootfs.tar.zst: the package database is out of reach, and no secret is shared."""
    done = cli("init", *NAMES, "--root", root, "--base", os.environ["LAYOUT_DEBIAN_BASE"], "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["verify"]["counts"]["errors"] == 0
    assert json.loads(cli("init", *NAMES, "--root", root, "--json").out)["changes"] == []
    for name in NAMES:
        for place in ("/", "/etc", "/usr", "/usr/local", "/root", "/var/lib/dpkg"):
            assert "Read-only file system" in in_jail(root, name, f"touch {place}/.x").stderr
        assert in_jail(root, name, "touch /var/.x /tmp/.x").returncode == 0
        assert "ii  dpkg" in in_jail(root, name, "dpkg -l dpkg").stdout
        assert in_jail(root, name, ". /etc/os-release && echo $ID").stdout == "debian\n"
        assert not (root / "s" / name / "etc" / "bind" / "rndc.key").exists()
    ids = {(root / "s" / name / "etc" / "machine-id").read_text() for name in NAMES}
    assert len(ids) == len(NAMES)
    done = cli("manage", "ldap", "--root", root, "--", "dpkg-query", "-W", "-f", "${Status}", "dpkg")
    assert done.out == "install ok installed"
    assert cli("umount", "--root", root).code == 0


def test_the_message_of_2010_is_rendered_line_by_line(cli) -> None:
    """--platform freebsd --preset classic --manage boot: the jail lines and the manage lines, exactly."""
    done = cli("fstab", *NAMES, "--platform", "freebsd", "--preset", "classic", "--manage", "boot")
    assert done.code == 0
    lines = done.out.splitlines()
    assert sorted(lines) == sorted(message.JAILS + message.MANAGE)
    for name in NAMES:  # parents first
        own = [line.split()[1] for line in lines if f"/{name}" in line]
        assert own == [
            *(f"/jails/j/{name}{below}" for below in ("", "/s", "/t")),
            *(f"/jails/manage/{name}{below}" for below in ("", "/s", "/t", "/dev")),
        ]
