"""From argv to exit status: global options anywhere, every error in one shape, never a traceback."""

from __future__ import annotations

import copy
import errno
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layout.cli import streams
from layout.cli.output import Output
from layout.core.errors import LayoutError, UsageError, reason_of

if TYPE_CHECKING:
    import typer

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
    try:
        return _run(argv, Output())
    finally:
        streams.let_go()


def _run(argv: Sequence[str], output: Output) -> int:
    rest: list[str] = []
    try:
        ours, rest = hoist(argv)
        status = _call([*ours, *rest], rest[0] if rest else "")
        streams.finish()
        return status
    except LayoutError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        hint = "run the same command again: what was begun goes on"
        output.error(LayoutError(rest[0] if rest else "layout", "an interrupt", "to finish", hint))
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        streams.discard()
        return 128 + signal.SIGPIPE
    except OSError as error:
        from layout.host import privilege

        if streams.failed(error):
            streams.discard()
            expected = "to be able to write the result there"
            output.error(LayoutError("standard output", reason_of(error), expected))
            return 1
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        path = "the file system of ROOT" if full else "layout"
        if isinstance(error.filename, str | bytes):
            path = os.fsdecode(error.filename)
        hint = "free some space, then run the same command again: it goes on where it stopped" if full else ""
        if isinstance(error, PermissionError) and not privilege.is_root():
            hint = privilege.AS_ROOT
        output.error(LayoutError(path, reason_of(error), "to be able to go on", hint))
        return 1
    except MemoryError:
        hint = "see ulimit -d, ulimit -v and the memory of the control group"
        output.error(LayoutError("layout", "no memory left", "to be able to go on", hint))
        return 1
    except Exception as error:
        if os.environ.get("LAYOUT_DEBUG"):
            raise
        found = f"{type(error).__name__}: {error}"
        hint = "this is a mistake in layout: please report it, with what LAYOUT_DEBUG=1 shows"
        output.error(LayoutError("layout", found, "no such thing", hint))
        return 1


def _call(argv: list[str], command: str) -> int:
    from layout.cli.app import app, load

    load(command)
    try:
        status = _narrowed(app, command)(args=argv, prog_name="layout", standalone_mode=False)
    except (LayoutError, KeyboardInterrupt, OSError):
        raise
    except SystemExit as error:
        # click's own answer to a reader that is gone: exit status 1, which means "not as promised" here.
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        raise
    except Exception as error:
        # typer carries click inside itself from 0.26 on, so its exceptions are known by what they can do.
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{error}\n")
            return UsageError.exit_code
        if hasattr(error, "format_message"):
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else "layout"
            from layout.cli import guesses

            where = command.partition(" ")[2]
            said = error.format_message()
            found, hint = _wrong_words(said, f"{command} --help")
            hint = guesses.hint(where, said) or hint
            raise UsageError(where or "command line", found, "words as in its help", hint) from None
        if type(error).__name__ == "Abort":
            raise KeyboardInterrupt from None
        if hasattr(error, "exit_code"):
            return int(error.exit_code)
        raise
    if status == 130 and command not in {"manage", "exec"}:
        # typer makes this of an interrupt, without a word; those two pass on the status of another command.
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _narrowed(app: typer.Typer, command: str) -> typer.Typer:
    """Return the application with nothing but `command`: typer takes longer to build all than to run one."""
    found = [
        one
        for one in app.registered_commands
        if (one.name or getattr(one.callback, "__name__", "")) == command
    ]
    if not found:
        return app
    narrowed = copy.copy(app)
    narrowed.registered_commands = found
    narrowed.registered_groups = []
    return narrowed


def _wrong_words(said: str, help_: str) -> tuple[str, str]:
    """Return what is wrong with the words, on one line, and the next step: what may have been meant."""
    text, guess, meant = " ".join(said.split()).partition(". Did you mean ")
    text = text.rstrip(".").replace(". Choose from: ", ": one of ")
    hint = f"did you mean {meant.rstrip('?')}? {help_}" if guess else help_
    return text[:1].lower() + text[1:], hint
