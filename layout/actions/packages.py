"""Whether a base has the packages that the profiles of its jails name."""

from __future__ import annotations

from collections.abc import Iterable

from layout.actions.kinds import design_of
from layout.core.dpkg import installed
from layout.core.errors import LayoutError
from layout.core.model import Jail, Platform
from layout.host.beneath import Dir

_STATUS = "j/mroot/usr/lib/sysimage/dpkg/status"
_LARGEST = 256 << 20


def missing(root: Dir, jails: Iterable[Jail]) -> dict[str, list[str]]:
    """Return the packages that each jail lacks; nothing where the base has no package database of Debian."""
    wanted = {
        jail.name: jail.settings.packages
        for jail in jails
        if jail.settings.packages and jail.platform is Platform.LINUX and design_of(jail.kind).shares_root
    }
    if not wanted:
        return {}
    try:
        text = root.read(_STATUS, _LARGEST).decode("utf-8", "replace")
    except (FileNotFoundError, LayoutError):  # none, or a base of another kind
        return {}
    have = installed(text)
    lacking = {name: [one for one in packages if one not in have] for name, packages in wanted.items()}
    return {name: packages for name, packages in lacking.items() if packages}


def hint(packages: Iterable[str]) -> str:
    """Return the command that installs packages."""
    return f"layout manage --base -- apt-get install {' '.join(packages)}"
