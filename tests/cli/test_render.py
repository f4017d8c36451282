"""`layout render`: what FreeBSD runs jails by, printed anywhere and before there is a jail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layout.core import jailconf


def test_jails_of_every_shipped_profile_are_rendered(cli, tmp_path: Path) -> None:
    done = cli("--root", tmp_path / "root", "render", "jail.conf", "bind", "ldap", "heimdal", "x")
    assert done.code == 0, done
    assert [block.name for block in jailconf.jails(done.out)] == ["bind", "ldap", "heimdal", "x"]
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("boot", ["jail", "none"])
def test_the_lines_of_rc_conf_say_who_starts(cli, tmp_path: Path, boot: str) -> None:
    etc = tmp_path / "root" / "etc"
    etc.mkdir(parents=True)
    (etc / "layout.toml").write_text(f'boot = "{boot}"\n')
    done = cli("--json", "--root", tmp_path / "root", "render", "rc.conf", "bind", "x")
    expected = 'jail_enable="YES"\njail_list="bind x"\n' if boot == "jail" else ""
    assert json.loads(done.out) == {"text": expected}


def test_a_jail_is_rendered_for_the_other_platform_as_it_was_made(cli, tmp_path: Path) -> None:
    """Its profile and preset, not those that its name would choose anew."""
    root = tmp_path / "root"
    state = root / ".layout/jails"
    state.mkdir(parents=True)
    for path in (root, root / ".layout", state):
        path.chmod(0o700)
    record = 'preset = "classic"\nmanage = "boot"\ncreated = "2026-01-01T00:00:00Z"\n'
    for name, profile, kind in (("web", "bind", "shared"), ("demo", "svc", "service")):
        words = f'name = "{name}"\nprofile = "{profile}"\nkind = "{kind}"\nplatform = "linux"\n'
        (state / f"{name}.toml").write_text(words + record)
    done = cli("--root", root, "render", "jail.conf", "web")
    assert done.code == 0, done
    assert 'ip4.addr = "lo0|127.0.3.53/32"' in done.out
    assert cli("--root", root, "render", "rc.conf", "demo").out == (
        'demo_svcj="YES"\ndemo_svcj_options="net_basic"\n'
    )
    refused = cli("--root", root, "render", "jail.conf", "demo")
    assert (refused.code, "a jail of kind service: demo" in refused.err) == (2, True)
    table = cli("--root", root, "fstab", "--platform", "freebsd", "web").out
    assert [line.split()[3] for line in table.splitlines()][:3] == ["ro", "ro", "rw"]


@pytest.mark.parametrize(
    ("kind", "name", "lacking"),
    [
        ("nft", "web", "web: the host's network, no network.gateway"),
        ("nft", "bind", "bind: the host's network, no network.gateway"),
        ("pf.conf", "bind", "bind: no redirect and no network.nat"),
        ("ipnat", "bind", "bind: no redirect and no network.nat"),
    ],
)
def test_rules_that_would_do_nothing_are_not_rendered(
    cli, tmp_path: Path, kind: str, name: str, lacking: str
) -> None:
    done = cli("--root", tmp_path / "root", "render", kind, name)
    assert (done.code, done.out) == (2, "")
    assert lacking in done.err
    assert cli("--root", tmp_path / "root", "render", kind if kind == "nft" else "pf.conf", "full").code == 0


@pytest.mark.parametrize(("profile", "there"), [("finger", True), ("named-thin", True), ("default", False)])
def test_a_script_of_rc_d_is_only_looked_for_there_where_the_kind_has_one(
    cli, tmp_path: Path, profile: str, there: bool
) -> None:
    done = cli("--root", tmp_path / "root", "render", "rc.d", profile, "--platform", "linux")
    assert done.code == 2
    hint = done.err.splitlines()[-1]
    assert hint == "hint: without a name it is the host's" + (
        "; --platform freebsd for a jail there" if there else ""
    )


def test_a_profile_for_linux_alone_is_answered_with_what_it_has_there(cli, tmp_path: Path) -> None:
    profiles = tmp_path / "root/etc/profiles"
    profiles.mkdir(parents=True)
    text = 'kind = "osless"\ndescription = "x"\n[linux.osless]\nprogram = "/opt/f"\npath = "f"\n'
    text += "uid = 1\ngid = 1\n"
    text += '[linux.service]\ncommand = ["/f"]\n'
    (profiles / "alone.toml").write_text(text, encoding="utf-8")
    done = cli("--root", tmp_path / "root", "render", "rc.d", "alone", "--platform", "linux")
    assert (done.code, "this one has unit" in done.err) == (2, True), done
