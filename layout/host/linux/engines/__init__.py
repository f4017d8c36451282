"""Programs that keep a jail: told so much that all give the same guarantees, or say what is lacking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layout.core.units import RunDirectory


@dataclass(frozen=True, slots=True)
class Spec:
    """What runs in a jail, decided, for any engine."""

    name: str
    mountpoint: str
    """Absolute path of the jail's root on the host, with its mounts; the engine sees them at stage.JAIL."""
    command: tuple[str, ...]
    environment: Mapping[str, str]
    capabilities: tuple[str, ...]
    """In lower case, without 'cap_'."""
    hostname: str
    network: bool
    """It has the host's network; else none but a loopback of its own."""
    directories: tuple[RunDirectory, ...]
    shift: int
    """First number of the user namespace on the host; 0 when root of the jail is root of the host."""
    setuid: bool = False
    """Setuid programs of the jail work, if the engine can have that: it is a world of its own."""
