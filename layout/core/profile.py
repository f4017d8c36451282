"""Profiles and the site's configuration: strict structures with errors that name the nearest key."""

from __future__ import annotations

import difflib
import enum
import re
from typing import Any, TypeVar

import msgspec

from layout.core import size
from layout.core.errors import UsageError
from layout.core.kinds import check_kind
from layout.core.model import Boot, Jail, Kind, Manage, Platform, Preset, State
from layout.core.redirect import check_outside
from layout.core.service import Settings, check_settings

T = TypeVar("T", bound=msgspec.Struct)


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of jail (layout.toml(5), design 6)."""

    kind: Kind
    """Which design: 'shared', 'osless', 'full', 'thin' or 'service' (docs/designs.md)."""
    description: str
    """One line for `layout profile list`."""
    preset: Preset | None = None
    """'hardened' or 'classic'; the site's default when absent."""
    manage: Manage | None = None
    """'session' or 'boot'; the site's default when absent."""
    boot: Boot | None = None
    """'jail', 'fstab' or 'none'; the site's default when absent."""
    suid: bool = False
    """Allow setuid programs of mroot and s inside the jail. verify then says so."""
    exec: bool = False
    """Allow programs in t. verify then says so: a path that is writable and executable."""
    linux: Settings = Settings()
    """On Linux."""
    freebsd: Settings = Settings()
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
    boot: Boot = Boot.JAIL
    """Who mounts, when the host starts, the jails whose profile does not say."""
    zfs: str = ""
    """Dataset below which those of OS-less jails are made, such as zroot/jails; empty: plain directories."""
    min_space: str = "16M"
    """Free space below which verify reports a file system of ROOT: 512K, 64M, 1G."""
    min_inodes: int = 500
    """Free inodes below which it does."""
    require_quota: bool = False
    """verify reports a jail whose t has no limit of its own: it could fill the disk of the host."""


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `\$\.?(?P<at>.*)`)?")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]*)`(?: - at `\$\.?(?P<at>.*)`)?")
_TYPES = {"array": "a list", "object": "a table", "str": "text", "int": "a number", "bool": "true or false"}
_MODE = re.compile(r"0?[0-7]{3,4}")


def decode(data: dict[str, Any], kind: type[T], name: str) -> T:
    """Turn parsed TOML into a structure. Raises UsageError that names file, key and the nearest known key."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), kind, name) from None
    except UnicodeEncodeError as error:
        found = f"{error.object[error.start : error.start + 20]!r}, which is no UTF-8"
        raise UsageError(name, found, "TOML, which is UTF-8", "layout profile schema") from None


def _explain(text: str, kind: type[msgspec.Struct], name: str) -> UsageError:
    unknown = _UNKNOWN.match(text)
    missing = _MISSING.match(text)
    if missing is not None:
        where = f"{name}: {missing['at']}" if missing["at"] else name
        hint = "layout profile schema; an example: layout profile show default"
        return UsageError(where, f"no key {missing['key']!r}", "every key that has no default", hint)
    if unknown is None:
        message, _, at = text.partition(" - at ")
        where = at.strip("`").removeprefix("$").lstrip(".")
        found = message[0].lower() + message[1:]
        schema = "see layout.toml(5)" if kind is Config else "layout profile schema"
        path = f"{name}: {where}" if where else name
        types = re.fullmatch(r"expected `(.*)`, got `(.*)`", found)
        if types is not None:
            return UsageError(path, _said(types[2]), _said(types[1]), schema)
        words = _words_at(kind, where)
        wrong = re.fullmatch(r"invalid enum value '(.*)'", found)
        if not words or wrong is None:
            return UsageError(path, found, "what the schema says", schema)
        near = difflib.get_close_matches(wrong[1], words, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else schema
        return UsageError(path, repr(wrong[1]), f"one of: {' '.join(words)}", hint)
    at = unknown["at"] or ""
    known = sorted(_fields_at(kind, at))
    near = difflib.get_close_matches(unknown["key"], known, 1, 0.5)
    key = f"{at}.{unknown['key']}" if at else unknown["key"]
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return UsageError(name, f"unknown key {key!r}", "a known key", hint)


def _said(types: str) -> str:
    """Return names of types as people say them."""
    return " or ".join(_TYPES.get(one, one) for one in types.split(" | ") if one != "null")


def _types_at(kind: type[msgspec.Struct], at: str) -> tuple[Any, ...]:
    """Return the type that a path such as 'linux.state[0]' leads to, and those that it is made of."""
    here: tuple[Any, ...] = (kind,)
    for part in re.findall(r"[a-z_0-9]*[a-z_][a-z_0-9]*", at):
        inside = _struct(here)
        if inside is None:
            return ()
        found = next((f.type for f in msgspec.structs.fields(inside) if f.name == part), None)
        here = (found, *getattr(found, "__args__", ()))
    return here


def _struct(types: tuple[Any, ...]) -> type[msgspec.Struct] | None:
    return next((a for a in types if isinstance(a, type) and issubclass(a, msgspec.Struct)), None)


def _fields_at(kind: type[msgspec.Struct], at: str) -> set[str]:
    """Names of the fields of the structure that a path leads to."""
    found = _struct(_types_at(kind, at))
    return set() if found is None else {f.name for f in msgspec.structs.fields(found)}


def _words_at(kind: type[msgspec.Struct], at: str) -> list[str]:
    """Return the words that may stand where a path leads to, where only some may."""
    types = _types_at(kind, at)
    for one in types:
        if isinstance(one, type) and issubclass(one, enum.Enum):
            return [str(member.value) for member in one]
    return [one for one in types if isinstance(one, str)]  # the arguments of Literal


def check(profile: Profile, name: str) -> Profile:
    """Return the profile if its values make sense. Raises UsageError.

    A profile may come from a stranger: data only, no absolute path, nothing outside var and tmp.
    """
    for platform in Platform:
        settings = _of(profile, platform)
        check_settings(settings, f"{name}: {platform}")
        if platform is Platform.FREEBSD:
            check_outside(settings, f"{name}: {platform}")
        check_kind(profile.kind, settings, platform, f"{name}: {platform}")
    if profile.kind is Kind.OSLESS and (profile.suid or profile.exec):
        raise UsageError(name, "suid or exec = true", "neither: in an OS-less jail nothing of it can be had")
    return profile


def check_config(config: Config, path: str) -> Config:
    """Return the configuration if its values make sense. Raises UsageError."""
    if size.parse(config.min_space) is None:
        raise UsageError(f"{path}: min_space", repr(config.min_space), "a number of bytes: 512K, 64M, 1G")
    if config.min_inodes < 0:
        raise UsageError(f"{path}: min_inodes", str(config.min_inodes), "a number of inodes, or 0")
    return config


def _of(profile: Profile, platform: Platform) -> Settings:
    return profile.linux if platform is Platform.LINUX else profile.freebsd


def decide(
    name: str,
    profile_name: str,
    profile: Profile,
    platform: Platform,
    preset: Preset,
    manage: Manage,
    boot: Boot = Boot.JAIL,
    source: str = "",
) -> Jail:
    """Return the jail that these settings make; `source` is what the world of a full jail is made from."""
    settings = _of(profile, platform)
    return Jail(
        name,
        profile_name,
        preset,
        manage,
        platform,
        boot=boot,
        kind=profile.kind,
        source=source if profile.kind is Kind.FULL else "",
        suid=profile.suid,
        exec=profile.exec,
        state=tuple(State(d.path, int(d.mode, 8), d.owner, d.group or d.owner) for d in settings.state),
        settings=settings,
    )
