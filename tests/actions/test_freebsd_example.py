"""init --example on FreeBSD: into /usr/local of the jail alone, by its own numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.freebsd_host import FreeBSD, _freebsd  # noqa: F401

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.box

PROFILE = """
kind = "shared"
description = "for tests"
[freebsd]
packages = ["openldap26-server"]
[[freebsd.example.files]]
path = "usr/local/etc/openldap/slapd.conf"
text = "include x\\n"
mode = "0640"
group = "ldap"
[[freebsd.example.files]]
path = "etc/krb5.conf"
text = "[libdefaults]\\n"
"""


def prepared(freebsd: FreeBSD, group: str) -> Path:
    base = freebsd.small_base()
    (base / "etc").mkdir(exist_ok=True)
    (base / "etc/passwd").write_text("root:*:0:0::/root:/bin/sh\n")
    (base / "etc/group").write_text(f"wheel:*:0:\n{group}")
    profiles = freebsd.root / "etc/profiles"
    profiles.mkdir(parents=True)
    freebsd.root.chmod(0o700)
    (profiles / "ldap.toml").write_text(PROFILE)
    return base


def test_it_goes_into_the_jails_own_usr_local(freebsd: FreeBSD) -> None:
    base = prepared(freebsd, "ldap:*:389:\n")
    freebsd.does("init", "--base", base, "--example", "ldap")
    conf = freebsd.root / "s/ldap/usr-local/etc/openldap/slapd.conf"
    found = conf.stat()
    assert (conf.read_text(), found.st_uid, found.st_gid) == ("include x\n", 0, 389)
    assert found.st_mode & 0o7777 == 0o640
    assert (freebsd.root / "s/ldap/etc/krb5.conf").exists()
    assert not (freebsd.root / "j/mroot/etc").is_dir() or (freebsd.root / "j/mroot/etc").is_symlink()
    assert freebsd.told("init", "--example", "ldap")["changes"] == []


def test_without_its_packages_the_hint_says_how_to_get_them(freebsd: FreeBSD) -> None:
    base = prepared(freebsd, "")
    said = freebsd.fails("init", "--base", base, "--example", "ldap")
    assert "no ldap in its /etc/group" in said
    assert "layout manage ldap -- pkg install openldap26-server" in said
    assert not (freebsd.root / "s/ldap/usr-local/etc/openldap").exists()


PROGRAMS = {
    "bind": ("usr/local/sbin/rndc-confgen", "usr/local/bin/named-checkconf"),
    "ldap": ("usr/local/sbin/slapadd", "usr/sbin/chown"),
    "heimdal": ("usr/local/sbin/kstash", "usr/local/bin/kadmin"),
}


def test_the_shipped_examples_run_their_commands_in_the_session(freebsd: FreeBSD) -> None:
    """Each command is found where its profile says, and sees the files in the jail's own places."""
    base = freebsd.small_base()
    (base / "etc").mkdir(exist_ok=True)
    (base / "etc/passwd").write_text("root:*:0:0::/root:/bin/sh\nbind:*:53:53::/:/bin/sh\n")
    (base / "etc/group").write_text("wheel:*:0:\nbind:*:53:\nldap:*:389:\n")
    for paths in PROGRAMS.values():
        for path in paths:
            program = base / path
            program.parent.mkdir(parents=True, exist_ok=True)
            if not program.exists():
                program.write_text('#!/bin/sh\necho "${0##*/} $*" >>/var/ran\n')
                program.chmod(0o755)
    env = base / "usr/bin/env"
    env.parent.mkdir(parents=True, exist_ok=True)
    if not env.exists():
        env.symlink_to("/bin/busybox")
    freebsd.does("init", "--base", base, "--example", *PROGRAMS)
    for name, paths in PROGRAMS.items():
        ran = (freebsd.root / f"t/{name}/var/ran").read_text().splitlines()
        words = {path.rpartition("/")[2] for path in paths}
        assert {line.split()[0] for line in ran} == words
    assert (freebsd.root / "s/bind/usr-local/etc/namedb/named.conf").exists()
    assert freebsd.told("init", "--example", *PROGRAMS)["changes"] == []
