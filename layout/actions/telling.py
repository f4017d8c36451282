"""How commands tell the administrator what they are doing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

Tell = Callable[[str], None]
"""Takes a remark."""

Progress = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done and how much there is; 0 and 0: nobody knows."""

Noting = Callable[[str], AbstractContextManager[None]]
"""Makes a context in which what cannot be looked at is noted, under this name, and is no error."""
