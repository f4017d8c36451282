"""layout as a user of FreeBSD runs it: on a pretended host, with a Python that has what FreeBSD's has."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.personality.host import ENTER, Done, Host

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
SHIM = HERE / "freebsd_shim"


class FreeBSD(Host):
    """A pretended FreeBSD host with layout on it; ROOT is `root`, which is below the test's directory."""

    def __init__(self, work: Path, *options: str) -> None:
        super().__init__(work, *options)
        self.root = work / "jails"
        self.base = work / "base"
        self.where = ["--root", str(self.root)]
        self._standby: subprocess.Popen[str] | None = None

    def layout(self, *words: str | os.PathLike[str]) -> Done:
        """Run layout, with --root until settle(), in a process of its own; return how it ended."""
        standby = self._standby or self._stand_by()
        assert standby.stdin and standby.stdout
        files = {name: str(self.work / f".{name}") for name in ("out", "err")}
        task = {"words": [*self.where, *map(os.fspath, words)], **files}
        standby.stdin.write(f"{json.dumps(task)}\n")
        standby.stdin.flush()
        return self._done(standby.stdout.readline())

    def _stand_by(self) -> subprocess.Popen[str]:
        """Start what layout is forked from, on this host."""
        self.ok(":")  # the host is there
        join = [ENTER, "--join", str(self.shell.pid), "env", "-u", "LAYOUT_ROOT", "-u", "LAYOUT_CONFIG"]
        plain = ["NO_COLOR=1", "COLUMNS=120", "LC_ALL=C.UTF-8", f"PYTHONPATH={SHIM}:{HERE.parent}"]
        words = [*join, *plain, sys.executable, str(SHIM / "standby.py")]
        pipe = subprocess.PIPE
        self._standby = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=self.work)
        return self._standby

    def close(self) -> None:
        """End the host and all that runs there."""
        if self._standby is not None:
            assert self._standby.stdin and self._standby.stdout
            self._standby.kill()
            self._standby.wait()
            self._standby.stdin.close()
            self._standby.stdout.close()
        super().close()

    def python(self, *words: str | os.PathLike[str]) -> str:
        """Return the command of the shell that runs this host's Python with these arguments."""
        quoted = " ".join(shlex.quote(os.fspath(word)) for word in (sys.executable, *words))
        plain = f"PYTHONPATH={SHIM}:{HERE.parent} NO_COLOR=1 COLUMNS=120 LC_ALL=C.UTF-8"
        return f"env -u LAYOUT_ROOT -u LAYOUT_CONFIG {plain} {quoted}"

    def does(self, *words: str | os.PathLike[str]) -> str:
        """Run layout, which must succeed; return what it printed."""
        done = self.layout(*words)
        assert done.code == 0, done
        return done.out

    def fails(self, *words: str | os.PathLike[str], code: int = 1) -> str:
        """Run layout, which must fail in words; return what it said."""
        done = self.layout(*words)
        assert done.code == code, done
        return done.err + done.out

    def told(self, *words: str | os.PathLike[str]) -> Any:
        """Run layout with --json; return its document, whatever the exit status."""
        done = self.layout("--json", *words)
        assert done.code in {0, 1}, done
        return json.loads(done.out)

    def findings(self, *names: str) -> list[dict[str, str]]:
        """Return all findings of verify, but for probes: those have tests of their own, and cost."""
        document = self.told("verify", "--no-probe", *names)
        reports = [document["host"], *document["jails"].values()]
        return [finding for report in reports for finding in report["findings"]]

    def codes(self, *names: str) -> set[str]:
        """Return the codes of all findings of verify."""
        return {finding["code"] for finding in self.findings(*names)}

    def settle(self) -> None:
        """Make ROOT the site's own from now on: found by its configuration, with rc.conf(5) and all."""
        etc = "/usr/local/etc/layout"
        self.ok(f"mkdir -p {etc}; echo 'root = \"{self.root}\"' >{etc}/layout.toml")
        self.where = []

    def small_base(self) -> Path:
        """Make a base with a few programs, once."""
        if not self.base.exists():
            self.ok(
                f"base {self.base}; mkdir -p {self.base}/usr/local/etc {self.base}/var/log {self.base}/root"
            )
        return self.base

    def layout_mounts(self) -> list[tuple[str, str]]:
        """Return (source, mount point) of what is mounted at or below ROOT, relative to it."""
        top = f"/{self.root.name}/"
        return [
            (source.removeprefix(top), target.removeprefix(top))
            for source, target, _ in self.mounted()
            if target.startswith(top)
        ]


@pytest.fixture(name="freebsd")
def _freebsd(tmp_path: Path) -> Iterator[FreeBSD]:
    host = FreeBSD(tmp_path.resolve())
    yield host
    host.close()
