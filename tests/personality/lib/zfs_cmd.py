"""zfs(8): file systems of one pool, zroot, with the properties of facts 6.2 and mounts that follow them.

A dataset's content is a directory of a tmpfs; its mount is a clone of that, with the flags it wants.
"""

from __future__ import annotations

import errno
import os
import re
import sys

import kernel
import options as getopt
import state as kept
import vfs

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any

DEFAULTS = {
    "setuid": "on",
    "devices": "on",
    "exec": "on",
    "atime": "on",
    "readonly": "off",
    "utf8only": "off",
    "canmount": "on",
}
ONCE = {"utf8only"}
"""Creation time only."""
NOT_INHERITED = {"canmount"}
SHOWN = (*DEFAULTS, "mountpoint", "mounted", "type", "name")
WORDS = {"readonly=on": "ro", "setuid=off": "nosuid", "exec=off": "noexec", "atime=off": "noatime"}
"""devices=off has no word: there is no nodev."""
NAME = re.compile(r"zroot(/[A-Za-z0-9][A-Za-z0-9_.:-]*)*")


class Failed(Exception):
    """What zfs(8) says, with exit status 1; usage is 2."""


class Usage(Exception):
    """Wrong words."""


def main(argv: list[str]) -> int:
    kept.guard()
    known = {
        "create": create,
        "destroy": destroy,
        "get": get,
        "list": listing,
        "mount": mount,
        "rollback": lambda state, words: _refuse(words),
        "set": change,
        "snapshot": snapshot,
        "umount": unmount,
        "unmount": unmount,
    }
    try:
        if not argv or argv[0] not in known:
            raise Usage(f"unrecognized command '{argv[0] if argv else ''}'")
        if os.geteuid() != 0 and argv[0] not in {"get", "list"}:
            raise Failed("permission denied")
        with kept.locked() as state:
            state.setdefault("zfs", {"zroot": {"set": {"mountpoint": "none"}, "snapshots": []}})
            known[argv[0]](state, argv[1:])
    except getopt.GetoptError as error:
        print(f"invalid option '{error.opt}'\nusage: zfs {argv[0]} ...", file=sys.stderr)
        return 2
    except Usage as error:
        print(f"{error}\nusage: zfs command args ...", file=sys.stderr)
        return 2
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _refuse(words: list[str]) -> None:
    raise Usage(f"not played here: {' '.join(words)}")


# --- datasets ----


def _known(state: dict[str, Any], name: str) -> dict[str, Any]:
    base, at, tag = name.partition("@")
    found = state["zfs"].get(base)
    if not NAME.fullmatch(base):
        raise Failed(f"cannot open '{name}': invalid dataset name")
    if found is None or (at and tag not in found["snapshots"]):
        raise Failed(f"cannot open '{name}': dataset does not exist")
    return dict(found)


def _value(state: dict[str, Any], name: str, key: str) -> tuple[str, str]:
    """Value and source."""
    own = state["zfs"][name]["set"]
    if key == "name":
        return name, "-"
    if key == "type":
        return "filesystem", "-"
    if key == "mounted":
        return ("yes" if _mounted(state, name) else "no"), "-"
    if key in own:
        return own[key], "-" if key in ONCE else "local"
    parent = name.rpartition("/")[0]
    if parent and key not in NOT_INHERITED and key not in ONCE:
        value, source = _value(state, parent, key)
        if key == "mountpoint" and value.startswith("/"):
            value = f"{value}/{name.rpartition('/')[2]}"
        return value, f"inherited from {parent}" if source == "local" else source
    return (DEFAULTS[key], "-" if key in ONCE else "default") if key in DEFAULTS else ("none", "default")


def _pairs(given: list[tuple[str, str]]) -> dict[str, str]:
    found = {}
    for _, text in given:
        key, equals, value = text.partition("=")
        on_off = {"on", "off", *(("noauto",) if key == "canmount" else ())}
        if not equals or (key not in DEFAULTS and key != "mountpoint") or key in found:
            raise Usage(f"bad property list: '{text}'")
        if key != "mountpoint" and value not in on_off:
            raise Failed(f"bad value: '{key}' must be one of 'on | off'")
        if key == "mountpoint" and value not in {"none", "legacy"} and not value.startswith("/"):
            raise Failed("bad value: 'mountpoint' must be an absolute path, 'none', or 'legacy'")
        found[key] = value
    return found


def create(state: dict[str, Any], argv: list[str]) -> None:
    given, rest = getopt.getopt(argv, "o:")
    if len(rest) != 1:
        raise Usage("missing filesystem argument" if not rest else "too many arguments")
    name = rest[0]
    parent = name.rpartition("/")[0]
    if not NAME.fullmatch(name) or not parent:
        raise Failed(f"cannot create '{name}': invalid dataset name")
    if name in state["zfs"]:
        raise Failed(f"cannot create '{name}': dataset already exists")
    if parent not in state["zfs"]:
        raise Failed(f"cannot create '{name}': parent does not exist")
    state["zfs"][name] = {"set": _pairs(given), "snapshots": []}
    os.makedirs(_content(name))
    place = _value(state, name, "mountpoint")[0]
    if place.startswith("/") and _value(state, name, "canmount")[0] == "on":
        _mount(state, name)


def destroy(state: dict[str, Any], argv: list[str]) -> None:
    given, rest = getopt.getopt(argv, "")
    if given or len(rest) != 1:
        raise Usage("missing dataset argument")
    name = rest[0]
    _known(state, name)
    base, at, tag = name.partition("@")
    if at:
        state["zfs"][base]["snapshots"].remove(tag)
        return
    if any(other.startswith(f"{name}/") for other in state["zfs"]) or state["zfs"][name]["snapshots"]:
        raise Failed(
            f"cannot destroy '{name}': filesystem has children\nuse '-r' to destroy the following datasets:"
        )
    if _mounted(state, name):
        _unmount(state, name)
    del state["zfs"][name]


