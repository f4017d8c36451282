"""Every script for rc.d that any kind of jail has: dash reads it, shellcheck finds nothing in it."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from yard import layout

from layout.core.model import Kind

PROFILES = Path(__file__).resolve().parents[2] / "profiles"
# Words that a script which quotes wrongly would split, expand or execute.
HOSTILE = """["a b", "it's", "$HOME", "`id`", "a\\\\b", "\\"q\\"", "*", "-x;reboot", "#c", "~"]"""
EVIL = tomllib.loads(f"words = {HOSTILE}")["words"]

OSLESS = """\
kind = "osless"
description = "words that need quotes"
[freebsd.osless]
program = "/usr/local/libexec/x"
path = "srv/ab/x"
%s
[freebsd.service]
command = ["%s", %s]
[[freebsd.mounts]]
source = "/home/ab"
target = "home"
"""
THIN = """\
kind = "thin"
description = "words that need quotes"
[freebsd.service]
command = ["%s", %s]
[[freebsd.mounts]]
source = "/etc/ab"
target = "etc/ab"
"""

CASES = {
    "host": (None, "rc.d"),
    "host, verify": (None, "rc.d-verify"),
    "host, periodic": (None, "periodic"),
    "osless": ((PROFILES / "finger.toml").read_text(), "rc.d"),
    "osless, quotes": (OSLESS % ("", "/srv/ab/x", HOSTILE[1:-1]), "rc.d"),
    "osless, self-jailing": (
        OSLESS % ("self_jailing = true\nlog = false", "/usr/local/libexec/x", HOSTILE[1:-1]),
        "rc.d",
    ),
    "osless, drops root": (OSLESS % ("drops_root = true", "/srv/ab/x", HOSTILE[1:-1]), "rc.d"),
    "thin": (THIN % (shutil.which("sort"), '"-n"'), "rc.d"),
    "thin, quotes": (THIN % (shutil.which("sort"), HOSTILE[1:-1]), "rc.d"),
}


def render(tmp_path: Path, profile: str | None, artefact: str) -> tuple[int, str, str]:
    names: tuple[str, ...] = ()
    if profile is not None:
        place = tmp_path / "jails/etc/profiles/probe.toml"
        place.parent.mkdir(parents=True)
        place.write_text(profile)
        names = ("probe",)
    said = layout("--root", tmp_path / "jails", "render", artefact, *names, "--platform", "freebsd")
    return said.code, said.out, said.err


@pytest.fixture(name="script", params=CASES, ids=lambda name: name.replace(", ", "-"))
def _script(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    profile, artefact = CASES[request.param]
    code, out, err = render(tmp_path, profile, artefact)
    assert code == 0, err
    return out


@pytest.mark.parametrize(
    "checker", [("dash", "-n"), ("shellcheck", "-s", "sh", "-")], ids=lambda words: words[0]
)
def test_nothing_is_wrong_with_a_script(script: str, checker: tuple[str, ...]) -> None:
    if shutil.which(checker[0]) is None:
        pytest.skip(f"needs {checker[0]}")
    # A word such as $HOME in single quotes is what is meant here.
    more = ("-e", "SC2016") if checker[0] == "shellcheck" and "$HOME" in script else ()
    done = subprocess.run([*checker, *more], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # The control: what is wrong is found.
    broken = subprocess.run(checker, input=f"{script}\nif [ $x = 1 ; then\n", capture_output=True, text=True)
    assert broken.returncode != 0


@pytest.mark.parametrize("name", ["osless, quotes", "thin, quotes"])
def test_a_shell_gets_the_words_of_the_profile_back(tmp_path: Path, name: str) -> None:
    profile, artefact = CASES[name]
    _, script, err = render(tmp_path, profile, artefact)
    line = next((line for line in script.splitlines() if "'$HOME'" in line), None)
    assert line is not None, script + err
    start = line.index(" ", line.index("/")) if "=" not in line.split()[0] else line.index("=") + 1
    words = line[start:].rstrip("\\& ")
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {words}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-len(EVIL) :] == EVIL, (line, done.stderr)


def test_a_kind_without_a_script_says_so(tmp_path: Path) -> None:
    with_script = {Kind.OSLESS, Kind.THIN}
    for name in ("default", "full", "svc"):
        profile = (PROFILES / f"{name}.toml").read_text()
        kind = next(kind for kind in Kind if f'kind = "{kind}"' in profile)
        code, out, err = render(tmp_path / name, profile, "rc.d")
        assert (code, out) == (2, ""), kind
        assert f"kind {kind}" in err
        with_script.add(kind)
    code, out, err = render(tmp_path / "conf", profile, "jail.conf")
    assert (code, out) == (2, ""), "kind service has no file of jail(8) either"
    assert "kind service" in err
    assert with_script == set(Kind), "every kind is looked at"
