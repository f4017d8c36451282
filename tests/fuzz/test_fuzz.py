"""Thousands of damaged inputs for all that reads words of others: refused in words, with no traceback."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.edits import KINDS, applied
from tests.fuzz.targets import TARGETS, Target, tried

EXAMPLES = 120
COUNTS: Counter[str] = Counter()


def inputs(one: Target) -> st.SearchStrategy[bytes]:
    edit = st.tuples(
        st.integers(0, KINDS - 1), st.floats(0, 1), st.sampled_from(one.words) | st.binary(max_size=8)
    )
    changed = st.builds(applied, st.sampled_from(one.seeds), st.lists(edit, max_size=8))
    return st.one_of(changed, changed, changed, st.binary(max_size=200))


@pytest.fixture(scope="module", autouse=True)
def _counted():
    yield
    refused = COUNTS["all"] - COUNTS["taken"]
    print(f"fuzz: {COUNTS['all']} inputs, {COUNTS['taken']} taken, {refused} refused, 0 crashes")


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_is_taken(name: str) -> None:
    """The control: at least one input gets all the way through, so refusing everything is no answer."""
    assert any(tried(TARGETS[name], seed) for seed in TARGETS[name].seeds)


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_read_is_taken_or_refused_in_words(name: str) -> None:
    one = TARGETS[name]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs(one))
    def each(data: bytes) -> None:
        COUNTS["all"] += 1
        COUNTS["taken"] += tried(one, data)

    each()


def test_a_crash_is_seen() -> None:
    """The control: what raises anything else is no refusal."""

    def careless(data: bytes) -> None:
        if b"\xff" in data:
            raise IndexError("a mistake")

    one = Target(careless, (b"abc",), (b"\xff",))

    @settings(max_examples=500, deadline=None, database=None)
    @given(inputs(one))
    def each(data: bytes) -> None:
        tried(one, data)

    with pytest.raises(IndexError):
        each()


FOUND = {
    "mountinfo": b"36 35 98: /n rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n",
    "devfs rules": b"100 include include1\n",
    "mtree specs": b"\x80",
    "config": b'boot = "/s\x92"\n',
    "profiles": b'kind = "\xc4"\n',
    "records": b'name = "\x9c"\nstate = "\x9c"\n',
    "mount -v --libxo=json": b'{"mount": {"mounted": "/b"}}',
    "manifests": b"#mtree\n# hardlink ./d ./a type=file size=1\n",
}
"""Inputs that once were a crash."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_a_crash_is_none(name: str) -> None:
    tried(TARGETS[name], FOUND[name])
