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


class Advisory(NamedTuple):
    """A weakness of the kernel that matters to jails of this layout, and where it is corrected."""

    name: str
    what: str
    fixed: dict[Release, int]
    """The patch level of each release from which on it is corrected. Newer releases have the correction."""


ADVISORIES = (
    Advisory(
        "FreeBSD-SA-26:66.jail",
        "descriptors passed between jails that share a nullfs lead out of them",
        {Release(14, 4): 10, Release(14, 5): 1, Release(15, 0): 14, Release(15, 1): 4},
    ),
    Advisory(
        "FreeBSD-SA-26:42 (CVE-2026-49421)",
        "unlinkat(2) ignores AT_RESOLVE_BENEATH",
        {Release(14, 3): 16, Release(14, 4): 7, Release(15, 0): 11, Release(15, 1): 1},
    ),
)
"""Source: https://www.freebsd.org/security/advisories/."""
_LEVEL = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})-RELEASE(?:-p([0-9]{1,5}))?")


def open_advisories(kernel: str) -> list[Advisory] | None:
    """Return what a kernel such as 15.0-RELEASE-p3 lacks; None when its name does not say that.

    A branch between releases, -STABLE or -CURRENT, has no patch level.
    """
    found = _LEVEL.fullmatch(kernel)
    if found is None:
        return None
    release, level = Release(int(found[1]), int(found[2])), int(found[3] or 0)
    return [one for one in ADVISORIES if level < _needed(release, one)]


def _needed(release: Release, advisory: Advisory) -> float:
    """Return the patch level that a release needs; of one that is no longer looked after, none will do."""
    if release in advisory.fixed:
        return advisory.fixed[release]
    of_branch = [known for known in advisory.fixed if known.major == release.major]
    newest = max(of_branch or advisory.fixed)
    return 0 if release > newest else float("inf")
