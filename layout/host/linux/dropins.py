"""Units of systemd as files: where they are, what systemd-analyze(1) makes of one, what its process has."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from layout.core.errors import LayoutError, reason_of
from layout.core.kinds.dropin import exposure
from layout.host import run
from layout.host.linux import process, procs

SYSTEM = "/etc/systemd/system"
"""Where an administrator's units and drop-ins are."""
_PLACES = (
    SYSTEM,
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)
"""In the order in which systemd looks for a unit (systemd.unit(5))."""
_LIMIT = 1 << 20


class Unit(NamedTuple):
    """A unit as it is without our drop-in."""

    path: str
    text: str
    dropins: tuple[str, ...]
    """Texts of its other drop-ins, in the order in which systemd reads them."""


def find(name: str, own: str, first: str) -> Unit | None:
    """Return a unit; `own`: our drop-in, which is left out; `first`: a directory that is looked at first."""
    stem, at, _ = name.partition("@")
    names = (name, f"{stem}@.service") if at else (name,)
    places = list(dict.fromkeys((first, *_PLACES)))
    for place in places:
        for one in names:
            text = _read(f"{place}/{one}")
            if text is not None:
                return Unit(f"{place}/{one}", text, _dropins(places, names, own))
    return None


def _dropins(places: Sequence[str], names: Sequence[str], own: str) -> tuple[str, ...]:
    """Return the drop-ins of all places by file name; one of an earlier place hides others."""
    found: dict[str, str] = {}
    for place in places:
        for name in names:
            directory = f"{place}/{name}.d"
            with contextlib.suppress(OSError):
                for file in os.listdir(directory):
                    path = f"{directory}/{file}"
                    if file.endswith(".conf") and path != own:
                        found.setdefault(file, path)
    return tuple(_read(found[file]) or "" for file in sorted(found))


def _read(path: str) -> str | None:
    """Return the text of a regular file, None when there is none. Raises LayoutError."""
    try:
        if os.path.realpath(path) == "/dev/null":
            raise LayoutError(path, "a masked unit", "one that can be started", "systemctl unmask")
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LayoutError(path, reason_of(error), "a readable file") from None


class Analysis(NamedTuple):
    """What systemd-analyze(1) says of a unit with our drop-in, without asking a running systemd."""

    faults: list[str]
    before: float | None
    """Exposure, from 0 to 10."""
    after: float | None


def analyze(name: str, unit: Unit, ours: str) -> Analysis | None:
    """Return what systemd-analyze(1) says; None where there is none. Raises LayoutError."""
    if run.which("systemd-analyze") is None:
        return None
    with tempfile.TemporaryDirectory(prefix="layout-unit-") as directory:
        # By another name: systemd-analyze adds what it finds for the unit's own, ours of last time as well.
        path = f"{directory}/layout-analysis-{name}"
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(unit.text)
        os.mkdir(f"{path}.d")
        for number, text in enumerate(unit.dropins):
            _write(f"{path}.d/{number:03d}.conf", text)
        before = exposure(_security(path))
        last = f"{path}.d/layout.conf"
        _write(last, ours)
        done = run.run("systemd-analyze", "verify", "--man=no", path, ok=range(256), timeout=60)
        lines = [line for line in done.stderr.splitlines() if last in line]
        return Analysis(
            [line.replace(last, "layout.conf") for line in lines], before, exposure(_security(path))
        )


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _security(path: str) -> str:
    return run.run(
        "systemd-analyze", "security", "--offline=yes", "--no-pager", path, ok=range(256), timeout=60
    ).stdout


def remove_directory(path: str) -> None:
    """Remove the directory of drop-ins, if nothing else is in it."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


def is_older(pid: int, path: str) -> bool:
    """Say whether a process was started before a file was written, and so knows nothing of it."""
    known = procs.identify(pid)
    try:
        written = os.stat(path).st_mtime
    except OSError:
        return False
    return known is not None and time.time() - procs.uptime(known) < written - 1


def has_more(pid: int, taken: Sequence[str]) -> list[str]:
    """Return what a process has that it should not: capabilities, by name, or no no_new_privs."""
    status = procs.status(pid)
    if not status:
        return []
    bounding = int(status.get("CapBnd", "0"), 16)
    found = [
        f"cap_{name.lower()} in its bounding set"
        for name in taken
        if name in process.CAPABILITIES and bounding >> process.CAPABILITIES[name] & 1
    ]
    if status.get("NoNewPrivs") != "1":
        found.append("no no_new_privs")
    if status.get("Seccomp") == "0":
        found.append("no filter of system calls")
    return found
