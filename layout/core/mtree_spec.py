"""Specifications of directories in mtree(5) format, nested, as FreeBSD keeps them in etc/mtree/BSD.*.dist."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from layout.core.errors import LayoutError
from layout.core.mtree import decode_name

_MODE = re.compile(r"0?[0-7]{3,4}")
_IGNORED = {"nochange", "optional", "ignore", "tags", "time", "size", "nlink"}


@dataclass(frozen=True, slots=True)
class Planned:
    """One directory that a specification wants."""

    path: str
    """Relative to the top, which is ''."""
    mode: int
    owner: str
    """A name of passwd(5), or a number."""
    group: str
    flags: tuple[str, ...] = ()
    """Names as in chflags(1)."""


def directories(text: str, name: str) -> list[Planned]:
    """Return the directories, parents first; `name` names the file in errors.

    Raises LayoutError for a line that is not understood: half a /var would be worse than none.
    """
    defaults: dict[str, str] = {}
    above: list[str] = []
    found: list[Planned] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = _words(line, f"{name}, line {number}")
        if not words:
            continue
        match words[0]:
            case "/set":
                defaults |= _keywords(words[1:])
            case "/unset":
                for word in words[1:]:
                    defaults.pop(word, None)
            case "..":
                if not above:
                    raise LayoutError(f"{name}, line {number}", "..", "no more of them than directories")
                above.pop()
            case first:
                keywords = defaults | _keywords(words[1:])
                if not above and first != ".":
                    raise LayoutError(f"{name}, line {number}", first, "'.' as the first entry")
                above.append(first)
                if keywords.get("type", "dir") != "dir":  # such a line has no '..' of its own
                    above.pop()
                    continue
                found.append(_planned("/".join(above[1:]), keywords, f"{name}, line {number}"))
    if not found:
        raise LayoutError(name, "no directory", "a specification of directories")
    return found


def _words(line: str, where: str) -> list[str]:
    if line.endswith("\\"):
        raise LayoutError(where, "a continued line", "one line for each entry")
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split = True
    lexer.escape = lexer.quotes = ""
    words = list(lexer)
    if words and words[0] not in {"..", "/set", "/unset"}:
        words[0] = decode_name(words[0].encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
        if words[0].startswith("/") or "/" in words[0] or "\0" in words[0]:
            raise LayoutError(where, repr(words[0]), "the name of a directory in the one above")
    return words


def _keywords(words: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _planned(path: str, keywords: dict[str, str], where: str) -> Planned:
    known = {"type", "mode", "uname", "gname", "uid", "gid", "flags"} | _IGNORED
    if unknown := sorted(set(keywords) - known):
        raise LayoutError(where, f"the keyword {unknown[0]!r}", f"one of {', '.join(sorted(known))}")
    mode = keywords.get("mode", "0755")
    if not _MODE.fullmatch(mode):
        raise LayoutError(where, f"mode {mode!r}", "an octal mode")
    flags = keywords.get("flags", "none")
    return Planned(
        path,
        int(mode, 8),
        keywords.get("uname", keywords.get("uid", "root")),
        keywords.get("gname", keywords.get("gid", "wheel")),
        () if flags in {"none", ""} else tuple(flags.split(",")),
    )
