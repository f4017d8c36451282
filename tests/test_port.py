"""The skeleton of a port: what can be held without a ports tree. `make -n` would need bsd.port.mk."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import layout

REPOSITORY = Path(__file__).resolve().parents[1]
PORT = REPOSITORY / "layout" / "share" / "port"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())

KNOWN = {"PREFIX", "ETCDIR", "LOCALBASE", "DATADIR", "DOCSDIR"}
"""What bsd.port.mk fills in by itself."""


def variables() -> dict[str, str]:
    """Return the variables of the Makefile, lines joined, comments gone."""
    text = (PORT / "Makefile").read_text().replace("\\\n", " ")
    lines = [line.partition("#")[0] for line in text.splitlines()]
    return {found[1]: found[2].strip() for line in lines if (found := re.match(r"([A-Z_]+)=\s*(.*)", line))}


def requirements(text: list[str]) -> dict[str, str]:
    """Return name and version of requirements of pyproject.toml, as a port spells the version."""
    found = [re.fullmatch(r"([A-Za-z0-9-]+)([<>=0-9.,]*)", one) for one in text]
    return {one[1]: one[2].replace(",", "") for one in found if one}


def depends(text: str) -> dict[str, str]:
    return dict(re.findall(r"\$\{PYTHON_PKGNAMEPREFIX\}([a-z0-9-]+)([<>=0-9.]*):", text))


def test_every_dependency_is_the_port_s_too_with_its_version() -> None:
    wanted = requirements(PROJECT["project"]["dependencies"])
    assert len(wanted) == len(PROJECT["project"]["dependencies"])
    assert depends(variables()["RUN_DEPENDS"]) == wanted
    assert depends(variables()["BUILD_DEPENDS"]) == requirements(PROJECT["build-system"]["requires"])
    for origin in re.findall(r":(\S+)", variables()["RUN_DEPENDS"]):
        assert re.fullmatch(r"[a-z]+/py-[a-z0-9-]+@\$\{PY_FLAVOR\}", origin)


def test_version_licence_and_python_are_the_project_s() -> None:
    assert variables()["DISTVERSION"] == layout.__version__
    assert (variables()["LICENSE"], PROJECT["project"]["license"]) == ("BSD2CLAUSE", "BSD-2-Clause")
    assert f"python:{PROJECT['project']['requires-python'].removeprefix('>=')}+" in variables()["USES"]


def test_every_file_that_is_named_is_there() -> None:
    names = [*variables()["USE_RC_SUBR"].split(), *variables()["SUB_FILES"].split()]
    assert {path.name for path in (PORT / "files").iterdir()} == {f"{name}.in" for name in names}
    for path in re.findall(r"\$\{WRKSRC\}/(\S+)", (PORT / "Makefile").read_text()):
        assert (REPOSITORY / path).is_file(), path
    for script in variables()["USE_RC_SUBR"].split():
        assert f"# PROVIDE: {script}\n" in (PORT / "files" / f"{script}.in").read_text()


def test_every_installed_file_is_in_the_list() -> None:
    recipe = (PORT / "Makefile").read_text().partition("\npost-install:")[2]
    installed = re.findall(r"^\t\$\{INSTALL_\w+\} \S*/(\S+) ", recipe, re.MULTILINE)
    assert installed
    for name in installed:
        assert name in variables()["PLIST_FILES"]


def test_every_placeholder_is_filled() -> None:
    filled = KNOWN | {pair.partition("=")[0] for pair in variables()["SUB_LIST"].split()}
    for path in (PORT / "files").iterdir():
        assert set(re.findall(r"%%(\w+)%%", path.read_text())) <= filled, path.name


def test_no_text_is_wider_than_a_terminal() -> None:
    for name in ("pkg-descr", "files/pkg-message.in"):
        assert max(map(len, (PORT / name).read_text().expandtabs().splitlines())) <= 80
