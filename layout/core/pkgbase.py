"""FreeBSD from packages (pkgbase): the repository of a release, and the words for pkg(8) that install it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from layout.core.errors import UsageError
from layout.core.release import parse

DEFAULT_SET = "FreeBSD-set-minimal-jail"
REPOSITORY = "FreeBSD-base"
KEYS = "/usr/share/keys"
"""Where a host keeps the fingerprints that it trusts."""
DATABASE = "/usr/lib/sysimage/pkg"
"""The package database of mroot, in mroot: a jail must not reach it, and its own is in /usr/local."""
FIRST = 15
"""The first major release that comes as packages."""

_SET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, slots=True)
class Packages:
    """What is to be installed, for which release and processor."""

    name: str
    """A set of freebsd-base(7), or another package."""
    major: int
    minor: int
    is_release: bool
    """Else STABLE or CURRENT, whose packages are built every few days."""
    processor: str

    @property
    def keys(self) -> str:
        """The directory of KEYS that has the fingerprints of the repository."""
        return f"pkgbase-{self.major}" if self.is_release else "pkg"


def packages(source: str, kernel: str, processor: str) -> Packages:
    """Return what 'pkgbase' or 'pkgbase:SET' means on a host with this kernel. Raises UsageError."""
    name = source.partition(":")[2] if ":" in source else DEFAULT_SET
    if not _SET.fullmatch(name):
        raise UsageError(f"--base {source}", repr(name), "the name of a set, such as " + DEFAULT_SET)
    release = parse(kernel)
    if release is None or release.major < FIRST:
        raise UsageError(
            f"--base {source}",
            f"FreeBSD {kernel}",
            f"FreeBSD {FIRST}.0 or later",
            "give base.txz of the release instead",
        )
    return Packages(name, release.major, release.minor, "-RELEASE" in kernel, processor)


def repository(wanted: Packages, root: str) -> str:
    """Return the configuration of the project's repository; `root` has the fingerprints already."""
    branch = "base_release_${VERSION_MINOR}" if wanted.is_release else "base_latest"
    return (
        f"{REPOSITORY}: {{\n"
        f'  url: "pkg+https://pkg.FreeBSD.org/${{ABI}}/{branch}",\n'
        '  mirror_type: "srv",\n'
        '  signature_type: "fingerprints",\n'
        f'  fingerprints: "{root}{KEYS}/{wanted.keys}",\n'
        "  enabled: yes\n"
        "}\n"
    )


def commands(wanted: Packages, root: str, repositories: str) -> tuple[tuple[str, ...], ...]:
    """Return the commands that install it into `root`; `repositories` is a directory with a configuration."""
    settings = (
        "IGNORE_OSVERSION=yes",
        f"ABI=FreeBSD:{wanted.major}:{wanted.processor}",
        f"VERSION_MAJOR={wanted.major}",
        f"VERSION_MINOR={wanted.minor}",
        "ASSUME_ALWAYS_YES=yes",
        f"FINGERPRINTS={root}{KEYS}/{wanted.keys}",
        f"PKG_DBDIR={DATABASE}",
    )
    pkg = ["pkg", "--rootdir", root, "--repo-conf-dir", repositories]
    for setting in settings:
        pkg += ["-o", setting]
    return (*pkg, "update", "-r", REPOSITORY), (*pkg, "install", "-r", REPOSITORY, wanted.name)
