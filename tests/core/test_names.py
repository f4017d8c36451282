"""Which names a jail can have."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout.core.errors import UsageError
from layout.core.names import RESERVED, check_name, is_name

BAD = [
    "",
    "0",
    "123",
    "A",
    "a b",
    "a\n",
    "a.b",
    "-rf",
    "_a",
    "../x",
    "a/b",
    ".",
    "*",
    "$x",
    "é",
    "a\0",
    "x" * 32,
]


@pytest.mark.parametrize("name", ["a", "ldap", "web-1", "x_y", "a0", "x" * 31])
def test_a_name_in_small_letters_is_one(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_what_a_shell_jail_or_path_would_take_for_something_else_is_none(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert caught.value.hint
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_name_of_the_layout_itself_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="layout uses itself"):
        check_name(name)


def test_a_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(UsageError) as caught:
        check_name("x" * 300)
    assert len(str(caught.value)) < 200


@given(st.text())
def test_the_whole_name_counts(name: str) -> None:
    assert is_name(name) == (re.fullmatch("[a-z][a-z0-9_-]{0,30}", name) is not None and name not in RESERVED)
