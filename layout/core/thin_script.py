"""The script for rc(8) that runs a thin jail of FreeBSD by itself: pure text from data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import assert_never

from layout.core.errors import UsageError
from layout.core.kinds import thin
from layout.core.model import Jail, JailPlan, Mount
from layout.core.service import Network
from layout.core.shell import quote
from layout.core.thin import ThinDirectory, ThinFile, ThinLink, ThinRoot, ThinText

_PLAIN = re.compile(r"[A-Za-z0-9_./+:@%,=~-]+")

_KEPT = """\
# The root is kept by layout, and shared: it is not to be made, and not to be removed.
thin_build()
{
	[ -d "${thin_tree}" ]
}

thin_remove()
{
	:
}
"""

_BUILT = """\
# thin_file SOURCE PATH MODE: a copy of a file of the host.
thin_file()
{
	if [ ! -f "$1" ] && checkyesno %(rc)s_ldd; then return 0; fi
	if ! cp "$1" "${thin_tree}/$2" || ! chmod "$3" "${thin_tree}/$2"; then
		warn "$1: cannot be copied: render this script again, or set %(rc)s_ldd=YES"
		return 1
	fi
}

# thin_libraries PROGRAM: copies what ldd(1) names and is not there yet; [vdso] and its like are no files.
thin_libraries()
{
	ldd -f '%%p\\n' -f '%%p\\n' "$1" | while read -r _path; do
		case ${_path} in
		/*) ;;
		*) continue ;;
		esac
		if [ -e "${thin_tree}${_path}" ]; then continue; fi
		mkdir -p "${thin_tree}${_path%%/*}" && cp "${_path}" "${thin_tree}${_path}" || exit 1
	done
}

thin_build()
{
	thin_remove && mkdir -p "${thin_tree}" && chmod 755 "${thin_tree}" || return 1
%(steps)s	pwd_mkdb -d "${thin_tree}/etc" "${thin_tree}/etc/master.passwd" || return 1
	if checkyesno %(rc)s_ldd; then
%(asked)s	fi
	return 0
}

thin_remove()
{
	rm -rf "${thin_tree}"
}
"""


def script(template: str, plan: JailPlan, tree: str, root: ThinRoot | None, places: Places) -> str:
    """Return the text of the script. `plan` has what is mounted while the jail runs.

    `tree` is the directory of the root: one that is there, or where the script is to make `root`. Raises
    UsageError for paths that cannot stand in the lines that sh(1) splits.
    """
    jail = plan.jail
    _require_plain(tree, plan.tables.jail)
    rc = rc_name(jail.name)
    build = _KEPT if root is None else _build(rc, root, thin.programs(jail.settings))
    values = {
        "RC": rc,
        "NAME": jail.name,
        "PIDFILE": places.pidfile,
        "QNAME": quote(jail.name),
        "QROOT": quote(plan.tables.jail[0].target),
        "QTREE": quote(tree),
        "QLOG": quote(places.log),
        "RULESET": str(jail.settings.jail.devfs_ruleset),
        "TIMEOUT": str(jail.settings.service.stop_timeout),
        "SIGNAL": jail.settings.service.stop_signal,
        "MOUNTS": "".join(
            f"{m.source} {m.target} {m.fstype} {','.join(m.options)}\n" for m in plan.tables.jail
        ),
        "BUILD": build,
        "ENVIRONMENT": " ".join(map(quote, environment(jail))),
        "PARAMETERS": " ".join(map(quote, parameters(jail))),
        "COMMAND": " ".join(map(quote, jail.settings.service.command)),
    }
    return re.sub(r"%%([A-Z]+)%%", lambda found: values[found[1]], template)


class Places:
    """Where the script keeps its files."""

    def __init__(self, pidfile: str, log: str) -> None:
        self.pidfile = pidfile
        self.log = log


def rc_name(name: str) -> str:
    """Return the name that rc.subr(8) knows the script by: it has to be a variable's."""
    return f"thin_{name.replace('-', '_')}"


def environment(jail: Jail) -> tuple[str, ...]:
    """Return the environment of the service: nothing of the caller's."""
    path = "PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
    return (path, *jail.settings.service.environment)


def parameters(jail: Jail) -> tuple[str, ...]:
    """Return the parameters of jail(8) besides path, name and command."""
    settings = jail.settings
    found = ["host=inherit", *_network(settings.network)]
    found += [f"enforce_statfs={settings.jail.enforce_statfs}"]
    found += [f"devfs_ruleset={settings.jail.devfs_ruleset}"]
    if settings.jail.securelevel >= 0:
        found.append(f"securelevel={settings.jail.securelevel}")
    found += [f"allow.{name}" for name in settings.jail.allow]
    if settings.service.user:
        # By the host's accounts: the jail needs none of its own for this.
        found += [f"exec.jail_user={settings.service.user}", "exec.system_jail_user"]
    return tuple(found)


def _network(network: Network) -> Iterable[str]:
    for key, values in (("ip4", network.ip4), ("ip6", network.ip6)):
        if values in {("inherit",), ("disable",)}:
            yield f"{key}={values[0]}"
        else:
            prefix = f"{network.interface}|" if network.interface else ""
            yield from (f"{key}.addr={prefix}{value}" for value in values)


def _build(rc: str, root: ThinRoot, programs: tuple[str, ...]) -> str:
    steps = []
    for item in root.items:
        place = f'"${{thin_tree}}"/{quote(item.path)}'
        match item:
            case ThinDirectory(_, mode):
                steps.append(f"mkdir -p {place} && chmod {mode:o} {place} || return 1")
            case ThinLink(_, target):
                steps.append(f"ln -s {quote(target)} {place} || return 1")
            case ThinText(_, text, mode):
                steps.append(f"printf '%s' {quote(text)} >{place} && chmod {mode:o} {place} || return 1")
            case ThinFile(path, source, mode):
                origin = f"{root.origin.rstrip('/')}/{source}"
                steps.append(f"thin_file {quote(origin)} {quote(path)} {mode:o} || return 1")
            case _:
                assert_never(item)
    asked = [f"thin_libraries {quote(program)} || return 1" for program in programs]
    return _BUILT % {
        "rc": rc,
        "steps": "".join(f"\t{step}\n" for step in steps),
        "asked": "".join(f"\t\t{line}\n" for line in asked),
    }


def _require_plain(tree: str, mounts: tuple[Mount, ...]) -> None:
    for path in (tree, *(p for mount in mounts for p in (mount.source, mount.target))):
        if not _PLAIN.fullmatch(path):
            expected = "letters, digits and ./+:@%,=~_- in the paths of a script"
            raise UsageError("render rc.d", shlex.quote(path), expected)
