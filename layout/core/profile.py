"""Profiles and the site's configuration: strict structures with errors that name the nearest key."""

from __future__ import annotations

import difflib
import re
from typing import Any, Literal, TypeVar

import msgspec

from layout.core.errors import UsageError
from layout.core.model import Jail, Manage, Platform, Preset, State

T = TypeVar("T", bound=msgspec.Struct)


class StateDirectory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A directory of t that the service writes to; made once, then the jail's own."""

    path: str
    """Relative to the jail's root; below var or tmp."""
    mode: str = "0755"
    """Octal permission bits."""
    owner: str = "root"
    """Name in the jail's own passwd(5); root when the base has no such user."""
    group: str = ""
    """Name in the jail's own group(5); the owner's name when empty."""


class PerPlatform(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs between the platforms."""

    state: tuple[StateDirectory, ...] = ()


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of jail (layout.toml(5), design 6)."""

    kind: Literal["shared"]
    """Which design: 'shared' is the Mamalakis layout."""
    description: str
    """One line for `layout profile list`."""
    preset: Preset | None = None
    """'hardened' or 'classic'; the site's default when absent."""
    manage: Manage | None = None
    """'session' or 'boot'; the site's default when absent."""
    suid: bool = False
    """Allow setuid programs of mroot and s inside the jail. verify then says so."""
    exec: bool = False
    """Allow programs in t. verify then says so: a path that is writable and executable."""
    linux: PerPlatform = PerPlatform()
    """On Linux."""
    freebsd: PerPlatform = PerPlatform()
    """On FreeBSD."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The site's configuration, ETC/layout.toml."""

    root: str = "/jails"
    """ROOT: an absolute path without symbolic links."""
    base: str = "host"
    """Source of mroot when `init` is given no --base."""
    preset: Preset = Preset.HARDENED
    """Mount options of jails whose profile names none."""
    manage: Manage = Manage.SESSION
    """When the writable half of jails whose profile does not say is mounted."""


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `\$\.?(?P<at>.*)`)?")
_MODE = re.compile(r"0?[0-7]{3,4}")


def decode(data: dict[str, Any], kind: type[T], name: str) -> T:
    """Turn parsed TOML into a structure. Raises UsageError that names file, key and the nearest known key."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), kind, name) from None


def _explain(text: str, kind: type[msgspec.Struct], name: str) -> UsageError:
    unknown = _UNKNOWN.match(text)
    if unknown is None:
        message, _, at = text.partition(" - at ")
        where = at.strip("`").removeprefix("$").lstrip(".")
        return UsageError(
            f"{name}: {where}" if where else name,
            message[0].lower() + message[1:],
            "what the schema says",
            "layout profile schema",
        )
    at = unknown["at"] or ""
    known = sorted(_fields_at(kind, at))
    near = difflib.get_close_matches(unknown["key"], known, 1, 0.5)
    key = f"{at}.{unknown['key']}" if at else unknown["key"]
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return UsageError(name, f"unknown key {key!r}", "a known key", hint)


def _fields_at(kind: type[msgspec.Struct], at: str) -> set[str]:
    """Names of the fields of the structure that a path such as 'linux.state[0]' leads to."""
    here: Any = kind
    for part in re.findall(r"[a-z_]+", at):
        found = next((f.type for f in msgspec.structs.fields(here) if f.name == part), None)
        arguments = getattr(found, "__args__", ())
        here = next(
            (a for a in (found, *arguments) if isinstance(a, type) and issubclass(a, msgspec.Struct)), None
        )
        if here is None:
            return set()
    return {f.name for f in msgspec.structs.fields(here)}


def check(profile: Profile, name: str) -> Profile:
    """Return the profile if its values make sense. Raises UsageError.

    A profile may come from a stranger: data only, no absolute path, nothing outside var and tmp.
    """
    for platform in (Platform.LINUX, Platform.FREEBSD):
        for directory in _of(profile, platform).state:
            where = f"{name}: {platform}.state"
            parts = directory.path.split("/")
            if parts[0] not in {"var", "tmp"} or len(parts) < 2 or {"", ".", ".."} & set(parts):
                raise UsageError(
                    where, f"path {directory.path!r}", "a path below var or tmp, without '.' or '..'"
                )
            if not _MODE.fullmatch(directory.mode) or int(directory.mode, 8) & 0o6000:
                raise UsageError(
                    where, f"mode {directory.mode!r}", "permission bits such as '0750', no setuid or setgid"
                )
            for owner in (directory.owner, directory.group):
                if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}|", owner):
                    raise UsageError(where, f"owner {owner!r}", "a user or group name")
    return profile


def _of(profile: Profile, platform: Platform) -> PerPlatform:
    return profile.linux if platform is Platform.LINUX else profile.freebsd


def decide(
    name: str, profile_name: str, profile: Profile, platform: Platform, preset: Preset, manage: Manage
) -> Jail:
    """Return the jail that these settings make."""
    return Jail(
        name,
        profile_name,
        preset,
        manage,
        platform,
        suid=profile.suid,
        exec=profile.exec,
        state=tuple(
            State(d.path, int(d.mode, 8), d.owner, d.group or d.owner) for d in _of(profile, platform).state
        ),
    )
