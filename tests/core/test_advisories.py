"""Which corrections a kernel of FreeBSD has, by its name alone."""

from __future__ import annotations

import pytest

from layout.core.release import open_advisories

JAIL, UNLINK = "SA-26:66", "SA-26:42"


@pytest.mark.parametrize(
    ("kernel", "lacking"),
    [
        ("15.1-RELEASE-p4", []),
        ("15.1-RELEASE-p3", [JAIL]),
        ("15.1-RELEASE", [JAIL, UNLINK]),
        ("15.0-RELEASE-p14", []),
        ("15.0-RELEASE-p13", [JAIL]),
        ("15.0-RELEASE-p10", [JAIL, UNLINK]),
        ("14.5-RELEASE", [JAIL]),
        ("14.5-RELEASE-p1", []),
        ("14.4-RELEASE-p10", []),
        ("14.4-RELEASE-p6", [JAIL, UNLINK]),
        ("14.3-RELEASE-p16", [JAIL]),
        ("14.2-RELEASE-p99", [JAIL, UNLINK]),
        ("13.5-RELEASE-p9", [JAIL, UNLINK]),
        ("14.6-RELEASE", []),
        ("15.2-RELEASE", []),
        ("16.0-RELEASE", []),
    ],
)
def test_what_a_kernel_lacks(kernel: str, lacking: list[str]) -> None:
    found = open_advisories(kernel)
    assert found is not None
    assert [word for word in (JAIL, UNLINK) if any(word in one.name for one in found)] == lacking
    assert len(found) == len(lacking)


@pytest.mark.parametrize(
    "kernel", ["15.0-STABLE", "16.0-CURRENT", "15.1-RC2", "15.1-PRERELEASE", "6.1.0", ""]
)
def test_a_name_without_a_patch_level_does_not_tell(kernel: str) -> None:
    assert open_advisories(kernel) is None
