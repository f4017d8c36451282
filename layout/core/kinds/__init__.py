"""What the designs besides the shared root want of a profile, and the mounts that several of them have."""

from __future__ import annotations

from typing import assert_never

from layout.core.compare import is_below
from layout.core.errors import UsageError
from layout.core.full import Full
from layout.core.kinds import thin
from layout.core.model import Jail, Kind, Mount, Platform, Tables
from layout.core.osless import check_osless
from layout.core.service import Confine, Settings
from layout.core.thin import Thin

_MOUNTS = {Kind.OSLESS, Kind.FULL, Kind.THIN}
"""Designs whose jails can see directories of the host."""


def check_kind(kind: Kind, settings: Settings, platform: Platform, where: str) -> None:
    """Make sure that a profile has what its design needs, and nothing of another one. Raises UsageError."""
    if settings.mounts and kind not in _MOUNTS:
        raise UsageError(
            f"{where}.mounts", f"mounts for kind {kind}", f"one of: {', '.join(sorted(_MOUNTS))}"
        )
    check_osless(settings, where, wanted=kind is Kind.OSLESS, linux=platform is Platform.LINUX)
    if kind is not Kind.FULL and settings.full != Full():
        raise UsageError(f"{where}.full", f"a world for kind {kind}", "kind 'full'")
    if kind is not Kind.THIN and settings.thin != Thin():
        raise UsageError(f"{where}.thin", f"a thin root for kind {kind}", "kind 'thin'")
    if kind is Kind.SERVICE:
        from layout.core.kinds import service

        service.check(settings, platform, where)
    elif settings.confine != Confine():
        raise UsageError(f"{where}.confine", f"a value for kind {kind}", "kind 'service'")
    if kind is Kind.THIN:
        thin.check_settings_of(settings, where)


def host_mounts(jail: Jail, root: str) -> tuple[Mount, ...]:
    """Return the directories of the host that a jail sees; `root` is ROOT.

    Never with setuid files, devices or programs: what the host keeps there is data. Raises UsageError for one
    that shows ROOT: what is in there is for layout, and for one jail alone.
    """
    found = []
    for one in jail.settings.mounts:
        if is_below(one.source, root) or is_below(root, one.source):
            hint = f"change mounts of profile {jail.profile}"
            raise UsageError(jail.name, f"a mount of {one.source}", f"nothing of {root}", hint)
        target = f"{root}/j/{jail.name}/{one.target}"
        access = "rw" if one.writable else "ro"
        match jail.platform:
            case Platform.LINUX:
                options = ("bind", access, "nosuid", "nodev", "noexec", "private")
                found.append(Mount(one.source, target, "none", options))
            case Platform.FREEBSD:
                options = (access, "nosuid", "noexec", *(("failok",) if one.optional else ()))
                found.append(Mount(one.source, target, "nullfs", options))
            case _:
                assert_never(jail.platform)
    return tuple(found)


def with_mounts(tables: Tables, jail: Jail, root: str) -> Tables:
    """Return a jail's tables with the directories of the host that it sees, after its own mounts."""
    return Tables((*tables.jail, *host_mounts(jail, root)), tables.manage)
