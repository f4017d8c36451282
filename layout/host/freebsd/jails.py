"""Running jails as jls(8) lists them; started, entered and stopped by jail(8), always by their own file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

import msgspec

from layout.core import jailconf
from layout.core.errors import LayoutError
from layout.core.model import Site
from layout.host.run import Done, run

OLDEST = 14
"""The first major release whose rc.d/jail and jail(8) read what layout writes."""


class Prison(msgspec.Struct, frozen=True):
    """One running jail."""

    jid: int
    name: str
    path: str
    """Its root as the kernel has it: without symbolic links."""


def require_release() -> None:
    """Make sure that this release reads what layout writes. Raises LayoutError."""
    release = run("uname", "-r").stdout.strip()
    major = release.partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST:
        raise LayoutError(
            "uname -r",
            f"FreeBSD {release}",
            f"{OLDEST}.0 or later",
            "older ones have no jail.conf.d; --no-mount builds the trees and tables only",
        )


def listed() -> list[Prison]:
    """Return every running jail. Raises LayoutError: unknown is not the same as none."""
    done = run("jls", "--libxo=json", "jid", "name", "path", ok=range(256))
    if done.status == 0 and done.stdout.lstrip().startswith("{"):
        return _from_json(done.stdout)
    # A jls(8) without libxo. -q quotes what has blanks.
    lines = run("jls", "-q", "jid", "name", "path").stdout.splitlines()
    found = []
    for line in lines:
        try:
            jid, name, path = shlex.split(line)
            found.append(Prison(int(jid), name, path))
        except ValueError:
            raise LayoutError("jls", repr(line), "jid, name and path of a jail") from None
    return found


def refuse_other(prison: Prison | None, root: str) -> None:
    """Make sure that a running jail is the one with this root. Raises LayoutError."""
    if prison is not None and prison.path != root:
        raise LayoutError(
            root,
            f"a running jail {prison.name} (jid {prison.jid}) with the root {prison.path}",
            "no jail of this name, or this one",
            "stop it, or choose another name",
        )


def _from_json(text: str) -> list[Prison]:
    # Imported late: verify loads this module on Linux as well.
    import json

    try:
        rows = json.loads(text)["jail-information"]["jail"]
        return [Prison(int(row["jid"]), str(row.get("name", row["jid"])), str(row["path"])) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LayoutError("jls --libxo=json", repr(text[:80]), "a list of jails") from None


def find(name: str) -> Prison | None:
    """Return the running jail of this name, wherever its root is. Raises LayoutError."""
    return next((prison for prison in listed() if prison.name == name), None)


def parameters(name: str, names: Sequence[str]) -> dict[str, str]:
    """Return parameters of a running jail as text, "true" and "false" for those that are one or the other.

    What this release does not know is left out.
    """
    import json

    done = run("jls", "--libxo=json", "-j", name, *names, ok=range(256))
    if done.status != 0:
        # One name that is not known fails them all.
        return {} if len(names) < 2 else {k: v for one in names for k, v in parameters(name, [one]).items()}
    try:
        (row,) = json.loads(done.stdout)["jail-information"]["jail"]
        keys = row if list(names) == ["all"] else [key for key in names if key in row]
        return {key: _text(row[key]) for key in keys}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LayoutError(f"jls -j {name}", repr(done.stdout[:80]), "the parameters of a jail") from None


def every_parameter(name: str) -> dict[str, str]:
    """Return all parameters of a running jail that this release knows, as text. Raises LayoutError."""
    return parameters(name, ["all"])


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def age(pid: int) -> int | None:
    """Return for how many seconds a process has run; None when ps(1) does not say."""
    done = run("ps", "-o", "etimes=", "-p", str(pid), ok=range(256))
    word = done.stdout.strip()
    return int(word) if done.status == 0 and word.isdigit() else None


def started(site: Site, name: str) -> Done:
    """Let jail(8) start a jail by its file; return what was said. Whether it runs is to be read back.

    As rc(8) does it at boot, unless this is a trial, whose file rc.d/jail does not know.
    """
    conf = _file(site, name)
    if site.trial:
        return run("jail", "-f", conf, "-c", name, ok=range(256), service=True)
    # Without 'one', a host that starts no jails at boot would only be told so.
    return run("service", "jail", "onestart", name, ok=range(256), service=True)


def stopped(site: Site, name: str) -> Done:
    """Let jail(8) stop a jail by its file; return what was said. Whether it runs is to be read back."""
    conf = _file(site, name)
    if site.trial:
        return run("jail", "-f", conf, "-r", name, ok=range(256))
    return run("service", "jail", "onestop", name, ok=range(256))


def _file(site: Site, name: str) -> str:
    """Without its file jail(8) would kill the jail: no exec.stop, and every mount left behind."""
    path = jailconf.path(site, name)
    if not os.access(path, os.R_OK):
        raise LayoutError(
            path, "no file to read", "the jail.conf(5) of the jail", f"layout init {name} writes it"
        )
    return path


def processes(name: str) -> list[int]:
    """Return the process IDs of what runs in a jail."""
    # 1: none; 2: no such jail, which then has none either.
    done = run("pgrep", "-j", name, ".", ok=(0, 1, 2))
    return sorted(int(word) for word in done.stdout.split() if word.isdigit())
