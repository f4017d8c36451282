"""What a base for FreeBSD must be, and what layout completes of it: its release, its accounts, its /var."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable

from layout.core import mtree_spec, release
from layout.core.errors import LayoutError, UsageError
from layout.core.model import Platform
from layout.host.beneath import Dir
from layout.host.site import running_platform

VAR_SPEC = "etc/mtree/BSD.var.dist"
"""How /var is to be, in the base itself."""
FLAGS = {
    "nodump": 0x1,
    "uchg": 0x2,
    "uappnd": 0x4,
    "uunlnk": 0x10,
    "schg": 0x20000,
    "sappnd": 0x40000,
    "sunlnk": 0x100000,
}
"""File flags as strtofflags(3) names them, with the values of sys/stat.h; of synonyms one each."""
_NO_ID = 0xFFFFFFFF


def check_userland(base: Dir, source: str) -> None:
    """Refuse a base that cannot run here, or that is only half of one. Raises UsageError.

    A base without a FreeBSD userland, for jails of a few static programs, may have no accounts.
    """
    version = release.userland(_text(base, "bin/freebsd-version"), _text(base, "usr/lib/os-release"))
    whole = bool(version) or _is_file(base, "libexec/ld-elf.so.1")
    if whole and not _is_file(base, "etc/master.passwd"):
        raise UsageError(
            source,
            "no etc/master.passwd",
            "a whole FreeBSD",
            f"after installworld: make distribution DESTDIR={source}",
        )
    if not version or running_platform() is not Platform.FREEBSD:
        return
    from layout.host.freebsd.release import kernel

    running = kernel()
    if release.is_newer(version, running):
        raise UsageError(
            source,
            f"userland {version}",
            f"none that is newer than the running kernel, {running}",
            "upgrade the host first, or give a base of its release",
        )


def complete_var(s: Dir, t: Dir) -> list[tuple[str, int]]:
    """Make the directories of /var that the base's own etc/mtree/BSD.var.dist wants and that are missing.

    `s` and `t` are the halves of a skeleton: a base may come without /var, and what lay in /var/run and
    /var/tmp was taken out. Owners are names of the base's own accounts, root where it has none. Returns the
    file flags that they are to have, by path of the base. Raises LayoutError for a specification that cannot
    be understood, OSError.
    """
    spec = _text(s, VAR_SPEC)
    if spec is None:
        return []
    users, groups = _ids(s, "etc/master.passwd"), _ids(s, "etc/group")
    flags = []
    for one in mtree_spec.directories(spec, VAR_SPEC):
        path = f"var/{one.path}" if one.path else "var"
        try:
            t.make_dir(path, 0o700)
        except (FileExistsError, LayoutError):  # there, or below a link to elsewhere: as the base has it
            continue
        t.chown_chmod(path, one.mode, _id(users, one.owner), _id(groups, one.group))
        if value := flags_of(one.flags):
            flags.append((path, value))
    return flags


def flags_of(names: Iterable[str]) -> int:
    """Return the value of file flags; those that say nothing about intent, such as uarch, are none."""
    return sum(FLAGS.get(name, 0) for name in names)


def _text(base: Dir, path: str) -> str | None:
    try:
        return base.read(path).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, LayoutError):  # none, or a link to elsewhere: nothing of the base's own
        return None


def _is_file(base: Dir, path: str) -> bool:
    try:
        found = base.lstat(path)
    except LayoutError:
        return False
    return found is not None and stat.S_ISREG(found.st_mode)


def _ids(base: Dir, path: str) -> Callable[[str], int | None]:
    fields = (line.split(":") for line in (_text(base, path) or "").splitlines())
    known = {f[0]: int(f[2]) for f in fields if len(f) > 2 and f[2].isascii() and f[2].isdigit()}
    return known.get


def _id(known: Callable[[str], int | None], name: str) -> int:
    found = int(name) if name.isascii() and name.isdigit() else known(name) or 0
    return found if found < _NO_ID else 0
