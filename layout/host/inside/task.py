"""What a confined child is to try, and what its platform does for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layout.core.probing import Attempt, Place

SECONDS = 2.0
"""What a child has for all of its attempts; what is left then has not been tried."""


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that is to be tried in one jail."""

    places: Sequence[Place]
    """Parents first."""
    writable: Sequence[str]
    readable: Sequence[str]
    programs: Sequence[str]
    special: Sequence[tuple[str, str]]
    """Path and place of FIFOs and sockets that were found from outside."""
    program: bytes
    """What is copied and executed: layout.core.tinyprogram."""


@dataclass(frozen=True, slots=True)
class Powers:
    """What each platform does in its own way, in the child."""

    powerless: Callable[[], None]
    """Give up, in a process that is to execute something, whatever could come back with a new user."""
    no_new_privileges: Callable[[], None]
    """Ignore setuid bits from here on."""
    privileged: Callable[[Sequence[Place]], Sequence[Attempt]]
    """Try what only the host may: A4, and of A6 whether processes outside are seen."""
