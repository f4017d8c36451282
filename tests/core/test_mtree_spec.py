"""BSD.var.dist and its like: read as mtree(8) itself reads them, or refused with the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout.core.errors import LayoutError
from layout.core.mtree_spec import Planned, directories
from layout.core.release import is_newer, parse, sources, userland


def test_set_unset_flags_tags_and_escapes_are_understood() -> None:
    text = (
        "# comment\n/set type=dir uname=root gname=wheel mode=0755\n.   tags=package=runtime # the top\n"
        "  empty mode=0555 flags=schg\n  ..\n/unset uname gname\n  a\\040b uname=operator gid=5 mode=1777\n"
        "    deep\n    ..\n  ..\n  file type=file mode=0644\n..\n"
    )
    assert directories(text, "spec") == [
        Planned("", 0o755, "root", "wheel"),
        Planned("empty", 0o555, "root", "wheel", ("schg",)),
        Planned("a b", 0o1777, "operator", "5"),
        Planned("a b/deep", 0o755, "root", "wheel"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no directory"),
        ("a\n..\n", "line 1: found a, expected '.'"),
        (".\n..\n..\n", "line 3: found .."),
        (".\n a mode=9\n", "line 2: found mode '9'"),
        (".\n a sha256=0\n", "line 2: found the keyword 'sha256'"),
        (".\n a/b\n", "line 2: found 'a/b'"),
        (".\n a \\\n", "a continued line"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(LayoutError) as error:
        directories(text, "spec")
    assert said in str(error.value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = directories(text, "spec")
    except LayoutError:
        return
    assert all(".." not in one.path.split("/") and not one.path.startswith("/") for one in found)


def test_releases_are_compared_without_their_patch_level() -> None:
    assert parse("15.0-RELEASE-p12") == parse("15.0") == (15, 0)
    assert parse("16.0-CURRENT") == (16, 0)
    assert parse("rolling") is None
    assert is_newer("15.1-RELEASE", "15.0-RELEASE-p3")
    assert is_newer("15.0-RELEASE", "14.4-RELEASE")
    assert not is_newer("15.0-RELEASE-p3", "15.0-RELEASE")
    assert not is_newer("14.10-RELEASE", "15.0-RELEASE")
    assert is_newer("14.10-RELEASE", "14.9-RELEASE")
    assert not is_newer("", "15.0-RELEASE")


def test_a_base_says_its_release() -> None:
    script = '#!/bin/sh\nset -e\nUSERLAND_VERSION="14.4-RELEASE-p1"\n'
    assert userland(script, None) == "14.4-RELEASE-p1"
    assert userland(None, 'NAME=FreeBSD\nVERSION="15.0-RELEASE"\nVERSION_ID="15.0"\n') == "15.0"
    assert userland("@@", 'ID=small\nVERSION_ID="x"\n') == userland(None, None) == ""
    assert sources('TYPE="FreeBSD"\nREVISION="15.1"\nBRANCH="STABLE"\n') == "15.1-STABLE"
    assert sources('REVISION="15.1"\nBRANCH=${BRANCH_OVERRIDE:-RELEASE-p2}\n') == "15.1-RELEASE-p2"
    assert sources("") == ""
