"""Every error that a user can cause, in one shape: path, found, expected, hint."""

from __future__ import annotations


def printable(text: str | bytes) -> str:
    """Return text with control characters, surrogates and other unprintables escaped.

    Names below ROOT come from jails: they must never move a terminal's cursor or forge a line.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


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
