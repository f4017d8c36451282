"""What a profile says of an OS-less jail: one static program, its configuration, and who it runs as."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from layout.core.errors import UsageError

if TYPE_CHECKING:
    from layout.core.service import Settings

NOBODY = 65534
"""On FreeBSD as well: there numbers have 32 bits, and nobody is not -2."""


class ConfigFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the program's configuration; written once, then replaced by `layout update` only."""

    path: str
    """Relative to the jail's root: etc/finger.conf."""
    text: str
    """The whole of it."""
    mode: str = "0644"
    """Octal permission bits; it is always root's."""


class Osless(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one program of a jail that has no operating system in it."""

    program: str = ""
    """The static program to install: an absolute path of the host."""
    path: str = ""
    """Where the jail has it, relative to its root: srv/finger/bin/fingerd."""
    files: tuple[ConfigFile, ...] = ()
    """Its configuration."""
    directories: tuple[str, ...] = ()
    """Directories that it expects, empty."""
    uid: int = NOBODY
    """Number of the user that it runs as: the jail has no passwd(5)."""
    gid: int = NOBODY
    """Number of its group."""
    log: bool = True
    """The jail has /log, which it may write to and nobody can execute from; without, it writes nowhere."""
    drops_root: bool = False
    """FreeBSD: it is started as root, for a port below 1024, and becomes uid and gid by its own arguments."""
    self_jailing: bool = False
    """It is started from the host's own file and not from one in the jail, where then nothing is executable:
    on FreeBSD it enters the jail itself (jail_attach(2)), on Linux layout enters it first."""


_WORD = re.compile(r"[A-Za-z0-9./+@%_:-]+")
_MODE = re.compile(r"0?[0-7]{3,4}")
_HIGHEST = 999_999_999


def check_osless(settings: Settings, where: str, *, wanted: bool, linux: bool) -> None:
    """Make sure that the values make sense; `wanted`: the profile is of this kind. Raises UsageError.

    A platform that the profile does not speak of has nothing to be checked.
    """
    found = settings.osless
    if not wanted:
        if found != Osless():
            raise UsageError(f"{where}.osless", "settings", "none: the profile is of another kind")
        return
    if found == Osless():
        return
    self_jailing = found.self_jailing and not linux
    _check_program(found, f"{where}.osless", named_by_rc=self_jailing)
    _check_paths(found, settings, f"{where}.osless")
    _check_service(settings, where, found.program if self_jailing else f"/{found.path}")
    if linux and found.drops_root:
        expected = "false: a port below 1024 takes net_bind_service"
        raise UsageError(f"{where}.osless.drops_root", "true", expected)


def _check_program(found: Osless, at: str, *, named_by_rc: bool) -> None:
    """Make sure that the program has a name that works, and its user is not root. Raises UsageError."""
    if not found.program.startswith("/") or re.search(r"[\0-\x1f]", found.program):
        raise UsageError(f"{at}.program", repr(found.program), "an absolute path of the host")
    if named_by_rc and not _WORD.fullmatch(found.program):
        # rc.subr(8) looks for it among what ps(1) prints, which ends at a blank.
        raise UsageError(f"{at}.program", repr(found.program), "letters, digits and ./+@%_:- for rc.subr(8)")
    for key, number in (("uid", found.uid), ("gid", found.gid)):
        if not 0 < number <= _HIGHEST:
            raise UsageError(f"{at}.{key}", str(number), f"a number from 1 to {_HIGHEST}, not root's")


def _check_service(settings: Settings, where: str, program: str) -> None:
    """Make sure that nothing is asked for that takes a shell, accounts or an engine. Raises UsageError."""
    service, at = settings.service, f"{where}.service"
    if service.command[:1] != (program,):
        found = repr(" ".join(service.command[:1]))
        raise UsageError(f"{at}.command", found, f"{program}, and its arguments")
    if service.user or service.run or settings.state or service.rc_conf:
        hint = "the jail has no accounts: osless.uid"
        raise UsageError(at, "user, run, rc_conf or state", "none of them", hint)
    if service.ready.command:
        raise UsageError(f"{at}.ready.command", "a command", "tcp or socket: there is one program only")
    if settings.example.files or settings.example.commands or settings.packages:
        raise UsageError(where, "an example or packages", "neither", "osless.files has the configuration")
    if len(service.capabilities) > 1:
        raise UsageError(f"{at}.capabilities", " ".join(service.capabilities), "one at most")
    if service.engine != "auto":
        raise UsageError(f"{at}.engine", service.engine, "'auto': layout itself starts it")


def _check_paths(found: Osless, settings: Settings, at: str) -> None:
    """Every path below the jail's root belongs to one thing: a file, a directory or a mount."""
    if not found.self_jailing or found.path:
        _check_path(found.path, f"{at}.path")
    for one in found.files:
        _check_path(one.path, f"{at}.files")
        if not _MODE.fullmatch(one.mode) or int(one.mode, 8) & 0o7133:
            raise UsageError(
                f"{at}.files: {one.path}", f"mode {one.mode!r}", "bits such as '0640': nothing to execute"
            )
    for path in found.directories:
        _check_path(path, f"{at}.directories")
    files = [one.path for one in found.files] + ([found.path] if found.path else [])
    mounts = [one.target for one in settings.mounts] + (["log"] if found.log else [])
    seen: set[str] = set()
    for path in (*files, *mounts, *found.directories):
        if path in seen:
            raise UsageError(at, f"{path} twice", "each path once")
        seen.add(path)
        above = {"/".join(path.split("/")[:end]) for end in range(1, path.count("/") + 1)}
        for other in (*files, *mounts):
            if other in above:
                raise UsageError(at, f"{path} below {other}", "no file or directory below a file or a mount")


def _check_path(path: str, where: str) -> None:
    if {"", ".", ".."} & set(path.split("/")) or re.search(r"[\0-\x20\x7f]", path):
        raise UsageError(where, repr(path), "a path relative to the jail's root, without blanks")
