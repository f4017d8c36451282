"""What a shell can complete, as scripts for bash, zsh and fish."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from layout.cli.completion import bash, fish, zsh
from layout.cli.completion.words import Command, Option, describe

__all__ = ["Shell", "describe", "script"]


class Shell(StrEnum):
    """Whose completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def script(shell: Shell, commands: list[Command], options: tuple[Option, ...]) -> str:
    """Return the script for a shell."""
    match shell:
        case Shell.BASH:
            return bash.script(commands, options)
        case Shell.ZSH:
            return zsh.script(commands, options)
        case Shell.FISH:
            return fish.script(commands, options)
        case _:
            assert_never(shell)
