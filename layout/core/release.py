"""Releases of FreeBSD: which userland a base has, and whether a kernel is old enough for it."""

from __future__ import annotations

import re
from typing import NamedTuple

_RELEASE = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})-[A-Z][A-Z0-9-]*(-p[0-9]+)?")
_VERSION = re.compile(r'^USERLAND_VERSION="([^"\n]*)"$', re.MULTILINE)
_ID = re.compile(r'^VERSION_ID="?([^"\n]*)"?$', re.MULTILINE)
_REVISION = re.compile(r'^REVISION="?([0-9.]+)"?$', re.MULTILINE)
_BRANCH = re.compile(r'^BRANCH="?(?:\$\{BRANCH_OVERRIDE:-)?([A-Z0-9-]+p?[0-9]*)\}?"?$', re.MULTILINE)


class Release(NamedTuple):
    """A release without its patch level: within one, kernel and userland go together."""

    major: int
    minor: int


def parse(text: str) -> Release | None:
    """Return the release of '15.0-RELEASE-p1' or '15.0', None for what is none."""
    found = _RELEASE.fullmatch(text) or re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})", text)
    return Release(int(found[1]), int(found[2])) if found else None


def userland(version_script: str | None, os_release: str | None) -> str:
    """Return what a base says it is, from bin/freebsd-version or usr/lib/os-release; "" when neither says."""
    for pattern, text in ((_VERSION, version_script), (_ID, os_release)):
        found = pattern.search(text or "")
        if found and parse(found[1]):
            return found[1]
    return ""


def sources(newvers: str) -> str:
    """Return the release of a source tree, from sys/conf/newvers.sh; "" when it does not say."""
    revision, branch = _REVISION.search(newvers), _BRANCH.search(newvers)
    return f"{revision[1]}-{branch[1]}" if revision and branch else ""


def is_newer(userland_release: str, kernel: str) -> bool:
    """Say whether a userland needs a newer kernel than this one; what is no release is not compared."""
    ours, theirs = parse(userland_release), parse(kernel)
    return ours is not None and theirs is not None and ours > theirs
