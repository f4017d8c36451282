"""Lines of mtree(5): what is written for a tree is what is read back."""

from __future__ import annotations

import pytest

from layout.core import mtree


@pytest.mark.parametrize(
    "name", ["plain", "with space", "glob*[x]", "back\\slash", "new\nline", "\udcff", "ä#="]
)
def test_any_name_survives_a_manifest(name: str) -> None:
    lines = [
        mtree.line(f"d/{name}", "file", 0o640, 1, 2, 3, "0" * 64),
        mtree.line(f"e/{name}", "link", target=f"../{name}"),
        mtree.line(f"f/{name}", "dir", 0o1777),
    ]
    data = mtree.HEADER + "".join(f"{line}\n" for line in lines).encode()
    found = list(mtree.parse_manifest(data, "manifest"))
    assert [entry.path for entry in found] == [f"d/{name}", f"e/{name}", f"f/{name}"]
    assert (found[0].mode, found[0].uid, found[0].gid, found[0].size) == (0o640, 1, 2, 3)
    assert found[1].target == f"../{name}"
    assert found[2].mode == 0o1777
