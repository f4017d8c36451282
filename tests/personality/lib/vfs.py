"""FreeBSD's mount table and nmount(2)/unmount(2), kept on top of the Linux ones (facts 1.3 to 1.9).

Each table entry carries the id that the Linux kernel gave its mount; what the kernel no longer has is
dropped, and what others mounted is shown too.
"""

from __future__ import annotations

import errno
import os
import stat

import kernel

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any


Entry = dict

# Exactly the list of facts 1.2; "nodev" is not in it.
GENERIC = frozenset(
    [
        "acls",
        "async",
        "atime",
        "automounted",
        "autoro",
        "current",
        "emptydir",
        "failok",
        "fstab",
        "late",
        "multilabel",
        "nfsv4acls",
        "noasync",
        "noatime",
        "noauto",
        "noclusterr",
        "noclusterw",
        "nocover",
        "noexec",
        "nosuid",
        "nosymfollow",
        "ro",
        "rw",
        "snapshot",
        "suiddir",
        "sync",
        "union",
        "untrusted",
        "update",
    ]
)
HELPERS = ("cd9660", "mfs", "msdosfs", "nfs", "nullfs", "smbfs", "udf", "unionfs")
OWN = {
    "nullfs": {"cache", "nocache"},
    "devfs": {"ruleset="},
    "tmpfs": {"easize=", "inodes=", "maxfilesize=", "mode=", "nonc", "size=", "uid=", "gid="},
    "fdescfs": {"linrdlnk", "rdlnk", "nodup"},
    "procfs": set(),
}
_SHOWN = "sync noexec nosuid union async noatime noclusterr noclusterw nosymfollow suiddir multilabel acls"
SHOWN_WORDS = (*_SHOWN.split(), "nfsv4acls", "untrusted", "nocover", "emptydir")

_MESSAGES = {
    errno.EDEADLK: "Resource deadlock avoided",
    errno.EOPNOTSUPP: "Operation not supported",
    errno.EBUSY: "Device busy",
    errno.ENODEV: "Operation not supported by device",
}


class VfsError(Exception):
    """What errno and, if any, what nmount(2) said beside it."""

    def __init__(self, number: int, detail: str = "") -> None:
        self.errno = number
        text = _MESSAGES.get(number) or os.strerror(number)
        super().__init__(f"{detail}: {text}" if detail else text)


def strerror(error: OSError) -> str:
    return _MESSAGES.get(error.errno or 0) or os.strerror(error.errno or 0)


# --- the table ----


def table(state: dict[str, Any]) -> list[Entry]:
    """The mount table, oldest first, after making the state agree with the kernel."""
    kept, known = [], {entry["id"]: entry for entry in state["mounts"]}
    baseline = {int(number): shown for number, shown in state["baseline"].items()}
    mounts = kernel.mountinfo()
    for mounted in mounts:
        entry = known.get(mounted.id)
        if entry and entry["on"] == mounted.on and entry["root"] == mounted.root:
            kept.append(entry)
        elif mounted.id not in baseline:
            kept.append(_foreign(state, mounted, mounts))
        elif baseline[mounted.id]:
            source, fstype = baseline[mounted.id]
            words = ["local"] + (["ro"] if mounted.read_only and mounted.on != "/" else [])
            kept.append(_entry(mounted, source, fstype, words, mounted.id + (1 << 40), -1))
    own = [entry for entry in kept if entry["fsid"] < 1 << 40]
    own.sort(key=lambda entry: entry["fsid"])
    state["mounts"] = own
    return [entry for entry in kept if entry["fsid"] >= 1 << 40] + own


def _entry(
    mounted: kernel.Mounted, source: str, fstype: str, words: list[str], fsid: int, lower: int
) -> Entry:
    return {
        "id": mounted.id,
        "root": mounted.root,
        "from": source,
        "on": mounted.on,
        "type": fstype,
        "words": words,
        "fsid": fsid,
        "lower": lower,
    }


def _foreign(state: dict[str, Any], mounted: kernel.Mounted, mounts: list[kernel.Mounted]) -> Entry:
    """What someone mounted without our mount(8)."""
    words = ["local"] + [word for word in ("ro", "nosuid", "noexec", "noatime") if word in mounted.options]
    source, fstype, lower = mounted.source, mounted.type, -1
    if mounted.root != "/" and mounted.type != "devpts":
        for other in mounts:
            below = other.root.rstrip("/") + "/"
            if other.id != mounted.id and other.device == mounted.device and mounted.root.startswith(below):
                source = os.path.join(other.on, mounted.root[len(below) :])
                lower = other.id
                break
        fstype = "nullfs"
    elif mounted.type == "proc":
        fstype = "procfs"
    fsid = state["next_fsid"]
    state["next_fsid"] += 1
    return _entry(mounted, source, fstype, words, fsid, lower)


