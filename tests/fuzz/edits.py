"""Changes of an input: what a fuzzer without a view of the code does to seeds."""

from __future__ import annotations

import random
from collections.abc import Iterable

Edit = tuple[int, float, bytes]
"""What (0 put in, 1 take out, 2 overwrite, 3 repeat, 4 cut off), where (0 to 1), with which bytes."""
KINDS = 5
_MOST = 1 << 16


def applied(seed: bytes, edits: Iterable[Edit]) -> bytes:
    """Return the seed with these changes."""
    data = seed
    for kind, where, word in edits:
        at = int(where * len(data))
        end = at + max(1, len(word))
        match kind:
            case 0:
                data = data[:at] + word + data[at:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + word + data[end:]
            case 3:
                data = data[:end] + data[at:end] * 3 + data[end:]
            case _:
                data = data[:at]
        data = data[:_MOST]
    return data


def some(dice: random.Random, words: tuple[bytes, ...]) -> list[Edit]:
    """Return a few changes at random."""

    def bytes_of() -> bytes:
        return dice.choice(words) if dice.random() < 0.7 else dice.randbytes(dice.randrange(1, 9))

    many = dice.choice((1, 1, 2, 3, 5, 8))
    return [(dice.randrange(KINDS), dice.random(), bytes_of()) for _ in range(many)]
