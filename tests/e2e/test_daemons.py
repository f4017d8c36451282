"""BIND, OpenLDAP and Heimdal from a Debian base: configured, and what root could do without a jail."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.house import NAMES, Jails

pytestmark = pytest.mark.e2e


def results(text: str) -> dict[str, str]:
    found = dict(line.rsplit(" ", 1) for line in text.splitlines())
    assert len(found) > 40, text  # all of it ran
    return found


def test_a_second_init_changes_nothing(jails: Jails) -> None:
    assert jails.json("init", *NAMES, "--example")["changes"] == []
    jails.verified()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_attempts_succeed_with_all_capabilities(jails: Jails, probe: Path, name: str) -> None:
    """The control: in nothing but a chroot they work, so it is the jail that refuses them."""
    install(jails, probe, name)
    jail = jails.root / "j" / name
    script = 'mount -t proc proc "$0/proc"; exec chroot "$0" /usr/local/sbin/probe /usr/local/sbin/probe'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, jail],
        capture_output=True,
        text=True,
    )
    found = results(done.stdout)
    refused = {what for what, result in found.items() if result != "ok"}
    # Read-only and noexec hold until it remounts, which is one of the things that it can do here.
    assert not {what for what in refused if what.startswith(("then-", "remount", "mount", "chroot", "core"))}
    assert {"write:/etc", "write:/usr", "exec:/tmp", "exec:/var"} <= refused
    jails.verified()


def install(jails: Jails, probe: Path, name: str) -> None:
    target = jails.root / "s" / name / "usr-local/sbin/probe"
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(probe, target)
