"""jail.conf(5): a strict reader takes what is written as it was meant, and what cannot be said is refused."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout.core import jailconf
from layout.core.errors import LayoutError, UsageError
from layout.core.model import Boot, Jail, JailPlan, Manage, Platform, Preset, Site
from layout.core.plan import plan_jail
from layout.core.service import JailParameters, Network, Service, Settings
from layout.core.tables import hand_edited, load_template

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY = REPOSITORY / "tests" / "personality" / "lib"
TEMPLATE = load_template(
    (REPOSITORY / "fstab.d" / "freebsd-hardened.fstab.in").read_text(), "template", Platform.FREEBSD
)
SITE = Site("/jails", "/usr/local/etc/layout", Platform.FREEBSD, "/etc/fstab")
TRIAL = Site("/tmp/a b/$x", "/tmp/a b/$x/etc", Platform.FREEBSD, "/tmp/a b/$x/etc/fstab", trial=True)


def _strict(name: str) -> Any:
    """Import a module of the personality, which was written from the manual pages and not from layout."""
    sys.path.insert(0, str(LIBRARY))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(LIBRARY))


READER, PARAMETERS, EXECS = _strict("jailconf"), _strict("jailparams"), _strict("execs")


def make(site: Site = SITE, *, boot: Boot = Boot.JAIL, name: str = "ldap", **settings: Any) -> JailPlan:
    jail = Jail(
        name,
        "p",
        Preset.HARDENED,
        Manage.SESSION,
        Platform.FREEBSD,
        boot=boot,
        settings=Settings(**settings),
    )
    return plan_jail(jail, site, TEMPLATE)


def read(text: str, name: str = "ldap") -> dict[str, list[str]]:
    """Return the parameters as a strict jail(8) of FreeBSD 15.0 takes them."""
    config = READER.Config()
    config.load("jail.conf", text)
    assert config.jails == [name]
    found = config.parameters(name)
    for key, values in found.items():
        assert PARAMETERS.check(key, values) is None, key
        assert PARAMETERS.exists(key, 14), key
    return found


@pytest.mark.parametrize("site", [SITE, TRIAL], ids=["host", "trial with blanks and a dollar"])
def test_a_strict_jail_takes_the_file(site: Site) -> None:
    found = read(jailconf.render(make(site), site))
    assert found["path"] == [f"{site.root}/j/ldap"]
    assert found["mount.fstab"] == [f"{site.etc}/fstab.d/ldap.fstab"]
    assert found["exec.start"] == ["/bin/sh /etc/rc </dev/null"]
    assert found["exec.stop"] == ["/bin/sh /etc/rc.shutdown jail </dev/null"]
    assert found["children.max"] == ["0"]
    assert found["allow.set_hostname"] == ["false"]
    assert found["host.hostname"] == ["ldap"]
    assert found["ip4"] == ["inherit"]
    assert found["mount.devfs"] == ["true"]
    assert found["devfs_ruleset"] == ["4"]


def test_a_trial_leaves_nothing_outside_its_root() -> None:
    paths = [jailconf.path(TRIAL, "a"), jailconf.console_log(TRIAL, "a")]
    assert all(path.startswith(TRIAL.root) for path in paths)
    assert jailconf.path(SITE, "a") == "/etc/jail.conf.d/a.conf"


CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from(
    "\udc80\udcff"
)


@given(st.text(CHARACTERS, max_size=40))
def test_any_text_can_be_said(text: str) -> None:
    config = READER.Config()
    config.load("jail.conf", f"a {{ exec.start = {jailconf.quote(text)}; }}")
    assert config.parameters("a")["exec.start"] == [text]


@pytest.mark.parametrize(
    "text", ["", "no", "a,b", "a;b", "#", "//", "$name", "${path}", "a\nb", "é", "-1", "/*"]
)
def test_what_is_no_plain_word_is_quoted(text: str) -> None:
    quoted = jailconf.quote(text)
    assert quoted.startswith('"') or quoted == "no"


@pytest.mark.parametrize("character", ["\0", "\ud800"], ids=["NUL", "no byte"])
def test_what_is_no_path_is_refused(character: str) -> None:
    site = msgspec.structs.replace(SITE, root=f"/a{character}b")
    with pytest.raises(LayoutError, match="such as NUL"):
        jailconf.render(make(site), site)


@pytest.mark.parametrize("boot", [Boot.FSTAB, Boot.NONE])
def test_the_same_mounts_are_never_in_both_places(boot: Boot) -> None:
    found = read(jailconf.render(make(boot=boot), SITE))
    assert not {"mount.fstab", "mount", "exec.prepare"} & found.keys()


NETWORKS = {
    "both inherited": (Network(), {"ip4": ["inherit"], "ip6": ["inherit"]}),
    "none": (Network(ip4=("disable",), ip6=("disable",)), {"ip4": ["disable"], "ip6": ["disable"]}),
    "addresses that are there": (
        Network(ip4=("10.0.0.1", "10.0.0.2/24"), ip6=("disable",)),
        {"ip4.addr": ["10.0.0.1", "10.0.0.2/24"], "ip6": ["disable"]},
    ),
    "addresses of an interface": (
        Network(ip4=("10.0.0.1/32",), ip6=("fd00::1/128",), interface="lo1", hostname="a.example"),
        {"ip4.addr": ["lo1|10.0.0.1/32"], "ip6.addr": ["lo1|fd00::1/128"], "host.hostname": ["a.example"]},
    ),
}


@pytest.mark.parametrize(("network", "expected"), NETWORKS.values(), ids=NETWORKS)
def test_the_network_is_that_of_the_profile(network: Network, expected: dict[str, list[str]]) -> None:
    found = read(jailconf.render(make(network=network), SITE))
    assert {key: found[key] for key in expected} == expected
    assert not {"ip4", "ip4.addr"} <= found.keys()


def test_only_the_privileges_of_the_profile_are_given() -> None:
    wanted = JailParameters(
        allow=("raw_sockets", "set_hostname"), securelevel=2, enforce_statfs=1, devfs_ruleset=5
    )
    found = read(jailconf.render(make(jail=wanted), SITE))
    given_ = {key for key, values in found.items() if key.startswith("allow.") and values == ["true"]}
    assert given_ == {"allow.raw_sockets", "allow.set_hostname"}
    assert (found["securelevel"], found["enforce_statfs"], found["devfs_ruleset"]) == (["2"], ["1"], ["5"])


def test_an_unknown_privilege_is_refused_before_jail_does() -> None:
    with pytest.raises(UsageError, match="raw_socket"):
        jailconf.render(make(jail=JailParameters(allow=("raw_socket",))), SITE)


def test_a_dependency_outside_the_file_is_not_written_into_it() -> None:
    assert "depend" not in read(jailconf.render(make(jail=JailParameters(depend=("bind",))), SITE))


WORDS = st.text(CHARACTERS.filter(lambda c: c != "\n"), max_size=12)


@given(st.lists(WORDS, max_size=4), st.booleans())
def test_a_daemon_gets_its_arguments_in_the_background(arguments: list[str], environment: bool) -> None:
    command = ("/usr/local/sbin/slapd", *arguments)
    service = Service(command=command, environment=("A=b c",) if environment else ())
    (value,) = read(jailconf.render(make(service=service), SITE))["exec.start"]
    argv, background = EXECS.words(value)
    assert background
    if argv[:2] == ["/bin/sh", "-c"]:
        argv = shlex.split(argv[2].removeprefix("exec "))
    assert argv == (["/usr/bin/env", "A=b c"] if environment else []) + list(command)


def test_a_plain_daemon_needs_no_shell_in_the_jail() -> None:
    service = Service(command=("/bin/d", "-f"), user="www")
    found = read(jailconf.render(make(service=service), SITE))
    assert found["exec.start"] == ["/bin/d -f &"]
    assert EXECS.words("/bin/d -f &") == (["/bin/d", "-f"], True)
    assert (found["exec.jail_user"], found["exec.stop"]) == (["www"], [""])


def test_another_signal_than_term_is_sent_before_it() -> None:
    service = Service(command=("/bin/d",), stop_signal="INT", stop_timeout=3)
    found = read(jailconf.render(make(service=service), SITE))
    assert found["exec.prestop"][0].startswith("pkill -INT -j ldap; n=3; ")
    assert found["stop.timeout"] == ["3"]


def test_an_edit_by_hand_is_seen() -> None:
    text = jailconf.render(make(), SITE)
    assert not hand_edited(text)
    assert hand_edited(text.replace("persist", "nopersist"))


# --- somebody else's file ----------------------------------------------------------------------------------

FOREIGN = """\
# a { }
exec.clean; $domain = "example.org";  // b { }
* { mount.devfs; }
/* c { } */
"web" { host.hostname = "$name.${domain}"; exec.start = 'x "}" y'; ip4.addr = 1.2.3.4, 1.2.3.5; }
db {
    path = /jails/db;
    exec.start += "a \\" }";
}
.include "/etc/jail.conf.d/*.conf";
"""


def test_the_jails_of_another_file_are_found() -> None:
    assert jailconf.jails(FOREIGN) == [("*", 3), ("web", 5), ("db", 6)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a {", "end of the file"),
        ("a { b { } }", "without a jail's name"),
        ("}", "without '{'"),
        ("{ }", "without a jail's name"),
        ('a { path = "x; }', "quotes"),
        ("a { path = é; }", "quotes"),
    ],
)
def test_what_jail_would_refuse_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=r"^f:2: ") as error:
        jailconf.jails(f"\n{text}", "f")
    assert said in f"{error.value.found} {error.value.expected}"


@given(WORDS)
def test_what_layout_writes_it_reads(text: str) -> None:
    service = Service(command=("/bin/d", text))
    rendered = jailconf.render(make(service=service), SITE)
    assert [block.name for block in jailconf.jails(rendered)] == ["ldap"]


# --- rc.conf of the host -----------------------------------------------------------------------------------


def test_jails_start_after_those_they_depend_on_and_only_where_they_boot() -> None:
    plans = [
        make(name="web", jail=JailParameters(depend=("db", "elsewhere"))),
        make(name="db"),
        make(name="off", boot=Boot.NONE),
        make(name="old", boot=Boot.FSTAB),
    ]
    assert jailconf.rc_conf(plans) == ('jail_enable="YES"\njail_list="db web old"\njail_reverse_stop="YES"\n')
    assert jailconf.rc_conf(plans[2:3]) == ""


def test_only_what_is_not_so_yet_changes_in_rc_conf() -> None:
    plans = [make(name="web", jail=JailParameters(depend=("db",))), make(name="db")]
    done = {"jail_enable": "yes", "jail_list": "mail db x web", "jail_reverse_stop": "ON"}
    assert jailconf.assignments(plans, done) == {}
    assert jailconf.assignments(plans, done | {"jail_list": "web mail"}) == {"jail_list": "db web mail"}
    assert jailconf.assignments([make(boot=Boot.NONE)], {"jail_list": "a ldap b"}) == {"jail_list": "a b"}


def test_a_writable_view_that_is_always_mounted_comes_and_goes_with_the_jail() -> None:
    jail = msgspec.structs.replace(make().jail, manage=Manage.BOOT)
    plan = plan_jail(jail, SITE, TEMPLATE)
    found = read(jailconf.render(plan, SITE))
    assert [line.split()[1] for line in found["mount"]] == [mount.target for mount in plan.tables.manage]
    assert "-F /usr/local/etc/layout/fstab.d/ldap.manage.fstab" in found["exec.prepare"][0]


def test_a_loop_of_dependencies_is_named() -> None:
    plans = [make(name=a, jail=JailParameters(depend=(b,))) for a, b in ("ab", "bc", "ca")]
    with pytest.raises(UsageError, match="a -> b -> c -> a"):
        jailconf.ordered(plans)
