"""Say in few words what runs of pytest that were kept in files came to, and nothing of what passed.

report.py trouble STATUS LOG...   what each failure asserted, with its values, in at most LINES lines
report.py failed LOG...           one line for each test that failed or could not start
report.py skipped LOG...          one line for each reason why tests were left out

Who keeps the listing of a whole run cuts out its middle: what failed has to be short, and at the end.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINES = 40
"""Lines of one failure: the end of its traceback, then all else that was said, shortened."""

WAY = 8
"""Of these, lines of the way to the failed assertion."""

VALUES = 20
"""Of these, lines of the failed assertion, its values first."""

FAILURES = 12
"""Failures of one run that are told; more of them have one reason, or are too many to read."""

WIDTH = 240
"""Characters of one line."""

RULE = re.compile(r"=+ (.+?) =+")
BLOCK = re.compile(r"_{3,} (.+) _{3,}")
PART = re.compile(r"-{3,} Captured .* -{3,}")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ENDED = re.compile(r".*\bin [0-9.]+s\b.*")


def section(lines: list[str], name: str) -> list[str]:
    """Return what stands below the rule that has this name, up to the next rule."""
    found, inside = [], False
    for line in lines:
        if rule := RULE.fullmatch(line):
            inside = rule[1] == name
        elif inside:
            found.append(line)
    return found


def summary(lines: list[str], *words: str) -> list[str]:
    """Return the lines of pytest's short summary that begin with one of these words."""
    return [line for line in section(lines, "short test summary info") if line.split(" ", 1)[0] in words]


def some(lines: list[str], most: int, *, last: bool = False) -> list[str]:
    """Return so many lines, the first or the last of them, and how many there are besides."""
    if len(lines) <= most:
        return lines
    note = f"  ... and {len(lines) - most + 1} lines more"
    return [note, *lines[1 - most :]] if last else [*lines[: most - 1], note]


def shortened(block: list[str]) -> list[str]:
    """Return a failure: the way to its assertion, the values of that, the end of what was captured."""
    parts: list[list[str]] = [[]]
    for line in block:
        if PART.fullmatch(line):
            parts.append([])
        parts[-1].append(line)
    traceback, *captured = parts
    values = [line for line in traceback if line.startswith("E  ")]
    way = [line for line in traceback if line and not re.match("E($|  )", line)]
    told = some(way, WAY, last=True) + some(values, VALUES)
    for number, part in enumerate(captured):
        left = (LINES - 1 - len(told)) // (len(captured) - number)
        if left > 1:
            told += [part[0], *some(part[1:], left - 1, last=True)]
    return told


def trouble(lines: list[str], status: str) -> list[str]:
    """Return what there is to say of a run; nothing when it passed (0), or had no test to run (5)."""
    if status in {"0", "5"}:
        return []
    failures: list[list[str]] = []
    for name in ("ERRORS", "FAILURES"):
        for line in section(lines, name):
            if BLOCK.fullmatch(line):
                failures.append([line])
            elif failures:
                failures[-1].append(line)
    told = [line for head, *block in failures[:FAILURES] for line in (head, *shortened(block))]
    if len(failures) > FAILURES:
        told.append(f"... and {len(failures) - FAILURES} failures more")
    # One that broke down says why at its end, and whoever stopped it does in its status.
    if not told or not any(ENDED.fullmatch(line) for line in lines[-3:]):
        told += [f"exit status {status}; the end of what it printed:", *lines[-LINES:]]
    began = [line.split(" ", 1)[0] for line in lines if re.match(r"tests/\S+\.py ", line)]
    return [*told, f"files in the order in which they ran: {' '.join(dict.fromkeys(began))}"]


def main() -> None:
    what, *words = sys.argv[1:]
    status, logs = (words[0], words[1:]) if what == "trouble" else ("", words)
    for log in logs:
        try:
            text = Path(log).read_text(encoding="utf-8", errors="backslashreplace")
        except FileNotFoundError:
            print(f"{Path(log).name}: found no output of it")
            continue
        lines = [COLOUR.sub("", line).rstrip() for line in text.splitlines()]
        match what:
            case "trouble":
                found = trouble(lines, status)
            case "failed":
                found = some(summary(lines, "FAILED", "ERROR"), LINES)
            case _:
                found = summary(lines, "SKIPPED")
        for line in found:
            wide = 100_000 if line.startswith("files in the order") else WIDTH
            print(line if len(line) <= wide else f"{line[: wide - 4]} ...")


if __name__ == "__main__":
    main()
