"""FreeBSD from packages: the words for pkg(8) are those that work from a host of any release."""

from __future__ import annotations

import pytest

from layout.core.errors import UsageError
from layout.core.pkgbase import commands, packages, repository

ROOT = "/jails/j/.new-mroot"


def test_a_release_is_installed_from_its_own_repository() -> None:
    wanted = packages("pkgbase", "15.0-RELEASE-p3", "amd64")
    update, install = commands(wanted, ROOT, "/jails/.layout/pkgbase")
    common = (
        "pkg --rootdir /jails/j/.new-mroot --repo-conf-dir /jails/.layout/pkgbase -o IGNORE_OSVERSION=yes "
        "-o ABI=FreeBSD:15:amd64 -o VERSION_MAJOR=15 -o VERSION_MINOR=0 -o ASSUME_ALWAYS_YES=yes "
        "-o FINGERPRINTS=/jails/j/.new-mroot/usr/share/keys/pkgbase-15 -o PKG_DBDIR=/usr/lib/sysimage/pkg"
    )
    assert " ".join(update) == f"{common} update -r FreeBSD-base"
    assert " ".join(install) == f"{common} install -r FreeBSD-base FreeBSD-set-minimal-jail"
    text = repository(wanted, ROOT)
    assert '"pkg+https://pkg.FreeBSD.org/${ABI}/base_release_${VERSION_MINOR}"' in text
    assert 'fingerprints: "/jails/j/.new-mroot/usr/share/keys/pkgbase-15"' in text


def test_what_is_between_releases_comes_from_the_latest_packages() -> None:
    wanted = packages("pkgbase:FreeBSD-set-base-jail", "16.0-CURRENT", "aarch64")
    assert "base_latest" in repository(wanted, ROOT)
    assert f'"{ROOT}/usr/share/keys/pkg"' in repository(wanted, ROOT)
    assert commands(wanted, ROOT, "/x")[1][-1] == "FreeBSD-set-base-jail"


@pytest.mark.parametrize(
    ("source", "kernel", "said"),
    [
        ("pkgbase", "14.4-RELEASE", "expected FreeBSD 15.0 or later"),
        ("pkgbase", "6.1.0-13-amd64", "expected FreeBSD 15.0 or later"),
        ("pkgbase:", "15.0-RELEASE", "the name of a set"),
        ("pkgbase:--x", "15.0-RELEASE", "the name of a set"),
        ("pkgbase:a b", "15.0-RELEASE", "the name of a set"),
    ],
)
def test_what_cannot_be_is_refused(source: str, kernel: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        packages(source, kernel, "amd64")
    assert said in str(error.value)
