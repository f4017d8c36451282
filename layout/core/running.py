"""How a running jail stands: what `start` made, what `status` shows."""

from __future__ import annotations

from typing import Literal

import msgspec


class Running(msgspec.Struct, frozen=True):
    """A jail with a service in it, as the system says it is, not as a record remembers it."""

    engine: str
    """What keeps it: 'jail' on FreeBSD; 'nspawn', 'bwrap' or 'unit' on Linux."""
    grade: Literal["full", "weak"]
    """'weak' when the engine cannot give all guarantees here; `notes` say which are lacking."""
    pid: int | None = None
    """Process ID of the service on the host, where it has one."""
    jid: int | None = None
    """FreeBSD: ID of the jail."""
    since: str | None = None
    """Start time, RFC 3339, UTC."""
    uptime: int | None = None
    """Seconds since then."""
    log: str | None = None
    """Where its output goes, a file of the host."""
    notes: tuple[str, ...] = ()
    """What is not guaranteed, and why."""
