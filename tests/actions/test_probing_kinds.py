"""What the probes expect is read off the plan of each kind: osless, thin and full jails as well."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from busybox_yard import BUSYBOX, build
from osless_yard import NAME, Finger
from probe_sabotage import remount
from thin_yard import Daemon, thin_yard
from yard import Yard, clear_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
]


def probed(done: str, name: str) -> tuple[set[str], int]:
    """Return the codes of the probes' findings, and how much was tried."""
    found: Any = json.loads(done)
    return {f["code"] for f in found["jails"][name]["findings"] if f["code"][0] == "A"}, found["counts"][
        "probes"
    ]


# --- osless ------------------------------------------------------------------------------------------------


@pytest.fixture(name="jail", scope="module")
def _jail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finger]:
    found = Finger(tmp_path_factory.mktemp("osless").resolve())
    found.profile()
    found.ok("init", "--no-mount", NAME)
    yield found
    found.clear()


def of_osless(jail: Finger) -> tuple[set[str], int]:
    return probed(jail.run("--json", "verify", "--quick", "--probe", NAME).out, NAME)


def test_an_osless_jail_writes_to_its_log_alone(jail: Finger) -> None:
    jail.ok("mount", NAME)
    try:
        codes, count = of_osless(jail)
        assert codes == set()
        assert count > 60
        remount("rw,nosuid,nodev", jail.root / "j" / NAME)
        assert {"A1-writable", "A3-changed"} <= of_osless(jail)[0]
        remount("ro,nosuid,nodev", jail.root / "j" / NAME)
        remount("rw,nosuid,nodev,exec", jail.root / "j" / NAME / "log")
        assert of_osless(jail)[0] == {"A2-executable"}
        remount("ro,nosuid,nodev,noexec", jail.root / "j" / NAME / "log")
        assert of_osless(jail)[0] == {"A7-denied"}
    finally:
        jail.ok("umount", NAME)


def test_a_running_osless_jail_is_probed_where_it_runs(jail: Finger) -> None:
    started = json.loads(jail.ok("--json", "start", NAME))
    try:
        assert started["findings"] == {}
        assert started["probes"] > 60
        codes, count = of_osless(jail)
        assert codes == set()
        assert count > 60
    finally:
        jail.ok("stop", NAME)


# --- thin --------------------------------------------------------------------------------------------------


@pytest.fixture(name="thin", scope="module")
def _thin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    top = tmp_path_factory.mktemp("thin").resolve()
    yard = thin_yard(top / "yard", Daemon(top / "app"))
    yield yard
    yard.run("stop", "a")
    clear_mounts(yard.top)


def test_a_thin_jail_is_probed_while_it_has_a_root(thin: Yard, tmp_path: Path) -> None:
    assert probed(thin.run("--json", "verify", "a").out, "a") == (set(), 0)
    started = json.loads(thin.ok("--json", "start", "a"))
    assert started["findings"] == {}
    assert started["probes"] > 60
    codes, count = probed(thin.run("--json", "verify", "a").out, "a")
    assert codes == set()
    assert count > 60
    thin.ok("stop", "a")


# --- full --------------------------------------------------------------------------------------------------

FULL = """
kind = "full"
description = "a test"
[linux.network]
ip4 = ["disable"]
ip6 = ["disable"]
[linux.service]
command = ["/bin/sleep", "1000"]
"""


@pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")
def test_a_full_jail_may_write_and_execute_in_its_own_world_and_no_more(tmp_path: Path) -> None:
    base = build(tmp_path / "y/busybox")
    profile = tmp_path / "y/jails/etc/profiles/cell.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text(FULL)
    yard = Yard(tmp_path / "y", "--base", base, names=("cell",))
    try:
        yard.ok("mount")
        codes, count = probed(yard.run("--json", "verify", "cell").out, "cell")
        assert codes == set()
        assert count > 60
        started = json.loads(yard.ok("--json", "start", "cell"))
        assert started["findings"] == {}
        assert started["probes"] > 60
        yard.ok("stop", "cell")
        remount("ro", yard.root / "j/cell")
        assert "A7-denied" in probed(yard.run("--json", "verify", "cell").out, "cell")[0]
    finally:
        yard.run("stop", "cell")
        clear_mounts(yard.top)
        shutil.rmtree(yard.top)
