"""Compare planned mounts with live ones. Pure: both are data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from layout.core.findings import Finding, error, warning
from layout.core.model import Mount
from layout.core.mountinfo import MountPoint

_STRICT = ("ro", "nosuid", "nodev", "noexec", "nosymfollow")


class Live:
    """The live mount table, by mount point."""

    def __init__(self, mounts: Iterable[MountPoint]) -> None:
        self.by_target: dict[str, list[MountPoint]] = {}
        for mount in mounts:
            self.by_target.setdefault(mount.target, []).append(mount)
        self._places: dict[str, tuple[str, str]] = {}

    def at(self, target: str) -> list[MountPoint]:
        """Return the mounts on exactly this point, the visible one last."""
        return self.by_target.get(target, [])

    def place(self, path: str) -> tuple[str, str] | None:
        """Return (device, path inside its file system) of a path that lies on a known mount, else None.

        Only the mount of the containing directory is looked for: `path` itself may be covered.
        """
        head, _, name = path.rpartition("/")
        known = self._places.get(head)
        if known is None:
            found = self._containing(head)
            if found is None:
                return None
            known = self._places[head] = found
        own = self.at(path)
        if own:
            return own[-1].dev, own[-1].root
        dev, inside = known
        return dev, f"{inside.rstrip('/')}/{name}"

    def _containing(self, path: str) -> tuple[str, str] | None:
        here = path
        while True:
            mounts = self.at(here or "/")
            if mounts:
                rest = path[len(here) :]
                return mounts[-1].dev, f"{mounts[-1].root.rstrip('/')}{rest}"
            if not here:
                return None
            here = here.rpartition("/")[0]


def compare(
    planned: Sequence[Mount], live: Live, *, opted_out: bool = False, sources: bool = True
) -> list[Finding]:
    """Return what is wrong with these planned mounts: missing, stacked, another source, options, shared.

    `opted_out`: the profile or preset allows programs in t, which is then a warning.
    """
    missing = [mount for mount in planned if not live.at(mount.target)]
    if planned and len(missing) == len(planned):
        return [
            error("S1-unmounted", planned[0].target, "nothing mounted", "its mounts", "layout mount NAME")
        ]
    findings = [
        error("S1-missing", m.target, "no mount", f"a mount of {m.source}", "layout mount NAME")
        for m in missing
    ]
    for mount in planned:
        found = live.at(mount.target)
        if found:
            findings += _one(mount, found, live, opted_out, sources)
    return findings


def _one(mount: Mount, found: list[MountPoint], live: Live, opted_out: bool, sources: bool) -> list[Finding]:
    findings = []
    top = found[-1]
    if len(found) > 1:
        findings.append(
            error(
                "S1-stacked",
                mount.target,
                f"{len(found)} mounts on one point",
                "exactly one",
                "see who mounted it: findmnt; umount the one on top, then layout verify",
            )
        )
    if mount.fstype == "none":
        expected = live.place(mount.source) if sources else None
        if expected is not None and (top.dev, top.root) != expected:
            findings.append(
                error(
                    "S1-source",
                    mount.target,
                    f"{top.root} of device {top.dev}",
                    f"{mount.source}",
                    "layout umount NAME, then layout mount NAME",
                )
            )
    elif top.fstype != mount.fstype:
        findings.append(error("S1-source", mount.target, f"type {top.fstype}", f"type {mount.fstype}"))
    lacking = [word for word in _STRICT if word in mount.options and word not in top.options]
    if lacking:
        findings.append(
            error(
                "S2-options",
                mount.target,
                f"without {','.join(lacking)}",
                f"with {','.join(lacking)}",
                "layout umount NAME, then layout mount NAME; find out who remounted it",
            )
        )
    if "ro" not in mount.options and "ro" in top.options:
        findings.append(
            error(
                "S2-options",
                mount.target,
                "read-only",
                "writable",
                "layout umount NAME, then layout mount NAME",
            )
        )
    if top.propagation:
        findings.append(
            error(
                "S2-propagation",
                mount.target,
                f"propagation {top.propagation}",
                "private",
                "mounts on it appear in other jails: layout umount NAME, then layout mount NAME",
            )
        )
    if "ro" not in top.options and "noexec" not in top.options and not lacking and "ro" not in mount.options:
        if opted_out:
            findings.append(
                warning(
                    "S2-writable-exec",
                    mount.target,
                    "writable and executable, as the profile or preset asks",
                    "not both",
                    "take exec = true out of the profile, or use the preset hardened",
                )
            )
        elif mount.fstype == "none":
            findings.append(error("S2-writable-exec", mount.target, "writable and executable", "not both"))
    return findings


def unplanned(planned: Sequence[Mount], live: Live, below: str) -> list[Finding]:
    """Return a finding for each live mount at or below `below` that nobody planned."""
    targets = {mount.target for mount in planned}
    prefix = below + "/"
    return [
        error(
            "S1-extra",
            target,
            f"a mount of {mounts[-1].source} ({mounts[-1].fstype})",
            "no mount here",
            "unmount it, or find out who needs it",
        )
        for target, mounts in live.by_target.items()
        if target not in targets and (target == below or target.startswith(prefix))
    ]


def writable_views(places: dict[tuple[str, str], str], planned: set[str], live: Live) -> list[Finding]:
    """Return a finding for each live mount that shows mroot or an s writable where nobody planned it.

    `places` maps (device, path in its file system) to the path of the tree.
    """
    return [
        error(
            "S3-view",
            target,
            f"a writable view of {places[mount.dev, mount.root]}",
            "no second writable view",
            "unmount it: what is written there is in the jails at once",
        )
        for target, mounts in live.by_target.items()
        for mount in mounts
        if (mount.dev, mount.root) in places and target not in planned and "ro" not in mount.options
    ]
