"""The three standard streams of this run: closed ones, those that fail, terminals that know ASCII only."""

from __future__ import annotations

import codecs
import os
import sys

_DRAWN = str.maketrans("├└│─…", "|`|-.")


def settle() -> None:
    """Make all three usable, before anything else is opened or printed.

    One that is closed (`>&-`) becomes /dev/null: else the next file opened would get its number, and what is
    printed would go there.
    """
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        from layout.host.standard import fill_closed

        fill_closed()
        sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
        sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
        sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    codecs.register_error("layout.drawn", _drawn)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="layout.drawn")


def _drawn(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what an encoding lacks: lines of a picture by ASCII, all else by its escape."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_DRAWN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


def finish() -> None:
    """Write what is still buffered, while a failure can be told. Raises OSError."""
    sys.stdout.flush()


def let_go() -> None:
    """Write what is still buffered after an error was told; where that fails as well, the error stands."""
    try:
        sys.stdout.flush()
    except OSError:
        discard()


def failed(error: OSError) -> bool:
    """Say whether it was our own printing that failed: nothing of ROOT or the host is opened there."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    module = at.tb_frame.f_globals.get("__name__", "") if at is not None else ""
    return error.filename is None and (module.startswith("layout.cli.") or "click" in module)


def discard() -> None:
    """Let nothing else be written to standard output at exit, where it would fail again with a traceback."""
    from layout.host import hostfiles

    hostfiles.discard(1)
