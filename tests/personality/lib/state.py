"""What a FreeBSD kernel would remember: one JSON file on a tmpfs, behind one lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DIR = "/run/personality"
FILE = f"{DIR}/state.json"


CALLS = f"{DIR}/calls"
_told: list[bool] = []


def guard() -> None:
    """Refuse to run anywhere but under tests/personality/enter, which runs only under tests/box."""
    if not os.path.exists(FILE):
        sys.exit(f"{os.path.basename(sys.argv[0])}: not under tests/personality/enter; nothing done")
    if not _told:
        _told.append(True)
        # Nothing is lost for a user who may not write there: the tests that ask are root's.
        with contextlib.suppress(OSError), open(CALLS, "a", encoding="utf-8", errors="replace") as calls:
            calls.write(" ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]).replace("\n", "\\n") + "\n")


def read() -> dict[str, Any]:
    guard()
    with open(FILE, encoding="utf-8") as file:
        return json.load(file)


def write(state: dict[str, Any]) -> None:
    with open(f"{FILE}.new", "w", encoding="utf-8") as file:
        json.dump(state, file, indent=1)
    os.rename(f"{FILE}.new", FILE)


@contextlib.contextmanager
def locked() -> Iterator[dict[str, Any]]:
    """The state, for reading and changing; what was changed is kept even if the block fails."""
    guard()
    with open(f"{DIR}/lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read()
        before = json.dumps(state)
        try:
            yield state
        finally:
            if json.dumps(state) != before:
                write(state)


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
