"""Text of POSIX sh: quoting, here-documents, and the functions of a script that it really calls."""

from __future__ import annotations

import re
from collections.abc import Iterable

from layout.core.errors import printable

_FUNCTION = re.compile(r"^([a-z_]+)\(\)", re.MULTILINE)
_WORD = re.compile(r"[a-z_]+")
_COMMENT = re.compile(r"^ *#.*$", re.MULTILINE)
_HARMLESS = re.compile(r"[A-Za-z0-9_./+:@%,=~\[\]-]+")


def quote(text: str) -> str:
    """Return text as one word of sh, in single quotes whatever it holds."""
    return "'" + text.replace("'", "'\\''") + "'"


def is_harmless(*words: str) -> bool:
    """Say whether read(1) gives these words back as they are."""
    return all(_HARMLESS.fullmatch(word) for word in words)


def comment(text: str) -> str:
    """Return text as one line of comment, whatever it holds."""
    return f"# {printable(text)}\n"


def indented(commands: Iterable[str]) -> str:
    """Indent commands, but not the text of their here-documents."""
    out = []
    for command in commands:
        first, newline, rest = command.partition("\n")
        if first.startswith("#"):
            out.append(f"    {first}\n")
            first, newline, rest = rest.partition("\n")
        out.append(f"    {first}{newline}{rest}")
    return "".join(out)


def fed(command: str, text: str) -> str:
    """Return a command that reads `text`, byte for byte, from standard input."""
    if not text:
        return f"{command} </dev/null\n"
    mark = _mark(text)
    if mark is None:
        return f"printf '%s' {quote(text)} | {command}\n"
    return f"{command} <<'{mark}'\n{text}{mark}\n"


def _mark(text: str) -> str | None:
    """Return what ends a here-document of this text; None for a text that cannot be one.

    dash 0.5.12 loses a byte over 0x7f in a line that begins as the mark does, so none may.
    """
    if not text.endswith("\n"):
        return None
    starts = {line[:1] for line in text.split("\n")}
    return next((mark for mark in ("END", "TEXT", "HERE", "DATA", "Z_", "_Z") if mark[0] not in starts), None)


def library(*texts: str) -> dict[str, str]:
    """Return functions by name from texts in which a blank line separates them."""
    blocks = [block.strip("\n") for text in texts for block in text.split("\n\n") if block.strip()]
    found = {}
    for block in blocks:
        name = _FUNCTION.search(block)
        if name is None:
            raise ValueError(f"no function: {block!r}")
        found[name[1]] = block
    return found


def called(functions: dict[str, str], *texts: str) -> list[str]:
    """Return those functions, in the order of the library, that the texts or other functions call."""
    wanted: set[str] = set()
    todo: list[Iterable[str]] = [_names(text) for text in texts]
    while todo:
        for name in todo.pop():
            if name in functions and name not in wanted:
                wanted.add(name)
                todo.append(_names(functions[name]))
    return [text for name, text in functions.items() if name in wanted]


def _names(text: str) -> set[str]:
    return set(_WORD.findall(_COMMENT.sub("", text)))
