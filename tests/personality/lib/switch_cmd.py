"""personality: the switchboard of the pretended host, for tests and for its own rc.d scripts.

personality load-devfs-rules FILE...    what rc.d/devfs does
personality set devfs loaded|unloaded   whether rulesets count
personality set release X.Y-RELEASE
personality set interface NAME [ADDRESS]...
personality set pf absent|disabled|enabled
personality set sysctl NAME VALUE       what the kernel says of itself
personality state                       everything, as JSON
personality calls                       every program of the personality that was started, in order
"""

from __future__ import annotations

import json
import os
import sys

import devfs_nodes
import state as kept


def main(argv: list[str]) -> int:
    kept.guard()
    with kept.locked() as state:
        match argv:
            case ["load-devfs-rules", *paths]:
                names: dict[str, str] = {}
                for path in paths:
                    if os.path.exists(path):
                        with open(path, encoding="utf-8") as file:
                            try:
                                state["rulesets"] |= devfs_nodes.parse(file.read(), names)
                            except devfs_nodes.BadRules as error:
                                print(f"{path}: {error}", file=sys.stderr)
                                return 1
                state["devfs_loaded"] = True
            case ["set", "devfs", ("loaded" | "unloaded") as value]:
                state["devfs_loaded"] = value == "loaded"
            case ["set", "release", value]:
                state["release"] = value
            case ["set", "interface", name, *addresses]:
                state["interfaces"][name] = addresses
            case ["set", "pf", ("absent" | "disabled" | "enabled") as value]:
                state["pf"] = {"state": value, "anchors": {} if value == "absent" else state["pf"]["anchors"]}
            case ["set", "sysctl", name, value]:
                state["sysctl"][name] = value
            case ["calls"]:
                with open(kept.CALLS, encoding="utf-8") as file:
                    print(file.read(), end="")
            case ["state"]:
                print(json.dumps(state, indent=1))
            case _:
                print((__doc__ or "").strip(), file=sys.stderr)
                return 2
    return 0