def fsid_text(entry: Entry) -> str:
    """Sixteen hexadecimal digits, as mount -v prints and umount takes them."""
    return f"{entry['fsid'] & 0xFFFFFFFF:08x}{entry['fsid'] >> 32 or 0x29:08x}"


def top(entries: list[Entry], path: str) -> Entry | None:
    """The entry whose mount the (existing) path lies in; None in what is not ours."""
    number = kernel.mount_id(path)
    return next((entry for entry in entries if entry["id"] == number), None)


def is_root(entries: list[Entry], path: str) -> bool:
    """Whether the canonical path is a mountpoint."""
    return any(entry["on"] == path for entry in entries)


# --- nmount ----


def check_words(fstype: str, words: list[str]) -> str | None:
    """The first option that does not exist."""
    for word in words:
        name, equals, value = word.partition("=")
        allowed = OWN.get(fstype, set())
        if (
            word in GENERIC
            or (not equals and name in allowed)
            or (equals and value and f"{name}=" in allowed)
        ):
            continue
        return word
    return None


def settle(words: list[str]) -> list[str]:
    """Without the words that are never shown; of an option and its opposite, the rightmost."""
    wins: dict[str, str] = {}
    for word in words:
        key = "ro" if word in ("ro", "rw") else word
        key = key.removeprefix("no") if key in ("noatime", "noasync", "nocache") else key
        wins[key] = word
    dropped = {"late", "failok", "noauto", "fstab", "update", "current", "automounted", "atime", "noasync"}
    return [word for word in wins.values() if word not in dropped]


def _attributes(words: list[str]) -> int:
    flags = {
        "ro": kernel.ATTR_RDONLY,
        "nosuid": kernel.ATTR_NOSUID,
        "noexec": kernel.ATTR_NOEXEC,
        "nosymfollow": kernel.ATTR_NOSYMFOLLOW,
    }
    return sum(flags.get(word, 0) for word in words)


_ALL = (
    kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV | kernel.ATTR_NOEXEC | kernel.ATTR_NOSYMFOLLOW
)


def mount(state: dict[str, Any], fstype: str, source: str, on: str, words: list[str]) -> Entry:
    """Mount for real; `on` is canonical and exists. The words have been checked."""
    entries = table(state)
    if os.geteuid() != 0:
        raise VfsError(errno.EPERM)
    if "nocover" in words and is_root(entries, on):
        raise VfsError(errno.EBUSY)
    if "emptydir" in words and os.path.isdir(on) and os.listdir(on):
        raise VfsError(errno.ENOTEMPTY)
    words, lower = settle(words), -1
    try:
        if fstype == "nullfs":
            lower = _nullfs(entries, source, on, words)
        elif fstype == "devfs":
            _devfs(state, on, words)
        else:
            _tmpfs(fstype, on, words)
    except OSError as error:
        raise VfsError(error.errno or errno.EIO) from error
    number = kernel.mount_id(on)
    mounted = next(line for line in kernel.mountinfo() if line.id == number)
    shown = source if fstype == "nullfs" else fstype if fstype in ("devfs", "fdescfs") else source
    entry = _entry(mounted, shown, fstype, ["local", *words], state["next_fsid"], lower)
    state["next_fsid"] += 1
    state["mounts"].append(entry)
    return entry


def _nullfs(entries: list[Entry], source: str, on: str, words: list[str]) -> int:
    if stat.S_IFMT(os.stat(source).st_mode) != stat.S_IFMT(os.stat(on).st_mode):
        raise VfsError(errno.EINVAL, "must be same type")
    covered, lower = top(entries, on), kernel.mount_id(source)
    if covered and covered["type"] == "nullfs" and covered["lower"] == lower:
        here, there = os.stat(on), os.stat(source)
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            raise VfsError(errno.EDEADLK)
    # The lower file system's ro stays effective, its other flags do not (facts 1.5).
    wanted = _attributes(words)
    below = next(line for line in kernel.mountinfo() if line.id == lower)
    if below.read_only:
        wanted |= kernel.ATTR_RDONLY
    kernel.clone_mount(source, wanted, _ALL & ~wanted, on)
    return lower


