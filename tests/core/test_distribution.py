"""MANIFEST of a release: what make-manifest.sh writes is read back, and nothing else is taken for it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout.core.distribution import Distribution, compare, parse
from layout.core.errors import LayoutError

GOOD = (
    f'base.txz\t{"a" * 64}\t29583\tbase\t"Base system (MANDATORY)"\ton\n'
    f'kernel-dbg.txz\t{"b" * 64}\t883\tkernel_dbg\t"Kernel debugging symbols"\toff\n'
)

sets = st.builds(
    Distribution,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9+._-]*", fullmatch=True),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(0, 10**9),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_]*", fullmatch=True),
    st.text(string.ascii_letters + " ()'\"äö"),
)


def write(one: Distribution) -> str:
    return f'{one.file}\t{one.sha256}\t{one.entries}\t{one.name}\t"{one.description}"\ton\n'


def test_a_manifest_is_read() -> None:
    found = parse(GOOD, "MANIFEST")
    assert list(found) == ["base.txz", "kernel-dbg.txz"]
    assert found["base.txz"] == Distribution("base.txz", "a" * 64, 29583, "base", "Base system (MANDATORY)")


@given(st.lists(sets, min_size=1, unique_by=lambda one: one.file))
def test_what_is_written_is_read_back(many: list[Distribution]) -> None:
    assert list(parse("".join(map(write, many)), "MANIFEST").values()) == many


@given(st.text())
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        parse(text, "MANIFEST")
    except LayoutError as error:
        assert (error.path, bool(error.hint)) == ("MANIFEST", True)


@given(st.integers(0, len(GOOD) - 1))
def test_a_manifest_cut_short_is_refused_or_misses_whole_lines_only(length: int) -> None:
    try:
        found = parse(GOOD[:length], "MANIFEST")
    except LayoutError:
        return
    assert "".join(map(write, found.values())) == GOOD[:length]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\t29583", "\t-1"),
        ("\t29583", "\t٣"),
        ("\t29583", ""),
        ("\ton\n", "\ton\r\n"),
        ("\ton\n", "\tyes\n"),
        ("a" * 64, "A" * 64),
        ("a" * 64, "a" * 63),
        ('"Base', "Base"),
        ("base.txz", "../base.txz"),
        ("base.txz", ""),
        ("\tbase\t", " base "),
        ("kernel-dbg.txz", "base.txz"),
        ("base.txz", "\nbase.txz"),
    ],
)
def test_a_malformed_line_is_refused(old: str, new: str) -> None:
    with pytest.raises(LayoutError, match=r"in line [12]"):
        parse(GOOD.replace(old, new, 1), "MANIFEST")


def test_another_digest_and_an_unknown_file_are_refused() -> None:
    found = parse(GOOD, "MANIFEST")
    compare(found, "MANIFEST", "base.txz", "/x/base.txz", "a" * 64)
    with pytest.raises(LayoutError, match=r"/x/base.txz: found sha256 b+, expected a+, as MANIFEST says"):
        compare(found, "MANIFEST", "base.txz", "/x/base.txz", "b" * 64)
    with pytest.raises(LayoutError, match=r"MANIFEST: found no b\.txz, only base\.txz, kernel-dbg\.txz"):
        compare(found, "MANIFEST", "b.txz", "/x/b.txz", "b" * 64)
