"""A jail whose t was filled by somebody hostile, a victim outside, and every command of layout."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = 5000
WIDE = 20_000
HUGE = 1 << 40
NAMES = (
    b"\x1b[2J\x1b]0;pwned\x07",
    b"line\nlayout: FORGED: found nothing, expected nothing",
    b"\nforged  ok",
    b"\xff\xfe no utf-8",
    b"\xe2\x80\xae right to left",
    b"\xc2\x9b31m C1",
    b"-rf",
    b"$(touch pwned)",
    b"`touch pwned`",
    b"; touch pwned",
    b"a b\tc\rd\x7f",
    b"%s%n{}\\",
    b"x" * 255,
)
"""What a jail may call a file: everything but a slash and a zero byte."""


def tree(top: Path, *, dated: bool = True) -> dict[str, tuple[object, ...]]:
    """Return every entry of a tree with content, mode, owner, link count and mtime.

    Without `dated`, the mtime of directories is left out: what came and went in them changes it.
    """
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        s = path.lstat()
        content = ""
        if stat.S_ISREG(s.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(s.st_mode):
            content = os.readlink(path)
        name = str(path.relative_to(top))
        time = s.st_mtime_ns if dated or not stat.S_ISDIR(s.st_mode) else 0
        found[name] = (content, s.st_mode, s.st_uid, s.st_gid, s.st_nlink, time, s.st_ino)
    return found


def changed(before: dict[str, tuple[object, ...]], after: dict[str, tuple[object, ...]]) -> set[str]:
    """Return the paths that differ."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def make_victim(top: Path) -> Path:
    """Make what nobody may touch: what the links of a hostile t lead to."""
    for name in ("etc/passwd", "var/log/messages", "tmp/file", "lib/x", "www/x", "spool/x", "cron"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"victim {name}\n", encoding="utf-8")
        path.chmod(0o640)
        os.utime(path, ns=(1, 1_234_567_891))
    (top / "suid").write_text("", encoding="utf-8")
    (top / "suid").chmod(0o4755)
    os.link(top / "suid", top / "twice")
    return top


def fill(t: Path, victim: Path, *, nodes: bool = True) -> None:
    """Fill the directories of a t with everything that root of a jail can put there, and devices besides."""
    var = t / "var"
    trap = var / "trap"
    trap.mkdir(parents=True)
    at = os.fsencode(trap)
    for number, name in enumerate(NAMES):
        setuid(at + b"/" + name)  # what verify has to name
        os.mkdir(at + b"/d" + name[:254])
        os.symlink(os.fsencode(victim), at + b"/l%d" % number + name[:200])
        if number < 3:
            os.mkfifo(at + b"/f" + name[:254])
    for place in (trap, var / "log", var, t / "tmp", t):
        place.mkdir(exist_ok=True)
        (place / "to-victim").symlink_to(victim)
        (place / "to-passwd").symlink_to(victim / "etc/passwd")
        (place / "to-root").symlink_to("/")
        (place / "loop").symlink_to("loop")
        os.mkfifo(place / "fifo")
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(".", os.O_RDONLY)
            os.chdir(place)  # sun_path is short
            server.bind("socket")
            os.fchdir(here)
            os.close(here)
        with open(place / "sparse", "wb") as file:
            file.truncate(HUGE)
    if nodes:
        os.mknod(trap / "mem", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # zero: it never ends
        os.mknod(trap / "disk", stat.S_IFBLK | 0o666, os.makedev(7, 200))
    (trap / "wide").mkdir()
    for number in range(WIDE):
        os.link(trap / "sparse", trap / f"wide/{number}")
    deep(trap, LEVELS)


def setuid(path: bytes) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
    os.chmod(path, 0o6755)


def deep(place: Path, levels: int) -> None:
    """Make a chain of directories that no path string could name, with a setuid file at its end."""
    fd = os.open(place, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 9, 0o755, dir_fd=fd)
        below = os.open("d" * 9, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, 0o4755, dir_fd=fd))
    os.close(fd)


def _gone(path: Path) -> Path:
    """Move what is there out of the way: the jail is its owner."""
    if os.path.lexists(path):
        path.rename(path.with_name(f"was-{path.name}"))
    return path


