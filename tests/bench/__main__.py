"""`python -m tests.bench [--quick] [ROW...]`: print times against floors of the same run.

Everything runs in the throw-away root of tests/box, as root, on a copy of layout: one state of code and
byte code, whatever happens to the checkout meanwhile.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
WORK = Path("/tmp/layout-bench")
COPY = WORK / "code"


def main() -> int:
    """Parse arguments; go into the box, then to the copy, then measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, a minute or two; ratios are rougher"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the rows and exit")
    parser.add_argument("--code", default=CHECKOUT, type=Path, help="measure the layout of another checkout")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of rows; all when none is given")
    options = parser.parse_args()
    if options.list:
        from tests.bench.rows import ROWS

        print("\n".join(ROWS))
        return 0
    if os.environ.get("LAYOUT_BOX") != "1":
        command = [sys.executable, "-m", "tests.bench", *sys.argv[1:]]
        os.chdir(CHECKOUT)
        os.execv("tests/box", ["tests/box", *command])
    if not os.environ.get("LAYOUT_BOX_OUTSIDE") or not os.statvfs("/").f_flag & os.ST_RDONLY:
        print("bench: LAYOUT_BOX=1 outside of tests/box", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("bench: needs root", file=sys.stderr)
        return 2
    if Path.cwd() != COPY:
        for part in ("layout", "profiles", "fstab.d", "tests/bench"):
            source = CHECKOUT if part == "tests/bench" else options.code
            shutil.copytree(source / part, COPY / part, ignore=shutil.ignore_patterns("__pycache__"))
        os.chdir(COPY)
        for name in [name for name in os.environ if name.startswith("PYTHON")]:
            del os.environ[name]
        os.environ["PYTHONPATH"] = str(COPY)
        compileall.compile_dir(COPY, quiet=2)
        for name in [name for name in os.environ if name.startswith("LAYOUT_") and "BOX" not in name]:
            del os.environ[name]
        os.execv(sys.executable, [sys.executable, "-m", "tests.bench", *sys.argv[1:]])
    return measure(options.rows, quick=options.quick)


def measure(names: list[str], *, quick: bool) -> int:
    """Run the rows, print the table; a missed target is no failure, a row that could not be measured is."""
    from layout.core.errors import LayoutError
    from tests.bench.report import header, line, spread
    from tests.bench.rows import ROWS, Bench
    from tests.bench.tools import Skip, compile_all

    unknown = [name for name in names if name not in ROWS]
    if unknown:
        print(f"bench: no row {unknown[0]!r}; rows: {' '.join(ROWS)}", file=sys.stderr)
        return 2
    bench = Bench(WORK, quick=quick)
    try:
        compile_all(WORK)
    except Skip as reason:
        print(f"bench: no floors in C: {reason}", file=sys.stderr)
    print(header(), flush=True)
    missed = broken = 0
    for name in names or ROWS:
        started = time.monotonic()
        try:
            for row in ROWS[name](bench):
                print(line(row), flush=True)
                print(spread(row), file=sys.stderr, flush=True)
                missed += not row.met
        except Skip as reason:
            print(f"| {name} | skipped: {reason} | | | | | |", flush=True)
        except (
            RuntimeError,
            AssertionError,
            TypeError,
            LayoutError,
            OSError,
            subprocess.SubprocessError,
        ) as problem:
            traceback.print_exc()
            print(f"| {name} | could not be measured: {type(problem).__name__} | | | | | |", flush=True)
            broken += 1
        print(f"bench: {name} took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"\n{missed} missed" if missed else "\nall met")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
