"""The first files of a FreeBSD jail: sh(1) reads what was meant, and the profile has the last word."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layout.core.freebsd_files import PERIODIC_CONF, RC_CONF, files, quoted
from layout.core.model import Directory, File, Jail, Manage, Platform, Preset, Site
from layout.core.plan import plan_jail
from layout.core.service import Service, Settings
from layout.core.tables import load_template

TEMPLATES = Path(__file__).resolve().parents[2] / "fstab.d"


def text_of(path: str, *rc_conf: str) -> str:
    (text,) = [e.text for e in files("a", rc_conf) if isinstance(e, File) and e.path == f"s/a/{path}"]
    return text


def read_by_sh(text: str, names: list[str]) -> dict[str, str]:
    show = "".join(f"printf '%s\\0' \"${name}\"\n" for name in names)
    done = subprocess.run(["sh", "-eu"], input=f"{text}{show}".encode(), capture_output=True, check=True)
    assert done.stderr == b""
    return dict(zip(names, done.stdout.decode().split("\0")[:-1], strict=True))


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(blacklist_characters="\0\n", blacklist_categories=["Cs"])))
def test_any_value_survives_sh(value: str) -> None:
    assert read_by_sh(f"x={quoted(value)}\n", ["x"]) == {"x": value}


def test_the_profile_has_the_last_word_and_each_setting_stands_once() -> None:
    text = text_of("etc/rc.conf", "named_enable=YES", "cron_flags=-J 5", 'slapd_flags=-h "ldap:/// $x"')
    wanted = RC_CONF | {
        "named_enable": "YES",
        "cron_flags": "-J 5",
        "slapd_flags": '-h "ldap:/// $x"',
    }
    assert read_by_sh(text, list(wanted)) == wanted
    assert text.count("cron_flags") == 1
    assert "hostname" not in text


def test_periodic_writes_to_log_files_and_leaves_the_host_alone() -> None:
    assert read_by_sh(text_of("etc/periodic.conf"), list(PERIODIC_CONF)) == PERIODIC_CONF


def test_what_describes_s_lies_in_s() -> None:
    for path in ("etc/make.conf", "etc/etcupdate.conf", "usr-local/etc/pkg.conf"):
        values = [line.split("=")[-1] for line in text_of(path).splitlines() if line[0] != "#"]
        assert values
        assert all("/usr/local/var/" in value for value in values)
    assert [e.path for e in files("a", ()) if isinstance(e, Directory)] == ["s/a/usr-local/var/db/etcupdate"]


@pytest.mark.parametrize("platform", list(Platform))
def test_only_freebsd_has_them(platform: Platform) -> None:
    said = Settings(service=Service(rc_conf=("x_enable=YES",)))
    jail = Jail("a", "p", Preset.CLASSIC, Manage.SESSION, platform, settings=said)
    text = (TEMPLATES / f"{platform}-classic.fstab.in").read_text()
    template = load_template(text, "template", platform)
    made = plan_jail(jail, Site("/jails", "/etc/layout", platform, "/etc/fstab"), template)
    found = {entry.path for entry in made.entries}
    ours = {entry.path for entry in files("a", ())}
    assert ours & found == (ours if platform is Platform.FREEBSD else set())
