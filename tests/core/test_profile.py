"""Profiles and the configuration: strict, data only, and errors that name the nearest key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout.core.errors import UsageError
from layout.core.model import Manage, Platform, Preset, State
from layout.core.profile import Config, Profile, check, decide, decode
from layout.core.service import address_of

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "profiles").glob("*.toml"))
MINIMAL = {"kind": "shared", "description": "x"}


def load(data: dict[str, object]) -> Profile:
    return check(decode(data, Profile, "p.toml"), "p.toml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_is_shipped_is_valid(path: Path) -> None:
    profile = load(tomllib.loads(path.read_text()))
    assert profile.description
    for platform in Platform:
        jail = decide(path.stem, path.stem, profile, platform, Preset.HARDENED, Manage.SESSION)
        assert not jail.suid
        assert not jail.exec


DAEMONS = ("ldap", "bind", "heimdal")


@pytest.mark.parametrize("platform", Platform)
@pytest.mark.parametrize("name", DAEMONS)
def test_a_shipped_daemon_is_whole_on_both_platforms(name: str, platform: Platform) -> None:
    path = next(path for path in SHIPPED if path.stem == name)
    profile = load(tomllib.loads(path.read_text()))
    settings = profile.linux if platform is Platform.LINUX else profile.freebsd
    service = settings.service
    assert settings.packages
    assert settings.example.files
    assert settings.example.commands
    assert service.ready.tcp
    # It is ready on its own address and port, which no other profile and no resolver of the host has.
    host, port = address_of(service.ready.tcp)
    assert settings.network.ip4 == (f"{host}/32",)
    assert f"{port}/tcp" in service.ports
    assert settings.network.interface == ("lo" if platform is Platform.LINUX else "lo0")
    if platform is Platform.LINUX:
        assert service.command[0].startswith("/usr/")
        assert set(service.capabilities) <= {"net_bind_service", "setuid", "setgid"}
        assert not service.rc_conf
        owners = {directory.owner for directory in (*settings.state, *service.run)}
        assert owners <= {"root", "bind", "openldap"}
    else:
        assert not service.command  # it boots with /etc/rc
        assert any(setting.endswith("_enable=YES") for setting in service.rc_conf)
        assert not service.run
    for file in settings.example.files:
        assert file.text.strip()
        assert "secret" not in file.text
        assert "0.0.0.0" not in file.text


def test_no_two_shipped_daemons_have_the_same_address() -> None:
    for platform in ("linux", "freebsd"):
        addresses = [
            tomllib.loads(path.read_text())[platform]["network"]["ip4"][0]
            for path in SHIPPED
            if path.stem in DAEMONS
        ]
        assert len(set(addresses)) == len(DAEMONS)


@pytest.mark.parametrize(
    "path",
    ["usr/sbin/named", "usr/local", "etc", "dev/x", "proc/x", "s/etc/x", "tmp/x", "etc/../usr/x", "/etc/x"],
)
def test_an_example_writes_only_what_is_the_jails_own(path: str) -> None:
    files = [{"path": path, "text": "x"}]
    with pytest.raises(UsageError, match=r"a path below etc or root or usr/local"):
        load(MINIMAL | {"linux": {"example": {"files": files}}})


@pytest.mark.parametrize(
    ("key", "value"), [("owner", "a:b"), ("group", "../x"), ("mode", "4755"), ("owner", "-x")]
)
def test_an_example_file_has_a_plain_owner_and_mode(key: str, value: str) -> None:
    files = [{"path": "etc/x", "text": "x", key: value}]
    with pytest.raises(UsageError, match="etc/x"):
        load(MINIMAL | {"freebsd": {"example": {"files": files}}})


@pytest.mark.parametrize(
    ("extra", "key", "hint"),
    [
        ({"prset": "classic"}, "'prset'", "did you mean 'preset'?"),
        ({"linux": {"stat": []}}, "'linux.stat'", "did you mean 'state'?"),
        (
            {"linux": {"state": [{"path": "var/x", "mod": "0755"}]}},
            "'linux.state[0].mod'",
            "did you mean 'mode'?",
        ),
        ({"zzz": 1}, "'zzz'", "known keys: boot, description, exec, freebsd"),
    ],
    ids=["top", "inside", "in a list", "far from all"],
)
def test_an_unknown_key_is_named_with_the_nearest(extra: dict[str, object], key: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(MINIMAL | extra)
    assert caught.value.path == "p.toml"
    assert key in caught.value.found
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("extra", "path", "found", "expected", "hint"),
    [
        ({"kind": "shard"}, "kind", "'shard'", "shared osless full thin service", "'shared'"),
        ({"preset": "soft"}, "preset", "'soft'", "one of: classic hardened", "layout profile schema"),
        (
            {"linux": {"service": {"engine": "nspwn"}}},
            *("linux.service.engine", "'nspwn'", "one of: auto bwrap nspawn unit", "did you mean 'nspawn'?"),
        ),
        (
            {"linux": {"redirect": [{"port": 1, "proto": "tpc"}]}},
            *("linux.redirect[0].proto", "'tpc'", "one of: tcp udp", "did you mean 'tcp'?"),
        ),
        (
            {"linux": {"service": {"capabilities": ["CAP_NET_BIND_SERVICE"]}}},
            *("linux.service.capabilities", "CAP_NET", "capabilities(7)", "did you mean 'net_bind_service'?"),
        ),
        ({"suid": "yes"}, "suid", "text", "true or false", "layout profile schema"),
        ({"linux": {"service": {"command": "x"}}}, "linux.service.command", "text", "a list", "schema"),
    ],
    ids=["kind", "enum", "literal", "in a list", "capability", "bool", "list"],
)
def test_a_wrong_value_is_answered_with_what_may_stand_there(
    extra: dict[str, object], path: str, found: str, expected: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(MINIMAL | extra)
    assert caught.value.path == f"p.toml: {path}"
    assert found in caught.value.found and expected in caught.value.expected and hint in caught.value.hint


def test_a_wrong_value_of_the_configuration_leads_to_its_manual() -> None:
    with pytest.raises(UsageError) as caught:
        decode({"boot": "x"}, Config, "layout.toml")
    assert str(caught.value) == "layout.toml: boot: found 'x', expected one of: jail fstab none"
    assert caught.value.hint == "see layout.toml(5)"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "shared"},
        {"kind": "other", "description": "x"},
        MINIMAL | {"suid": "yes"},
        MINIMAL | {"preset": "soft"},
        MINIMAL | {"linux": []},
        MINIMAL | {"linux": {"state": [{"mode": "0755"}]}},
        MINIMAL | {"linux": {"state": [{"path": 1}]}},
    ],
    ids=["empty", "no description", "kind", "suid", "preset", "linux", "no path", "path"],
)
def test_a_wrong_value_is_an_error_that_names_the_file(data: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        load(data)
    assert caught.value.path.startswith("p.toml")
    assert str(caught.value).isprintable()


PATHS = [
    "",
    "var",
    "tmp",
    "/var/x",
    "var/",
    "var//x",
    "var/.",
    "var/../x",
    "../var/x",
    "etc/x",
    "usr/local/x",
    "Var/x",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("platform", ["linux", "freebsd"])
def test_state_lies_below_var_or_tmp(platform: str, path: str) -> None:
    with pytest.raises(UsageError, match=r"a path below var or tmp"):
        load(MINIMAL | {platform: {"state": [{"path": path}]}})


@pytest.mark.parametrize("mode", ["", "755 ", "0o755", "4755", "2755", "6755", "99", "0888", "rwx", "07550"])
def test_a_mode_is_octal_without_setuid(mode: str) -> None:
    with pytest.raises(UsageError, match="mode"):
        load(MINIMAL | {"linux": {"state": [{"path": "var/x", "mode": mode}]}})


@pytest.mark.parametrize("owner", ["a b", "a:b", "a\n", "-a", "../a", "x" * 40])
@pytest.mark.parametrize("key", ["owner", "group"])
def test_an_owner_is_a_name(key: str, owner: str) -> None:
    with pytest.raises(UsageError, match="owner"):
        load(MINIMAL | {"linux": {"state": [{"path": "var/x", key: owner}]}})


def test_a_jail_is_what_the_profile_and_the_settings_make_of_it() -> None:
    data = {"suid": True, "linux": {"state": [{"path": "var/x", "mode": "1770", "owner": "u"}]}}
    jail = decide("a", "p", load(MINIMAL | data), Platform.LINUX, Preset.CLASSIC, Manage.BOOT)
    assert jail.state == (State("var/x", 0o1770, "u", "u"),)
    assert (jail.suid, jail.exec, jail.preset, jail.manage) == (True, False, Preset.CLASSIC, Manage.BOOT)
    assert decide("a", "p", load(MINIMAL | data), Platform.FREEBSD, Preset.CLASSIC, Manage.BOOT).state == ()


def test_the_configuration_has_defaults_and_names_the_nearest_key() -> None:
    assert decode({}, Config, "layout.toml") == Config("/jails", "host", Preset.HARDENED, Manage.SESSION)
    with pytest.raises(UsageError) as caught:
        decode({"rooot": "/x"}, Config, "layout.toml")
    assert caught.value.hint == "did you mean 'root'?"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["kind", "linux", "state", "x", "preset"]) | st.text(max_size=6), _VALUES)
)
def test_any_other_data_is_an_error_and_never_a_crash(data: dict[str, object]) -> None:
    try:
        load(data)
    except UsageError as error:
        assert str(error).isprintable()
