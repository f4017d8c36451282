"""The data that comes with layout: profiles, templates, files for the host; and the site's own, which win."""

from __future__ import annotations

import os

from layout.core.errors import LayoutError, UsageError
from layout.core.model import Kind, Platform, Preset, Site
from layout.core.profile import Profile, check, decode
from layout.core.tables import NO_MOUNTS, Template, load_template
from layout.host import hostfiles

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def directory(kind: str) -> str:
    """Return where the shipped `profiles` or `fstab.d` are: in the wheel's data, else in the checkout."""
    inside = f"{_PACKAGE}/data/{kind}"
    return inside if os.path.isdir(inside) else f"{os.path.dirname(_PACKAGE)}/{kind}"


def profile_path(site: Site, name: str) -> str | None:
    """Return the file of profile `name`: the site's, else the shipped one, else None."""
    for place in (f"{site.etc}/profiles", directory("profiles")):
        path = f"{place}/{name}.toml"
        if os.path.isfile(path):
            return path
    return None


def profile_names(site: Site) -> list[str]:
    """Return the names of all profiles, sorted."""
    found = set()
    for place in (f"{site.etc}/profiles", directory("profiles")):
        if os.path.isdir(place):
            found |= {name[:-5] for name in os.listdir(place) if name.endswith(".toml")}
    return sorted(found)


def profile(site: Site, name: str) -> Profile:
    """Load profile `name`. Raises UsageError that names file, key and the nearest known key or name."""
    path = profile_path(site, name) if name and "/" not in name else None
    if path is None:
        import difflib

        names = profile_names(site)
        near = difflib.get_close_matches(name, names, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"profiles: {', '.join(names)}"
        raise UsageError(
            f"profile {name!r}", "no such profile", "a file of the site's or a shipped one", hint
        )
    return load_profile(path)


def load_profile(path: str) -> Profile:
    """Load and check one profile file. Raises UsageError."""
    data = hostfiles.read_toml(path)
    if data is None:
        raise UsageError(path, "nothing", "a profile")
    return check(decode(data, Profile, path), path)


def template(site: Site, kind: Kind, preset: Preset, platform: Platform) -> Template:
    """Load the template of the mount tables: the site's, else the shipped one. Raises LayoutError.

    The shared root has one for each preset, every other design has one of its own.
    """
    if kind in {Kind.SERVICE, Kind.THIN}:
        return NO_MOUNTS[platform]
    name = f"{platform}-{preset if kind is Kind.SHARED else kind}.fstab.in"
    for place in (f"{site.etc}/fstab.d", directory("fstab.d")):
        path = f"{place}/{name}"
        text = hostfiles.read_text(path)
        if text is not None:
            return load_template(text, path, platform)
    raise UsageError(
        f"{directory('fstab.d')}/{name}", "nothing", "the template of the mount tables", "reinstall layout"
    )


def share(name: str) -> str:
    """Return the text of a file for the host, such as rc.d/layout.in. Raises LayoutError."""
    path = f"{_PACKAGE}/share/{name}"
    text = hostfiles.read_text(path)
    if text is None:
        raise LayoutError(path, "nothing", "a file that comes with layout", "reinstall layout")
    return text


def prefix() -> str:
    """Return the directory that has bin/layout, the program of this very installation. Raises LayoutError."""
    import sysconfig

    scripts = sysconfig.get_path("scripts")
    if os.path.basename(scripts) != "bin" or not os.access(f"{scripts}/layout", os.X_OK):
        hint = "install layout: pip install, or the port"
        raise LayoutError(f"{scripts}/layout", "no program", "layout to be installed there", hint)
    return os.path.dirname(scripts)
