"""Who keeps a mount or a directory busy: jails by jls(8), processes by fstat(1)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from layout.core.errors import LayoutError, printable, some
from layout.host.run import run, which

_SHOWN = 5
_COLUMNS = 3
"""Of fstat(1): USER CMD PID come first."""


def below(paths: Sequence[str]) -> list[str]:
    """Return "jail NAME" for each jail whose root is at or below one of these paths. Raises LayoutError."""
    return [
        f"jail {printable(name)}"
        for name, root in _jails()
        if any(root == path or root.startswith(f"{path}/") for path in paths)
    ]


def _jails() -> list[tuple[str, str]]:
    """Return name and root of every running jail, as the kernel has them."""
    done = run("jls", "--libxo=json", "jid", "name", "path")
    try:
        rows = json.loads(done.stdout)["jail-information"]["jail"]
        return [(str(row.get("name") or row["jid"]), str(row["path"])) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LayoutError("jls --libxo=json", repr(done.stdout[:80]), "a list of jails") from None


def of(mount_point: str) -> list[str]:
    """Return who may keep this mount busy: jails with their root in it, processes with a file of it open."""
    found = below([mount_point])
    if which("fstat") is not None:
        rows = [line.split() for line in run("fstat", "-f", mount_point, ok=range(256)).stdout.splitlines()]
        found += dict.fromkeys(
            f"{printable(row[1])} (process {row[2]})"
            for row in rows
            if len(row) >= _COLUMNS and row[2].isdigit()
        )
    return found


def describe(found: Sequence[str]) -> str:
    """Return them as a few words; "" for nobody."""
    return some(found, _SHOWN)
