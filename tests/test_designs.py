"""docs/designs.md tells the truth: it knows every design, and what it shows can be typed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PAGE = (TOP / "docs/designs.md").read_text()
KINDS = ("shared", "osless", "full", "thin", "service")


def section(kind: str) -> str:
    """Return the text of a kind's own section."""
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[2 + KINDS.index(kind)]


def test_every_kind_has_its_section_in_the_order_of_the_table() -> None:
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert tuple(titles[1:]) == KINDS
    assert re.findall(r"`([a-z]+)`", PAGE.split("| |")[1].splitlines()[0]) == list(KINDS)
    for kind in KINDS:
        assert len(section(kind).split()) > 40, kind


def test_the_table_answers_every_question_for_every_kind() -> None:
    table = PAGE.split("| |")[1].split("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) >= 9
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 6, row
        assert all(cells), row


def test_the_readme_leads_to_it() -> None:
    assert "(docs/designs.md)" in (TOP / "README.md").read_text()


def examples(kind: str) -> list[str]:
    """Return the commands of a kind's section, without what they print."""
    blocks = re.findall(r"```console\n(.*?)```", section(kind), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("# ")]


def played(kind: str, block: int, page: str = "") -> list[tuple[str, list[str]]]:
    """Return the commands of one block of a kind's section, each with the lines that it is said to print."""
    text = re.findall(r"```console\n(.*?)```", page or section(kind), re.DOTALL)[block]
    parts = [part.splitlines() for part in re.split(r"^# ", text, flags=re.MULTILINE)[1:]]
    return [(lines[0], lines[1:]) for lines in parts]


def test_every_shipped_profile_has_its_example_and_every_kind_a_profile() -> None:
    kinds = {}
    for path in sorted((TOP / "profiles").glob("*.toml")):
        kinds[path.stem] = tomllib.loads(path.read_text())["kind"]
        assert f"`{path.stem}`" in section(kinds[path.stem]) or f" {path.stem}" in section(kinds[path.stem])
    assert set(kinds.values()) == set(KINDS)
    assert all(examples(kind) for kind in KINDS)


@pytest.mark.box
def test_the_shared_example_does_what_it_says(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {"PATH": path, "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "LAYOUT_ROOT": str(tmp_path / "jails")}
    ended = {}
    for command in examples("shared"):
        done = subprocess.run(
            ["sh", "-c", command],
            env=os.environ | env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        ended[command.split()[1]] = done.stdout + done.stderr
    assert "/etc/hosts" in ended["manage"], "manage says what was changed"
    assert "0 errors" in ended["verify"]
    assert "web: destroyed" in ended["destroy"]


@pytest.mark.box
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_osless_example_does_what_it_says(tmp_path: Path) -> None:
    """With a finger daemon of ours in the place of the one in Go, and its arguments."""
    tmp_path.chmod(0o755)
    build = tmp_path / "build"
    build.mkdir()
    source = TOP / "tests/actions/fingerd.c"
    for name, version in (("old", "one"), ("fingerd", "two")):
        flags = ["-Os", "-w", "-static", f'-DVERSION="{version}"']
        subprocess.run(["gcc", *flags, "-o", build / name, source], check=True)
    (build / "finger.conf").write_text("root:alice\n")
    text = (TOP / "profiles/finger.toml").read_text()
    text = text.replace("/usr/local/libexec/fingerd", str(build / "old"))
    text = text.replace('"-listen", "127.0.3.79:79"', '"127.0.3.79", "79", "/home"')
    profile = tmp_path / "jails/etc/profiles/finger.toml"
    profile.parent.mkdir(parents=True)
    (tmp_path / "jails").chmod(0o700)
    profile.write_text(text)
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {"PATH": path, "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "LAYOUT_ROOT": str(tmp_path / "jails")}
    said = {}
    for command in examples("osless"):
        if command.startswith("install "):
            continue
        words = command.replace("/home/build", str(build))
        done = subprocess.run(words.split(), env=os.environ | env, capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        said[command.split()[1]] = done.stdout
        if command.split()[1] in {"start", "update"}:
            with socket.create_connection(("127.0.3.79", 79), timeout=30) as client:
                client.sendall(b"nobody\r\n")
                said[f"{command.split()[1]}ed"] = client.recv(100).decode()
    assert said["started"].startswith("fingerd one")
    assert said["updateed"].startswith("fingerd two")
    assert "0 errors" in said["verify"]
