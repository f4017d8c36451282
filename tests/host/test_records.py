"""Records: the short way to parse them says what tomllib says, or nothing."""

from __future__ import annotations

import tomllib

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st

from layout.host import records

_KEYS = st.sampled_from(["name", "profile", "preset", "created"])
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)


@given(st.dictionaries(_KEYS, _TEXTS, min_size=1))
@example({"name": 'a"b'})
@example({"name": "a\\u0041"})
def test_a_record_reads_as_tomllib_reads_it(record: dict[str, str]) -> None:
    """Whatever the values are."""
    assert records._plain(tomli_w.dumps(record)) in (record, None)


def test_a_record_of_a_jail_is_plain() -> None:
    """Else the short way would be of no use."""
    record = {"name": "bind", "profile": "bind", "created": "2026-01-02T03:04:05Z", "state": "ready"}
    assert records._plain(tomli_w.dumps(record)) == record


@pytest.mark.parametrize(
    "text",
    [
        'name = "a"\nname = "b"\n',
        'name = "a" # note\n',
        'name = "a"\n[table]\nkey = "b"\n',
        'name = "a"',
        'name = "a\\u0041"\n',
        "entries = 5\n",
        '"name" = "a"\n',
        'name = """a"""\n',
    ],
)
def test_what_is_not_plain_is_left_to_tomllib(text: str) -> None:
    """Duplicate keys, comments, tables, escapes, numbers."""
    assert records._plain(text) is None


@given(st.text(alphabet='na ="\\\n#x', max_size=40))
def test_the_short_way_never_differs(text: str) -> None:
    """On any text at all."""
    found = records._plain(text)
    if found:
        assert tomllib.loads(text) == found
