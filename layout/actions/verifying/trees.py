"""Checks of what a walk of mroot, of an s or of a t has found."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Callable, Iterator, Mapping

from layout.actions.verifying.scene import JailScene, Scene, Walked, unseen
from layout.core.findings import Finding, error
from layout.core.plan import SPLIT
from layout.host.beneath.directory import kind_of
from layout.host.records import BaseRecord, SetuidRecord

_TWO_WAY = {stat.S_IFSOCK, stat.S_IFIFO}


def _trusted(scene: Scene | JailScene) -> tuple[Scene, Walked, bool]:
    """Return the tree that no jail can write to, and whether all jails see it: mroot, or the jail's s."""
    if isinstance(scene, Scene):
        return scene, scene.mroot, True
    return scene.scene, scene.s, False


def setuid(scene: Scene | JailScene) -> Iterator[Finding]:
    """S6: only setuid files that came with the base."""
    host, tree, is_mroot = _trusted(scene)
    allowed = _allowed(host.base, "" if is_mroot else "s/")
    return _setuid("S6-setuid", "only those that the base's record lists", tree, allowed)


def _setuid(code: str, expected: str, tree: Walked, allowed: Mapping[str, SetuidRecord]) -> Iterator[Finding]:
    for below, found in tree.seen.special if tree.seen is not None else ():
        if stat.S_ISREG(found.st_mode):
            mode = f"{stat.S_IMODE(found.st_mode):04o}"
            known = allowed.get(below)
            is_known = known is not None and (known.mode, known.uid, known.gid) == (
                mode,
                found.st_uid,
                found.st_gid,
            )
            if not is_known:
                path = f"{tree.where}/{below}"
                seen = f"mode {mode}, user {found.st_uid}, group {found.st_gid}"
                yield error(code, path, seen, expected, _cure("chmod ug-s", tree, below))


def _cure(words: str, tree: Walked, below: str) -> str:
    """Return what an administrator may paste: `words` of a command for an entry of this tree.

    The names in a t are the jail's, so they are quoted; and no path of the host's leads there, for a jail
    that runs swaps a directory for a link. A session in it follows none.
    """
    *_, half, name = tree.where.split("/")
    path = shlex.quote(f"{tree.where}/{below}")
    if half != "t":
        return f"{words} {path}"
    if below.startswith("var/"):
        return f"layout manage {name} -- {words} {shlex.quote(f'/{below}')}"
    return f"layout stop {name}, and then {words} {path}"


def _allowed(base: BaseRecord | None, half: str) -> Mapping[str, SetuidRecord]:
    """Return the setuid files that the base's record lists, by their path in mroot or in an s."""
    if base is None:
        return {}
    if not half:
        return {record.path: record for record in base.setuid}
    return {
        place[2:] + record.path[len(name) :]: record
        for record in base.setuid
        for name, place in SPLIT
        if place.startswith(half) and record.path.startswith(name + "/")
    }


def two_way(scene: Scene | JailScene) -> Iterator[Finding]:
    """S6: no FIFO or socket, which read-only does not stop."""
    _, tree, is_mroot = _trusted(scene)
    for below, what in _special(tree, lambda kind: kind in _TWO_WAY):
        hint = "jails can talk to each other through it: remove it" if is_mroot else _cure("rm", tree, below)
        yield error("S6-special", f"{tree.where}/{below}", what, "none in a read-only tree", hint)


def devices(scene: Scene | JailScene) -> Iterator[Finding]:
    """S6: no device node."""
    return _devices("S6-device", _trusted(scene)[1])


def _devices(code: str, tree: Walked) -> Iterator[Finding]:
    for below, what in _special(tree, lambda kind: kind not in {*_TWO_WAY, stat.S_IFREG}):
        yield error(code, f"{tree.where}/{below}", what, "no device node", _cure("rm", tree, below))


def _special(tree: Walked, wanted: Callable[[int], bool]) -> Iterator[tuple[str, str]]:
    for below, found in tree.seen.special if tree.seen is not None else ():
        if wanted(stat.S_IFMT(found.st_mode)):
            yield below, f"a {kind_of(found.st_mode)}"


def loose(scene: Scene | JailScene) -> Iterator[Finding]:
    """S6: root's, and nothing that others may write to."""
    _, tree, _ = _trusted(scene)
    if tree.seen is None:
        return
    mode, owner = tree.top
    if mode & 0o022 or owner:
        found = f"mode {stat.S_IMODE(mode):04o}, user {owner}"
        hint = f"chown root {tree.where}; chmod go-w {tree.where}"
        yield error("S6-loose", tree.where, found, "root's, and closed", hint)
    for below, status in tree.seen.loose:
        path = f"{tree.where}/{below}"
        found = f"mode {stat.S_IMODE(status.st_mode):04o}"
        hint = _cure("chmod o-w", tree, below)
        yield error("S6-loose", path, found, "nothing that anybody may write to", hint)


def setuid_in_t(scene: JailScene) -> Iterator[Finding]:
    """S7: no setuid file in t."""
    return _setuid("S7-setuid", "no setuid or setgid file", scene.t, {})


def devices_in_t(scene: JailScene) -> Iterator[Finding]:
    """S7: no device node in t. FIFOs and sockets are a daemon's business."""
    return _devices("S7-device", scene.t)


def _unseen(tree: Walked) -> Iterator[Finding]:
    if tree.problem is not None:
        yield unseen(tree.where, tree.problem)
    for path, reason in tree.seen.unseen if tree.seen is not None else ():
        yield error("S8-unseen", f"{tree.where}/{path}", reason, "to look at all of it")


def whole(scene: Scene | JailScene) -> Iterator[Finding]:
    """S8: mroot, or the jail's s, could be looked at to the last entry."""
    return _unseen(_trusted(scene)[1])


def whole_t(scene: JailScene) -> Iterator[Finding]:
    """S8: t could be looked at to the last entry: neither too deep nor too many."""
    return _unseen(scene.t)
