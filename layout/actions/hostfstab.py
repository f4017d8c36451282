"""The mount table in the host's fstab: one marked block, every other line untouched byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

from layout.core import fstab, hostblock
from layout.core.errors import LayoutError
from layout.core.model import JailPlan
from layout.core.tables import host_lines
from layout.host import hostfiles


def table(plans: Sequence[JailPlan]) -> str:
    """Return the mount tables of these jails as fstab(5), jail by jail, parents first. Raises LayoutError."""
    return "".join(
        fstab.render(host_lines(plan.tables, plan.jail.manage), plan.jail.platform) for plan in plans
    )


def install(path: str, lines: str, *, force: bool) -> bool:
    """Put lines into the marked block of the fstab at `path`; say whether the file changed.

    Raises LayoutError for a block that was edited by hand (without `force`), or one of our mount points on
    a line outside of it.
    """
    text = hostfiles.read_text(path) or ""
    _refuse_edited(path, text, force=force)
    new = hostblock.install(text, lines, path)
    if new == text:
        return False
    hostfiles.write_text(path, new, 0o644)
    return _read_back(path, new)


def remove(path: str, *, force: bool) -> bool:
    """Take the marked block out again; say whether the file changed. Raises LayoutError as install does."""
    text = hostfiles.read_text(path)
    if text is None or hostblock.block(text, path) is None:
        return False
    _refuse_edited(path, text, force=force)
    new = hostblock.remove(text, path)
    hostfiles.write_text(path, new, 0o644)
    return _read_back(path, new)


def _refuse_edited(path: str, text: str, *, force: bool) -> None:
    if not force and hostblock.is_hand_edited(text, path):
        raise LayoutError(
            path,
            "a block that was edited by hand",
            "the block as layout wrote it",
            "move the edit out of the block, or use --force to lose it",
        )


def _read_back(path: str, expected: str) -> bool:
    if hostfiles.read_text(path) != expected:
        raise LayoutError(
            path, "other text than was written", "what was written", "somebody else writes it too"
        )
    return True
