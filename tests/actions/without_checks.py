"""Verify with all checks, then without each of those named: one line of codes for each run."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from layout.actions.verifying import registry
from layout.cli.main import run


def codes(words: list[str]) -> str:
    """Return the code and severity of each finding of verify."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape")
    with contextlib.redirect_stdout(out):
        run(["--json", *words, "verify", "--no-probe"])
    out.flush()
    document = json.loads(out.buffer.getvalue().decode())
    reports = [document["host"], *document["jails"].values()]
    return " ".join(f"{one['code']}:{one['severity']}" for report in reports for one in report["findings"])


if __name__ == "__main__":
    names, words = sys.argv[1].split(","), sys.argv[2:]
    print(codes(words))
    every = {"HOST": registry.HOST, "JAIL": registry.JAIL}
    for name in names:
        assert name in {check.name for checks in every.values() for check in checks}
        for side, checks in every.items():
            setattr(registry, side, tuple(check for check in checks if check.name != name))
        print(codes(words))
