"""The one place that prints: results on stdout, everything else on stderr, hostile text escaped."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from layout.core.errors import LayoutError, printable

RED, GREEN, YELLOW, CYAN, BOLD = "31", "32", "33", "36", "1"
_COLOUR = re.compile(r"(\033\[[0-9]+m)")


class Output:
    """How this run talks: for people or programs, quietly or not."""

    def __init__(self, *, json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self.started = time.monotonic()
        self._shown = 0.0
        self._width = 0
        self._colour = (
            sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )

    def result(self, text: str) -> None:
        """Print a line of the result."""
        self.clear()
        sys.stdout.write(_lines(text) + "\n")

    def raw(self, text: str) -> None:
        """Print generated text, such as a table or a script, exactly as it is."""
        self.clear()
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))

    def document(self, data: Any) -> None:
        """Print one JSON document."""
        import msgspec

        self.clear()
        text = msgspec.json.format(msgspec.json.encode(data), indent=2)
        sys.stdout.write(text.decode("utf-8", "replace") + "\n")

    def note(self, text: str) -> None:
        """Print a remark on stderr, unless asked to be quiet."""
        if not self.quiet:
            self.clear()
            _tell(_lines(text) + "\n")

    def detail(self, text: str) -> None:
        """Print a remark on stderr when asked to be verbose."""
        if self.verbose:
            self.note(text)

    def error(self, error: LayoutError) -> None:
        """Print an error and its hint on stderr."""
        self.clear()
        _tell(f"layout: {error}\n")
        if error.hint:
            _tell(f"hint: {printable(error.hint)}\n")

    def paint(self, colour: str, text: str) -> str:
        """Return text in a colour when stdout is a terminal that wants it."""
        return f"\033[{colour}m{text}\033[0m" if self._colour else text

    def tell(self, label: str, done: int, total: int) -> None:
        """Show progress: on a terminal only, after the first second, ten times a second at most."""
        now = time.monotonic()
        if self.quiet or now - self.started < 1 or now - self._shown < 0.1 or not sys.stderr.isatty():
            return
        self._shown = now
        share = f" {100 * done // total:3d}%" if total else f" {done}" if done else ""
        text = printable(f"{label}{share}")[:100]
        _tell("\r" + text.ljust(self._width))
        self._width = len(text)

    def clear(self) -> None:
        """Take the progress line away before something else is printed."""
        if self._width:
            _tell("\r" + " " * self._width + "\r")
            self._width = 0


def _tell(text: str) -> None:
    """Write to stderr. Where that is full or gone, the work goes on: its exit status says how it ended."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        from layout.host import hostfiles

        hostfiles.discard(2)


def _lines(text: str) -> str:
    """Escape everything but the newlines and colours that we put there ourselves."""
    return "\n".join(_line(line) for line in text.split("\n"))


def _line(text: str) -> str:
    # Every other part is a colour.
    parts = enumerate(_COLOUR.split(text))
    return "".join(part if number % 2 else printable(part) for number, part in parts)


def plural(count: int, noun: str) -> str:
    """Return '1 change', '2 changes'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines with aligned columns; the last one is not padded."""
    if not rows:
        return []
    widths = [max(len(printable(row[i])) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [printable(cell).ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
            + [printable(row[-1])]
        ).rstrip()
        for row in rows
    ]
