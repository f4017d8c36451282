"""What an administrator's session has of its own in the place of the jail's t, on both platforms."""

from __future__ import annotations

COVERED = (
    "var/tmp",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/cache/pkg",
    "var/db/etcupdate",
    "var/db/pkg",
    "var/db/ports",
    "var/lib/apt",
    "var/lib/pam",
    "var/lib/ucf",
)
"""Of the jail's t: what tools of the administrator write and read again, or believe. A session has its own,
as the skeleton has them: package lists, answers to questions, what a file of /etc was before an edit."""

HOSTILE = "the jail's t is not what it was: look at it from outside, or use --sealed"
"""The hint when something of t cannot be mounted."""


def mode_of(path: str, there: int) -> int:
    """Return the permissions of the session's own directory; `there` are those of the jail's."""
    return 0o1777 if path == "var/tmp" else there & 0o755
