"""Thin jails: a root made from one program just before it starts; when it has stopped, nothing is left."""

from __future__ import annotations

from typing import assert_never

from layout.core.errors import UsageError
from layout.core.model import Below, Directory, Jail, JailPlan, Mount, Platform, Tables
from layout.core.service import Settings

STORE = ".layout/thin"
"""Where the roots are kept by their content, below ROOT."""


def plan_thin(jail: Jail) -> JailPlan:
    """One place to mount on; `tables` says what is there while it runs, for that depends on the program."""
    place = Directory(Below(f"j/{jail.name}"), 0o755, "mount point of its root while it runs")
    return JailPlan(jail, (place,), Tables((), ()))


def check_settings_of(settings: Settings, where: str) -> None:
    """Make sure that a profile asks for nothing that a thin jail does not have. Raises UsageError."""
    service = settings.service
    for key, value in (
        ("state", settings.state),
        ("packages", settings.packages),
        ("example", settings.example.files or settings.example.commands),
        ("service.rc_conf", service.rc_conf),
    ):
        if value:
            hint = "its files are the host's: see mounts and thin"
            raise UsageError(f"{where}.{key}", "a value", "none for kind thin", hint)
    if service.engine not in {"auto", "bwrap"}:
        raise UsageError(f"{where}.service.engine", repr(service.engine), "'bwrap' for kind thin")


def tables(jail: Jail, root: str, digest: str, mounts: tuple[Mount, ...]) -> Tables:
    """Return what is mounted while a jail runs from the root of this digest; `root` is ROOT.

    `mounts` are the directories of the host that it sees.
    """
    source, target = f"{root}/{STORE}/{digest}", f"{root}/j/{jail.name}"
    match jail.platform:
        case Platform.LINUX:
            options = ("bind", "ro", "nosuid", "nodev", "private")
            return Tables((Mount(source, target, "none", options), *mounts), ())
        case Platform.FREEBSD:
            ruleset = f"ruleset={jail.settings.jail.devfs_ruleset}"
            own = (
                Mount(source, target, "nullfs", ("ro", "nosuid")),
                Mount("devfs", f"{target}/dev", "devfs", ("rw", ruleset)),
            )
            return Tables((*own, *mounts), ())
        case _:
            assert_never(jail.platform)


def programs(settings: Settings) -> tuple[str, ...]:
    """Return the programs that the root is made from, by absolute path, the service's first."""
    return tuple(dict.fromkeys((*settings.service.command[:1], *settings.thin.programs)))


def users(settings: Settings) -> tuple[str, ...]:
    """Return the users that the root knows."""
    named = (*filter(None, (settings.service.user,)), *settings.thin.users)
    return tuple(dict.fromkeys(named)) or ("root",)
