"""`python -m layout` and the command `layout`."""

from __future__ import annotations

import contextlib
import sys


def main() -> None:
    """Run the command line; never returns."""
    from layout.cli import streams

    streams.settle()
    if sys.argv[1:] == ["--version"]:  # needs none of the rest, and scripts ask it often
        from layout import __version__

        with contextlib.suppress(OSError):  # told by what follows
            sys.stdout.write(f"layout {__version__}\n")
            sys.stdout.flush()
            sys.exit(0)
    from layout.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
