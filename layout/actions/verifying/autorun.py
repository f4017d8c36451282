"""Check of the places of t from which something runs by itself: what lies there is named, not judged."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from layout.actions.verifying.scene import JailScene
from layout.core import mtree
from layout.core.autorun import PLACES, Place, hinted, is_hints, is_writable
from layout.core.errors import LayoutError, some
from layout.core.findings import Finding, warning
from layout.host.beneath import Dir

_LOOKED = 1000
"""Names that are looked at in one place."""
_NAMED = 3
_HINTS = 64 << 10
"""Bytes of a file of hints that are read."""


def autorun(scene: JailScene) -> Iterator[Finding]:
    """S7: places of t from which something runs by itself are as the base had them, empty."""
    if scene.design.is_world:
        return  # cron(8) and the like are its own world's, and no read-only half is next to them
    told: set[str] = set()
    try:
        with scene.scene.root.open(f"t/{scene.name}") as top:
            var = top.lstat("var")
            if var is None or not stat.S_ISDIR(var.st_mode):
                return  # reported as something else than planned
            for place in PLACES[scene.jail.platform]:
                scene.scene.checks += 1
                path = top.show(place.path)
                try:
                    found = _look(scene, top, place)
                except LayoutError as problem:
                    # Several places may lie behind it.
                    path, found = problem.path, "" if problem.path in told else f"{problem.found} in the way"
                    told.add(problem.path)
                if found:
                    hint = f"look at it: {place.reader} uses it without being asked"
                    yield warning("S7-autorun", path, found, "nothing but what came with the base", hint)
    except FileNotFoundError:
        return  # reported as missing already


def _look(scene: JailScene, top: Dir, place: Place) -> str:
    """Say what is in a place that was not in the base, "" for nothing.

    Raises LayoutError for a link on the way to it.
    """
    status = top.lstat(place.path)
    if status is None:
        return ""
    manifest = scene.scene.skeleton or {}
    told = mtree.told(status, "")
    if not told.startswith(b"type=dir"):
        if is_hints(place.path):
            return _hints(top, place)
        target = top.readlink(place.path) if told.startswith(b"type=link") else ""
        came = manifest.get(f"t/{place.path}", b"")
        told = mtree.told(status, target)
        return "" if told and came.startswith(told) else "something in the place of a directory"
    try:
        with top.open(place.path) as here:
            names = [name for name in here.some(_LOOKED) if _counts(scene, here, place, name)]
    except FileNotFoundError:
        return ""  # the jail is just at work there
    return some(sorted(names), _NAMED)


def _counts(scene: JailScene, here: Dir, place: Place, name: str) -> bool:
    """Say whether an entry is neither the base's nor one that nobody runs."""
    status = here.lstat(name)
    if status is None or name.startswith("."):
        return False
    told = mtree.told(status, here.readlink(name) if mtree.told(status, "").startswith(b"type=link") else "")
    if place.files_only and told.startswith(b"type=dir"):
        return False
    came = (scene.scene.skeleton or {}).get(f"t/{place.path}/{name}", b"")
    return not told or not came.startswith(told)


def _hints(top: Dir, place: Place) -> str:
    """Say what is wrong with a file of hints: each boot with rc(8) makes one, of read-only libraries."""
    try:
        directories = hinted(top.read(place.path, _HINTS))
    except FileNotFoundError:
        return ""
    except LayoutError as problem:
        return problem.found
    if directories is None:
        return "no hints"
    writable = [one for one in directories if is_writable(one)]
    return f"libraries in {', '.join(writable[:_NAMED])}" if writable else ""
