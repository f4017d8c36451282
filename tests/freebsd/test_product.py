"""layout itself on a real FreeBSD, from init to destroy, below a ROOT of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import system, table

pytestmark = pytest.mark.freebsd

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(name="layout")
def _layout(place: Path, base: Path) -> Callable[..., tuple[int, str, str]]:
    """Run layout with ROOT below the place."""
    root = place / "jails"
    root.mkdir(mode=0o700)

    def layout(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "layout", "--root", str(root), *words]
        done = system(*command, cwd=REPOSITORY)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return layout


def inside(place: Path, script: str) -> str:
    """Run a script in a jail on the root of the jail bind, as its root; return what it complained of."""
    root = f"path={place}/jails/j/bind"
    return system("jail", "-c", root, "name=layoutprobe", "command=/bin/sh", "-c", script).stderr


def test_a_jail_from_init_to_destroy(
    place: Path, base: Path, layout: Callable[..., tuple[int, str, str]]
) -> None:
    words = ("init", "bind", "--profile", "default", "--base", str(base))
    code, out, err = layout(*words, "--json")
    assert code == 0, (out, err)
    first = json.loads(out)
    assert first["changes"]
    assert first["verify"]["counts"]["errors"] == 0
    assert json.loads(layout(*words, "--json")[1])["changes"] == []

    root = f"{place}/jails/"
    planned = ["j/bind", "j/bind/s", "j/bind/t"]
    assert [row["node"].removeprefix(root) for row in table() if row["node"].startswith(root)] == planned

    for path in ("/x", "/etc/x", "/root/x", "/usr/x", "/usr/local/x", "/s/x"):
        assert "Read-only file system" in inside(place, f": >{path}"), path
    assert inside(place, ": >/var/x; : >/tmp/x") == ""
    assert "denied" in inside(place, "cat /bin/sh >/tmp/sh; chmod 755 /tmp/sh 2>&1; /tmp/sh -c :")

    code, out, err = layout("manage", "bind", "--", "/bin/sh", "-c", "echo zone >/etc/zones; exit 3")
    assert (code, "/etc/zones" in err) == (3, True), err
    assert (place / "jails" / "s" / "bind" / "etc" / "zones").read_text() == "zone\n"
    assert [row["node"].removeprefix(root) for row in table() if row["node"].startswith(root)] == planned

    assert layout("verify")[0] == 0
    system("umount", f"{root}j/bind/t")
    assert layout("verify")[0] == 1
    assert layout("mount", "bind")[0] == 0
    assert layout("verify")[0] == 0
    assert layout("umount")[0] == 0
    assert [row["node"] for row in table() if row["node"].startswith(root)] == []
    assert layout("destroy", "bind")[0] == 0
    assert list((place / "jails" / "s").iterdir()) == []


def test_a_jail_starts_runs_a_command_and_stops(
    place: Path, base: Path, layout: Callable[..., tuple[int, str, str]]
) -> None:
    profile = place / "jails" / "etc" / "profiles" / "sleeper.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text(
        'kind = "shared"\ndescription = "sleeps"\n'
        '[freebsd.service]\ncommand = ["/bin/sleep", "300"]\nstop_timeout = 1\n'
    )
    code, out, err = layout("init", "sleeper", "--base", str(base))
    assert code == 0, (out, err)
    code, out, err = layout("start", "sleeper")
    assert code == 0, (out, err)
    assert layout("exec", "sleeper", "--", "/bin/echo", "inside")[1] == "inside\n"
    assert layout("verify")[0] == 0
    code, out, err = layout("stop", "sleeper")
    assert code == 0, (out, err)
    assert "sleeper" not in system("jls", "name").stdout.split()
    assert layout("destroy", "sleeper")[0] == 0 or layout("umount")[0] == 0
