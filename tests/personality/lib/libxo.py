"""libxo(3): the three spellings of --libxo, and JSON; no other encoding is known here (facts 1.8)."""

from __future__ import annotations

import json
import sys


def split(argv: list[str]) -> tuple[bool, bool, list[str]]:
    """(json wanted, pretty, argv without the libxo words)."""
    wanted = pretty = False
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--libxo" or word.startswith("--libxo="):
            value = next(words, "") if word == "--libxo" else word.partition("=")[2]
            names = value.split(",")
            if "json" not in names or not set(names) <= {"json", "pretty"}:
                sys.exit(f"{_program()}: invalid XO option: {value}")
            wanted, pretty = True, "pretty" in names
        elif word.startswith("--libxo:"):
            letters = word[len("--libxo:") :]
            if "J" not in letters or not set(letters) <= set("JP"):
                sys.exit(f"{_program()}: invalid XO option: {letters}")
            wanted, pretty = True, "P" in letters
        else:
            rest.append(word)
    return wanted, pretty, rest


def emit(data: object, *, pretty: bool) -> None:
    text = json.dumps(data, indent=2 if pretty else None, ensure_ascii=False)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.flush()


def _program() -> str:
    return sys.argv[0].rpartition("/")[2]
