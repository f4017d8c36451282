"""`layout selftest`: real attacks on jails made for the purpose, where they can harm nothing."""

from __future__ import annotations

import os
from typing import assert_never

import msgspec

from layout.actions.telling import Progress
from layout.core.attacks import Counts, NotTried, Place, counts, passed
from layout.core.model import Platform
from layout.host.site import running_platform


class Document(msgspec.Struct, frozen=True):
    """What `layout selftest --json` prints."""

    ok: bool
    """All that must be blocked is."""
    platform: Platform
    kernel: str
    """Release and machine (uname(1))."""
    user_namespace: bool
    """It was run by an ordinary user, who has less to attack with."""
    places: tuple[Place, ...]
    not_tried: tuple[NotTried, ...]
    """What cannot be attacked here: it is neither passed nor failed."""
    counts: Counts


class Found(msgspec.Struct, frozen=True):
    """What comes out of the sandbox."""

    places: tuple[Place, ...]
    not_tried: tuple[NotTried, ...]


def selftest(tell: Progress) -> Document:
    """Run it. Raises LayoutError where no sandbox can be made: not run is not passed."""
    platform = running_platform()
    match platform:
        case Platform.LINUX:
            from layout.actions import selftest_linux

            found = selftest_linux.run(tell)
        case Platform.FREEBSD:
            from layout.actions import selftest_freebsd

            found = selftest_freebsd.run(tell)
        case _:
            assert_never(platform)
    every = [result for place in found.places for result in place.results]
    name = os.uname()
    return Document(
        passed(every) and bool(every),
        platform,
        f"{name.sysname} {name.release} {name.machine}",
        os.geteuid() != 0,
        found.places,
        found.not_tried,
        counts(every),
    )
