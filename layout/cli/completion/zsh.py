"""The completion for zsh, a script that it reads."""

from __future__ import annotations

import re
from typing import assert_never

from layout.cli.completion.words import Command, Option, Value, filled, groups_of, valued

_ZSH = r"""#compdef layout
# zsh completion for layout(8); made by `layout completion zsh`.

# The ROOT and configuration that the command line asks for.
_layout_site() {
    local option
    for option in @VALUED@; do
        [[ -z ${opt_args[$option]} ]] || site+=($option ${(Q)opt_args[$option]})
    done
}

_layout_jails() {
    local -a names
    _layout_site
    names=(${(f)"$(layout $site --quiet status 2>/dev/null | awk 'NR > 1 { print $1 }')"})
    _wanted jails expl jail compadd -a names
}

_layout_profiles() {
    local -a names
    _layout_site
    names=(${(f)"$(layout $site --quiet profile list 2>/dev/null | awk '{ print $1 }')"})
    _wanted profiles expl profile compadd -a names
}

_layout() {
    local curcontext=$curcontext context state state_descr line command
    local -a commands global site
    typeset -A opt_args
    global=(
@GLOBALS@
    )
    _arguments -C $global '1:command:->command' '*::argument:->argument' && return
    _layout_site
    case $state in
    (command)
        commands=(
@COMMANDS@
        )
        _describe -t commands command commands
        return
        ;;
    esac
    command=$line[1]
@GROUPS@
    case $command in
@CASES@
    esac
}

_layout "$@"
"""


def script(commands: list[Command], options: tuple[Option, ...]) -> str:
    """Return the completion for zsh."""
    groups = []
    for group, words in groups_of(commands).items():
        if group:
            inner = " ".join(_zsh_quoted(word, help) for word, help in words.items())
            groups.append(
                f"    if [[ $command == '{group}' ]]; then\n        commands=({inner})\n"
                "        if ((CURRENT == 2)); then\n"
                "            _describe -t commands command commands\n            return\n        fi\n"
                '        command="$command $words[2]"\n        shift words\n        ((CURRENT--))\n    fi'
            )
    first = [f"            {_zsh_quoted(word, help)}" for word, help in groups_of(commands)[""].items()]
    cases = []
    for command in commands:
        parts = ["$global", *(spec for one in command.options for spec in _zsh_option(one))]
        for argument in command.arguments:
            place = "*" if argument.repeated else ""
            parts.append(f"'{place}:{argument.value}:{_zsh_action(argument.value, argument.choices)}'")
        cases.append(f"    ('{command.name}') _arguments " + " \\\n        ".join(parts) + " ;;")
    return filled(
        _ZSH,
        VALUED=" ".join(valued(options)),
        GLOBALS="\n".join(f"        {spec}" for one in options for spec in _zsh_option(one)),
        COMMANDS="\n".join(first),
        GROUPS="\n".join(groups),
        CASES="\n".join(cases),
    )


def _zsh_option(option: Option) -> list[str]:
    text = re.sub(r"([\[\]:\\])", r"\\\1", option.help).replace("'", "'\\''")
    if option.value is Value.FLAG:
        return [f"'{name}[{text}]'" for name in option.names]
    return [
        f"'{name}[{text}]:{option.value}:{_zsh_action(option.value, option.choices)}'"
        for name in option.names
    ]


def _zsh_action(value: Value, choices: tuple[str, ...]) -> str:
    match value:
        case Value.CHOICE:
            return f"({' '.join(choices)})"
        case Value.JAIL:
            return "_layout_jails"
        case Value.PROFILE:
            return "_layout_profiles"
        case Value.FILE:
            return "_files"
        case Value.DIRECTORY:
            return "_files -/"
        case Value.ANY | Value.FLAG:
            return " "
        case _:
            assert_never(value)


def _zsh_quoted(name: str, text: str) -> str:
    return "'" + f"{name}:{text}".replace("'", "'\\''") + "'"
