"""An OS-less jail as data: its mounts, its content, its datasets, and what the host has for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import msgspec

from layout.core import kinds, zfs
from layout.core.errors import UsageError
from layout.core.hostblock import digest
from layout.core.model import Below, Directory, Entry, File, Jail, JailPlan, Site, Tables
from layout.core.tables import Template, expand
from layout.core.zfs import Dataset

SHELLS = frozenset(
    {"sh", "ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "rc", "tcsh", "zsh", "busybox", "toybox"}
)
"""Names by which verify calls a program a shell."""


def plan_osless(jail: Jail, site: Site, template: Template) -> JailPlan:
    """Its mount point, its two halves, its mounts. What is in s is `content`: it may lie on a dataset.

    Raises UsageError when the profile does not say what this platform needs.
    """
    found = jail.settings.osless
    if not found.program:
        raise UsageError(
            f"profile {jail.profile}: {jail.platform}.osless.program",
            "nothing",
            "the static program that the jail is for",
            "layout profile show finger",
        )
    name = jail.name
    entries: list[Entry] = [
        Directory(Below(f"j/{name}"), 0o755, "mount point of the jail's root"),
        Directory(Below(f"s/{name}"), 0o755, "its read-only tree: one program and its configuration"),
    ]
    if found.log:
        owner, group = str(found.uid), str(found.gid)
        entries.append(Directory(Below(f"t/{name}"), 0o755, "its /log, all that it can write", owner, group))
    return JailPlan(jail, tuple(entries), _tables(jail, site, template))


def _tables(jail: Jail, site: Site, template: Template) -> Tables:
    found = jail.settings.osless
    tables = expand(template, site.root, jail)
    mounts = [mount for mount in tables.jail if found.log or mount.source != f"{site.root}/t/{jail.name}"]
    if found.self_jailing:
        mounts = [msgspec.structs.replace(mount, options=_with_noexec(mount.options)) for mount in mounts]
    return kinds.with_mounts(Tables(tuple(mounts), ()), jail, site.root)


def _with_noexec(options: tuple[str, ...]) -> tuple[str, ...]:
    if "noexec" in options:
        return options
    place = options.index("nosuid") + 1 if "nosuid" in options else len(options)
    return (*options[:place], "noexec", *options[place:])


def content(jail: Jail) -> tuple[Directory | File, ...]:
    """Return what s has besides the program, parents first: directories, mount points, configuration."""
    found = jail.settings.osless
    top = f"s/{jail.name}"
    wanted: dict[str, str] = {}
    program = installed(jail).split("/", 2)[2:]
    for path in (*program, *(one.path for one in found.files)):
        _parents(wanted, path)
    for path in found.directories:
        _parents(wanted, f"{path}/x", "as its profile says")
    for mount in jail.settings.mounts:
        _parents(wanted, f"{mount.target}/x", f"mount point of {mount.source}")
    if found.log:
        wanted.setdefault("log", "mount point of what it can write")
    entries: list[Directory | File] = [
        Directory(Below(f"{top}/{path}"), 0o755, reason) for path, reason in wanted.items()
    ]
    entries += [
        File(Below(f"{top}/{one.path}"), one.text, int(one.mode, 8), "its configuration")
        for one in found.files
    ]
    return tuple(entries)


def _parents(wanted: dict[str, str], path: str, reason: str = "on the way to its files") -> None:
    parts = path.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        here = "/".join(parts[:end])
        if end == len(parts):
            if here not in wanted or wanted[here].startswith("on the way"):
                wanted[here] = reason
        else:
            wanted.setdefault(here, "on the way to its files")


def installed(jail: Jail) -> str:
    """Return where the program lies below ROOT; "" when the jail has none in it."""
    path = jail.settings.osless.path
    return f"s/{jail.name}/{path}" if path and not jail.settings.osless.self_jailing else ""


def datasets(jail: Jail, site: Site) -> tuple[Dataset, ...]:
    """Return the datasets of a jail; none where the site has no ZFS for jails."""
    if not site.zfs:
        return ()
    found = jail.settings.osless
    return zfs.datasets(site.zfs, site.root, jail.name, writable=found.log, exec_=not found.self_jailing)


# --- FreeBSD: what the host has for it ---------------------------------------------------------------------


def rc_name(name: str) -> str:
    """Return the name of its rc.d script: an identifier of sh, for rc.subr makes variables of it."""
    return f"osless_{name.replace('-', '_')}"


def rc_path(site: Site, name: str) -> str:
    """Return the path of its rc.d script; a trial has its own place, which rc(8) does not know."""
    return f"{site.etc}/rc.d/{rc_name(name)}" if site.trial else f"/usr/local/etc/rc.d/{rc_name(name)}"


def pid_path(site: Site, name: str) -> str:
    """Return the file of the host that has the daemon's process ID."""
    return f"{site.etc}/run/{rc_name(name)}.pid" if site.trial else f"/var/run/{rc_name(name)}.pid"


_WORD = re.compile(r"%%([A-Z]+)%%")


def script(template: str, plan: JailPlan, site: Site, log: str) -> str:
    """Return its rc.d script, made of `template`; `log` is the file of the host that gets its output."""
    jail = plan.jail
    found, service = jail.settings.osless, jail.settings.service
    as_root = found.drops_root or found.self_jailing
    words: Mapping[str, str] = {
        "NAME": jail.name,
        "RC": rc_name(jail.name),
        "COMMAND": shlex.quote(service.command[0]),
        "WORDS": " ".join(map(shlex.quote, service.command)),
        "ENVIRONMENT": " ".join(
            map(shlex.quote, ("PATH=/sbin:/bin:/usr/sbin:/usr/bin", *service.environment))
        ),
        # rc.subr(8) evaluates `pidfile` once more, as words.
        "PIDWORD": shlex.quote(shlex.quote(pid_path(site, jail.name))),
        "PIDFILE": shlex.quote(pid_path(site, jail.name)),
        "LOGFILE": shlex.quote(log),
        "UID": "" if as_root else str(found.uid),
        "GID": "" if as_root else str(found.gid),
        "ENTERS": "self" if found.self_jailing else "jexec",
        "SIGNAL": service.stop_signal,
    }
    body = _WORD.sub(lambda match: words[match[1]], template)
    first, _, rest = body.partition("\n")
    return (
        f"{first}\n"
        f"# {jail.name}: rc.d script, generated by layout; edit the profile, not this file\n"
        f"# sha256 {digest(rest)}\n"
        f"{rest}"
    )
