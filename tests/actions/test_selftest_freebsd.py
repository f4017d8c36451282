"""The selftest on FreeBSD, as far as a stand-in can tell the truth: nothing is left of it, and what it could
not run it does not call blocked."""

from __future__ import annotations

import json

import pytest

from layout.core.attacks_freebsd import JAIL, patch_level
from tests.freebsd_host import FreeBSD, _freebsd  # noqa: F401


@pytest.mark.parametrize(
    ("kernel", "verdict"),
    [
        ("15.1-RELEASE-p4", "blocked"),
        ("15.1-RELEASE-p3", "worked"),
        ("15.0-RELEASE-p14", "blocked"),
        ("15.0-RELEASE", "worked"),
        ("14.4-RELEASE-p10", "blocked"),
        ("14.3-RELEASE-p20", "worked"),
        ("16.0-RELEASE", "blocked"),
        ("15.0-STABLE", "not run"),
    ],
)
def test_a_kernel_is_judged_by_its_patch_level(kernel: str, verdict: str) -> None:
    assert patch_level(kernel).verdict == verdict


@pytest.mark.box
def test_what_is_not_known_to_be_blocked_fails_and_nothing_is_left(freebsd: FreeBSD) -> None:
    before = freebsd.ok("mount -p; jls; ls -d /tmp/layout-selftest-* 2>/dev/null || true")
    done = freebsd.layout("--json", "selftest")
    assert done.code == 1, done
    after = freebsd.ok("mount -p; jls; ls -d /tmp/layout-selftest-* 2>/dev/null || true")
    assert after == before
    document = json.loads(done.out)
    assert (document["ok"], document["platform"]) == (False, "freebsd")
    jail, manage = document["places"]
    assert {one["id"] for one in jail["results"]} == {*(one.id for one in JAIL), "patch-level"}
    assert {one["verdict"] for one in manage["results"]} == {"not run"}
    verdicts = {one["id"]: one["verdict"] for one in jail["results"]}
    assert verdicts.pop("patch-level") == patch_level(freebsd.ok("uname -r").strip()).verdict
    assert {"worked", "odd"}.isdisjoint(verdicts.values()), jail
    blocked = [
        "write-base",
        "write-s",
        "link",
        "mount",
        "handle",
        "device",
        "execute",
        "setuid",
        "chroot",
        "signal",
    ]
    assert {verdicts[name] for name in blocked} == {"blocked"}
    # What the stand-in has no call for is not run, and that alone keeps it from passing.
    assert {verdicts[name] for name in ("kernel", "jail", "flags")} == {"not run"}
