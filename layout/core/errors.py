"""Every error that a user can cause, in one shape: path, found, expected, hint."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str | bytes) -> str:
    """Return text with control characters, surrogates and other unprintables escaped.

    Names below ROOT come from jails: they must never move a terminal's cursor or forge a line.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def reason_of(error: OSError) -> str:
    """Return what the system says of a failure, as `found` has it: in lower case."""
    return (error.strerror or str(error) or repr(error)).lower()


def some(words: Sequence[str], most: int) -> str:
    """Return the first `most` of these words, and how many there are besides: 'a, b and 3 more'."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


class LayoutError(Exception):
    """It is not as promised, or the work failed (exit status 1)."""

    exit_code = 1

    def __init__(self, path: str, found: str, expected: str, hint: str = "") -> None:
        super().__init__(path, found, expected, hint)
        self.path = path
        self.found = found
        self.expected = expected
        self.hint = hint

    def __str__(self) -> str:
        """One line: what is so at this path, and what was expected."""
        return printable(f"{self.path}: found {self.found}, expected {self.expected}")


class UsageError(LayoutError):
    """The words or files the user gave are wrong; nothing was changed (exit status 2)."""

    exit_code = 2
