"""What can be completed: commands, options and arguments, read from the application."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, StrEnum
from typing import Any

import msgspec


class Value(StrEnum):
    """What stands in the place of an option's value or of an argument."""

    FLAG = "flag"
    CHOICE = "choice"
    JAIL = "jail"
    PROFILE = "profile"
    FILE = "file"
    DIRECTORY = "directory"
    ANY = "any"


class Option(msgspec.Struct, frozen=True):
    """One option of a command."""

    names: tuple[str, ...]
    help: str
    value: Value
    choices: tuple[str, ...] = ()


class Argument(msgspec.Struct, frozen=True):
    """One argument of a command."""

    value: Value
    choices: tuple[str, ...]
    repeated: bool


class Command(msgspec.Struct, frozen=True):
    """One command; those of a group have two words or more."""

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...] = ()


_OPTIONS = {
    "--profile": Value.PROFILE,
    "--root": Value.DIRECTORY,
    "--config": Value.FILE,
    "--file": Value.FILE,
    "--output": Value.FILE,
    "--base": Value.FILE,
}
_PLACES = {"files": Value.FILE, "archive": Value.FILE, "directory": Value.DIRECTORY}
_ARGUMENTS = {
    ("init", "names"): Value.PROFILE,  # a new jail is named like its profile
    ("plan", "names"): Value.PROFILE,
    ("profile show", "name"): Value.PROFILE,
}
"""A jail's name, unless it says otherwise here."""


def describe(root: Any) -> tuple[list[Command], tuple[Option, ...]]:
    """Return the commands of the application (a click command, as typer makes it) and the global options."""
    return list(_walk("", root)), _command("", root).options


def _walk(above: str, group: Any) -> Iterator[Command]:
    for name, command in sorted(group.commands.items()):
        words = f"{above} {name}".strip()
        if getattr(command, "commands", None) is None:
            yield _command(words, command)
        else:
            yield from _walk(words, command)


def _command(name: str, command: Any) -> Command:
    help = _summary(command.help)
    options: list[Option] = []
    arguments: list[Argument] = []
    for one in command.params:
        choices = tuple(
            str(choice.value if isinstance(choice, Enum) else choice)
            for choice in getattr(one.type, "choices", ())
        )
        if one.param_type_name == "argument":
            plain = _PLACES.get(one.name, Value.JAIL if "name" in one.name else Value.ANY)
            kind = Value.CHOICE if choices else _ARGUMENTS.get((name, one.name), plain)
            arguments.append(Argument(kind, choices, one.nargs != 1))
            continue
        names = tuple(one.opts)
        if getattr(one, "is_flag", False):
            value = Value.FLAG
        else:
            value = (
                Value.CHOICE if choices else next((_OPTIONS[n] for n in names if n in _OPTIONS), Value.ANY)
            )
        options.append(Option(names, _summary(one.help), value, choices))
    return Command(name, help, tuple(options), tuple(arguments))


def _summary(text: str | None) -> str:
    """Return the first sentence of a help text, on one line."""
    return " ".join((text or "").split()).partition(". ")[0].rstrip(".")


def groups_of(commands: list[Command]) -> dict[str, dict[str, str]]:
    """Return, for the words of each group ("" is the whole), what can come next, with its help."""
    found: dict[str, dict[str, str]] = {}
    for command in commands:
        words = command.name.split()
        for count, word in enumerate(words):
            last = count == len(words) - 1
            above = " ".join(words[:count])
            help = command.help if last else f"commands of {word}"
            found.setdefault(above, {}).setdefault(word, help)
    return found


def valued(options: tuple[Option, ...]) -> list[str]:
    """Return the names of the options that take a value."""
    return [name for one in options for name in one.names if one.value is not Value.FLAG]


def names_of(options: tuple[Option, ...]) -> str:
    """Return all names of these options."""
    return " ".join(name for one in options for name in one.names)


def filled(text: str, **parts: str) -> str:
    """Return a template with its @NAME@ filled in."""
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


def taking(commands: list[Command]) -> list[str]:
    """Return commands with each option of theirs that takes a value."""
    return [f"{command.name} {name}" for command in commands for name in valued(command.options)]
