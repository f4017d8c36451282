"""What must be so: from names and settings to entries and mounts. Everything else reads this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from layout.core import freebsd_files, jailconf, packetfilter
from layout.core.kinds import thin
from layout.core.kinds.osless import plan_osless
from layout.core.model import (
    BaseTree,
    Below,
    Copy,
    Directory,
    Entry,
    File,
    HostFile,
    Identity,
    Jail,
    JailPlan,
    Kind,
    Plan,
    Platform,
    Preset,
    Site,
    Symlink,
    Tables,
)
from layout.core.tables import Template, expand, render_table

MROOT = Below("j/mroot")

SPLIT = (
    ("etc", "s/etc"),
    ("root", "s/root"),
    ("usr/local", "s/usr-local"),
    ("usr/X11R6", "s/usr-X11R6"),
    ("tmp", "t/tmp"),
    ("var", "t/var"),
)
"""Directories of a base that are not shared, and where in skel each of them goes."""

MODES = {
    "s/etc": 0o755,
    "s/root": 0o700,
    "s/usr-local": 0o755,
    "s/usr-X11R6": 0o755,
    "t/tmp": 0o1777,
    "t/var": 0o755,
}
"""Modes of the above where a base has none of them."""

LINKS = (
    ("etc", "s/etc"),
    ("root", "s/root"),
    ("tmp", "t/tmp"),
    ("var", "t/var"),
    ("usr/local", "../s/usr-local"),
    ("usr/X11R6", "../s/usr-X11R6"),
    ("sys", "usr/src/sys"),
)
"""Symbolic links of mroot, exactly."""

_MOUNT_POINTS = {
    Platform.FREEBSD: (("s", 0o755), ("t", 0o755), ("dev", 0o555), ("proc", 0o555)),
    Platform.LINUX: (("s", 0o755), ("t", 0o755), ("dev", 0o755), ("proc", 0o555), ("run", 0o755)),
}


def plan_host() -> tuple[Entry, ...]:
    """Return the directories of ROOT itself."""
    return (
        Directory(Below("."), 0o700, "no host user may reach a setuid file in t"),
        Directory(Below("j"), 0o755, "roots: mroot and one mount point for each jail"),
        Directory(Below("s"), 0o755, "read-only halves"),
        Directory(Below("t"), 0o755, "writable halves"),
        Directory(Below("skel"), 0o755, "what a jail's halves are made from"),
        Directory(Below("manage"), 0o755, "mount points of the writable views"),
        Directory(Below(".layout"), 0o700, "layout's own state"),
        Directory(Below(".layout/jails"), 0o700, "one record for each jail"),
        Directory(Below(".layout/bases"), 0o700, "one record for each base"),
    )


def plan_mroot(platform: Platform, source: str, *, sys_directory: bool = False) -> tuple[Entry, ...]:
    """Return the shared base: its population, then the links and mount points that every jail relies on.

    `sys_directory`: the base has a real directory sys (Linux mounts sysfs there), which then stays.
    """
    entries: list[Entry] = [BaseTree(MROOT, source, "the base that all jails share")]
    entries += [Directory(Below(f"skel/{place}"), MODES[place], f"pristine {name}") for name, place in SPLIT]
    for name, target in LINKS:
        if name == "sys" and sys_directory:
            entries.append(Directory(Below(f"{MROOT}/sys"), 0o755, "mount point"))
        else:
            reason = (
                "the base's own sources" if name == "sys" else f"not shared: each jail's own {target[-9:]}"
            )
            entries.append(Symlink(Below(f"{MROOT}/{name}"), target, reason))
    for name, mode in _MOUNT_POINTS[platform]:
        entries.append(
            Directory(Below(f"{MROOT}/{name}"), mode, "mount point, cannot be made once mroot is read-only")
        )
    return tuple(entries)


def plan_jail(jail: Jail, site: Site, template: Template) -> JailPlan:
    """Everything for one jail, as its design wants it. Raises UsageError."""
    match jail.kind:
        case Kind.SHARED:
            return _plan_shared(jail, site, template)
        case Kind.FULL:
            from layout.core.kinds.full import plan_full

            return plan_full(jail, site, template)
        case Kind.THIN:
            return thin.plan_thin(jail)
        case Kind.OSLESS:
            return plan_osless(jail, site, template)
        case Kind.SERVICE:
            # The host's own tree: nothing is made, nothing is mounted.
            return JailPlan(jail, (), Tables((), ()))
        case _:
            assert_never(jail.kind)


def needs_base(jail: Jail) -> bool:
    """Say whether a jail sees mroot."""
    return jail.kind is Kind.SHARED or (jail.kind is Kind.THIN and jail.settings.thin.root == "mroot")


def _plan_shared(jail: Jail, site: Site, template: Template) -> JailPlan:
    """Mount points, its two halves, its identity, its mount tables."""
    name = jail.name
    s, t = f"s/{name}", f"t/{name}"
    entries: list[Entry] = [
        Directory(Below(f"j/{name}"), 0o755, "mount point of the jail's root"),
        Directory(Below(f"manage/{name}"), 0o755, "mount point of its writable view"),
        Copy(Below(s), Below("skel/s"), "its read-only half"),
    ]
    entries += [
        Copy(Below(f"{s}/{place[2:]}"), Below(f"skel/{place}"), f"its {source}")
        for source, place in SPLIT
        if place.startswith("s/")
    ]
    entries += [
        File(Below(f"{s}/etc/hostname"), f"{name}\n", 0o644, "its name"),
        File(
            Below(f"{s}/etc/hosts"),
            f"127.0.0.1\tlocalhost {name}\n::1\tlocalhost {name}\n",
            0o644,
            "its own addresses",
        ),
        File(Below(f"{s}/etc/resolv.conf"), "", 0o644, "no name server unless the administrator names one"),
    ]
    match jail.platform:
        case Platform.LINUX:
            entries.append(Identity(Below(f"{s}/etc/machine-id"), "an identity of its own"))
        case Platform.FREEBSD:
            entries += freebsd_files.files(name, jail.settings.service.rc_conf)
        case _:
            assert_never(jail.platform)
    entries.append(Copy(Below(t), Below("skel/t"), "its writable half"))
    entries += [
        Copy(Below(f"{t}/{place[2:]}"), Below(f"skel/{place}"), f"its {source}")
        for source, place in SPLIT
        if place.startswith("t/")
    ]
    entries += [
        Directory(Below(f"{t}/{d.path}"), d.mode, f"state of profile {jail.profile}", d.owner, d.group)
        for d in jail.state
    ]
    return JailPlan(jail, tuple(entries), expand(template, site.root, jail))


def host_files(plan: JailPlan, site: Site) -> tuple[HostFile, ...]:
    """Return the generated files of one jail: not in its plan, for only init and verify render them."""
    jail = plan.jail
    if not plan.tables.jail:
        return ()
    path = f"{site.etc}/fstab.d/{jail.name}"
    tables = (
        HostFile(f"{path}.fstab", render_table(jail, plan.tables.jail, jail.platform), 0o644, "its mounts"),
        HostFile(
            f"{path}.manage.fstab",
            render_table(jail, plan.tables.manage, jail.platform),
            0o644,
            "the mounts of its writable view",
        ),
    )
    if jail.platform is not Platform.FREEBSD:
        return tables
    text = jailconf.render(plan, site)
    files = [*tables, HostFile(jailconf.path(site, jail.name), text, 0o644, "how it runs")]
    if jail.settings.redirect or jail.settings.network.nat:
        anchor = packetfilter.render_pf(plan, site)
        files.append(HostFile(packetfilter.path(site, jail.name), anchor, 0o644, "its redirects and NAT"))
    return tuple(files)


def plan(
    site: Site,
    source: str,
    jails: Sequence[Jail],
    templates: Mapping[tuple[Kind, Preset], Template],
    *,
    sys_directory: bool = False,
    has_base: bool = False,
) -> Plan:
    """Everything for these jails. `templates` are by kind and preset; `has_base`: mroot is there already."""
    shared = has_base or any(map(needs_base, jails))
    return Plan(
        site,
        source,
        plan_host(),
        plan_mroot(site.platform, source, sys_directory=sys_directory) if shared else (),
        tuple(plan_jail(jail, site, templates[jail.kind, jail.preset]) for jail in jails),
    )
