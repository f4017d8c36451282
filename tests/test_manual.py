"""The manual pages: mandoc finds nothing in them; they say all that there is, and nothing that is not."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import typer

from layout.cli.app import app, load
from layout.core.plan import LINKS
from layout.core.profile import Config, Profile
from layout.core.service import Settings

REPOSITORY = Path(__file__).resolve().parents[1]
MAN = REPOSITORY / "layout" / "share" / "man"
PAGES = sorted(path.name for path in MAN.iterdir())


def page(name: str) -> str:
    return (MAN / name).read_text()


# --- mandoc ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="no mandoc")
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_finds_nothing(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", MAN / name], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="no mandoc")
def test_mandoc_finds_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "layout.8"
    wrong.write_text(page("layout.8").replace(".It Fl -json\n", ".It Fl -json\n.Xx\n"))
    assert (
        subprocess.run(["mandoc", "-T", "lint", "-W", "warning", wrong], capture_output=True).returncode != 0
    )


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_sections_that_an_administrator_looks_for(name: str) -> None:
    wanted = ["NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO", "HISTORY", "SECURITY CONSIDERATIONS"]
    if name.endswith(".8"):
        wanted += ["SYNOPSIS", "ENVIRONMENT", "FILES", "EXIT STATUS", "DIAGNOSTICS"]
    assert set(wanted) <= set(re.findall(r"^\.Sh (.*)$", page(name), re.MULTILINE))


def test_a_page_names_the_others() -> None:
    for name in PAGES:
        for other in set(PAGES) - {name}:
            stem, _, section = other.rpartition(".")
            assert f".Xr {stem} {section}" in page(name), (name, other)


# --- layout(8) against the application ---------------------------------------------------------------------


def items(text: str) -> list[tuple[str, str]]:
    """Return the outermost tagged items of a page: the line of the tag, and all that belongs to it."""
    found: list[tuple[str, list[str]]] = []
    depth = 0
    for line in text.splitlines():
        depth -= line.startswith(".El")
        if depth == 1 and line.startswith(".It"):
            found.append((line, []))
        if found and (depth or line.startswith(".El")):
            found[-1][1].append(line)
        depth += line.startswith(".Bl")
    return [(tag, "\n".join(lines)) for tag, lines in found]


def options_in(text: str) -> set[str]:
    """Return the long options that some mdoc(7) names."""
    lines = [line for line in text.splitlines() if line.startswith(".") and "Fl" in line]
    return {f"-{word}" for line in lines for word in line.split() if re.fullmatch(r"-[a-z][a-z-]*", word)}


def described() -> dict[str, str]:
    """Return what layout(8) says of each command."""
    found = {}
    for tag, text in items(page("layout.8")):
        command = re.match(r"\.It Cm ([a-z]+(?: [a-z]+)*)(?= [A-Z]|$)", tag)
        if command:
            found[command[1]] = text
    return found


def walk_commands(above: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        words = f"{above} {name}".strip()
        if hasattr(command, "commands"):
            yield from walk_commands(words, command)
        else:
            yield words, command


@cache
def commands() -> dict[str, Any]:
    """Return every command of the application, those of groups with all of their words."""
    load("")
    return dict(walk_commands("", typer.main.get_command(app)))


def long_options(command: Any) -> set[str]:
    names = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return {name for name in names if name.startswith("--")}


def test_layout_8_has_every_command_and_no_other() -> None:
    assert set(described()) == set(commands())


def test_layout_8_has_every_option_of_every_command() -> None:
    text = described()
    missing = {
        name: sorted(lacking)
        for name, command in commands().items()
        if (lacking := long_options(command) - options_in(text.get(name, "")))
    }
    assert missing == {}


def test_layout_8_defines_no_option_that_is_not_there() -> None:
    found = commands()
    for name, text in described().items():
        tags = "\n".join(line for line in text.splitlines() if line.startswith(".It Fl"))
        assert options_in(tags) - long_options(found[name]) == set(), name


def test_layout_8_has_every_global_option_and_variable() -> None:
    group: Any = typer.main.get_command(app)
    assert long_options(group) <= options_in(page("layout.8"))
    for one in group.params:
        if one.envvar:
            assert f".It Ev {one.envvar}" in page("layout.8")


def test_layout_8_has_every_word_that_an_option_or_argument_takes() -> None:
    for name, command in commands().items():
        for one in command.params:
            for choice in getattr(one.type, "choices", ()):
                word = choice.value if isinstance(choice, Enum) else str(choice)
                assert re.search(rf"(Cm|\|) {re.escape(word)}\b", page("layout.8")), (name, word)


def test_layout_8_has_every_group_of_findings() -> None:
    codes = re.findall(r"^\| `([AS]\d+-)", (REPOSITORY / "docs" / "findings.md").read_text(), re.MULTILINE)
    assert codes
    assert {code for code in codes if f".It {code}\n" not in page("layout.8")} == set()


# --- layout.toml(5) against the structures -----------------------------------------------------------------


def subsections(name: str) -> dict[str, dict[str, str]]:
    """Return, for each .Ss of a page, its items by each of the keys in their tags."""
    found: dict[str, dict[str, str]] = {}
    for part in re.split(r"^\.Ss ", page(name), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        keys = found.setdefault(title, {})
        for tag, text in items(body.partition("\n.Sh ")[0]):
            keys |= dict.fromkeys(re.findall(r"Va (\w+)", tag), text)
    return found


def structure(kind: Any) -> type[msgspec.Struct] | None:
    """Return the structure that a type is, or is an array of."""
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None


def walk(kind: type[msgspec.Struct], title: str, seen: set[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the title of its subsection and each field, of a structure and of those in it, each once."""
    if kind in seen:
        return
    seen.add(kind)
    for field in msgspec.structs.fields(kind):
        yield title, field
        inner = structure(field.type)
        if inner is Settings:
            yield from walk(inner, "linux, freebsd", seen)
        elif inner is not None:
            plain = title in {"linux, freebsd", "Profiles"}
            yield from walk(inner, field.name if plain else f"{title}.{field.name}", seen)


