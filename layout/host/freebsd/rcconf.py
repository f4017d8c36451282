"""The host's rc.conf(5), read and written by sysrc(8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layout.core.errors import LayoutError
from layout.host.run import run


def values(names: Iterable[str], file: str = "") -> dict[str, str]:
    """Return what variables are, defaults included; those that are not set are left out.

    `file`: that one alone, in place of those of rc.conf(5). By one sysrc(8), which is slow to start. It ends
    with 1 when one is unknown, and prints the others.
    """
    wanted = tuple(names)
    if not wanted:
        return {}
    found = {}
    for line in run("sysrc", *_of(file), "-q", *wanted, ok=(0, 1)).stdout.splitlines():
        name, colon, value = line.partition(":")
        if colon and name in wanted:
            found[name] = value.removeprefix(" ")
    return found


def change(wanted: Mapping[str, str], file: str = "") -> None:
    """Set variables. Raises LayoutError for one that is not so afterwards: a later file may win."""
    for name, value in wanted.items():
        run("sysrc", *_of(file), f"{name}={value}")
    now = values(wanted, file)
    for name, value in wanted.items():
        if now.get(name) != value:
            raise LayoutError(
                f"rc.conf: {name}",
                repr(now.get(name, "")),
                repr(value),
                "another file of rc.conf(5) sets it too: sysrc -a",
            )


def remove(names: Iterable[str], file: str = "") -> list[str]:
    """Take variables out; return those that were there. Raises LayoutError for one that is still set."""
    there = list(values(names, file))
    for name in there:
        run("sysrc", *_of(file), "-x", name)
    for name, value in values(there, file).items():
        hint = "another file of rc.conf(5) sets it too: sysrc -a"
        raise LayoutError(f"rc.conf: {name}", repr(value), "no such variable", hint)
    return there


def _of(file: str) -> tuple[str, ...]:
    return ("-f", file) if file else ()
