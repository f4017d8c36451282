"""Checks of planned entries: directories, links and halves, of ROOT and of one jail."""

from __future__ import annotations

from collections.abc import Iterator

from layout.actions.observe import Is
from layout.actions.verifying.scene import JailScene, Looked, Scene, unseen
from layout.core.findings import Finding, error
from layout.core.model import Copy, File, Identity, World

_INIT = "layout init NAME"


def _of(scene: Scene | JailScene, state: Is) -> Iterator[tuple[Looked, str, str, str]]:
    """Yield the entries in one state: with its path, what was found and what was expected."""
    host = scene if isinstance(scene, Scene) else scene.scene
    for one in scene.observed:
        if one.seen is not None and one.seen.state is state:
            yield one, host.shown(one.entry), one.seen.found, one.seen.expected


def _is_the_jails(one: Looked) -> bool:
    """Say whether an entry lies below var or tmp, where a jail does what it likes."""
    return one.entry.path.startswith("t/") and not isinstance(one.entry, Copy | World)


def missing(scene: Scene | JailScene) -> Iterator[Finding]:
    """S5: what is planned is there. Files of s are the administrator's, to remove as well."""
    for one, path, _, _ in _of(scene, Is.MISSING):
        if not _is_the_jails(one) and not isinstance(one.entry, File | Identity):
            yield error("S5-missing", path, "nothing", one.entry.reason, _INIT)


def links(scene: Scene | JailScene) -> Iterator[Finding]:
    """S5: links have exactly their targets, and nothing else is in anything's place."""
    for one, path, found, expected in _of(scene, Is.CONFLICT):
        if not _is_the_jails(one):
            yield error("S5-link", path, found, expected, f"look at it, move it aside, {_INIT}")


def modes(scene: Scene | JailScene) -> Iterator[Finding]:
    """S5: directories of the plan have their modes and owners."""
    for one, path, found, expected in _of(scene, Is.MODE):
        if one.entry.path != ".":
            yield error("S5-mode", path, found, expected, _INIT)


def root_mode(scene: Scene) -> Iterator[Finding]:
    """S4: ROOT is root's with mode 0700."""
    for one, path, found, expected in _of(scene, Is.MODE):
        if one.entry.path == ".":
            yield error("S4-mode", path, found, expected, _INIT)


def looked_at(scene: Scene | JailScene) -> Iterator[Finding]:
    """S8: every entry could be looked at."""
    host = scene if isinstance(scene, Scene) else scene.scene
    for one in scene.observed:
        if one.problem is not None:
            yield unseen(host.shown(one.entry), one.problem)
