"""From argv to exit status: global options anywhere, every error in one shape, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from layout.cli.output import Output
from layout.core.errors import LayoutError, UsageError

_VALUES = {"--root": "root", "--config": "config"}
_FLAGS = {
    "--json": "json",
    "-v": "verbose",
    "--verbose": "verbose",
    "-q": "quiet",
    "--quiet": "quiet",
    "--version": "version",
}


def hoist(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split argv into global options and the rest: they may stand before or after the command.

    What follows `--` is not ours. Raises UsageError for one that lacks its value.
    """
    ours: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        key, equals, _ = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif word in _VALUES:
            value = next(words, None)
            if value is None:
                raise UsageError(f"option {word}", "nothing after it", "a value", "layout --help")
            ours += [word, value]
        elif word in _FLAGS or (equals and key in _VALUES):
            ours.append(word)
        else:
            rest.append(word)
    return ours, rest


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit status: 0 as promised, 1 not so, 2 wrong usage or input."""
    output = Output()
    try:
        ours, rest = hoist(argv)
        return _call([*ours, *rest])
    except LayoutError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        output.error(
            LayoutError("layout", "an interrupt", "to finish", "run the same command again: it goes on")
        )
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing else may be written to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "layout"
        output.error(LayoutError(path, (error.strerror or str(error)).lower(), "to be able to go on"))
        return 1
    except RecursionError:
        output.error(UsageError("layout", "nesting without end", "input of ordinary depth"))
        return 2


def _call(argv: list[str]) -> int:
    from layout.cli.app import app

    try:
        status = app(args=argv, prog_name="layout", standalone_mode=False)
    except (LayoutError, KeyboardInterrupt, OSError):
        raise
    except Exception as error:
        # typer carries click inside itself from 0.26 on, so its exceptions are known by what they can do.
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{error}\n")
            return UsageError.exit_code
        if hasattr(error, "format_message"):
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "layout"
            where = command.partition(" ")[2] or "command line"
            raise UsageError(where, _lower(error.format_message()), "other words", f"{command} --help") from None
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from None
        if hasattr(error, "exit_code"):
            return int(error.exit_code)
        raise
    return status if isinstance(status, int) else 0


def _lower(text: str) -> str:
    text = text.rstrip(".")
    return text[:1].lower() + text[1:]
