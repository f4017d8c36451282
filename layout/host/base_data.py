"""What the embedded base `host` is made of, as data: programs, directories and texts of each platform."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from layout.core.model import Platform

__all__ = [
    "COPIED",
    "DATA",
    "DIRECTORIES",
    "LINKS",
    "MIRRORED",
    "REQUIRED",
    "TEXTS",
    "UNWANTED",
    "WANTED",
    "os_release",
    "shells",
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


REQUIRED = _words(
    "sh cat ls cp mv rm mkdir rmdir ln chmod chown touch echo printf test true false env id pwd sleep"
)
"""Without these there is no base."""

WANTED = _words(
    "[ bash dash head tail grep egrep sed awk mawk find xargs sort uniq wc tr cut tee date hostname uname "
    "stat readlink realpath dirname basename dd mknod mktemp df du od cmp diff tar gzip mount umount ps kill "
    "setpriv nsenter chroot tty stty less vi ed expr seq tac install whoami groups sha256sum getent ldconfig "
    "nologin"
)
"""What an administrator reaches for in a manage session; left out where the host has none."""

UNWANTED = ("perl", "python", "libperl", "libpython")
"""Names, by their start, that would pull a language with all its modules into the base."""

MIRRORED = ("bin", "sbin", "lib", "lib64", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64")
"""Symlinks in the base where they are symlinks on the host (merged /usr)."""

_TERMINALS = _words(
    "a/ansi d/dumb l/linux r/rxvt s/screen s/screen-256color t/tmux t/tmux-256color "
    "v/vt100 v/vt220 x/xterm x/xterm-256color x/xterm-color"
)

DATA: dict[Platform, tuple[str, ...]] = {
    # Without these vi and less have no terminal to draw on.
    Platform.LINUX: tuple(
        f"{top}/terminfo/{name}" for top in ("lib", "usr/lib", "usr/share") for name in _TERMINALS
    ),
    Platform.FREEBSD: ("usr/share/misc/termcap", "usr/share/misc/termcap.db"),
}
"""Files that are taken at the place where the host has them, if it has them."""

COPIED = ("etc/services", "etc/protocols")
"""Files of /etc that say nothing about the host."""

_COMMON = {
    **dict.fromkeys(
        ("bin", "boot", "dev", "etc", "lib", "media", "mnt", "opt", "proc", "sbin", "srv"), 0o755
    ),
    **dict.fromkeys(("usr", "usr/bin", "usr/lib", "usr/libexec", "usr/sbin", "usr/share"), 0o755),
    **{f"usr/local/{name}": 0o755 for name in ("", "bin", "etc", "lib", "man", "sbin", "share")},
    **{f"var/{name}": 0o755 for name in ("", "cache", "db", "lib", "log", "mail", "spool")},
    "root": 0o700,
    "tmp": 0o1777,
    "var/empty": 0o555,
    "var/tmp": 0o1777,
}

DIRECTORIES: dict[Platform, dict[str, int]] = {
    platform: {path.rstrip("/"): mode for path, mode in {**_COMMON, **own}.items()}
    for platform, own in {
        Platform.LINUX: {"run": 0o755},
        Platform.FREEBSD: {"libexec": 0o755, "net": 0o755, "var/run": 0o755},
    }.items()
}
"""Modes by path; hier(7)."""

LINKS: dict[Platform, dict[str, str]] = {
    Platform.LINUX: {
        "etc/mtab": "../proc/self/mounts",
        # Climbs out of etc on purpose, as everywhere: programs open either name.
        "etc/os-release": "../usr/lib/os-release",
        "var/lock": "/run/lock",
        "var/run": "/run",
    },
    Platform.FREEBSD: {
        "etc/os-release": "../usr/lib/os-release",
        "etc/termcap": "../usr/share/misc/termcap",
    },
}
"""Targets by path."""

_PROFILE = """\
# The base is the same for every jail; what is the jail's own lies in /usr/local.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
# layout manage gives a prompt that names the jail: shells started from here keep it.
if [ -n "${PS1-}" ]; then export PS1; fi
umask 022
"""

_NSSWITCH = """\
passwd: files
group: files
hosts: files dns
networks: files
protocols: files
services: files
"""

# '*' is no hash: nobody can log in with a password, and root's shell is reached from outside.
TEXTS: dict[Platform, dict[str, tuple[str, int]]] = {
    Platform.LINUX: {
        "etc/passwd": (
            "root:x:0:0:root:/root:/bin/sh\n"
            "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
            0o644,
        ),
        "etc/shadow": ("root:*:::::::\ndaemon:*:::::::\nnobody:*:::::::\n", 0o640),
        "etc/group": (
            "root:x:0:\ndaemon:x:1:\nadm:x:4:\ntty:x:5:\nmail:x:8:\nshadow:x:42:\nutmp:x:43:\nnogroup:x:65534:\n",
            0o644,
        ),
        "etc/nsswitch.conf": (_NSSWITCH + "shadow: files\n", 0o644),
        "etc/profile": (_PROFILE, 0o644),
    },
    Platform.FREEBSD: {
        "etc/passwd": (
            "root:*:0:0:root:/root:/bin/sh\n"
            "daemon:*:1:1:daemon:/root:/usr/sbin/nologin\n"
            "nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
            0o644,
        ),
        "etc/master.passwd": (
            "root:*:0:0::0:0:root:/root:/bin/sh\n"
            "daemon:*:1:1::0:0:daemon:/root:/usr/sbin/nologin\n"
            "nobody:*:65534:65534::0:0:nobody:/nonexistent:/usr/sbin/nologin\n",
            0o600,
        ),
        "etc/group": (
            "wheel:*:0:root\ndaemon:*:1:\ntty:*:4:\noperator:*:5:root\nmail:*:6:\n"
            "nogroup:*:65533:\nnobody:*:65534:\n",
            0o644,
        ),
        "etc/nsswitch.conf": (_NSSWITCH, 0o644),
        "etc/profile": (_PROFILE, 0o644),
    },
}
"""Text and mode by path; passwd(5), shadow(5), group(5), nsswitch.conf(5)."""


def shells(names: Iterable[str]) -> str:
    """Return the text of shells(5) for the shells that the base has."""
    return "".join(f"/bin/{name}\n" for name in names)


def os_release(host: str, platform: Platform) -> str:
    """Return the text of os-release(5) for the base, from that of the host ('' when it has none)."""
    values = {"NAME": "Linux" if platform is Platform.LINUX else "FreeBSD", "ID": platform.value}
    for line in host.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and key in {"NAME", "ID", "ID_LIKE", "PRETTY_NAME", "VERSION_ID"}:
            try:
                values[key] = "".join(shlex.split(value))
            except ValueError:  # an open quote: the value of the platform stands
                continue
    pretty = values.get("PRETTY_NAME", values["NAME"])
    values |= {"PRETTY_NAME": f"{pretty} (layout host base)", "VARIANT": "layout host base"}
    values["VARIANT_ID"] = "layout-host"
    return "".join(f"{key}={_quoted(value)}\n" for key, value in values.items())


def _quoted(value: str) -> str:
    if value.isascii() and value.replace("-", "").replace(".", "").replace("_", "").isalnum():
        return value
    for special in '\\"$`':
        value = value.replace(special, "\\" + special)
    return f'"{value}"'
