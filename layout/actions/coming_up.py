"""Wait until a service works, as its profile says how that is known."""

from __future__ import annotations

import time
from collections.abc import Callable

from layout.core.service import Ready


def until_ready(ready: Ready, look: Callable[[float], str | None], step: float, settle: float) -> str:
    """Look at a service every `step` seconds until it works; return "", or why it does not when time is out.

    `look` gets the seconds that are left. It says what is not so yet, None for nothing, and raises
    LayoutError when the service has ended. Without a ready check it works once it has been there for
    `settle` seconds.
    """
    deadline = time.monotonic() + ready.timeout
    since: float | None = None
    while True:
        why = look(deadline - time.monotonic())
        now = time.monotonic()
        if why is None:
            since = now if since is None else since
            if ready.is_checked or now - since >= settle:
                return ""
        elif now >= deadline:
            return why
        time.sleep(step)
