"""What the host gets to run layout by itself: scripts for rc(8) and periodic(8), a sample configuration."""

from __future__ import annotations

import re

from layout.core.errors import UsageError
from layout.host import shipped

_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def script(name: str, root: str | None, config: str | None) -> str:
    """Return the script that the template `name` makes, with the paths of this installation.

    `root` and `config` are the global options as given: the script passes them on. Raises LayoutError, and
    UsageError for a path that cannot stand in rc.conf(5), where words are split at blanks.
    """
    flags = []
    for option, path in (("--root", root), ("--config", config)):
        if path is None:
            continue
        if not path.startswith("/") or not _PLAIN.fullmatch(path):
            raise UsageError(f"option {option}", repr(path), "an absolute path without blanks or quotes")
        flags += [option, path]
    return (
        shipped.share(f"{name}.in")
        .replace("%%PREFIX%%", shipped.prefix())
        .replace("%%FLAGS%%", " ".join(flags))
    )


def sample() -> str:
    """Return a configuration that says the defaults, each with its meaning."""
    return shipped.share("layout.toml.sample")
