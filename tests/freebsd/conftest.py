"""For tests on a real FreeBSD: they mount and start jails on the host itself, one to throw away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THROW_AWAY = "LAYOUT_FREEBSD_THROW_AWAY"
PRETENDED = os.environ.get("LAYOUT_PERSONALITY") == "freebsd"
"""Inside tests/personality, where tests/test_freebsd_suite.py runs these, so that they are known to run."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say why they do not run, anywhere but there."""
    reason = None
    if not sys.platform.startswith("freebsd"):
        reason = "needs a real FreeBSD host"
    elif os.geteuid() != 0:
        reason = "needs root"
    elif os.environ.get(THROW_AWAY) != "1":
        reason = f"mounts and starts jails on the host: set {THROW_AWAY}=1 on one that may be thrown away"
    if reason is not None:
        for item in items:
            if item.get_closest_marker("freebsd"):
                item.add_marker(pytest.mark.skip(reason=reason))


def system(*words: str | os.PathLike[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program and return how it ended."""
    more = {"capture_output": True, "text": True, "timeout": 300, "stdin": subprocess.DEVNULL} | more
    return subprocess.run([os.fspath(word) for word in words], **more)


def table() -> list[dict[str, Any]]:
    """Return the mount table, as libxo gives it."""
    rows: list[dict[str, Any]] = json.loads(system("mount", "-v", "--libxo=json").stdout)["mount"]["mounted"]
    return rows


@pytest.fixture(name="run")
def _run() -> Callable[..., str]:
    """Run a program that must succeed; return what it printed."""

    def run(*words: str | os.PathLike[str], **more: Any) -> str:
        done = system(*words, **more)
        assert done.returncode == 0, (done.args, done.stdout, done.stderr)
        return str(done.stdout)

    return run


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Iterator[Path]:
    """A directory; jails with their root below it and mounts below it are gone afterwards, newest first."""
    place = tmp_path.resolve()
    yield place
    inside = f"{place}/"
    for line in system("jls", "jid", "path").stdout.splitlines():
        jid, _, path = line.partition(" ")
        if path.startswith(inside):
            system("jail", "-r", jid)
    for row in reversed(table()):
        if row["node"].startswith(inside):
            system("umount", row["fsid"])
    assert [row["node"] for row in table() if row["node"].startswith(inside)] == []
    system("chflags", "-R", "noschg", place)


RESCUE = ("sh", "cat", "ls", "echo", "sleep", "mkdir", "kill", "test")


@pytest.fixture(name="base")
def _base(place: Path) -> Path:
    """A small base: the static programs of /rescue (busybox where there is none), an etc, no more."""
    base = place / "base"
    for name in (
        "bin",
        "usr/bin",
        "usr/local/etc",
        "etc",
        "root",
        "var/log",
        "var/run",
        "tmp",
        "dev",
        "libexec",
    ):
        (base / name).mkdir(parents=True)
    source = "/rescue/sh" if os.path.exists("/rescue/sh") else "/bin/busybox"
    program = base / "bin" / "sh"
    system("cp", source, program)
    for name in RESCUE[1:]:
        os.link(program, base / "bin" / name)
    (base / "etc" / "master.passwd").write_text("root:*:0:0::0:0:root:/root:/bin/sh\n")
    (base / "etc" / "group").write_text("wheel:*:0:root\n")
    if os.path.exists("/usr/sbin/pwd_mkdb"):
        done = system("pwd_mkdb", "-p", "-d", base / "etc", base / "etc" / "master.passwd")
        assert done.returncode == 0, done.stderr
    return base
