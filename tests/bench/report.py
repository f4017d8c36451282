"""One row of the table, and how it is printed."""

from __future__ import annotations

import os
import platform
import statistics
import time
from dataclasses import dataclass, field


@dataclass
class Row:
    """What was measured against what. `ours` and `floor` are samples of one unit."""

    what: str
    against: str
    ours: list[float]
    floor: list[float]
    target: float
    """Largest ratio that is still good."""
    unit: str = "s"
    per: float = 1
    """How many things one sample holds: the table shows one of them."""
    note: str = field(default="")

    @property
    def ratio(self) -> float:
        """Median of ours to the median of the floor's."""
        return statistics.median(self.ours) / statistics.median(self.floor)

    @property
    def met(self) -> bool:
        """Whether the target holds."""
        return self.ratio <= self.target


def header() -> str:
    """Return the head of the table with what it depends on."""
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, Linux {platform.release()}, {platform.machine()}, "
        f"{os.cpu_count()} CPUs, Python {platform.python_version()}\n\n"
        "| what | floor | floor takes | ours takes | ratio | target | |\n"
        "|---|---|---|---|---|---|---|"
    )


def line(row: Row) -> str:
    """Return the row as a line of Markdown."""
    floor, ours = (amount(statistics.median(s) / row.per, row.unit) for s in (row.floor, row.ours))
    verdict = "met" if row.met else "**missed**"
    cells = (row.what, row.against, floor, ours, ratio(row.ratio), ratio(row.target), verdict)
    return f"| {' | '.join(cells)} |"


def spread(row: Row) -> str:
    """Return how far the samples lie apart: what the ratio is worth."""

    def one(samples: list[float]) -> str:
        least, most = (amount(extreme / row.per, row.unit) for extreme in (min(samples), max(samples)))
        return f"{least} to {most} n={len(samples)}"

    return f"bench:   floor {one(row.floor)}; ours {one(row.ours)}{'; ' + row.note if row.note else ''}"


def ratio(value: float) -> str:
    """Return 1.23x, or 1/45 for what is far below one."""
    return f"{value:.2f}x" if value > 0.19 else f"1/{1 / value:.0f}"


def amount(value: float, unit: str) -> str:
    """Return a number with a unit that suits it."""
    if unit != "s":
        return f"{value:,.0f} {unit}"
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1 or name == "us":
            return f"{value * factor:.3g} {name}"
    raise AssertionError
