"""Bases that another program installs: FreeBSD from packages, or from a source tree that was built."""

from __future__ import annotations

import contextlib
import stat
from collections import Counter
from dataclasses import dataclass, field

from layout.core import pkgbase, release
from layout.core.errors import LayoutError, UsageError
from layout.core.model import Platform
from layout.host import hostfiles
from layout.host.beneath import Dir, open_root, put_flags, read_tree, remove_tree, write_items
from layout.host.run import require, run

CONFIGURATION = "/usr/local/etc/layout/pkgbase.conf"
"""Repository configuration to use instead of the project's own: a mirror, or packages built here."""
_SCRATCH = "pkgbase"
PLACE = "j/.new-mroot"
"""Where a base is installed before it gets its name, below ROOT."""


@dataclass(frozen=True, slots=True)
class Installer:
    """What fills an empty directory with a base."""

    commands: tuple[tuple[str, ...], ...]
    configuration: str = ""
    """Of the package repository; "" when there is none."""
    keys: str = ""
    """Directory of fingerprints on the host, which goes to the same place of the base first."""


@dataclass(slots=True)
class Installed:
    """What was found to be there afterwards."""

    entries: int = 0
    bytes: int = 0
    setuid: list[tuple[str, int, int, int]] = field(default_factory=list)
    """Path, mode, user, group."""
    flags: list[tuple[str, int]] = field(default_factory=list)


def is_installer(source: str) -> bool:
    """Say whether a source names what installs it, not where it lies."""
    return source == "pkgbase" or source.startswith(("pkgbase:", "src:"))


def absolute(source: str) -> str:
    """Return such a source as it is recorded."""
    return f"src:{hostfiles.absolute(source[4:])}" if source.startswith("src:") else source


def installer(source: str, platform: Platform, running: Platform, root: str, where: str = PLACE) -> Installer:
    """Return what installs `source` below ROOT, having looked that it can. Raises UsageError, LayoutError."""
    if not platform is running is Platform.FREEBSD:
        raise UsageError(
            f"--base {source}", f"a {running} host, jails for {platform}", "FreeBSD for both", "give base.txz"
        )
    place = f"{root}/{where}"
    if source.startswith("src:"):
        return _from_sources(source[4:], place)
    return _from_packages(source, place, f"{root}/.layout/{_SCRATCH}")


def _from_sources(path: str, place: str) -> Installer:
    from layout.host.freebsd.release import kernel

    newvers = f"{path}/sys/conf/newvers.sh"
    text = hostfiles.read_text(newvers)
    if text is None or hostfiles.read_text(f"{path}/Makefile") is None:
        raise UsageError(
            f"--base src:{path}",
            "no Makefile, or no sys/conf/newvers.sh",
            "the sources of FreeBSD",
            "give their directory, such as src:/usr/src, after make buildworld",
        )
    ours, running = release.sources(text), kernel()
    if release.is_newer(ours, running):
        raise UsageError(
            newvers, ours, f"none that is newer than the running kernel, {running}", "upgrade the host first"
        )
    require("make", "it with the base system")
    make = ("make", "-C", path)
    return Installer(
        ((*make, "installworld", f"DESTDIR={place}"), (*make, "distribution", f"DESTDIR={place}"))
    )


def _from_packages(source: str, place: str, scratch: str) -> Installer:
    from layout.host.freebsd.release import kernel, processor

    wanted = pkgbase.packages(source, kernel(), processor())
    require("pkg", "it: pkg bootstrap")
    own = hostfiles.read_text(CONFIGURATION)
    keys = f"{pkgbase.KEYS}/{wanted.keys}"
    has_keys = _is_directory(keys)
    if own is None and not has_keys:
        raise LayoutError(
            keys,
            "nothing",
            "the fingerprints that the packages are signed with",
            f"copy them there, or write {CONFIGURATION} for a repository of your own",
        )
    return Installer(
        pkgbase.commands(wanted, place, scratch),
        own if own is not None else pkgbase.repository(wanted, place),
        keys if has_keys else "",
    )


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(hostfiles.source(path).st_mode)
    except OSError:
        return False


def install(made: Installer, base: Dir, state: Dir) -> Installed:
    """Run the installer on the empty directory `base`, then clear file flags, which are returned.

    Raises LayoutError with what the program said.
    """
    try:
        if made.configuration:
            state.make_dir(_SCRATCH, 0o700)
            state.write_whole(
                f"{_SCRATCH}/{pkgbase.REPOSITORY}.conf",
                made.configuration.encode("utf-8", "surrogateescape"),
                0o644,
            )
        if made.keys:
            _copy_keys(made.keys, base)
        for words in made.commands:
            run(*words, hint="nothing was changed; its message says more")
    finally:
        clear(state)
    return _look(base)


def clear(state: Dir) -> int:
    """Remove what an interrupted installation left in layout's state; return how many entries."""
    with contextlib.suppress(FileNotFoundError):
        return remove_tree(state, _SCRATCH)
    return 0


def _copy_keys(path: str, base: Dir) -> None:
    here = ""
    for part in path.strip("/").split("/"):
        here = f"{here}/{part}" if here else part
        base.make_dir(here, 0o755)
    with open_root(hostfiles.canonical(path)) as keys, base.open(here) as target:
        write_items(read_tree(keys), target)


def _look(base: Dir) -> Installed:
    found = Installed()
    left_out: Counter[str] = Counter()
    for item in read_tree(base, left_out):
        found.entries += 1
        if stat.S_ISREG(item.mode):
            found.bytes += 0 if item.target else item.size
            if item.mode & 0o6000:
                found.setuid.append((item.path, stat.S_IMODE(item.mode), item.uid, item.gid))
        if item.flags:
            found.flags.append((item.path, item.flags))
    if left_out:
        raise LayoutError(base.path, f"a {min(left_out)}", "directories, files and links only")
    put_flags(base, [(path, 0) for path, _ in found.flags])
    return found
