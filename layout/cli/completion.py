"""What a shell can complete: commands, options and arguments, as scripts for bash, zsh and fish."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, StrEnum
from typing import Any, assert_never

import msgspec


class Shell(StrEnum):
    """Whose completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


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
    "--base": Value.FILE,
}
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
            plain = Value.FILE if one.name == "files" else Value.JAIL if "name" in one.name else Value.ANY
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


def script(shell: Shell, commands: list[Command], options: tuple[Option, ...]) -> str:
    """Return the script for a shell."""
    match shell:
        case Shell.BASH:
            return _bash(commands, options)
        case Shell.ZSH:
            return _zsh(commands, options)
        case Shell.FISH:
            return _fish(commands, options)
        case _:
            assert_never(shell)


def _groups(commands: list[Command]) -> dict[str, dict[str, str]]:
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


def _valued(options: tuple[Option, ...]) -> list[str]:
    """Return the names of the options that take a value."""
    return [name for one in options for name in one.names if one.value is not Value.FLAG]


def _names(options: tuple[Option, ...]) -> str:
    return " ".join(name for one in options for name in one.names)


# --- bash ------------------------------------------------------------------------------------------------

_BASH = r"""# bash completion for layout(8); made by `layout completion bash`.

_layout()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' kind='' words='' options='' i count=0
    local -a site=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --) return ;;
        @VALUED@)
            site+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]}")
            i=$((i + 1))
            ;;
        -*)
            case "$command ${COMP_WORDS[i]}" in
            @TAKES@) i=$((i + 1)) ;;
            esac
            ;;
        *)
            case $command in
            @GROUPS@) command="${command:+$command }${COMP_WORDS[i]}" ;;
            *) count=$((count + 1)) ;;
            esac
            ;;
        esac
    done
    # An option takes the word after it, a command the words after that.
    case "$command $prev" in
@VALUES@
    esac
    case ${kind:-$command} in
@OPTIONS@
    esac
    case ${kind:-"$command $count"} in
@ARGUMENTS@
    esac
    case $kind in
    jail) words=$(layout "${site[@]}" --quiet status 2>/dev/null | awk 'NR > 1 { print $1 }') ;;
    profile) words=$(layout "${site[@]}" --quiet profile list 2>/dev/null | awk '{ print $1 }') ;;
    file) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    directory) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    esac
    case $kind in
    file | directory)
        compopt -o filenames 2>/dev/null
        return
        ;;
    esac
    case $cur in
    -*) words="$options @GLOBALS@" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _layout layout
"""


def _bash(commands: list[Command], options: tuple[Option, ...]) -> str:
    values = [
        f"    *' {name}') kind='{one.value}' ;;"
        for one in options
        for name in one.names
        if one.value is not Value.FLAG
    ]
    arguments = [
        f"    '{group} '[0-9]*) kind='choice' words='{' '.join(words)}' ;;"
        for group, words in _groups(commands).items()
    ]
    flags = []
    for command in commands:
        for option in command.options:
            for name in _valued((option,)):
                values.append(f"    '{command.name} {name}') {_bash_kind(option.value, option.choices)} ;;")
        if command.options:
            flags.append(f"    '{command.name}') options='{_names(command.options)}' ;;")
        for index, argument in enumerate(command.arguments):
            pattern = f"'{command.name} '*" if argument.repeated else f"'{command.name} {index}'"
            arguments.append(f"    {pattern}) {_bash_kind(argument.value, argument.choices)} ;;")
    return _filled(
        _BASH,
        VALUED=" | ".join(_valued(options)),
        TAKES=" | ".join(f"'{taking}'" for taking in _taking(commands)),
        GROUPS=" | ".join(f"'{group}'" for group in _groups(commands)),
        VALUES="\n".join(values),
        OPTIONS="\n".join(flags),
        ARGUMENTS="\n".join(arguments),
        GLOBALS=_names(options),
    )


def _bash_kind(value: Value, choices: tuple[str, ...]) -> str:
    return f"kind='{value}'" + (f" words='{' '.join(choices)}'" if choices else "")


def _taking(commands: list[Command]) -> list[str]:
    """Return commands with each option of theirs that takes a value."""
    return [f"{command.name} {name}" for command in commands for name in _valued(command.options)]


def _filled(text: str, **parts: str) -> str:
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text


# --- zsh -------------------------------------------------------------------------------------------------

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


