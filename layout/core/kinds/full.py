"""The full jail: a complete world of its own, writable, with accounts, addresses and an sshd of its own.

Once it is made it belongs to whoever is root in it: nothing inside is planned or believed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import assert_never

from layout.core.errors import UsageError
from layout.core.freebsd_files import PERIODIC_CONF, RC_CONF, quoted
from layout.core.kinds import with_mounts
from layout.core.model import Below, Directory, Jail, JailPlan, Manage, Platform, Site, World
from layout.core.tables import Template, expand

TOPS = {
    Platform.FREEBSD: (("dev", 0o555), ("proc", 0o555), ("tmp", 0o1777), ("root", 0o700)),
    Platform.LINUX: (
        ("dev", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("run", 0o755),
        ("tmp", 0o1777),
        ("root", 0o700),
    ),
}
"""Directories that a world needs to run, and their modes where its source has none of them."""

SSHD_CONFIG = "etc/ssh/sshd_config"
IDENTITIES = ("etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_*_key.pub", "etc/hostid", "var/lib/dbus/machine-id")
"""What tells a host from all others, and must not be the same in every jail that one source made."""

_SAID = "made once by layout, yours from now on"
_LISTEN = re.compile(r"[ \t]*ListenAddress\b", re.IGNORECASE)


def plan_full(jail: Jail, site: Site, template: Template) -> JailPlan:
    """Mount points, the world, its mount tables. Raises UsageError."""
    if jail.manage is Manage.BOOT:
        hint = "manage = 'session' in the profile, or --manage session"
        raise UsageError(
            f"{jail.name}: manage", "'boot'", "'session' for a world that is writable anyway", hint
        )
    name = jail.name
    entries = (
        Directory(Below(f"j/{name}"), 0o755, "mount point of the jail's root"),
        Directory(Below(f"manage/{name}"), 0o755, "mount point of an administrator's session"),
        World(Below(f"t/{name}"), jail, "its own complete world"),
    )
    return JailPlan(jail, entries, with_mounts(expand(template, site.root, jail), jail, site.root))


def configured(jail: Jail, read: Callable[[str], str | None]) -> Iterator[tuple[str, str, int]]:
    """Yield path, text and mode of each file that a new world gets, whatever its source has there.

    `read` returns the text of a file of the source, None where there is none.
    """
    network = jail.settings.network
    hostname = network.hostname or jail.name
    yield "etc/hosts", _hosts(jail, hostname), 0o644
    yield "etc/resolv.conf", _resolv_conf(jail), 0o644
    sshd = read(SSHD_CONFIG)
    if sshd is not None and network.own_addresses:
        yield SSHD_CONFIG, sshd_config(sshd, network.own_addresses), 0o644
    match jail.platform:
        case Platform.LINUX:
            yield "etc/hostname", f"{hostname}\n", 0o644
        case Platform.FREEBSD:
            yield "etc/fstab", "", 0o644
            yield "etc/rc.conf", _with(read("etc/rc.conf"), "rc.conf", rc_conf(jail)), 0o644
            periodic = _with(read("etc/periodic.conf"), "periodic.conf", PERIODIC_CONF)
            yield "etc/periodic.conf", periodic, 0o644
        case _:
            assert_never(jail.platform)


def _hosts(jail: Jail, hostname: str) -> str:
    names = hostname if hostname == jail.name else f"{hostname} {jail.name}"
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost"]
    own = jail.settings.network.own_addresses
    lines += [f"{address}\t{names}" for address in own] or [f"127.0.0.1\t{names}"]
    return f"# hosts(5), {_SAID}\n" + "".join(f"{line}\n" for line in lines)


def _resolv_conf(jail: Jail) -> str:
    full = jail.settings.full
    lines = [f"# resolv.conf(5), {_SAID}"]
    lines += [f"search {' '.join(full.search)}"] if full.search else []
    lines += [f"nameserver {address}" for address in full.nameservers]
    return "".join(f"{line}\n" for line in lines)


def rc_conf(jail: Jail) -> dict[str, str]:
    """Return the settings of rc.conf(5) of a full jail of FreeBSD: nothing listens on more than its address.

    syslogd -ss opens no socket; inetd -a binds one address, which the jail's first is.
    """
    wanted = {key: value for key, value in RC_CONF.items() if key != "update_motd"}
    own = jail.settings.network.own_addresses
    if own:
        wanted["inetd_flags"] = f"-wW -a {own[0]}"
    # syslogd is on unless it is taken away (/etc/defaults/rc.conf), inetd and sshd are off.
    return wanted | dict(setting.split("=", 1) for setting in jail.settings.service.rc_conf)


def _with(text: str | None, name: str, settings: dict[str, str]) -> str:
    """Return a file of settings with ours at its end: the last one of a name counts."""
    own = f"# {name}(5), {_SAID}\n" + "".join(f"{key}={quoted(value)}\n" for key, value in settings.items())
    return own if not text else f"{text.rstrip(chr(10))}\n\n{own}"


def sshd_config(text: str, addresses: Sequence[str]) -> str:
    """Return sshd_config(5) with which sshd listens on these addresses only.

    They come first, for behind a Match line they would not be taken; others are left as comments.
    """
    listen = "".join(f"ListenAddress {address}\n" for address in addresses)
    kept = "".join(
        f"# by layout: {line}" if _LISTEN.match(line) else line for line in text.splitlines(keepends=True)
    )
    return f"# The jail's own addresses and no other, {_SAID}\n{listen}\n{kept}"


def listens_everywhere(text: str) -> bool:
    """Say whether sshd listens on every address with this sshd_config(5): without ListenAddress, it does."""
    words = [
        line.split()[1].strip('"')
        for line in text.splitlines()
        if _LISTEN.match(line) and len(line.split()) > 1
    ]
    return not words or any(_is_wildcard(word) for word in words)


def _is_wildcard(word: str) -> bool:
    """A host, HOST:PORT or [HOST]:PORT."""
    bare = word[1:].partition("]")[0] if word.startswith("[") else word
    return bare in {"*", "::", "0.0.0.0"} or bare.startswith(("0.0.0.0:", "*:"))  # noqa: S104
