"""Completion: the shells read what is shipped, it is what the application has, and it completes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from layout.cli.app import COMMANDS

SHARE = Path(__file__).resolve().parents[1] / "layout" / "share" / "completion"
FILES = {"bash": "layout.bash", "zsh": "_layout", "fish": "layout.fish"}

PROGRAM = """\
#!/bin/sh
echo "$*" >>"$CALLED"
case "$*" in
*'profile list'*) printf 'default  shared  x\\nbind  shared  y\\n' ;;
*status*) printf 'NAME  PROFILE\\nbind  bind\\nldap  ldap\\n' ;;
esac
"""

# A command line up to the word that is completed, and what that can be.
LINES = {
    "layout ver": ["verify"],
    "layout base v": ["verify"],
    "layout --root /x mount l": ["ldap"],
    "layout render --preset hardened rc.d-": ["rc.d-verify"],
    "layout init --preset cl": ["classic"],
    "layout mount --manage b": ["bind"],
    "layout profile show d": ["default"],
    "layout verify --qu": ["--quick", "--quiet"],
    "layout manage bind -- x": [],
}


def need(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell}")
    return path


@pytest.fixture(name="environment")
def _environment(tmp_path: Path) -> dict[str, str]:
    """A layout that knows two jails and two profiles, first in PATH."""
    program = tmp_path / "bin" / "layout"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CALLED": str(tmp_path / "called"),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


@pytest.mark.parametrize("shell", FILES)
def test_what_is_shipped_is_what_the_application_has(cli, shell: str) -> None:
    done = cli("completion", shell)
    assert done.code == 0, done.err
    assert done.out == (SHARE / FILES[shell]).read_text(), "make completion"


@pytest.mark.parametrize("shell", FILES)
def test_a_shell_reads_its_script(shell: str) -> None:
    done = subprocess.run([need(shell), "-n", SHARE / FILES[shell]], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", FILES)
def test_every_command_is_completed(shell: str) -> None:
    text = (SHARE / FILES[shell]).read_text()
    for names in COMMANDS.values():
        for name in names:
            assert re.search(rf"(?<![\w-]){name}(?![\w-])", text), name


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck_finds_nothing_in_the_script_for_bash() -> None:
    done = subprocess.run(["shellcheck", "-s", "bash", SHARE / "layout.bash"], capture_output=True, text=True)
    assert done.stdout == ""


def test_bash_completes(environment: dict[str, str]) -> None:
    script = f". {SHARE / 'layout.bash'}\n"
    for line in LINES:
        script += (
            f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _layout; echo ${{COMPREPLY[*]}}\n"
        )
    done = subprocess.run(
        [need("bash"), "--norc"], input=script, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert [sorted(line.split()) for line in done.stdout.splitlines()] == list(LINES.values())
    assert "--root /x --quiet status" in Path(environment["CALLED"]).read_text().splitlines()


def test_fish_completes(environment: dict[str, str]) -> None:
    script = f"source {SHARE / 'layout.fish'}\n"
    script += "".join(f"complete -C '{line}' | string replace -r '\\t.*' ''; echo .\n" for line in LINES)
    done = subprocess.run([need("fish"), "-N"], input=script, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert [sorted(part.split()) for part in done.stdout.split(".\n")[:-1]] == list(LINES.values())
    assert "--root /x --quiet status" in Path(environment["CALLED"]).read_text().splitlines()


# A terminal, because zsh completes only where somebody types.
ZSH = r"""
zmodload zsh/zpty zsh/datetime
zpty z zsh -f -i
answer() {
    local out= part= end=$((EPOCHREALTIME + 60))
    while ((EPOCHREALTIME < end)) && [[ $out != *$1* ]]; do
        zpty -r -t z part && out+=$part || sleep 0.02
    done
    [[ $out == *$1* ]] && print yes || print -r -- "no: ${(V)out}"
}
zpty -w z "PS1=; fpath=($folder \$fpath); autoload -Uz compinit; compinit -D -u"
zpty -w z "bindkey '^I' complete-word; echo rea''dy"
answer ready
while read -r line word; do
    zpty -w -n z "${line//,/ }"$'\t'
    answer "$word"
    zpty -w -n z $'\x15'
done
zpty -d z
"""


def test_zsh_completes(environment: dict[str, str], tmp_path: Path) -> None:
    one = {line: words[0] for line, words in LINES.items() if len(words) == 1}
    (tmp_path / "z").write_text(ZSH)
    done = subprocess.run(
        [need("zsh"), "-f", tmp_path / "z"],
        input="".join(f"{line.replace(' ', ',')} {word}\n" for line, word in one.items()),
        env=environment | {"folder": str(SHARE)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.split("\n")[:-1] == ["yes"] * (len(one) + 1), done.stderr
    assert "--root /x --quiet status" in Path(environment["CALLED"]).read_text().splitlines()
