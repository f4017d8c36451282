"""A base that lacks the packages of a profile: init says so, and how to get them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_base import build
from yard import layout

pytestmark = pytest.mark.box

INSTALLED = "Package: bind9\nStatus: install ok installed\n\nPackage: half\nStatus: install ok unpacked\n"


def init(top: Path, status: str, *words: str) -> tuple[int, str, str]:
    base = build(top / "base")
    (base / "var/lib/dpkg/status").write_text(status)
    (top / "jails/etc/profiles").mkdir(parents=True)
    for name, packages in (("web", '["bind9", "half", "nginx"]'), ("dns", '["bind9"]')):
        text = f'kind = "shared"\ndescription = "{name}"\n[linux]\npackages = {packages}\n'
        if name == "web":
            text += '[linux.example]\ncommands = [["/bin/true"]]\n'
        (top / f"jails/etc/profiles/{name}.toml").write_text(text)
    done = layout("--root", top / "jails", *words, "init", "--no-mount", "--base", base, "web", "dns")
    return done.code, done.out, done.err


def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    code, _, err = init(tmp_path, INSTALLED)
    assert code == 0
    assert "web: the base lacks half, nginx\n" in err
    assert "layout manage --base -- apt-get install half nginx" in err
    assert "dns: " not in err


def test_programs_are_told_as_well(tmp_path: Path) -> None:
    _, out, _ = init(tmp_path, INSTALLED, "--json")
    assert json.loads(out)["missing"] == {"web": ["half", "nginx"]}


def test_nothing_is_missing_from_a_base_that_has_all(tmp_path: Path) -> None:
    more = "\n".join(f"\nPackage: {name}\nStatus: install ok installed\n" for name in ("half", "nginx"))
    code, _, err = init(
        tmp_path, INSTALLED.replace("Package: half\nStatus: install ok unpacked\n", "") + more
    )
    assert (code, "lacks" in err) == (0, False)
