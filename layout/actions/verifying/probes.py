"""Checks that really try, from within a jail: all attempts are made at once, each check tells of its own."""

from __future__ import annotations

from collections.abc import Iterator

from layout.actions.verifying.scene import JailScene
from layout.core.findings import Finding


def writing(scene: JailScene) -> Iterator[Finding]:
    """A1: nothing can be made but below what the plan has writable."""
    return _of(scene, "A1")


def executing(scene: JailScene) -> Iterator[Finding]:
    """A2: what can be written cannot be executed."""
    return _of(scene, "A2")


def changing(scene: JailScene) -> Iterator[Finding]:
    """A3: no file of a read-only tree can be changed, or linked to where it could be."""
    return _of(scene, "A3")


def privileges(scene: JailScene) -> Iterator[Finding]:
    """A4: no device nodes, mounts, other roots, or files by their handles."""
    return _of(scene, "A4")


def setuid(scene: JailScene) -> Iterator[Finding]:
    """A5: a setuid file of the jail's own gives nobody anything."""
    return _of(scene, "A5")


def outside(scene: JailScene) -> Iterator[Finding]:
    """A6: no directory and no process outside is in reach."""
    return _of(scene, "A6")


def working(scene: JailScene) -> Iterator[Finding]:
    """A7: what the jail needs works, so that the refusals mean something."""
    return _of(scene, "A7")


def channels(scene: JailScene) -> Iterator[Finding]:
    """A8: no FIFO or socket of a shared tree connects jails."""
    return _of(scene, "A8")


def untried(scene: JailScene) -> Iterator[Finding]:
    """What could not be tried is no pass."""
    return _of(scene, "A0")


def _of(scene: JailScene, probe: str) -> Iterator[Finding]:
    return (finding for finding in scene.probed if finding.code.startswith(f"{probe}-"))