def keys() -> list[tuple[str, Any]]:
    return [*walk(Config, "layout.toml", set()), *walk(Profile, "Profiles", set())]


@pytest.mark.parametrize(("title", "field"), [pytest.param(t, f, id=f"{t}-{f.name}") for t, f in keys()])
def test_layout_toml_5_has_every_key_with_its_default(title: str, field: Any) -> None:
    sections = subsections("layout.toml.5")
    assert title in sections
    assert field.name in sections[title]
    text = sections[title][field.name]
    default = field.default
    if isinstance(default, bool):
        assert str(default).lower() in text
    elif isinstance(default, int):
        assert re.search(rf"(?<![\w-]){default}\b", text)
    elif isinstance(default, str) and default:
        assert f"Dq {default!s} " in text
    elif isinstance(default, tuple) and default:
        assert f"Dq {default[0]} " in text
    elif default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT and title == "Profiles":
        assert "Required." in text


def test_layout_toml_5_has_no_other_key() -> None:
    known: dict[str, set[str]] = {}
    for title, field in keys():
        known.setdefault(title, set()).add(field.name)
    assert {title: set(found) for title, found in subsections("layout.toml.5").items()} == known


def test_the_example_of_layout_toml_5_is_valid(cli, tmp_path: Path) -> None:
    blocks = re.findall(r"^\.Bd [^\n]*\n(.*?)^\.Ed", page("layout.toml.5"), re.MULTILINE | re.DOTALL)
    [profile] = [block for block in blocks if block.startswith("kind")]
    (tmp_path / "x.toml").write_text(profile)
    assert cli("profile", "check", tmp_path / "x.toml").code == 0
    [config] = [block for block in blocks if block.startswith("root")]
    (tmp_path / "layout.toml").write_text(config)
    assert cli("fstab", "bind", "--config", tmp_path / "layout.toml").code == 0


# --- layout(7) against the tables --------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "column"), [("hardened", 3), ("classic", 4)])
def test_layout_7_has_the_mount_table(cli, preset: str, column: int) -> None:
    rows = [
        line.split() for line in page("layout.7").splitlines() if re.match(r"(/jails|devfs) *\S* +/", line)
    ]
    said = [" ".join((*row[:3], row[column], "0 0")).replace("NAME", "bind") for row in rows]
    words = ("--platform", "freebsd", "--preset", preset, "--manage", "boot")
    assert said == cli("fstab", "bind", *words).out.splitlines()


def test_layout_7_has_the_links_of_the_base() -> None:
    links = dict(re.findall(r"^(\S+) +-> (\S+)$", page("layout.7"), re.MULTILINE))
    assert links == dict(LINKS)


# --- installed ---------------------------------------------------------------------------------------------


def test_every_page_is_installed_where_man_looks() -> None:
    data = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    shared = data["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    for name in PAGES:
        assert shared[f"layout/share/man/{name}"] == f"share/man/man{name[-1]}/{name}"
    completions = {path.name for path in (MAN.parent / "completion").iterdir()}
    assert {f"layout/share/completion/{name}" for name in completions} <= set(shared)
