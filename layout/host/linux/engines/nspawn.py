"""systemd-nspawn without a systemd around it, with everything that its defaults leave open closed."""

from __future__ import annotations

import os

from layout.core import gateprogram
from layout.host.beneath import open_root
from layout.host.linux import cgroups, devices, process, stage, syscalls
from layout.host.linux.engines import Spec

PROGRAM = "systemd-nspawn"
PACKAGE = "systemd-container"
JOINS_NAMESPACE = False
"""It makes the user namespace itself, as root of the host."""
NOTES: tuple[str, ...] = ()
ENVIRONMENT = {
    # Or it mounts a tmpfs of its own, executable, over /tmp, which is a link into t.
    "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
    "SYSTEMD_NSPAWN_LOCK": "0",
    "SYSTEMD_COLORS": "0",
    "TERM": "dumb",
}


def prepare(spec: Spec) -> None:
    """Give nspawn a /run of its own, so that nothing of it is left, and the jail's directories of /run."""
    flags = syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV | syscalls.ATTR_NOEXEC
    made = devices.tmpfs(flags, (("mode", "755"), ("size", "16m")))
    try:
        with open_root("/run") as run:
            syscalls.move_mount(made, run.fd, b"")
    finally:
        os.close(made)
    made = devices.tmpfs(flags, (("mode", "755"), ("size", "16m")))
    try:
        stage.fill_run(made, spec.directories, spec.shift)
        with open_root(stage.SPARE) as spare:
            syscalls.move_mount(made, spare.fd, b"")
    finally:
        os.close(made)
    if gate := gateprogram.program(os.uname().machine):
        _show_gate(gate)
    cgroups.enter(cgroups.group_of(spec.name, spec.mountpoint))


def _show_gate(gate: bytes) -> None:
    """Make the program that waits in place of the service: its mount is read-only, and executable."""
    made = devices.tmpfs(syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "755"), ("size", "64k")))
    try:
        fd = os.open("gate", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o555, dir_fd=made)
        os.fchmod(fd, 0o555)
        os.write(fd, gate)
        os.close(fd)
        syscalls.mount_setattr(made, attr_set=syscalls.ATTR_RDONLY)
        with open_root(stage.GATE) as place:
            syscalls.move_mount(made, place.fd, b"")
    finally:
        os.close(made)


def is_gated() -> bool:
    """Say whether a service waits until layout has forbidden what nspawn allows."""
    return gateprogram.program(os.uname().machine) is not None


_GATE = "/run/layout-gate"
"""The gate as the jail sees it."""

TIGHTENED = ("/run", "/dev/shm", "/dev")  # noqa: S108 - of the jail
"""Mounts of its own that can be written and executed in until layout changes that, before the service."""


def tidy(name: str, mountpoint: str) -> None:
    """Take away what nspawn leaves behind. Raises LayoutError."""
    cgroups.remove(cgroups.group_of(name, mountpoint))


def arguments(program: str, spec: Spec) -> tuple[str, ...]:
    """Return the command line.

    Without --register=no and --keep-unit it asks for a system bus. --drop-capability=all would drop those of
    --capability as well, so each is named. Its own /dev, /proc and read-only /proc/sys are right as they are.
    """
    dropped = [name for name in process.CAPABILITIES if name.lower() not in spec.capabilities]
    words = [
        program,
        "--quiet",
        "--settings=no",
        "--register=no",
        "--keep-unit",
        "--as-pid2",
        f"--machine={spec.name.replace('_', '-')}",
        f"--hostname={spec.hostname}",
        f"--directory={stage.JAIL}",
        "--console=pipe",
        "--timezone=off",
        "--resolv-conf=off",
        "--link-journal=no",
        "--rlimit=CORE=1",
        f"--no-new-privileges={'no' if spec.setuid else 'yes'}",
        f"--drop-capability={','.join(f'CAP_{name}' for name in dropped)}",
    ]
    if spec.capabilities:
        words.append(f"--capability={','.join(f'CAP_{name.upper()}' for name in spec.capabilities)}")
    if spec.shift:
        words += [f"--private-users={spec.shift}:65536", "--private-users-ownership=off"]
    else:
        words.append("--private-users=no")
    words += [] if spec.network else ["--private-network"]
    words += [f"--setenv={name}={value}" for name, value in spec.environment.items()]
    for top in dict.fromkeys(one.path.partition("/")[0] for one in spec.directories):
        words.append(f"--bind={stage.SPARE}/{top}:/run/{top}")
    if not is_gated():
        return (*words, "--", *spec.command)
    return (*words, f"--bind-ro={stage.GATE}/gate:{_GATE}", "--", _GATE, *spec.command)
