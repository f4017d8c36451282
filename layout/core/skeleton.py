"""Rules of the split: what leaves the shared base, what must not be copied, which links climb out."""

from __future__ import annotations

import posixpath

from layout.core.plan import SPLIT

SECRETS = (
    "etc/machine-id",
    "etc/hostid",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_*",
    "etc/krb5.keytab",
    "etc/bind/rndc.key",
    "etc/ldap/slapd.d",
    "etc/ssl/private/*",
    "etc/mtab",
    "root/.bash_history",
    "root/.ssh/*",
    "tmp/*",
    "usr/local/etc/namedb/rndc.key",
    "usr/local/etc/ssh/ssh_host_*",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/ldconfig/*",
    "var/cache/pkg/*",
    "var/db/entropy/*",
    "var/heimdal/*",
    "var/lib/apt/lists/*_*",
    "var/lib/dbus/machine-id",
    "var/lib/heimdal-kdc/heimdal.db",
    "var/lib/heimdal-kdc/m-key",
    "var/lib/ldap/*",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
    "var/run/*",
    "var/tmp/*",
)
"""Secrets and identities that an installation makes, and left-overs of making it: every jail would share
them. Paths in the base; a wildcard stands in the last component only."""

RELOCATED = (("var/lib/dpkg", "usr/lib/sysimage/dpkg"),)
"""Package databases that describe mroot: they move there, out of reach of a jail, and leave a link."""

CONFIGURED = (
    ("etc/dpkg/dpkg.cfg.d/layout", "admindir=/usr/lib/sysimage/dpkg\n"),
    (
        "etc/apt/apt.conf.d/00layout",
        'Dir::State::status "/usr/lib/sysimage/dpkg/status";\n'
        'DPkg::Options:: "--admindir=/usr/lib/sysimage/dpkg";\n',
    ),
)
"""What tells the package tools so; written where the base has their directory."""


def place_of(path: str) -> str:
    """Return where `path` of a base lies in the jail after the split: etc/passwd becomes s/etc/passwd."""
    for name, place in SPLIT:
        if path == name or path.startswith(name + "/"):
            return place + path[len(name) :]
    return path


def base_path(place: str) -> str:
    """Return where in a base a path of the skeleton comes from: s/etc/passwd is etc/passwd."""
    for name, top in SPLIT:
        if place == top or place.startswith(top + "/"):
            return name + place[len(top) :]
    return place


def half_of(path: str) -> tuple[str, str]:
    """Return where `path` of a base is after the split: ('s', 'etc/passwd'), or ('', path) in mroot."""
    for old, new in RELOCATED:
        if path == old or path.startswith(old + "/"):
            return "", new + path[len(old) :]
    place = place_of(path)
    if place == path:
        return "", path
    half, _, below = place.partition("/")
    return half, below


def helper_link(path: str, target: str) -> tuple[str, str] | str | None:
    """Say what keeps a relative link working after the split.

    `path` is the link's path in the base, inside one of the split directories. Returns None when it works
    as it is; (name, target) of a link at the top of s or t that makes it work, such as
    ('s/usr', '../usr') for etc/os-release -> ../usr/lib/os-release; or the absolute target to write
    instead, when no such link can be made.
    """
    if target.startswith("/"):
        return None
    meant = resolve(posixpath.dirname(path), target)
    place = place_of(path)
    found = resolve(posixpath.dirname(place), target)
    half, _, rest = found.partition("/")
    first, _, tail = rest.partition("/")
    if found == place_of(meant) or (found == meant and half not in {"s", "t"}):
        return None
    taken = {p.split("/")[1] for _, p in SPLIT if p.split("/")[0] == half}
    if half not in {"s", "t"} or not first or first in taken:
        return f"/{meant}"
    if tail:
        if not meant.endswith("/" + tail):
            return f"/{meant}"
        meant = meant[: -len(tail) - 1]
    return f"{half}/{first}", f"../{meant}"


def resolve(directory: str, target: str) -> str:
    """Return where a link in `directory` leads, by its text alone; '..' stops at the root."""
    return posixpath.normpath(f"/{directory}/{target}").strip("/")
