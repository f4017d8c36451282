"""The rows of the probes: what a jail takes, alone and among many."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.bench.report import Row
from tests.bench.tools import isolated, rounds, spawn

if TYPE_CHECKING:
    from tests.bench.rows import Bench

_EACH = 10
"""Jails that are probed in a round."""


def probe(bench: Bench) -> Iterator[Row]:
    """The probes of one jail, against the target and against the processes that they take."""
    few, many = _EACH, bench.jails
    told = {count: isolated(lambda count=count: _probe(bench, count)) for count in (few, many)}
    yield Row(f"probes of a jail, of {few}", "0.1 s", told[few]["ours"], [0.1], 1.0)
    yield Row(f"probes of a jail, of {many:,}", "0.1 s", told[many]["ours"], [0.1], 1.0)
    yield Row("the same", "three forks of the same process", told[many]["ours"], told[many]["forks"], 8.0)


def _probe(bench: Bench, count: int) -> dict[str, Any]:
    from layout.actions.probing import probe as action
    from layout.core.compare import Live
    from layout.host import forked, table

    site = bench.site(count)
    spawn(site.layout("mount"))
    context = site.context
    plans = context.jails([])[:_EACH]
    live = Live(table.read())

    def ours() -> float:
        start = time.perf_counter()
        for plan in plans:
            findings, tried = action(context, plan, live)
            assert not findings and tried > 100
        return (time.perf_counter() - start) / len(plans)

    def forks() -> float:
        start = time.perf_counter()
        for _ in range(3):
            os.waitpid(forked.fork(lambda: 0), 0)
        return time.perf_counter() - start

    return rounds(bench.rounds(7), ours=ours, forks=forks)
