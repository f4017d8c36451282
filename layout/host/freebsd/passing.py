"""A jail that is there for a moment, for somebody to attach to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from layout.core.errors import LayoutError
from layout.host.freebsd import jails, session
from layout.host.run import run


@contextlib.contextmanager
def jail(name: str, path: str, parameters: Sequence[str]) -> Iterator[int]:
    """Make a jail with these parameters of jail(8); yield its number, and remove it. Raises LayoutError."""
    try:
        run("jail", "-c", f"name={name}", f"path={path}", "persist", *parameters)
        made = jails.find(name)
        if made is None or made.path != path:
            raise LayoutError(f"jail {name}", "none", f"one with its root at {path}")
        yield made.jid
    finally:
        session.remove(name)