def _fresh(on: str, words: list[str], data: str) -> None:
    kernel.mount("personality", on, "tmpfs", 0, data)
    kernel.propagation(on, kernel.MS_PRIVATE)
    if _attributes(words):
        kernel.remount(on, _attributes(words), 0)


def _tmpfs(fstype: str, on: str, words: list[str]) -> None:
    if fstype not in ("tmpfs", "fdescfs", "procfs"):
        raise VfsError(errno.ENODEV)
    values = dict(word.split("=", 1) for word in words if "=" in word)
    data = [f"{name}={values[name]}" for name in ("mode", "uid", "gid") if name in values]
    if "size" in values:
        data.append(f"size={_bytes(values['size'])}")
    if "mode" not in values:
        data.append(f"mode={stat.S_IMODE(os.stat(on).st_mode):o}" if fstype == "tmpfs" else "mode=555")
    _fresh(on, [word for word in words if word != "ro"] if fstype != "tmpfs" else words, ",".join(data))
    if fstype == "fdescfs":
        for number in range(3):
            os.symlink(f"/proc/self/fd/{number}", os.path.join(on, str(number)))
        kernel.remount(on, kernel.ATTR_RDONLY, 0)


def _bytes(text: str) -> int:
    unit = "kmgtp".find(text[-1:].lower())
    digits = text[:-1] if unit >= 0 else text
    if not digits.isdigit():
        raise VfsError(errno.EINVAL, "invalid size")
    return int(digits) << (10 * (unit + 1))


def _devfs(state: dict[str, Any], on: str, words: list[str]) -> None:
    number = next((word.partition("=")[2] for word in words if word.startswith("ruleset=")), "0")
    if not number.isdigit():
        raise VfsError(errno.EINVAL, "invalid ruleset")
    # An unknown ruleset is an empty one: it hides nothing (facts 1.9).
    rules = state["rulesets"].get(number, []) if state["devfs_loaded"] else []
    if int(number) and number not in state["rulesets"]:
        state["rulesets"][number] = []
    _fresh(on, [], "mode=555")
    import devfs_nodes

    devfs_nodes.populate(on, devfs_nodes.visible(rules, state["rulesets"]))
    kernel.remount(on, kernel.ATTR_RDONLY, 0)  # nobody can make a file in a devfs


def update(state: dict[str, Any], entry: Entry, words: list[str]) -> None:
    """mount -u: tmpfs and friends follow, nullfs refuses."""
    if entry["type"] == "nullfs":
        raise VfsError(errno.EOPNOTSUPP)
    if entry["fsid"] >= 1 << 40:
        raise VfsError(errno.EBUSY)
    merged = settle([*entry["words"], *words])
    try:
        kernel.remount(entry["on"], _attributes(merged), _ALL & ~_attributes(merged) & ~kernel.ATTR_NODEV)
    except OSError as error:
        raise VfsError(error.errno or errno.EIO) from error
    for known in state["mounts"]:
        if known["id"] == entry["id"]:
            known["words"] = merged


def unmount(state: dict[str, Any], entry: Entry) -> None:
    """unmount(2) without MNT_FORCE: what is in use stays."""
    entries = table(state)
    if os.geteuid() != 0:
        raise VfsError(errno.EPERM)
    covering = [other for other in entries if other["on"] == entry["on"]]
    used = any(other["lower"] == entry["id"] for other in entries)
    if entry["fsid"] >= 1 << 40 or used or kernel.mount_id(entry["on"]) != entry["id"] or not covering:
        raise VfsError(errno.EBUSY)
    try:
        kernel.unmount(entry["on"])
    except OSError as error:
        raise VfsError(error.errno or errno.EIO) from error
    state["mounts"] = [other for other in state["mounts"] if other["id"] != entry["id"]]


def words_of(entry: Entry) -> list[str]:
    """The options as mount -p prints them: rw or ro first."""
    words = entry["words"]
    return ["ro" if "ro" in words else "rw"] + [word for word in SHOWN_WORDS if word in words]


def phrases(entry: Entry) -> list[str]:
    """The options as the plain list and JSON have them."""
    spoken = {"ro": "read-only", "sync": "synchronous", "async": "asynchronous"}
    order = ["local", "ro", *SHOWN_WORDS]
    return [spoken.get(word, word) for word in order if word in entry["words"]]
