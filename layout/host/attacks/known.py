"""All attacks by the names that layout.core.attacks gives them."""

from __future__ import annotations

from . import mounts, programs, reach, session, shared
from .frame import Exploit


def exploits() -> dict[str, Exploit]:
    """Return them."""
    return {**mounts.EXPLOITS, **programs.EXPLOITS, **reach.EXPLOITS, **session.EXPLOITS, **shared.EXPLOITS}
