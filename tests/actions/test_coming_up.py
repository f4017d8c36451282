"""A service is waited for until it works, has ended, or its time is out."""

from __future__ import annotations

import pytest

from layout.actions.coming_up import until_ready
from layout.core.errors import LayoutError
from layout.core.service import Ready

CHECKED = Ready(tcp="127.0.0.1:1", timeout=30)


def test_one_with_a_check_works_once_that_passes() -> None:
    answers = iter(["refused", "refused", None])
    assert until_ready(CHECKED, lambda left: next(answers), 0, 30) == ""
    assert next(answers, "all were asked") == "all were asked"


def test_what_is_said_when_time_is_out_is_the_reason() -> None:
    found = until_ready(Ready(tcp="127.0.0.1:1", timeout=0), lambda left: "refused", 0, 0)
    assert found == "refused"


def test_one_without_a_check_has_to_stay_for_a_while() -> None:
    looks: list[float] = []
    assert until_ready(Ready(timeout=0), looks.append, 0.01, 0.1) == ""
    assert len(looks) > 1


def test_one_that_has_ended_is_not_waited_for() -> None:
    def ended(left: float) -> str | None:
        raise LayoutError("a", "a service that ended at once", "one that goes on")

    with pytest.raises(LayoutError, match="ended at once"):
        until_ready(CHECKED, ended, 0, 0)
