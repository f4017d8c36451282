"""Real daemons in jails of a real Debian: made once for all tests, with nothing left of it at the end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.house import DAEMONS, NAMES, Jails, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROBE = Path(__file__).with_name("probe.c")


@pytest.fixture(name="jails", scope="module")
def _jails(tmp_path_factory: pytest.TempPathFactory, cli: Callable[..., Any]) -> Iterator[Jails]:
    """ldap, bind and heimdal of one Debian base, configured with their examples, mounted, not running."""
    assert not processes(*DAEMONS)
    jails = Jails(tmp_path_factory.mktemp("e2e").resolve() / "jails", cli)
    done = jails.json("init", *NAMES, "--base", os.environ["LAYOUT_DEBIAN_BASE"], "--example")
    assert done["ok"]
    jails.ok(
        *("manage", "heimdal", "--", "kadmin", "--local", "--config-file=/etc/heimdal-kdc/kdc.conf"),
        *("cpw", "--password=rabbit", "alice@EXAMPLE.TEST"),
    )
    yield jails
    jails.run("stop", *NAMES)
    jails.ok("umount")
    assert jails.mounts() == []
    assert processes(*DAEMONS) == []


@pytest.fixture(name="probe", scope="session")
def _probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attacks, as one static program."""
    program = tmp_path_factory.mktemp("probe") / "probe"
    subprocess.run(["gcc", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-o", program, PROBE], check=True)
    return program
