"""Numbers of users and groups by the jail's own passwd(5) and group(5), never by the host's."""

from __future__ import annotations

from typing import NamedTuple

_NO_ID = 2**32 - 1


class Account(NamedTuple):
    """A user as the jail knows it."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def ids(text: str) -> dict[str, int]:
    """Return numbers by name, of passwd(5) or group(5); lines that make no sense are left out."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        fields = line.split(":")
        number = _number(fields, 2)
        if number is not None:
            found.setdefault(fields[0], number)
    return found


def account(name: str, passwd: str, group: str) -> Account | None:
    """Return the user of this name with all of its groups, or None."""
    for line in passwd.splitlines():
        fields = line.split(":")
        uid, gid = _number(fields, 2), _number(fields, 3)
        if fields[0] == name and uid is not None and gid is not None:
            home = fields[5] if len(fields) > 5 and fields[5].startswith("/") else "/"
            return Account(uid, gid, _groups(name, group), home)
    return None


def _groups(name: str, text: str) -> tuple[int, ...]:
    found = []
    for line in text.splitlines():
        fields = line.split(":")
        gid = _number(fields, 2)
        if gid is not None and len(fields) > 3 and name in fields[3].split(","):
            found.append(gid)
    return tuple(found)


def _number(fields: list[str], index: int) -> int | None:
    if len(fields) <= index or not fields[index].isascii() or not fields[index].isdigit():
        return None
    number = int(fields[index][:11])
    return number if number < _NO_ID else None
