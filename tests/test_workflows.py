"""The workflows: what runs where, as far as it can be seen from here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.freebsd.conftest import THROW_AWAY

REPOSITORY = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def test_the_suite_for_freebsd_runs_on_the_releases_that_we_promise() -> None:
    text = (REPOSITORY / ".github" / "workflows" / "freebsd.yml").read_text()
    assert 'release: ["14.4", "15.1"]' in text
    assert f"{THROW_AWAY}=1 .venv/bin/python -m pytest -m freebsd tests/freebsd" in text
    for path in re.findall(r"\btests/[\w./]+", text):
        assert (REPOSITORY / path).exists(), path


def scripts(path: Path) -> list[str]:
    """Return the block scripts of a workflow, by their indentation."""
    found = re.findall(
        r"^( *)(?:- )?(?:run|prepare): \|\n((?:\1  +.*\n|\n)+)", path.read_text(), re.MULTILINE
    )
    return [script for _, script in found]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_sh_reads_the_scripts_of_a_workflow(path: Path) -> None:
    for script in scripts(path):
        done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    if path.name == "freebsd.yml":
        assert len(scripts(path)) == 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_yaml_with_jobs_and_steps(path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="no parser of YAML here")
    data = yaml.safe_load(path.read_text())
    assert data["permissions"] == {"contents": "read"}
    for job in data["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert all("uses" in step or "run" in step for step in job["steps"])
