"""What a FreeBSD kernel would remember: one file on a tmpfs, behind one lock."""

from __future__ import annotations

import fcntl
import marshal  # json takes longer to import than some of these programs to run, and so does typing
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIR = "/run/personality"
FILE = f"{DIR}/state"


CALLS = f"{DIR}/calls"
_told: list[bool] = []


def guard() -> None:
    """Refuse to run anywhere but under tests/personality/enter, which runs only under tests/box."""
    if not os.path.exists(FILE):
        sys.exit(f"{os.path.basename(sys.argv[0])}: not under tests/personality/enter; nothing done")
    if not _told:
        _told.append(True)
        try:
            with open(CALLS, "a", encoding="utf-8", errors="replace") as calls:
                words = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
                calls.write(words.replace("\n", "\\n") + "\n")
        except OSError:
            pass  # nothing is lost for a user who may not write there: the tests that ask are root's


def read() -> dict[str, Any]:
    guard()
    with open(FILE, "rb") as file:
        return marshal.loads(file.read())


def write(state: dict[str, Any]) -> None:
    with open(f"{FILE}.new", "wb") as file:
        file.write(_bytes(state))
    os.rename(f"{FILE}.new", FILE)


def _bytes(state: dict[str, Any]) -> bytes:
    return marshal.dumps(_plain(state), 2)  # later formats tell equal objects from the same one


def _plain(value: object) -> object:
    """Lists for tuples and text for numbers that are keys: nothing may depend on having been kept or not."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


class locked:
    """The state, for reading and changing; what was changed is kept even if the block fails."""

    def __enter__(self) -> dict[str, Any]:
        guard()
        self.lock = open(f"{DIR}/lock", "w", encoding="utf-8")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.state = read()
        self.before = _bytes(self.state)
        return self.state

    def __exit__(self, *_: object) -> None:
        try:
            if _bytes(self.state) != self.before:
                write(self.state)
        finally:
            self.lock.close()


def initial(release: str, *, devfs_loaded: bool) -> dict[str, Any]:
    return {
        "release": release,
        "mounts": [],
        "baseline": {},
        "next_fsid": 1,
        "jails": {},
        "next_jid": 1,
        "rulesets": {},
        "devfs_loaded": devfs_loaded,
        "interfaces": {"lo0": ["127.0.0.1", "::1"], "lo1": [], "em0": ["192.0.2.10"]},
        "prefixes": {},
        "pf": {"state": "absent", "anchors": {}},
        "sysctl": {},
        "flags": {},
    }
