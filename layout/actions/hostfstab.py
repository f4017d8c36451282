"""The mount table in the host's fstab: one marked block, every other line untouched byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

from layout.core import fstab, hostblock
from layout.core.errors import LayoutError
from layout.core.model import Boot, JailPlan, Platform, Site
from layout.core.tables import boot_words, host_lines
from layout.host import hostfiles

_HOST = "/etc/fstab"


def table(plans: Sequence[JailPlan]) -> str:
    """Return the mount tables of these jails as fstab(5), jail by jail, parents first. Raises LayoutError."""
    return "".join(
        fstab.render(
            host_lines(plan.tables, plan.jail.manage, boot_words(plan.jail)),
            plan.jail.platform,
        )
        for plan in plans
    )


def refuse_mounted_by_jail(path: str, plans: Sequence[JailPlan]) -> None:
    """Make sure that nobody else mounts what is to be installed. Raises LayoutError.

    jail(8) does not look whether a line of mount.fstab is mounted already: its nullfs fails, and the jail
    does not start.
    """
    for plan in plans:
        if _is_mounted_by_jail(plan):
            name = plan.jail.name
            raise LayoutError(
                path,
                f"lines of {name}, which jail(8) mounts when it starts",
                "jails with boot = 'fstab' or 'none'",
                f"layout init {name} --boot fstab; or name the others: layout fstab --install NAME...",
            )


def _is_mounted_by_jail(plan: JailPlan) -> bool:
    return plan.jail.platform is Platform.FREEBSD and plan.jail.boot is Boot.JAIL


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


def stale(site: Site, plans: Sequence[JailPlan], names: Sequence[str]) -> str:
    """Say in which way the block of the host's fstab is not as it would be installed now; "" when it is.

    It may hold any of the jails, each with all of its lines. `plans` are those to compare with, `names` are
    those of all jails that there are. Raises LayoutError.
    """
    path = site.host_fstab
    text = hostfiles.read_text(path)
    lines = None if text is None else hostblock.block(text, path)
    if text is None or lines is None:
        return ""
    if hostblock.is_hand_edited(text, path):
        return "a block edited by hand"
    blocks: dict[str, list[str]] = {}
    for line in lines.splitlines():
        mount = fstab.parse_line(line, site.platform, path)
        if mount is not None:
            blocks.setdefault(_jail_of(site.root, mount.target), []).append(line)
    ours = {plan.jail.name: table([plan]).splitlines() for plan in plans if plan.jail.name in blocks}
    for name, block in blocks.items():
        if name not in names:
            return f"{len(block)} lines of {name or 'no jail'}, which does not exist"
        if any(plan.jail.name == name and _is_mounted_by_jail(plan) for plan in plans):
            return f"lines of {name}, which jail(8) mounts as well"
        if name in ours and block != ours[name]:
            return f"an older table of {name}"
    return ""


def lacking(site: Site, plans: Sequence[JailPlan]) -> list[str]:
    """Return the jails of FreeBSD that the host's fstab is to mount at boot, and has no line of.

    jail(8) would start them all the same, with an empty root. Raises LayoutError.
    """
    path = site.host_fstab
    lines = fstab.parse(hostfiles.read_text(path) or "", site.platform, path)
    there = {mount.target for mount in lines}
    return [
        plan.jail.name
        for plan in plans
        if plan.jail.platform is Platform.FREEBSD and plan.jail.boot is Boot.FSTAB
        if any(mount.target not in there for mount in plan.tables.jail)
    ]


def refuse_others(site: Site, plans: Sequence[JailPlan]) -> None:
    """Make sure that no line outside the block, of the host's own fstab either, has a jail's mount point.

    mount(8) would make it a second time, or leave layout's out. Raises LayoutError naming the line.
    """
    targets = {
        mount.target for plan in plans for tree in (plan.tables.jail, plan.tables.manage) for mount in tree
    }
    for path in dict.fromkeys((_HOST, site.host_fstab)):
        hostblock.check_targets(hostfiles.read_text(path) or "", targets, path)


def _jail_of(root: str, target: str) -> str:
    for top in ("j", "manage"):
        if target.startswith(f"{root}/{top}/"):
            return target[len(f"{root}/{top}/") :].partition("/")[0]
    return ""


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
