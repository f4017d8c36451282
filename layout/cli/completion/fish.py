"""The completion for fish, a script that it reads."""

from __future__ import annotations

from typing import assert_never

from layout.cli.completion.words import Command, Option, Value, filled, groups_of, taking, valued

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


def script(commands: list[Command], options: tuple[Option, ...]) -> str:
    """Return the completion for fish."""
    lines = [_fish_option(one, "") for one in options]
    for group, words in groups_of(commands).items():
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
    return filled(
        _FISH,
        VALUED=" ".join(valued(options)),
        TAKES=" ".join(f"'{one}' '{one.replace(' -', ' * -')}'" for one in taking(commands)),
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
