"""How a running jail stands: what `start` made, what `status` shows."""

from __future__ import annotations

from typing import Literal

import msgspec


class ProcessId(msgspec.Struct, frozen=True):
    """A process that nobody can take another one for: the kernel gives numbers anew."""

    pid: int
    ticks: int
    """Start time in clock ticks since boot (proc_pid_stat(5))."""
    boot: str
    """Boot ID of the host."""


class RunRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `start` did on Linux, for `stop` and `recover`: ROOT/.layout/run/NAME.toml.

    It says what to look for and what to take away, never that something runs: that the system says.
    """

    engine: str
    grade: Literal["full", "weak"]
    since: str
    """RFC 3339, UTC."""
    mounted: bool
    """The jail was mounted by `start`, so `stop` unmounts it."""
    process: ProcessId | None = None
    """The engine's own process; None until it has been made, and for 'unit'."""
    unit: str = ""
    """Name of the systemd unit, for 'unit'."""
    addresses: tuple[str, ...] = ()
    """'INTERFACE ADDRESS/PREFIX' that `start` added, so `stop` removes them."""
    link: str = ""
    """The host's end of the jail's own link, which `start` made, so `stop` removes it."""
    table: str = ""
    """The table of nft(8) that `start` applied, so `stop` removes it."""
    notes: tuple[str, ...] = ()
    """What is not guaranteed, and why."""


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
