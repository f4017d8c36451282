"""libxo(3): the three spellings of --libxo, and JSON; no other encoding is known here (facts 1.8)."""

from __future__ import annotations

import sys
from _json import encode_basestring as _quoted


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
    if pretty:
        import json

        text = json.dumps(data, indent=2, ensure_ascii=False)
    else:
        text = _compact(data)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    sys.stdout.flush()


def _compact(data: object) -> str:
    """As json.dumps, whose import takes longer than most programs that print this."""
    if isinstance(data, dict):
        return "{" + ", ".join(f"{_quoted(str(key))}: {_compact(one)}" for key, one in data.items()) + "}"
    if isinstance(data, list | tuple):
        return "[" + ", ".join(map(_compact, data)) + "]"
    if isinstance(data, str):
        return _quoted(data)
    if data is None or isinstance(data, bool):
        return {None: "null", True: "true", False: "false"}[data]
    return str(data)


def _program() -> str:
    return sys.argv[0].rpartition("/")[2]
