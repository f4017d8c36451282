"""What each design does in its own way: one object for each kind of jail."""

from __future__ import annotations

from typing import assert_never

from layout.actions.kinds.design import Design
from layout.core.model import Kind


def design_of(kind: Kind) -> Design:
    """Return what a kind of jail does in its own way; only its module is loaded."""
    match kind:
        case Kind.SHARED:
            return Design()
        case Kind.FULL:
            from layout.actions.kinds.full import FullDesign

            return FullDesign()
        case Kind.THIN:
            from layout.actions.kinds.thin import Thin

            return Thin()
        case Kind.OSLESS:
            from layout.actions.kinds.osless import Osless

            return Osless()
        case Kind.SERVICE:
            from layout.actions.kinds.service import Service

            return Service()
        case _:
            assert_never(kind)
