"""Names of jails: what is allowed, and which names are taken by the layout itself."""

from __future__ import annotations

import re

from layout.core.errors import UsageError

# fullmatch, not match: re.match with "$" accepts a trailing newline.
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")

RESERVED = frozenset({"mroot", "skel", "manage", "base", "layout", "all", "host", "etc", "self"})


def is_name(name: str) -> bool:
    """Say whether `name` can be the name of a jail."""
    return _NAME.fullmatch(name) is not None and name not in RESERVED


def check_name(name: str) -> str:
    """Return `name` if it can be the name of a jail.

    All-digit names would be taken for a jid and dots for the hierarchy separator (jail(8)); a leading
    dash for an option. Raises UsageError.
    """
    if name in RESERVED:
        raise UsageError(
            name, "a name that layout uses itself", "another name", f"reserved: {', '.join(sorted(RESERVED))}"
        )
    if not is_name(name):
        shown = name if len(name) <= 40 else name[:40] + "..."
        raise UsageError(
            repr(shown),
            "a name that no jail can have",
            "a lower-case letter, then up to 30 of a-z 0-9 _ -",
            "choose a name such as 'ldap' or 'web-1'",
        )
    return name
