"""A yard whose base is busybox: jails that run a real daemon, httpd, made in a moment."""

from __future__ import annotations

import os
import shutil
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from yard import Yard, clear_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh",
    "grep",
    "test",
    "httpd",
    "sleep",
    "cat",
    "ls",
    "touch",
    "mount",
    "mknod",
    "id",
    "stty",
    "tty",
    "kill",
    "ps",
    "nc",
)

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:80:81:web:/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\nwebs:x:81:web\nnogroup:x:65534:\n"


def build(base: Path) -> Path:
    """Make the base."""
    for name in (
        "bin",
        "dev",
        "etc",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        "usr/local",
        "var/log",
        "srv",
    ):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "tmp").chmod(0o1777)
    shutil.copy2(BUSYBOX, base / "bin/busybox")
    for name in APPLETS:
        os.link(base / "bin/busybox", base / "bin" / name)
    (base / "etc/passwd").write_text(PASSWD, encoding="utf-8")
    (base / "etc/group").write_text(GROUP, encoding="utf-8")
    (base / "srv/index.html").write_text("hello\n", encoding="utf-8")
    return base


def profile(yard: Yard, name: str, text: str) -> None:
    """Write a profile of the site."""
    path = yard.root / "etc/profiles" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'kind = "shared"\ndescription = "a test"\n{text}', encoding="utf-8")


def web(port: int, address: str = "127.0.0.1", more: str = "") -> str:
    """Return what a profile says of httpd."""
    return f"""
[linux.service]
command = ["/bin/httpd", "-f", "-v", "-p", "{address}:{port}", "-h", "/srv"]
ports = ["{port}/tcp"]
ready = {{ tcp = "{address}:{port}", timeout = 30 }}
{more}
"""


@contextmanager
def busybox_yard(top: Path, names: tuple[str, ...] = ("a", "b")) -> Iterator[Yard]:
    """Make a yard of busybox, and take everything away again."""
    base = build(top / "busybox")
    yard = Yard(top, "--base", base, names=names)
    try:
        yield yard
    finally:
        for name in names:
            yard.run("stop", name)
        clear_mounts(top)
        shutil.rmtree(top)


def fetch(port: int, address: str = "127.0.0.1") -> str:
    """Ask httpd for its page."""
    with socket.create_connection((address, port), timeout=30) as client:
        client.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        text = b""
        while piece := client.recv(4096):
            text += piece
    return text.decode()


def processes() -> set[int]:
    """Return all processes that are more than an exit status."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                state = Path(f"/proc/{name}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state not in "ZX":
                found.add(int(name))
    return found


def command_of(pid: int) -> str:
    """Return the words of a process; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def eventually(true: object, seconds: float = 30) -> bool:
    """Say whether something comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False
