"""A jail of FreeBSD has the /dev/null of its own devfs as descriptor 0, and never the host's.

A device's mode is that of the devfs it was opened in, and root of a jail is root for it: by a descriptor of
the host's he could change the host's own.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.freebsd_host import HERE, SHIM, FreeBSD

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box

PROFILE = 'kind = "shared"\ndescription = "boots with rc"\n[freebsd.service]\nstop_timeout = 2\n'
RC = "exec 3<&0; sleep 7654321 &\n"
"""A shell gives what it starts in the background a /dev/null of its own: what it had is descriptor 3."""


@pytest.fixture(name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeBSD]:
    host = FreeBSD(tmp_path_factory.mktemp("standard").resolve())
    host.small_base()
    host.write("base/etc/rc", RC)
    host.write("base/etc/rc.shutdown", "")
    host.ok("mkdir -p /usr/local/etc/layout/profiles")
    host.write("profile", PROFILE)
    host.ok("cp profile /usr/local/etc/layout/profiles/a.toml")
    host.settle()
    yield host
    host.close()


def whose(host: FreeBSD, seconds: int, descriptor: int) -> str:
    """Return whose /dev/null a descriptor of the process that sleeps for so long is."""
    return host.ok(
        f"n=0; until pid=$(pgrep -f '^[^ ]*sleep {seconds}') || test $n -gt 900; do "
        "n=$((n+1)); sleep 0.02; done\n"
        f"fd=/proc/$pid/fd/{descriptor}\n"
        f"if test $fd -ef {host.root}/j/a/dev/null; then echo jail; fi\n"
        "if test $fd -ef /dev/null; then echo host; fi\n"
    ).strip()


def test_a_jail_has_a_null_device_of_its_own_for_input(host: FreeBSD) -> None:
    host.does("init", "a", "--base", host.base)
    host.does("start", "a")
    assert whose(host, 7654321, 3) == "jail"
    # The control: what rc.d/jail(8) is given is the host's.
    host.ok("sleep 7654322 3</dev/null >/dev/null 2>&1 & echo")
    assert whose(host, 7654322, 3) == "host"
    words = [sys.executable, "-m", "layout", "exec", "a", "--", "/bin/sleep", "7654323"]
    host.ok(f"env PYTHONPATH={SHIM}:{HERE.parent} {shlex.join(words)} </dev/null >/dev/null 2>&1 & echo")
    assert whose(host, 7654323, 0) == "jail"
    host.does("stop", "a")
