"""bubblewrap, with everything that its defaults leave open closed."""

from __future__ import annotations

import os

from layout.host.linux import stage
from layout.host.linux.confined import MASKED, READ_ONLY
from layout.host.linux.engines import Spec

PROGRAM = "bwrap"
PACKAGE = "bubblewrap"
JOINS_NAMESPACE = True
"""It is started as root of the jail's user namespace."""
NOTES: tuple[str, ...] = ()
ENVIRONMENT: dict[str, str] = {}
TIGHTENED: tuple[str, ...] = ()


def prepare(spec: Spec) -> None:
    """Give the jail its /dev and /run: bwrap's own are writable and executable. Raises LayoutError."""
    stage.device_tree(spec.shift)
    stage.run_tree(spec.directories, spec.shift)


def is_gated() -> bool:
    """Say whether a service waits for something that layout does later: there is no such thing."""
    return False


def tidy(name: str, mountpoint: str) -> None:
    """Take away what bwrap leaves behind: nothing."""


def arguments(program: str, spec: Spec) -> tuple[str, ...]:
    """Return the command line.

    All capabilities go but those listed: root's bwrap keeps them all otherwise, and a read-only mount is only
    as strong as CAP_SYS_ADMIN. What speaks for the whole host in /proc is covered: core_pattern is open to
    any uid 0. --dev-bind takes the mounts of the jail along as they are, noexec included.
    """
    words = [program, "--dev-bind", stage.JAIL, "/", "--proc", "/proc"]
    for name in READ_ONLY:
        if os.path.lexists(f"/proc/{name}"):
            words += ["--ro-bind", f"/proc/{name}", f"/proc/{name}"]
    for name in MASKED:
        if os.path.lexists(f"/proc/{name}"):
            words += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += [] if spec.network else ["--unshare-net"]
    words += ["--hostname", spec.hostname, "--cap-drop", "ALL"]
    for name in spec.capabilities:
        words += ["--cap-add", f"CAP_{name.upper()}"]
    words.append("--clearenv")
    for name, value in spec.environment.items():
        words += ["--setenv", name, value]
    return (*words, "--chdir", "/", "--", *spec.command)
