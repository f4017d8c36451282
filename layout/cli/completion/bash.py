"""The completion for bash, a script that it reads."""

from __future__ import annotations

from layout.cli.completion.words import Command, Option, Value, filled, groups_of, names_of, taking, valued

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


def script(commands: list[Command], options: tuple[Option, ...]) -> str:
    """Return the completion for bash."""
    values = [
        f"    *' {name}') kind='{one.value}' ;;"
        for one in options
        for name in one.names
        if one.value is not Value.FLAG
    ]
    arguments = [
        f"    '{group} '[0-9]*) kind='choice' words='{' '.join(words)}' ;;"
        for group, words in groups_of(commands).items()
    ]
    flags = []
    for command in commands:
        for option in command.options:
            for name in valued((option,)):
                values.append(f"    '{command.name} {name}') {_bash_kind(option.value, option.choices)} ;;")
        if command.options:
            flags.append(f"    '{command.name}') options='{names_of(command.options)}' ;;")
        for index, argument in enumerate(command.arguments):
            pattern = f"'{command.name} '*" if argument.repeated else f"'{command.name} {index}'"
            arguments.append(f"    {pattern}) {_bash_kind(argument.value, argument.choices)} ;;")
    return filled(
        _BASH,
        VALUED=" | ".join(valued(options)),
        TAKES=" | ".join(f"'{taking}'" for taking in taking(commands)),
        GROUPS=" | ".join(f"'{group}'" for group in groups_of(commands)),
        VALUES="\n".join(values),
        OPTIONS="\n".join(flags),
        ARGUMENTS="\n".join(arguments),
        GLOBALS=names_of(options),
    )


def _bash_kind(value: Value, choices: tuple[str, ...]) -> str:
    return f"kind='{value}'" + (f" words='{' '.join(choices)}'" if choices else "")
