"""What rc.subr(8) of FreeBSD makes of NAME_svcj, as kind service takes it for granted (rc.conf(5))."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layout.core.kinds import service
from layout.core.service import Confine
from layout.host import rc_services
from layout.host.freebsd import jails, rcconf

from .conftest import system

pytestmark = pytest.mark.freebsd

Run = Callable[..., str]
NAME = "layout_probe"
SCRIPT = Path("/usr/local/etc/rc.d") / NAME
TEXT = f"""\
#!/bin/sh
#
# PROVIDE: {NAME}
# REQUIRE: DAEMON

. /etc/rc.subr

name="{NAME}"
rcvar="{NAME}_enable"
load_rc_config $name
: ${{{NAME}_enable:="NO"}}
: ${{{NAME}_svcj_options:="net_basic"}}
pidfile="/var/run/{NAME}.pid"
procname="/bin/sleep"
command="/usr/sbin/daemon"
command_args="-f -p $pidfile /bin/sleep 5000"
run_rc_command "$1"
"""


@pytest.fixture(name="probe")
def _probe() -> Iterator[str]:
    """A service of ours, and nothing left of it afterwards."""
    if not service.has_service_jails(rc_services.rc_subr()):
        pytest.skip("no service jails in this release")
    if SCRIPT.exists():
        pytest.skip(f"{SCRIPT} is somebody's")
    SCRIPT.write_text(TEXT)
    SCRIPT.chmod(0o755)
    yield NAME
    system("service", NAME, "onestop")
    system("jail", "-r", service.prison_name(NAME))
    rcconf.remove(service.all_variables(NAME))
    SCRIPT.unlink()


def test_every_word_makes_the_parameters_that_layout_says(probe: str) -> None:
    """One start a group of words that go together; a jail has what they are, and nothing of the others."""
    for words in (
        ("net_basic", "mlock", "sysvipcnew"),
        ("netv4", "net_raw", "nfsd"),
        ("net_all", "sysvipc"),
        (),
    ):
        confine = Confine(words)
        rcconf.change({f"{probe}_svcj": "YES", f"{probe}_svcj_options": " ".join(words) or " "})
        assert rc_services.act(probe, "start").status == 0
        known = rc_services.privileges()
        wanted = {
            name: value
            for name, value in service.expected(confine).items()
            if not name.startswith("allow.") or name in known
        }
        now = jails.parameters(service.prison_name(probe), list(wanted))
        assert service.differing(wanted.items(), now) == [], words
        assert rc_services.comes_up(probe)
        pid = rc_services.main_process(probe, TEXT)
        prison = jails.find(service.prison_name(probe))
        assert prison is not None
        assert prison.path == "/"
        assert pid is not None
        assert rc_services.jail_of(pid) == prison.jid
        rc_services.act(probe, "stop")
        assert jails.find(service.prison_name(probe)) is None


def test_a_service_that_runs_is_lost_when_its_variable_changes(probe: str) -> None:
    """Which is why it is stopped first: afterwards it can be neither seen nor stopped."""
    assert rc_services.act(probe, "start").status == 0
    assert rc_services.comes_up(probe)
    rcconf.change({f"{probe}_svcj": "YES"})
    assert not rc_services.runs(probe)
    rcconf.change({f"{probe}_svcj": "NO"})
    assert rc_services.runs(probe)


def test_a_blank_is_no_default(probe: str) -> None:
    """An empty value would be replaced by the script's own: `: ${NAME_svcj_options:=net_basic}`."""
    rcconf.change({f"{probe}_svcj": "YES", f"{probe}_svcj_options": " "})
    assert rcconf.values([f"{probe}_svcj_options"]) == {f"{probe}_svcj_options": " "}
    rc_services.act(probe, "start")
    now = jails.parameters(service.prison_name(probe), ["ip4", "ip6"])
    assert now == {"ip4": "disable", "ip6": "disable"}
