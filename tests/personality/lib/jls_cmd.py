"""jls(8) (facts 2.8)."""

from __future__ import annotations

import sys

import jailparams
import libxo
import options as getopt
import prison
import state as kept

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any


USAGE = "usage: jls [-dhNnqsv] [-j jail] [param ...]"
_COMPUTED = (
    "jid",
    "name",
    "path",
    "host.hostname",
    "dying",
    "persist",
    "ip4.addr",
    "ip6.addr",
    "parent",
    "children.cur",
)


def value(jail: dict[str, Any], name: str) -> str | None:
    """The text of a parameter; None if there is no such parameter."""
    params = jail["params"]
    if name in ("jid", "name", "path"):
        return str(jail[name])
    if name == "host.hostname":
        return jail["hostname"]
    if name in ("ip4.addr", "ip6.addr"):
        wanted = [address for address in jail["addresses"] if (":" in address) == (name == "ip6.addr")]
        return ",".join(wanted) or "-"
    if name == "persist":
        return str(bool(jail["persist"])).lower()
    if name in ("dying", "parent", "children.cur", "cpuset.id"):
        return {"dying": "false"}.get(name, "0")
    if not jailparams.known(name) or (name in jailparams.PSEUDO and name != "vnet"):
        return None
    defaults = {"enforce_statfs": "2", "children.max": "0", "devfs_ruleset": "0", "securelevel": "-1"}
    default = {"bool": "false", "int": "0", "choice": "inherit"}.get(jailparams.kind(name), "")
    if name.startswith("sysv"):
        default = "disable"
    if name in ("allow.set_hostname", "allow.reserved_ports"):
        default = "true"
    if name in ("ip4", "ip6"):
        default = "new" if value(jail, f"{name}.addr") != "-" else "disable"
    return jailparams.one(params, name, defaults.get(name, default))


def main(argv: list[str]) -> int:
    kept.guard()
    json, pretty, argv = libxo.split(argv)
    try:
        given, names = getopt.getopt(argv, "cdhj:Nnqsv")
    except getopt.GetoptError as error:
        print(f"jls: illegal option -- {error.opt}\n{USAGE}", file=sys.stderr)
        return 1
    flags = {flag[1] for flag, _ in given}
    wanted = dict(given).get("-j")
    with kept.locked() as state:
        found = prison.jails(state)
        chosen = found if wanted is None else [jail for jail in [prison.find(state, wanted)] if jail]
        major = int(state["release"].split(".")[0])
    if "c" in flags:
        if wanted is None or names or major < 15:
            print(USAGE, file=sys.stderr)
            return 1
        return 0 if chosen else 1
    if wanted is not None and not chosen:
        print(f'jls: jail "{wanted}" not found', file=sys.stderr)
        return 1
    if "s" in flags and not names:
        names = [
            "jid",
            "name",
            "path",
            "host.hostname",
            "enforce_statfs",
            "devfs_ruleset",
            "children.max",
            "securelevel",
        ]
    if "n" in flags and not names:
        names = list(_COMPUTED)
    if names == ["all"]:
        every = sorted(
            jailparams.BOOLS | set(jailparams.INTS) | {f"allow.{new}" for new in jailparams.ALLOW_NEWER}
        )
        names = [
            *_COMPUTED,
            *(name for name in every if jailparams.exists(name, major) and name not in _COMPUTED),
        ]
    for name in names:
        probe = {
            "params": {},
            "addresses": [],
            "hostname": "",
            "persist": True,
            "jid": 0,
            "name": "",
            "path": "",
        }
        if value(probe, name) is None or (not jailparams.exists(name, major) and name not in _COMPUTED):
            print(f"jls: unknown parameter: {name}", file=sys.stderr)
            return 1
    if json:
        libxo.emit(
            {"__version": "2", "jail-information": {"jail": [_json(jail, names) for jail in chosen]}},
            pretty=pretty,
        )
        return 0
    _text(chosen, names, flags)
    return 0


def _json(jail: dict[str, Any], names: list[str]) -> dict[str, Any]:
    if not names:
        first = (jail["addresses"] or [""])[0]
        return {"jid": jail["jid"], "ipv4": first, "hostname": jail["hostname"], "path": jail["path"]}
    return {name: jail["jid"] if name == "jid" else value(jail, name) for name in names}


def _text(chosen: list[dict[str, Any]], names: list[str], flags: set[str]) -> None:
    if names:
        if "h" in flags:
            print(" ".join(names))
        for jail in chosen:
            parts = []
            for name in names:
                text = value(jail, name) or ""
                if flags & {"q", "s"} or " " in text:
                    import shlex

                    text = shlex.quote(text)
                parts.append(f"{name}={text}" if flags & {"n", "s"} else text or '""')
            print(" ".join(parts))
        return
    if "v" in flags:
        print(
            "   JID  Hostname                      Path\n        Name                          State\n"
            "        CPUSetID\n        IP Address(es)"
        )
        for jail in chosen:
            print(f"{jail['jid']:6}  {jail['hostname']:<29.29} {jail['path']}")
            print(f"        {jail['name']:<29.29} ACTIVE\n        {jail['jid'] + 1}")
            for address in jail["addresses"]:
                print(f"        {address}")
        return
    key = "name" if "N" in flags else "jid"
    width = 15 if "N" in flags else 6
    head = f"{'JID':<{width}}" if "N" in flags else f"{'JID':>{width}}"
    print(f" {head} {'IP Address':<15} {'Hostname':<29} Path")
    for jail in chosen:
        shown = f"{jail[key]:<{width}}" if "N" in flags else f"{jail[key]:>{width}}"
        first = next((address for address in jail["addresses"] if ":" not in address), "")
        print(f" {shown} {first:<15} {jail['hostname']:<29.29} {jail['path']}")
