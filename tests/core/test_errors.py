"""How errors are told: in one line, in lower case, and not with a list that never ends."""

from __future__ import annotations

import errno
import os

import pytest

from layout.core.errors import reason_of, some


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "permission denied"),
        (OSError("Timed Out"), "timed out"),
        (OSError(), "oserror()"),
    ],
)
def test_the_reason_is_never_empty(error: OSError, said: str) -> None:
    assert reason_of(error) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (9, "0, 1, 2 and 6 more")],
)
def test_a_list_names_a_few_and_counts_the_rest(count: int, said: str) -> None:
    assert some([str(number) for number in range(count)], 3) == said
