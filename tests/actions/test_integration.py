"""What the host gets: scripts that any sh(1) accepts, with this installation's paths, and a sample."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from layout.core.profile import Config, decode

SHARE = Path(__file__).resolve().parents[2] / "layout" / "share"
SCRIPTS = ["rc.d", "rc.d-verify", "periodic"]
PROGRAM = Path(sys.prefix, "bin", "layout")

# What some sh have and POSIX has not: kept out, as checkbashisms(1) does.
BASHISMS = {
    "[[": r"(^|\s)\[\[\s",
    "==": r"\[ [^\]]*==",
    "function": r"^\s*function\s",
    "source": r"(^|;|\s)source\s",
    "<<<": r"<<<",
    "$'": r"\$'",
    "&>": r"&>",
    "array": r"\w+=\(|\$\{\w+\[",
    "${x//}": r"\$\{\w+//?",
    "${x:n}": r"\$\{\w+:[0-9]",
    "echo -e": r"echo -[en]",
    "local": r"^\s*(local|declare|typeset)\s",
    "((": r"(^|\s)\(\(",
    "{a..b}": r"\{\w+\.\.\w+\}",
    "$RANDOM": r"\$\{?(RANDOM|SECONDS|BASH\w*|UID|HOSTNAME)\b",
}


def bashisms(text: str) -> list[str]:
    """Name the things in a script that not every sh has."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [name for name, pattern in BASHISMS.items() if re.search(pattern, code, re.MULTILINE)]


@pytest.fixture(name="rendered", params=SCRIPTS)
def _rendered(request: pytest.FixtureRequest, cli) -> str:
    if not PROGRAM.exists():
        pytest.skip("layout is not installed beside this Python")
    done = cli("render", request.param)
    assert done.code == 0, done.err
    return done.out


def test_a_script_is_whole_and_has_the_paths_of_this_installation(rendered: str) -> None:
    assert "%%" not in rendered
    assert f"{PROGRAM}" in rendered


def test_every_sh_can_read_a_script(rendered: str) -> None:
    for shell in filter(shutil.which, ("sh", "dash", "bash", "busybox")):
        command = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
        done = subprocess.run(command, input=rendered, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), shell


def test_a_script_has_no_bashisms(rendered: str) -> None:
    assert bashisms(rendered) == []


@pytest.mark.parametrize(
    "text",
    [
        '[[ -n "$x" ]]',
        "[ a == b ]",
        "function f {",
        "\tlocal x",
        "x=(1 2)",
        "echo -e x",
        "a <<<b",
        "${x//a/b}",
    ],
)
def test_a_bashism_is_found(text: str) -> None:
    assert bashisms(text) != []


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck_finds_nothing_in_a_script(rendered: str) -> None:
    done = subprocess.run(["shellcheck", "-s", "sh", "-"], input=rendered, capture_output=True, text=True)
    assert done.stdout == ""


def test_a_script_passes_on_where_the_site_is(cli, tmp_path: Path) -> None:
    if not PROGRAM.exists():
        pytest.skip("layout is not installed beside this Python")
    done = cli("render", "rc.d", "--root", "/srv/jails")
    assert ': "${layout_flags:=--root /srv/jails}"' in done.out
    done = cli("render", "rc.d", "--root", "/srv/my jails")
    assert (done.code, "without blanks" in done.err) == (2, True)
    assert cli("render", "periodic", "bind").code == 2
    assert json.loads(cli("render", "rc.d", "--json").out)["text"].startswith("#!/bin/sh")


def test_the_header_of_rc_scripts_is_what_rcorder_reads() -> None:
    for path in (SHARE / "rc.d").iterdir():
        lines = path.read_text().splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith("# PROVIDE:"))
        words = [line.split(":")[0] for line in lines[first : first + 4] if re.match(r"# [A-Z]+: \S", line)]
        assert words[0] == "# PROVIDE"
        assert "nojail" in next(line for line in lines if line.startswith("# KEYWORD:"))
        assert re.search(r'^name="([a-z_]+|%%RC%%)"$', path.read_text(), re.MULTILINE)
        assert re.search(r'^(\w+|%%RC%%)_svcj="NO"$', path.read_text(), re.MULTILINE)


def test_the_sample_is_a_valid_configuration_and_says_every_default(cli) -> None:
    sample = cli("render", "layout.toml").out
    assert decode(tomllib.loads(sample), Config, "sample") == Config()
    spelled = re.sub(r"^#(\w+ = )", r"\1", sample, flags=re.MULTILINE)
    data = tomllib.loads(spelled)
    assert set(data) == {field.name for field in msgspec.structs.fields(Config)}
    assert decode(data, Config, "sample") == Config()
