"""sources.list(5) of a Debian host, both styles: which archives of a suite it uses itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

_OPTIONS = re.compile(r"\[[^\]]*\]")
_POCKETS = ("", "-updates", "-security")
"""What belongs to a suite: the release itself, and what corrects it."""


def mirrors(files: Mapping[str, str], suite: str) -> list[str]:
    """Return the archives of `suite` in these files, by name, as one-line entries without options.

    Only those with the component main: archives of others' software have components of their own.
    """
    wanted = {suite + pocket for pocket in _POCKETS}
    found: dict[str, None] = {}
    for name in sorted(files):
        entries = _deb822(files[name]) if name.endswith(".sources") else _one_line(files[name])
        for uri, suites, components in entries:
            for one in suites:
                if one in wanted and "main" in components and uri.startswith(("http://", "https://")):
                    found[f"deb {uri} {one} {' '.join(components)}"] = None
    return list(found)


_Entry = tuple[str, list[str], list[str]]


def _one_line(text: str) -> Iterator[_Entry]:
    for line in text.splitlines():
        words = _OPTIONS.sub(" ", line.partition("#")[0]).split()
        if len(words) > 3 and words[0] == "deb":
            yield words[1], [words[2]], words[3:]


def _deb822(text: str) -> Iterator[_Entry]:
    for fields in _stanzas(text.splitlines()):
        if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"])[0].lower() not in _FALSE:
            for uri in fields.get("uris", []):
                yield uri, fields.get("suites", []), fields.get("components", [])


_FALSE = {"no", "false", "0", "off", "without", "disable"}


def _stanzas(lines: Iterable[str]) -> Iterator[dict[str, list[str]]]:
    fields: dict[str, list[str]] = {}
    key = ""
    for line in [*lines, ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, key = {}, ""
        elif line[0] in " \t":
            fields.setdefault(key, []).extend(line.split())
        else:
            name, _, value = line.partition(":")
            key = name.strip().lower()
            fields[key] = value.split()
