"""Three-way merges of one file's text: line by line, or by name for passwd(5) and its kin."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import msgspec

LARGEST = 1 << 20
"""Bytes beyond which texts are not compared line by line."""


class Clash(Exception):
    """The two sides cannot both be had; the text says why."""


class Database(msgspec.Struct, frozen=True):
    """How the lines of a database are made: fields between colons, the first one the name."""

    number: int = -1
    """Index of the field that is allotted once: the uid of passwd(5), the gid of group(5)."""
    lists: tuple[int, ...] = ()
    """Indices of fields that are names with commas between them."""


DATABASES = {
    "etc/passwd": Database(2),
    "etc/master.passwd": Database(2),
    "etc/group": Database(2, (3,)),
    "etc/shadow": Database(),
    "etc/gshadow": Database(-1, (2, 3)),
    "etc/subuid": Database(1),
    "etc/subgid": Database(1),
}
"""By path below s."""


def merge_text(path: str, old: bytes, new: bytes, ours: bytes) -> bytes:
    """Return what `ours` becomes when what changed from `old` to `new` is brought into it.

    Raises Clash.
    """
    if max(map(len, (old, new, ours))) > LARGEST:
        raise Clash("changed on both sides, and too large to merge")
    if any(b"\0" in text for text in (old, new, ours)):
        raise Clash("changed on both sides, and not a text")
    database = DATABASES.get(path)
    if database is not None:
        return _merge_database(database, old, new, ours)
    merged = merge_lines(
        *(text.splitlines(keepends=True) for text in (old, new, ours)),
    )
    return b"".join(merged)


# -- line by line -----------------------------------------------------------------------------------------


def merge_lines(old: Sequence[bytes], new: Sequence[bytes], ours: Sequence[bytes]) -> list[bytes]:
    """Merge as diff3(1) does: every stretch between lines that all three have changed on one side only.

    Raises Clash when both sides changed the same stretch.
    """
    merged: list[bytes] = []
    at = (0, 0, 0)
    for o, n, c, length in _common(old, new, ours):
        stretch = (old[at[0] : o], new[at[1] : n], ours[at[2] : c])
        merged += _stretch(*stretch, line=at[2] + 1)
        merged += old[o : o + length]
        at = (o + length, n + length, c + length)
    return merged


def _stretch(old: Sequence[bytes], new: Sequence[bytes], ours: Sequence[bytes], line: int) -> Sequence[bytes]:
    if list(ours) == list(old) or list(ours) == list(new):
        return new
    if list(new) == list(old):
        return ours
    raise Clash(f"changed on both sides near line {line}")


def _common(
    old: Sequence[bytes], new: Sequence[bytes], ours: Sequence[bytes]
) -> list[tuple[int, int, int, int]]:
    """Return (index in old, in new, in ours, length) of what all three have, the empty end last."""
    left = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    right = SequenceMatcher(None, old, ours, autojunk=False).get_matching_blocks()
    found = []
    i = j = 0
    while i < len(left) and j < len(right):
        o1, n, length1 = left[i]
        o2, c, length2 = right[j]
        start, end = max(o1, o2), min(o1 + length1, o2 + length2)
        if start < end:
            found.append((start, n + start - o1, c + start - o2, end - start))
        if o1 + length1 <= o2 + length2:
            i += 1
        else:
            j += 1
    return [*found, (len(old), len(new), len(ours), 0)]


# -- by name ----------------------------------------------------------------------------------------------


def _merge_database(database: Database, old: bytes, new: bytes, ours: bytes) -> bytes:
    before, theirs, mine = (_parse(text) for text in (old, new, ours))
    merged: dict[bytes, bytes] = {}
    for name, line in mine.items():
        kept = _merge_line(database, name, before.get(name), theirs.get(name), line)
        if kept is not None:
            merged[name] = kept
    for name, line in theirs.items():
        if name not in mine and name not in before:  # what the jail's administrator took out stays out
            merged[name] = line
    if database.number >= 0:
        _refuse_doubles(database.number, merged, theirs, mine)
    return b"".join(line + b"\n" for line in merged.values())


def _parse(text: bytes) -> dict[bytes, bytes]:
    """Return lines by name; comments, and what else has no colon, by their own text."""
    lines: dict[bytes, bytes] = {}
    for line in text.splitlines():
        name = line.partition(b":")[0] if b":" in line and not line.startswith(b"#") else b"\0" + line
        if name in lines and line.strip() and not line.startswith(b"#"):
            raise Clash(f"{name.decode('utf-8', 'replace')} in it twice")
        lines[name] = line
    return lines


def _merge_line(
    database: Database, name: bytes, old: bytes | None, new: bytes | None, ours: bytes
) -> bytes | None:
    if new in (old, ours):
        return ours
    if ours == old:
        return new
    text = name.lstrip(b"\0").decode("utf-8", "replace")
    if new is None:
        raise Clash(f"{text} changed here and removed from the base")
    fields = [line.split(b":") if line is not None else None for line in (old, new, ours)]
    was, theirs, mine = fields
    assert theirs is not None
    assert mine is not None
    if was is None:
        if len(theirs) == len(mine):
            was = [
                b"" if index in database.lists else theirs[index] if theirs[index] == mine[index] else b"\0"
                for index in range(len(mine))
            ]
        else:
            raise Clash(f"{text} added on both sides, differently")
    if not len(was) == len(theirs) == len(mine):
        raise Clash(f"{text} changed on both sides")
    merged = []
    for index, (o, n, c) in enumerate(zip(was, theirs, mine, strict=True)):
        if n in (o, c):
            merged.append(c)
        elif c == o:
            merged.append(n)
        elif index in database.lists:
            merged.append(_merge_list(o, n, c))
        else:
            raise Clash(f"{text} changed on both sides")
    return b":".join(merged)


def _merge_list(old: bytes, new: bytes, ours: bytes) -> bytes:
    before, theirs, mine = ([name for name in text.split(b",") if name] for text in (old, new, ours))
    kept = [name for name in mine if name in theirs or name not in before]
    return b",".join([*kept, *(name for name in theirs if name not in before and name not in mine)])


def _refuse_doubles(
    index: int, merged: dict[bytes, bytes], theirs: dict[bytes, bytes], mine: dict[bytes, bytes]
) -> None:
    """Refuse a number that the merge gives to two names; toor and root, which share theirs, may."""
    sides = [_numbers_of(index, lines) for lines in (theirs, mine)]
    numbers: dict[bytes, bytes] = {}
    for name, number in _numbers_of(index, merged).items():
        first = numbers.setdefault(number, name)
        if first != name and not any(side.get(first) == side.get(name) == number for side in sides):
            names = " and ".join(one.decode("utf-8", "replace") for one in (first, name))
            raise Clash(f"number {number.decode('utf-8', 'replace')} for both {names}")


def _numbers_of(index: int, lines: dict[bytes, bytes]) -> dict[bytes, bytes]:
    split = {name: line.split(b":") for name, line in lines.items() if not name.startswith(b"\0")}
    return {name: fields[index] for name, fields in split.items() if len(fields) > index and fields[index]}
