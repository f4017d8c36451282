"""The service manager of a host that booted with systemd: jails' units in /run, by systemctl(1)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from layout.core.errors import LayoutError
from layout.host import run
from layout.host.beneath import open_root

UNITS = "/run/systemd/system"
"""Units that do not outlive a boot; there only when systemd is process 1 (sd_booted(3))."""
INSTALLED = "/etc/systemd/system"
"""An administrator's own units, which systemd takes before those in /run."""
_LINES = 8


def is_booted() -> bool:
    """Say whether systemd is process 1 here."""
    return os.path.isdir(UNITS) and run.which("systemctl") is not None


def require_booted() -> None:
    """Make sure that systemd is process 1 here. Raises LayoutError."""
    if not is_booted():
        hint = "use --engine bwrap or nspawn"
        raise LayoutError("this host", "no systemd as process 1", "a host that booted with systemd", hint)


def install(unit: str, text: str) -> None:
    """Write a unit and let systemd read it. Raises LayoutError, OSError."""
    with open_root(UNITS) as units:
        units.write_whole(unit, text.encode("utf-8", "surrogateescape"), 0o644)
    run.run("systemctl", "daemon-reload")


def remove(unit: str) -> None:
    """Take a unit away, and forget that it failed. Raises LayoutError."""
    if not is_booted():
        return
    run.run("systemctl", "reset-failed", unit, ok=range(256))
    with contextlib.suppress(FileNotFoundError), open_root(UNITS) as units:
        units.unlink(unit)
        run.run("systemctl", "daemon-reload")


def is_installed(unit: str) -> bool:
    """Say whether an administrator has installed a unit of this name, for every boot."""
    return os.path.exists(f"{INSTALLED}/{unit}")


def properties(unit: str, names: Iterable[str]) -> dict[str, str]:
    """Return properties of a unit, as systemd has read it; those that it does not know are left out.

    Raises CommandError.
    """
    done = run.run("systemctl", "show", f"--property={','.join(names)}", unit)
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


def reload() -> None:
    """Let systemd read units and drop-ins again. Raises CommandError."""
    run.run("systemctl", "daemon-reload")


def restart(unit: str) -> None:
    """Restart a unit, or start it. Raises CommandError."""
    run.run("systemctl", "restart", unit)


def dropins_of(unit: str) -> list[str]:
    """Return the drop-ins that systemd has read for a unit; none when its files have changed since."""
    done = run.run("systemctl", "show", "--property=DropInPaths,NeedDaemonReload", unit)
    fields = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    return [] if fields.get("NeedDaemonReload") == "yes" else fields.get("DropInPaths", "").split()


def start(unit: str) -> None:
    """Start a unit. Raises CommandError."""
    run.run("systemctl", "start", unit)


def stop(unit: str) -> None:
    """Stop a unit and wait until nothing of it is left. Raises CommandError."""
    if not is_booted():
        return
    run.run("systemctl", "stop", unit, ok=(0, 5))  # 5: there is no such unit


def main_process(unit: str) -> int | None:
    """Return the main process of a unit that is active, or None. Raises LayoutError."""
    if not is_booted():
        return None
    done = run.run("systemctl", "show", "--property=ActiveState,MainPID", unit)
    fields = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    pid = int(fields.get("MainPID") or 0)
    return pid if pid and fields.get("ActiveState") in {"active", "reloading", "deactivating"} else None


def last_words(unit: str) -> list[str]:
    """Return the last lines that a unit wrote to the journal, escaped."""
    if run.which("journalctl") is None:
        return []
    done = run.run("journalctl", "-u", unit, "-n", str(_LINES), "-o", "cat", "--no-pager", ok=range(256))
    return run.printable_lines(done.stdout).splitlines()
