"""The jail's /var in a session on FreeBSD, when it becomes something else while mount_nullfs(8) looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from layout.actions import manage_freebsd
from layout.core.errors import LayoutError
from layout.core.model import Mount
from layout.core.mountlist import Line
from layout.host.freebsd import mounts, table

if TYPE_CHECKING:
    from pathlib import Path

SHOWN = {
    "what was meant": ("var", "var", ""),
    "another place, and the table says so": ("other", "other", "other"),
    "another place under the name of the first": ("var", "other", "var"),
    "nothing": ("", "other", "no mount"),
}


@pytest.mark.parametrize("shown", SHOWN)
def test_only_the_directory_that_was_opened_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    special, really, found = SHOWN[shown]
    tmp_path = tmp_path.resolve()
    for name in ("var", "other"):
        (tmp_path / name).mkdir()
    target = tmp_path / "target"
    mount = Mount(str(tmp_path / "var"), str(target), "nullfs", ("rw",))
    lines = [Line(str(tmp_path / special), str(target), "nullfs", frozenset({"rw"}))] if special else []
    # What a mount shows is played by the directory itself, under another name.
    monkeypatch.setattr(mounts, "attach", lambda _: (tmp_path / really).rename(target))
    monkeypatch.setattr(table, "lines", lambda: lines)
    if not found:
        manage_freebsd._attach_var(mount)
        return
    with pytest.raises(LayoutError) as caught:
        manage_freebsd._attach_var(mount)
    assert found in caught.value.found
    assert "--sealed" in caught.value.hint
