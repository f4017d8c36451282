"""A yard of jails for tests: made once from a tiny base, put back as it was for each test.

Nothing in the base can be executed; tests that run something in a jail use `--base host`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layout.cli.main import run
from layout.core import mountinfo
from layout.core.findings import AT_MOST
from layout.host.beneath import open_root, remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layout.core.mountinfo import MountPoint

BASE = {
    "bin/sh": 0o755,
    "usr/bin/su": 0o4755,
    "usr/local/sbin/site-su": 0o4755,
    "etc/passwd": 0o644,
    "etc/hosts": 0o644,
    "root/.profile": 0o644,
    "var/log/messages": 0o640,
    "var/mail/root": 0o660,
}


def make_base(path: Path) -> Path:
    for name, mode in BASE.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}\n", encoding="utf-8")
        file.chmod(mode)
    (path / "var/mail").chmod(0o2775)
    return path


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended in this process, and what it said."""

    code: int
    out: str
    err: str


def layout(*words: object) -> Said:
    """Run layout in this process, as a user does."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(word) for word in words])
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "surrogateescape"))
    assert not re.search("Traceback|mistake in layout", texts[1]), texts[1]
    return Said(code, texts[0], texts[1])


def mounts(below: Path | str = "/") -> list[MountPoint]:
    return mountinfo.parse(Path("/proc/self/mountinfo").read_bytes(), os.fsencode(below))


def mount(*words: object) -> None:
    subprocess.run(["mount", "-n", *map(str, words)], check=True)


def umount(*words: object) -> None:
    subprocess.run(["umount", "-n", *map(str, words)], check=True)


def clear_mounts(path: Path) -> None:
    """Unmount everything at and below `path`; what is hidden comes to light in the next round."""
    while found := mounts(path):
        targets = sorted({one.target for one in found}, key=len)
        subprocess.run(["umount", "-n", "-q", "-l", *reversed(targets)], stderr=subprocess.DEVNULL)


def nest(path: Path, levels: int) -> None:
    """Make directories in one another, more than a path could name."""
    here = os.open(path, os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


class Rooted:
    """A ROOT, and layout run for it in this process."""

    root: Path

    def run(self, *words: object) -> Said:
        return layout("--root", self.root, *words)

    def ok(self, *words: object) -> str:
        done = self.run(*words)
        assert done.code == 0, done.err + done.out
        return done.out

    def fails(self, *words: object, code: int = 1) -> str:
        done = self.run(*words)
        assert done.code == code, done
        return done.err


class Yard(Rooted):
    """ROOT with jails, and what tests do with it."""

    def __init__(self, top: Path, *words: object, names: tuple[str, ...] = ("a", "b")) -> None:
        self.top = top
        self.root = top / "jails"
        self.names = names
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        base = () if "--base" in words else ("--base", make_base(top / "base"))
        done = self.run("init", "--no-mount", *base, *words, *names)
        assert done.code == 0, done.err
        self._as_made = top / "as-made"
        self.keep()

    def keep(self) -> None:
        """Let it be from now on what `renew` puts back."""
        if self._as_made.exists():
            shutil.rmtree(self._as_made)
        subprocess.run(["cp", "-a", self.root, self._as_made], check=True)

    def process(self, *words: object, **more: Any) -> subprocess.Popen[str]:
        """Start layout in a process of its own."""
        arguments = [sys.executable, "-m", "layout", "--root", str(self.root), *map(str, words)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

    def verify(self, *words: object) -> list[tuple[str, str, str]]:
        """Return (jail or "host", code, severity) of every finding; those of probes with --probe."""
        choice = () if "--probe" in words else ("--no-probe",)
        done = self.run("--json", "verify", *choice, *words)
        report = json.loads(done.out)
        sides = {"host": report["host"], **report["jails"]}
        found = [(name, f["code"], f["severity"]) for name, side in sides.items() for f in side["findings"]]
        errors = [code for _, code, severity in found if severity == "error"]
        assert done.code == bool(errors) == (not report["ok"])
        # Of one code in one jail no more than so many are listed, and all are counted.
        if all(number <= AT_MOST for number in Counter((name, code) for name, code, _ in found).values()):
            assert report["counts"]["errors"] == len(errors)
        else:
            assert report["counts"]["errors"] > AT_MOST
        return found

    def mounts(self) -> list[MountPoint]:
        return mounts(self.root)

    def clear(self) -> None:
        """Unmount and remove what is there."""
        clear_mounts(self.top)
        with open_root(str(self.top)) as top:
            remove_tree(top, "jails")

    def renew(self) -> None:
        """Put everything back as it was made, with nothing mounted."""
        self.clear()
        subprocess.run(["cp", "-a", self._as_made, self.root], check=True)

    def elsewhere(self, name: str) -> Path:
        """Return a directory outside ROOT that is no mount point yet."""
        path = self.top / "elsewhere" / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@contextlib.contextmanager
def yard_at(top: Path, *words: object, names: tuple[str, ...] = ("a", "b")) -> Iterator[Yard]:
    """Make a yard, and take everything away again."""
    yard = Yard(top, *words, names=names)
    try:
        yield yard
    finally:
        clear_mounts(top)
        shutil.rmtree(top)
