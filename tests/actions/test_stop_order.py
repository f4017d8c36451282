"""The order in which jails stop: whoever depends on another goes first."""

from __future__ import annotations

import pytest

from layout.actions.running import dependents_first
from layout.core.model import Jail, JailPlan, Manage, Platform, Preset, Tables
from layout.core.service import JailParameters, Settings


def plan(name: str, *depend: str) -> JailPlan:
    settings = Settings(jail=JailParameters(depend=depend))
    jail = Jail(name, name, Preset.HARDENED, Manage.SESSION, Platform.FREEBSD, settings=settings)
    return JailPlan(jail, (), Tables((), ()))


@pytest.mark.parametrize(
    ("plans", "order"),
    [
        ([plan("db"), plan("web", "db")], "web db"),
        ([plan("web", "db"), plan("db")], "web db"),
        ([plan("a"), plan("b", "a"), plan("c", "b")], "c b a"),
        ([plan("a"), plan("b")], "a b"),
        ([plan("a", "elsewhere")], "a"),
        ([plan("a", "b"), plan("b", "a")], "b a"),
    ],
    ids=["named last", "named first", "a chain", "free", "of one that is not stopped", "a loop"],
)
def test_dependents_stop_first(plans: list[JailPlan], order: str) -> None:
    assert [one.jail.name for one in dependents_first(plans)] == order.split()
