"""Numbers of bytes as administrators write them: 64M, as humanize_number(3) has it."""

from __future__ import annotations

import re

_FORM = re.compile(r"([0-9]{1,15})([KMGTP]?)B?", re.IGNORECASE)
_POWERS = "KMGTP"


def parse(text: str) -> int | None:
    """Return the bytes of '512K', '64M', '1G' or '4096', None for anything else."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    power = _POWERS.index(found[2].upper()) + 1 if found[2] else 0
    return int(found[1]) << 10 * power


def show(count: int) -> str:
    """Return a number of bytes in the largest unit that leaves at least one."""
    for index in range(len(_POWERS), 0, -1):
        if count >= 1 << 10 * index:
            return f"{count >> 10 * index}{_POWERS[index - 1]}"
    return f"{count} bytes"
