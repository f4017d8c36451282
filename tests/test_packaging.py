"""What is shipped: the package with its data, and nothing else that would land beside it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="builds with hatchling, which .ci/venv installs")

REPOSITORY = Path(__file__).resolve().parent.parent


def build(target: str, folder: Path) -> Path:
    """Build a wheel or sdist of the checkout and return the one file that came out."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [archive] = folder.iterdir()
    return archive


@pytest.fixture(name="wheel", scope="module")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in the wheel."""
    with zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        return archive.namelist()


@pytest.fixture(name="sdist", scope="module")
def _sdist(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in the source archive."""
    with tarfile.open(build("sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        return archive.getnames()


@pytest.mark.parametrize(("folder", "pattern"), [("profiles", "*.toml"), ("fstab.d", "*.fstab.in")])
def test_wheel_has_every_data_file(wheel: list[str], folder: str, pattern: str) -> None:
    expected = {f"layout/data/{folder}/{path.name}" for path in (REPOSITORY / folder).glob(pattern)}
    assert expected
    assert expected <= set(wheel)


def test_wheel_has_every_module(wheel: list[str]) -> None:
    modules = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "layout").rglob("*.py")}
    assert modules | {"layout/py.typed"} <= set(wheel)


def test_wheel_and_sdist_have_every_file_for_the_host(wheel: list[str], sdist: list[str]) -> None:
    files = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "layout" / "share").rglob("*")
        if path.is_file()
    }
    assert files
    assert files <= set(wheel)
    assert files <= {name.partition("/")[2] for name in sdist}


def test_wheel_has_the_documents_that_hints_name(wheel: list[str]) -> None:
    documents = {path.name for path in (REPOSITORY / "docs").glob("*.md")}
    assert "reference.md" in documents
    installed = {name.rpartition("share/doc/layout/")[2] for name in wheel if "share/doc/layout/" in name}
    assert documents <= installed


def test_wheel_has_the_licence_and_the_command(wheel: list[str]) -> None:
    assert [name for name in wheel if name.endswith(".dist-info/licenses/LICENSE")]
    assert [name for name in wheel if name.endswith(".dist-info/entry_points.txt")]


def test_wheel_has_nothing_beside_the_package(wheel: list[str]) -> None:
    assert {name.partition("/")[0].partition("-")[0] for name in wheel} == {"layout"}
    assert [name for name in wheel if "tests" in name.split("/")] == []


def test_sdist_has_one_top_level_folder(sdist: list[str]) -> None:
    [top] = {name.partition("/")[0] for name in sdist}
    assert top.startswith("layout-")
    assert {f"{top}/pyproject.toml", f"{top}/README.md", f"{top}/LICENSE"} <= set(sdist)
