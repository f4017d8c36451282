"""A finger daemon for tests: compiled once, static, and a jail with nothing else in it."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from yard import Rooted, clear_mounts

SOURCE = Path(__file__).parent / "fingerd.c"
NAME = "finger"
PROGRAM = "srv/finger/bin/fingerd"

PROFILE = """
kind = "osless"
description = "a test"

[{platform}.osless]
program = "{program}"
path = "srv/finger/bin/fingerd"
files = [{{ path = "etc/finger.conf", text = "alias\\n" }}]
{osless}

[[{platform}.mounts]]
source = "{homes}"
target = "home"

[{platform}.service]
command = {command}
ports = ["{port}/tcp"]
ready = {{ tcp = "{address}:{port}", timeout = 30 }}
stop_timeout = 30
{service}

[{platform}.network]
{network}
"""


@functools.cache
def _built(directory: str, flags: tuple[str, ...]) -> Path:
    out = Path(directory) / f"fingerd{len(list(Path(directory).iterdir()))}"
    subprocess.run(["gcc", "-Os", "-w", *flags, "-o", out, SOURCE], check=True, timeout=60)
    return out


_WORK: list[str] = []


def fingerd(*flags: str, static: bool = True) -> Path:
    """Return a finger daemon, compiled with these flags."""
    if not _WORK:
        _WORK.append(tempfile.mkdtemp(prefix="fingerd-"))
    return _built(_WORK[0], (*(("-static",) if static else ()), *flags))


def finger(query: str, port: int, address: str = "127.0.0.1") -> str:
    """Ask as RFC 1288 says: a line, then everything until the end."""
    with socket.create_connection((address, port), timeout=30) as client:
        client.sendall(f"{query}\r\n".encode())
        text = b""
        while piece := client.recv(4096):
            text += piece
    return text.decode()


class Finger(Rooted):
    """ROOT with one OS-less jail."""

    def __init__(self, top: Path, platform: str = "linux") -> None:
        self.top = top
        self.root = top / "jails"
        self.homes = top / "homes"
        self.program = top / "build/fingerd"
        self.platform = platform
        (self.homes / "alice").mkdir(parents=True)
        (self.homes / "alice/.plan").write_text("Alice plans.\r\n", encoding="utf-8")
        self.program.parent.mkdir()
        (self.root / "etc/profiles").mkdir(parents=True)
        self.root.chmod(0o700)
        shutil.copy(fingerd(), self.program)

    def profile(
        self,
        port: int = 1079,
        *,
        osless: str = "",
        service: str = "",
        network: str = "",
        command: list[str] | None = None,
        address: str = "127.0.0.1",
        log: bool = True,
    ) -> None:
        """Write the profile."""
        words = command or [f"/{PROGRAM}", address, str(port), "/home", *(["/log/queries"] if log else [])]
        text = PROFILE.format(
            platform=self.platform,
            program=self.program,
            homes=self.homes,
            command=json.dumps(words),
            port=port,
            address=address,
            osless=osless,
            service=service,
            network=network,
        )
        (self.root / f"etc/profiles/{NAME}.toml").write_text(text, encoding="utf-8")

    def findings(self, *words: object) -> list[tuple[str, str, str]]:
        """Return code, severity and path of everything that verify finds."""
        report = json.loads(self.run("--json", "verify", *words).out)
        sides = [report["host"], *report["jails"].values()]
        return [(f["code"], f["severity"], f["path"]) for side in sides for f in side["findings"]]

    def codes(self, *words: object) -> set[str]:
        return {code for code, severity, _ in self.findings(*words) if severity != "note"}

    def pid(self) -> int:
        found = json.loads(self.ok("--json", "status", NAME))["jails"][NAME]["running"]
        return int(found["pid"]) if found else 0

    def clear(self) -> None:
        """Take everything away."""
        self.run("stop", NAME)
        clear_mounts(self.top)


def move_program(jail: Finger) -> None:
    """Give the program another place in the profile: init says so, does it, and verify has nothing to say."""
    old, new = PROGRAM, "srv/new/fingerd"
    jail.ok("start", NAME)
    profile = jail.root / f"etc/profiles/{NAME}.toml"
    before = profile.read_text(encoding="utf-8")
    profile.write_text(before.replace(old, new), encoding="utf-8")
    assert ("O2-program", "error", f"{jail.root}/s/{NAME}/{old}") in jail.findings(NAME)
    planned = [line.split()[:2] for line in jail.ok("plan", NAME).splitlines()]
    assert ["remove", f"{jail.root}/s/{NAME}/{old}"] in planned
    jail.ok("init", NAME)
    assert not (jail.root / "s" / NAME / old).exists()
    jail.ok("restart", NAME)
    assert finger("alice", 1079).startswith("fingerd one")
    assert jail.codes() == set()
    assert jail.ok("init", NAME).startswith("0 changes")
    # And back, to where there are directories of it still.
    profile.write_text(before, encoding="utf-8")
    jail.ok("init", NAME)
    jail.ok("restart", NAME)
    assert jail.codes() == set()
    jail.ok("stop", NAME)


def remove_stranger(jail: Finger, opened: str = "true") -> None:
    """Put a program into the tree, with `opened` run before; then type what verify gives as a hint."""
    tree = jail.root / "s" / NAME
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {**os.environ, "PATH": path, "LAYOUT_ROOT": str(jail.root)}
    stranger = tree / "etc/the administrator's; touch helper"
    put = f"{opened} && cp {tree}/{PROGRAM} {shlex.quote(str(stranger))}"
    subprocess.run(["sh", "-c", put], env=env, check=True)
    assert jail.run("init", NAME).code == 1, "it closes the tree, takes away nothing of others, and says so"
    assert stranger.exists()
    report = json.loads(jail.run("--json", "verify", NAME).out)["jails"][NAME]["findings"]
    (hint,) = {one["hint"] for one in report if one["severity"] == "error"}
    subprocess.run(["sh", "-c", hint], env=env, check=True)
    assert not stranger.exists()
    assert jail.codes() == set()
