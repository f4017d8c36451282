"""Roots of thin jails below ROOT/.layout/thin: each made once, named by its content, and never changed.

What lies there is a cache: any of it can be made again. A root appears under its name only when complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec

from layout.core.errors import LayoutError
from layout.core.names import is_name
from layout.core.thin import ThinEntry, ThinRecord, ThinRoot, identity
from layout.host import records
from layout.host.beneath import Dir, open_root, remove_tree
from layout.host.beneath.thin_tree import digest_root, has, read_root, write_root

__all__ = [
    "PLACE",
    "collect",
    "differences",
    "digest_of",
    "entries",
    "forget",
    "learn",
    "provide",
    "recorded",
]

PLACE = "thin"
"""Where the roots are, in the directory of layout's state."""

_NEW = ".new-"
_DIGESTS = "digests.json"
"""Of files of the host: what has not changed since it was hashed is not hashed again."""
_MOST_DIGESTS = 10_000


def recorded(state: Dir, name: str) -> ThinRecord | None:
    """Return what a jail was started with last. Raises LayoutError for a damaged record."""
    try:
        return records.read(state, f"{PLACE}/{name}.toml", ThinRecord)
    except FileNotFoundError:
        return None


def provide(
    state: Dir, name: str, root: ThinRoot, finish: Callable[[str], None] = lambda _: None
) -> tuple[ThinRecord, bool]:
    """Return the record of a root that is there now, and whether it had to be made.

    `finish` is called with the path of a root that has been written, before it is known by its name.
    The caller holds the jail's own lock. Raises LayoutError, OSError; nothing is left half made then.
    """
    key = root.key()
    known = recorded(state, name)
    if known is not None and known.key == key and _is_whole(state, known.digest, root):
        return known, False
    with _place(state) as place, _learning(place) as digests:
        digest = _build(place, name, root, finish, digests)
    record = ThinRecord(key, digest, root.files, root.size, records.now())
    records.write(state, f"{PLACE}/{name}.toml", record)
    return record, True


def learn(state: Dir, root: ThinRoot) -> None:
    """Hash the files of a root that is to be made later, so that only copying them is left then.

    A file that changes meanwhile is not known afterwards. The caller holds the lock of ROOT. Raises OSError.
    """
    with (
        _place(state) as place,
        open_root(root.origin) as origin,
        _learning(place) as digests,
        contextlib.suppress(LayoutError, FileNotFoundError),
    ):
        digest_root(origin, root, digests)


def forget(state: Dir, name: str) -> None:
    """Remove the record of a jail with what is kept beside it, so that its root can be collected."""
    for end in ("toml", "sh", "pid", "pid.keeper"):
        with contextlib.suppress(FileNotFoundError):
            state.unlink(f"{PLACE}/{name}.{end}")


def collect(state: Dir) -> list[str]:
    """Remove the roots that no jail has a record of, and what was left half made; return their names.

    The caller holds the lock of ROOT. Raises LayoutError for a record that cannot be understood: what it
    needs is not known then.
    """
    try:
        place = state.open(PLACE)
    except FileNotFoundError:
        return []
    with place:
        names = place.names()
        used = set()
        for entry in names:
            if entry.endswith(".toml") and is_name(entry[:-5]):
                record = recorded(state, entry[:-5])
                used |= {record.digest} if record else set()
        gone = [n for n in names if n not in used and (n.startswith(_NEW) or _is_digest(n))]
        for entry in gone:
            remove_tree(place, entry)
        if not used and _DIGESTS in names:
            place.unlink(_DIGESTS)
        return gone


def differences(state: Dir, digest: str, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path, found and expected where a root is not what its digest says; nothing when all is well.

    That is one of everything in it, so one line says all. `name`: its own, where that is another. Raises
    FileNotFoundError.
    """
    with state.open(f"{PLACE}/{name or digest}") as top:
        found = identity(list(read_root(top)))
    if found != digest:
        yield top.path, f"content {found[:16]}", f"content {digest[:16]}"


def digest_of(root: ThinRoot) -> str:
    """Return the name that a root would have by its content. Raises LayoutError, OSError."""
    with open_root(root.origin) as origin:
        return identity(digest_root(origin, root, {}))


def entries(top: Dir) -> list[ThinEntry]:
    """Return everything in a tree, files with their digests. Raises LayoutError for what no root has."""
    return list(read_root(top))


def _is_digest(name: str) -> bool:
    return len(name) == 64 and not set(name) - set("0123456789abcdef")


def _is_whole(state: Dir, digest: str, root: ThinRoot) -> bool:
    """Say whether a root is there with every entry in its size: a crash may have cut files short."""
    try:
        top = state.open(f"{PLACE}/{digest}")
    except FileNotFoundError:
        return False
    with top:
        return all(has(top, item) for item in root.items)


def _place(state: Dir) -> Dir:
    if state.lstat(PLACE) is None:
        with contextlib.suppress(FileExistsError):
            state.make_dir(PLACE, 0o700)
    return state.open(PLACE)


@contextlib.contextmanager
def _learning(place: Dir) -> Iterator[dict[str, str]]:
    """Yield the digests that are known, and keep those that are added."""
    digests = _digests(place)
    before = len(digests)
    yield digests
    if len(digests) > before:
        place.write_whole(_DIGESTS, msgspec.json.encode(digests), 0o600, durable=False)


def _digests(place: Dir) -> dict[str, str]:
    """Return the digests that are known of files as they are; none when they cannot be read or are many."""
    try:
        known = msgspec.json.decode(place.read(_DIGESTS), type=dict[str, str])
    except (FileNotFoundError, LayoutError, msgspec.DecodeError):
        return {}
    return known if len(known) < _MOST_DIGESTS else {}


def _build(
    place: Dir, name: str, root: ThinRoot, finish: Callable[[str], None], known: dict[str, str]
) -> str:
    """Make a root under a temporary name, then under its own; return that."""
    temporary = f"{_NEW}{name}"
    if place.lstat(temporary) is not None:  # of a run that was killed: this jail's lock is ours
        remove_tree(place, temporary)
    place.make_dir(temporary, 0o755)
    try:
        with place.open(temporary) as top, open_root(root.origin) as origin:
            digest = identity(write_root(top, origin, root, known))
        finish(f"{place.path}/{temporary}")
        if place.lstat(digest) is not None:
            with place.open(digest) as there:
                whole = identity(list(read_root(there))) == digest
            if whole:
                remove_tree(place, temporary)
                return digest
            remove_tree(place, digest)
        place.move(temporary, place, digest)  # made last with the record, which lies beside it
    except BaseException:
        if place.lstat(temporary) is not None:
            remove_tree(place, temporary)
        raise
    return digest
