"""What verify asks FreeBSD itself: each way to break it is found, and overlooked without its check."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

import pytest
from freebsd_sabotage import HINTS, ROWS

from tests.freebsd_host import HERE, SHIM, FreeBSD

pytestmark = pytest.mark.box

PROFILE = """\
kind = "shared"
description = "a daemon in the foreground"

[freebsd.service]
command = ["/bin/sleep", "100000"]
stop_timeout = 2
"""


@pytest.fixture(name="running", scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeBSD]:
    host = FreeBSD(tmp_path_factory.mktemp("verify").resolve())
    base = host.small_base()
    host.settle()
    host.write("a.toml", PROFILE)
    host.ok("mkdir -p /usr/local/etc/layout/profiles; cp a.toml /usr/local/etc/layout/profiles/")
    host.does("init", "a", "--base", base)
    host.does("start", "a")
    (host.work / "hints").write_bytes(HINTS)
    yield host
    host.close()


def test_a_jail_that_runs_as_planned_has_no_findings(running: FreeBSD) -> None:
    assert running.findings() == []


def test_each_sabotage_is_found_and_overlooked_without_its_check(running: FreeBSD) -> None:
    for row in ROWS.values():
        running.ok(row.breaks.replace("$R", str(running.root)))
    checks = sorted({row.check for row in ROWS.values()})
    words = [sys.executable, str(HERE / "actions/without_checks.py"), ",".join(checks), *running.where]
    plain = f"PYTHONPATH={SHIM}:{HERE.parent} NO_COLOR=1 LC_ALL=C.UTF-8"
    done = running(f"exec env -u LAYOUT_ROOT -u LAYOUT_CONFIG {plain} {shlex.join(words)}\n")
    assert done.code == 0, done
    with_all, *without = (line.split() for line in done.out.splitlines())
    for row in ROWS.values():
        finding = f"{row.code}:{row.severity}"
        assert with_all.count(finding) == row.times, with_all
        assert finding not in without[checks.index(row.check)]
