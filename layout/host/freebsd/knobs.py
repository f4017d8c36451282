"""Settings of FreeBSD's kernel, by sysctl(8)."""

from __future__ import annotations

from collections.abc import Sequence

from layout.host.run import run


def settings(names: Sequence[str]) -> dict[str, str]:
    """Return the values of those names that this kernel has. Raises LayoutError."""
    done = run("sysctl", "-i", *names, ok=range(256))
    found = {}
    for line in done.stdout.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() in names:
            found[name.strip()] = value.strip()
    return found