def _zsh(commands: list[Command], options: tuple[Option, ...]) -> str:
    groups = []
    for group, words in _groups(commands).items():
        if group:
            inner = " ".join(_zsh_quoted(word, help) for word, help in words.items())
            groups.append(
                f"    if [[ $command == '{group}' ]]; then\n        commands=({inner})\n"
                "        if ((CURRENT == 2)); then\n"
                "            _describe -t commands command commands\n            return\n        fi\n"
                '        command="$command $words[2]"\n        shift words\n        ((CURRENT--))\n    fi'
            )
    first = [f"            {_zsh_quoted(word, help)}" for word, help in _groups(commands)[""].items()]
    cases = []
    for command in commands:
        parts = ["$global", *(spec for one in command.options for spec in _zsh_option(one))]
        for argument in command.arguments:
            place = "*" if argument.repeated else ""
            parts.append(f"'{place}:{argument.value}:{_zsh_action(argument.value, argument.choices)}'")
        cases.append(f"    ('{command.name}') _arguments " + " \\\n        ".join(parts) + " ;;")
    return _filled(
        _ZSH,
        VALUED=" ".join(_valued(options)),
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


# --- fish ------------------------------------------------------------------------------------------------

_FISH = r"""# fish completion for layout(8); made by `layout completion fish`.

function __layout_words
    set -l words
    set -l tokens (commandline -opc)
    set -e tokens[1]
    while set -q tokens[1]
        switch $tokens[1]
            case @VALUED@
                set -e tokens[1]
            case '-*'
                switch "$words $tokens[1]"
                    case @TAKES@
                        set -e tokens[1]
                end
            case '*'
                set words $words $tokens[1]
        end
        set -q tokens[1]; and set -e tokens[1]
    end
    string join \n -- $words
end

function __layout_site
    set -l tokens (commandline -opc)
    for i in (seq 2 (count $tokens))
        switch $tokens[$i]
            case @VALUED@
                set -q tokens[(math $i + 1)]; and printf '%s\n' $tokens[$i] $tokens[(math $i + 1)]
        end
    end
end

# __layout_is COMMAND...: is this the command, with all of its words?
function __layout_is
    set -l words (__layout_words)
    set -l wanted (string split ' ' -- $argv)
    set -l last (count $wanted)
    test (count $words) -ge $last; and test "$words[1..$last]" = "$wanted"
end

# __layout_at COUNT COMMAND...: is the next word the one after COUNT arguments?
function __layout_at
    set -l words (__layout_words)
    set -l wanted (string split ' ' -- $argv[2..-1])
    __layout_is $wanted; and test (count $words) -eq (math $argv[1] + (count $wanted))
end

# __layout_from COUNT COMMAND...: are there that many arguments, or more?
function __layout_from
    set -l words (__layout_words)
    set -l wanted (string split ' ' -- $argv[2..-1])
    __layout_is $wanted; and test (count $words) -ge (math $argv[1] + (count $wanted))
end

function __layout_jails
    layout (__layout_site) --quiet status 2>/dev/null | awk 'NR > 1 { print $1 }'
end

function __layout_profiles
    layout (__layout_site) --quiet profile list 2>/dev/null | awk '{ print $1 }'
end

complete -c layout -f
@LINES@
"""


def _fish(commands: list[Command], options: tuple[Option, ...]) -> str:
    lines = [_fish_option(one, "") for one in options]
    for group, words in _groups(commands).items():
        when = f"__layout_at 0 {group}" if group else "test (count (__layout_words)) -eq 0"
        lines += [
            f"complete -c layout -n '{when}' -a {word} -d {_fish_quoted(help)}"
            for word, help in words.items()
        ]
    for command in commands:
        condition = f" -n '__layout_is {command.name}'"
        lines += [_fish_option(one, condition) for one in command.options]
        for index, argument in enumerate(command.arguments):
            test = "from" if argument.repeated else "at"
            when = f" -n '__layout_{test} {index} {command.name}'"
            action = _fish_action(argument.value, argument.choices)
            if action:
                lines.append(f"complete -c layout{when}{action}")
    return _filled(
        _FISH,
        VALUED=" ".join(_valued(options)),
        TAKES=" ".join(f"'{one}' '{one.replace(' -', ' * -')}'" for one in _taking(commands)),
        LINES="\n".join(lines),
    )


def _fish_option(option: Option, condition: str) -> str:
    names = "".join(f" -{'l' if n.startswith('--') else 's'} {n.lstrip('-')}" for n in option.names)
    # -x: and no files.
    only = "r" if option.value is Value.FILE else "x"
    value = "" if option.value is Value.FLAG else f" -{only}{_fish_action(option.value, option.choices)}"
    return f"complete -c layout{condition}{names} -d {_fish_quoted(option.help)}{value}"


def _fish_action(value: Value, choices: tuple[str, ...]) -> str:
    match value:
        case Value.CHOICE:
            return f" -a '{' '.join(choices)}'"
        case Value.JAIL:
            return " -a '(__layout_jails)'"
        case Value.PROFILE:
            return " -a '(__layout_profiles)'"
        case Value.FILE:
            return " -F"
        case Value.DIRECTORY:
            return " -a '(__fish_complete_directories)'"
        case Value.ANY | Value.FLAG:
            return ""
        case _:
            assert_never(value)


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
