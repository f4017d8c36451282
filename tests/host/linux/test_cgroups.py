"""A control group of a jail's own: what is left of it goes, whoever is faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from layout.host.linux import cgroups

if TYPE_CHECKING:
    from pathlib import Path


def test_a_group_that_somebody_else_has_removed_is_no_error(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.mkdir()
    cgroups._rmdir(str(group))
    assert not group.exists()
    cgroups._rmdir(str(group))


def test_one_that_cannot_be_removed_is(tmp_path: Path) -> None:
    (tmp_path / "group").touch()
    with pytest.raises(NotADirectoryError):
        cgroups._rmdir(str(tmp_path / "group"))
