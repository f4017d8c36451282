"""All attacks by the names that layout.core.attacks gives them."""

from __future__ import annotations

from . import mounts, programs, reach, session, shared
from .frame import Attack


def functions() -> dict[str, Attack]:
    """Return them."""
    return {**mounts.ATTACKS, **programs.ATTACKS, **reach.ATTACKS, **session.ATTACKS, **shared.ATTACKS}