KINDS: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda path, victim: path.symlink_to(victim),
    "link up": lambda path, victim: path.symlink_to("../" * 20 + str(victim).lstrip("/")),
    "link to a file": lambda path, victim: path.symlink_to(victim / "etc/passwd"),
    "fifo": lambda path, victim: os.mkfifo(path),
    "file": lambda path, victim: path.write_text("", encoding="utf-8"),
    "sparse file": lambda path, victim: (path.touch(), os.truncate(path, HUGE)),
    "nothing": lambda path, victim: None,
    "closed": lambda path, victim: path.mkdir(mode=0),
}


def replace(t: Path, place: str, kind: str, victim: Path) -> None:
    """Put something else in the place of a directory of t."""
    path = t / place
    if path.parent.is_dir():
        _gone(path)
        KINDS[kind](path, victim)


CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What must never be printed: it could move a terminal's cursor, forge a line, or is no text."""


def is_clean(text: str) -> bool:
    """Say whether nothing in an output is a name that was not escaped."""
    return not CONTROL.search(text) and not re.search(r"^(layout: FORGED|forged  ok)", text, re.MULTILINE)


# --- every command -----------------------------------------------------------------------------------------

LINE = {
    "plan": ("plan a", "plan a --script", "plan c --base host --no-mount"),
    "show": ("show", "show a"),
    "verify": ("verify", "verify --quick a", "verify --base"),
    "status": ("status", "status a"),
    "fstab": ("fstab", "fstab --install --file TOP/fstab", "fstab --remove --file TOP/fstab"),
    "render": tuple(
        f"render {kind}"
        for kind in ("fstab a", "jail.conf a", "rc.conf", "rc.d", "unit a", "nspawn a", "layout.toml")
    ),
    "profile list": ("profile list",),
    "profile show": ("profile show default",),
    "profile check": ("profile check ROOT/t/a/var/fifo", "profile check ROOT/t/a/var/sparse"),
    "profile schema": ("profile schema",),
    "base list": ("base list",),
    "base verify": ("base verify", "base verify --update"),
    "base merge": ("base merge", "base merge a"),
    # Of a t that somebody takes for a base, or writes to: refused, or packed without what no base has.
    "base build dir": ("base build dir ROOT/t/a --output TOP/1.tar.zst",),
    "base build archive": (
        "base build archive ROOT/t/a/var/trap/sparse --output TOP/2.tar.zst",
        "base build archive ROOT/t/a/var/fifo --output TOP/3.tar.zst",
    ),
    "base build host": ("base build host --output ROOT/t/a/var/to-passwd",),
    "base build debian": ("base build debian --suite nosuch --output ROOT/t/a/var/to-passwd",),
    "completion": ("completion bash",),
    "audit": ("audit", "audit a"),
    "advise": ("advise ROOT/t/a/var/trap/sparse", "advise ROOT/t/a/var/fifo"),
    "update": ("update a ROOT/t/a/var/fifo", "update a ROOT/t/a/var/sparse etc/passwd"),
    "init": ("init a --no-mount", "init a b", "init a --no-mount --example", "init a -n"),
    "mount": ("mount", "mount --manage a"),
    "manage": (
        "manage a -- sh -c true",
        "manage a --sealed -- sh -c true",
        "manage a --base-ro -- sh -c true",
        "manage --base -- sh -c true",
    ),
    "start": ("start a",),
    "exec": ("exec a -- test 1",),
    "restart": ("restart a",),
    "stop": ("stop a",),
    "recover": ("recover",),
    "umount": ("umount --manage a", "umount"),
    "destroy": ("destroy a",),
}
CASES = {name: tuple(tuple(line.split()) for line in lines) for name, lines in LINE.items()}
"""Words of every command, in an order in which they make sense: destroy comes last, exec while it runs.

ROOT stands for the root, TOP for a directory beside it.
"""


ELSEWHERE = {"selftest": "it makes jails of its own in a throw-away root, and looks at none of ROOT"}
"""Commands without a case, each with its reason."""


def commands() -> list[str]:
    """Return the names of all commands there are, with those of groups: "base verify"."""
    import typer

    from layout.cli.app import app, load
    from layout.cli.completion.words import describe

    load("")
    return [one.name for one in describe(typer.main.get_command(app))[0]]
