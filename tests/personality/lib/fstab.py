"""fstab(5) as getfsent(3) reads it (facts 1.1)."""

from __future__ import annotations

import os
import sys

from record import record

_LETTERS = {"s": " ", "t": "\t", "n": "\n", "\\": "\\"}


class Malformed(ValueError):
    """An escape that strunvis(3) does not know; nor do we know any that the fact sheet does not name."""


def strunvis(text: str) -> str:
    if "\\" not in text:
        return text
    import re

    escape_ = re.compile(r"\\([0-3][0-7]{2}|.|$)", re.DOTALL)

    def decoded(found: re.Match[str]) -> str:
        escape = found[1]
        if len(escape) == 3:
            return os.fsdecode(bytes([int(escape, 8)]))
        if escape in _LETTERS:
            return _LETTERS[escape]
        raise Malformed(text)

    # Octal escapes of one character in UTF-8 arrive one by one.
    return os.fsdecode(os.fsencode(escape_.sub(decoded, text)))


class Entry(record("spec file type options kind freq passno")):
    """One usable line; `kind` is its rw, rq, ro or sw."""

    __slots__ = ()

    @property
    def words(self) -> list[str]:
        return [word for word in self.options.split(",") if word]


def atoi(text: str) -> int:
    if text.isdecimal():
        return int(text)
    import re

    found = re.match(r"\s*([+-]?\d+)", text)
    return int(found[1]) if found else 0


def _kind(options: str) -> str | None:
    return next((word for word in options.split(",") if word in ("rw", "rq", "ro", "sw", "xx")), None)


def _chunks(data: bytes) -> list[bytes]:
    """Lines as fgets(buffer, 1024) returns them: longer ones fall apart."""
    found = []
    *lines, last = data.split(b"\n")
    for line in [*(one + b"\n" for one in lines), *([last] if last else [])]:
        found += [line[start : start + 1023] for start in range(0, len(line), 1023)]
    return found


def _parse(line: str) -> Entry | None:
    """One line; None for what is silently skipped; ValueError for what is reported."""
    if line.startswith("#") or not line.strip("\n"):
        return None
    body = line.rstrip("\n")
    if " " not in body and "\t" not in body:
        parts = body.split(":")
        if len(parts) != 5 or parts[2] not in ("rw", "rq", "ro", "sw", "xx"):
            raise ValueError(line)
        if parts[2] == "xx":
            return None
        fstype = "swap" if parts[2] == "sw" else "ufs"
        return Entry(parts[0], parts[1], fstype, parts[2], parts[2], atoi(parts[3]), atoi(parts[4]))
    fields = body.replace("\t", " ").strip(" ").split(" ")
    fields = [field for field in fields if field] or [""]
    if not fields[0] or fields[0].startswith("#"):
        return None
    if len(fields) < 4:
        raise ValueError(line)
    kind = _kind(fields[3])
    if kind is None:
        raise ValueError(line)
    if kind == "xx":
        return None
    numbers = [atoi(field) for field in fields[4:6]] + [0, 0]
    return Entry(strunvis(fields[0]), strunvis(fields[1]), fields[2], fields[3], kind, *numbers[:2])


def load(path: str | None) -> list[Entry]:
    """Every usable line of `path` (else $PATH_FSTAB, else /etc/fstab), in order; bad ones go to stderr."""
    path = path or os.environ.get("PATH_FSTAB") or "/etc/fstab"
    with open(path, "rb") as file:
        data = file.read()
    entries = []
    for number, chunk in enumerate(_chunks(data), 1):
        try:
            entry = _parse(os.fsdecode(chunk))
        except ValueError:
            print(f"fstab: {path}:{number}: Inappropriate file type or format", file=sys.stderr)
            continue
        if entry:
            entries.append(entry)
    return entries


def chosen(fstype: str, selection: str | None) -> bool:
    """-t TYPES: a comma list; the prefix "no" of the first negates the whole list."""
    if not selection:
        return True
    negated = selection.startswith("no")
    return (fstype in selection.removeprefix("no").split(",")) is not negated