def snapshot(state: dict[str, Any], argv: list[str]) -> None:
    _, rest = getopt.getopt(argv, "")
    name, at, tag = (rest[0] if len(rest) == 1 else "").partition("@")
    if not at or not tag:
        raise Usage("missing snapshot argument")
    _known(state, name)
    state["zfs"][name]["snapshots"].append(tag)


def change(state: dict[str, Any], argv: list[str]) -> None:
    _, rest = getopt.getopt(argv, "")
    if len(rest) != 2:
        raise Usage("missing property=value argument")
    wanted, name = _pairs([("-o", rest[0])]), rest[1]
    _known(state, name)
    ((key, value),) = wanted.items()
    if key in ONCE:
        raise Failed(f"cannot set property for '{name}': '{key}' is readonly")
    entry = _mounted(state, name)
    if key == "mountpoint" and entry:
        _unmount(state, name)
    state["zfs"][name]["set"][key] = value
    if key == "mountpoint":
        if value.startswith("/"):
            _mount(state, name)
    elif entry:
        words = ["local", *_words(state, name)]
        set_, clear = vfs._attributes(words), vfs._attributes(["ro", "nosuid", "noexec"])
        kernel.remount(entry["on"], set_, clear & ~set_)
        for known in state["mounts"]:
            if known["id"] == entry["id"]:
                known["words"] = words


# --- looking ----


def get(state: dict[str, Any], argv: list[str]) -> None:
    given, rest = getopt.getopt(argv, "Hpo:")
    values = dict(given)
    if "-H" not in values or len(rest) != 2:
        raise Usage("only -H and one dataset are played here")
    columns = values.get("-o", "name,property,value,source").split(",")
    keys, name = rest[0].split(","), rest[1]
    _known(state, name)
    for key in keys:
        if key not in SHOWN:
            raise Usage(f"bad property list: invalid property '{key}'")
        value, source = _value(state, name.partition("@")[0], key)
        row = {"name": name, "property": key, "value": value, "source": source}
        print("\t".join(row[column] for column in columns))


def listing(state: dict[str, Any], argv: list[str]) -> None:
    given, rest = getopt.getopt(argv, "Hprt:o:")
    values = dict(given)
    if "-H" not in values or values.get("-o") != "name" or len(rest) != 1:
        raise Usage("only -H -o name and one dataset are played here")
    _known(state, rest[0])
    for name in sorted(state["zfs"]):
        if name == rest[0] or ("-r" in values and name.startswith(f"{rest[0]}/")):
            print(name)
            if values.get("-t") == "all":
                for tag in state["zfs"][name]["snapshots"]:
                    print(f"{name}@{tag}")


# --- mounts ----


def _content(name: str) -> str:
    return f"{kept.DIR}/zfs/{name.replace('/', '%')}"


def _words(state: dict[str, Any], name: str) -> list[str]:
    return [
        WORDS[f"{key}={value}"]
        for key in DEFAULTS
        if f"{key}={(value := _value(state, name, key)[0])}" in WORDS
    ]


def _mounted(state: dict[str, Any], name: str) -> dict[str, Any] | None:
    entries = (one for one in vfs.table(state) if one["type"] == "zfs" and one["from"] == name)
    return next(entries, None)


def mount(state: dict[str, Any], argv: list[str]) -> None:
    given, rest = getopt.getopt(argv, "a")
    if ("-a", "") in given and not rest:
        for name in sorted(state["zfs"]):
            place = _value(state, name, "mountpoint")[0]
            can = _value(state, name, "canmount")[0]
            if place.startswith("/") and can == "on" and not _mounted(state, name):
                _mount(state, name)
        return
    if len(rest) != 1:
        raise Usage("missing filesystem argument")
    _known(state, rest[0])
    if _mounted(state, rest[0]):
        raise Failed(f"cannot mount '{rest[0]}': filesystem already mounted")
    _mount(state, rest[0])


def _mount(state: dict[str, Any], name: str) -> None:
    on = _value(state, name, "mountpoint")[0]
    if not on.startswith("/"):
        raise Failed(f"cannot mount '{name}': no mountpoint set")
    os.makedirs(on, exist_ok=True)
    if os.listdir(on):
        raise Failed(f"cannot mount '{on}': directory is not empty")
    words = _words(state, name)
    wanted = vfs._attributes(words)
    kernel.clone_mount(_content(name), wanted, vfs._ALL & ~wanted, on)
    number = kernel.mount_id(on)
    mounted = next(line for line in kernel.mountinfo() if line.id == number)
    state["mounts"].append(vfs._entry(mounted, name, "zfs", ["local", *words], state["next_fsid"], -1))
    state["next_fsid"] += 1


def unmount(state: dict[str, Any], argv: list[str]) -> None:
    _, rest = getopt.getopt(argv, "")
    if len(rest) != 1:
        raise Usage("missing filesystem argument")
    _known(state, rest[0])
    if not _mounted(state, rest[0]):
        raise Failed(f"cannot unmount '{rest[0]}': not currently mounted")
    _unmount(state, rest[0])


def _unmount(state: dict[str, Any], name: str) -> None:
    entry = _mounted(state, name)
    assert entry is not None
    try:
        vfs.unmount(state, entry)
    except vfs.VfsError as error:
        if error.errno != errno.EBUSY:
            raise Failed(f"cannot unmount '{entry['on']}': {error}") from error
        raise Failed(f"cannot unmount '{entry['on']}': pool or dataset is busy") from error
