"""`layout manage`: a confined session in the writable view, and the list of what it changed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from layout.actions import mounting
from layout.actions.context import Context
from layout.core.compare import Live
from layout.core.errors import LayoutError
from layout.core.model import JailPlan, Mount, Site
from layout.host import locks
from layout.host.beneath import Dir, load_tree, open_root, snapshot, write_items
from layout.host.beneath.resolve import open_directory
from layout.host.beneath.walk import Print
from layout.host.linux import devices, session, syscalls, table
from layout.host.linux.mounts import Mounter

_TEMPORARY = (syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "1777"), ("size", "1g")))
_RUN = (syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "755"), ("size", "64m")))
_SEALED = (syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "755"), ("size", "512m")))
_ENVIRONMENT = {"DPKG_ADMINDIR": "/usr/lib/sysimage/dpkg"}


@dataclass(frozen=True, slots=True)
class Change:
    """One path of s or mroot that a session changed."""

    kind: str
    """'added', 'changed' or 'removed'."""
    path: str
    """As the jail sees it."""


@dataclass(slots=True)
class Managed:
    """What came of a session."""

    status: int
    changes: list[Change] = field(default_factory=list)


def manage(
    context: Context, plan: JailPlan, command: tuple[str, ...], *, sealed: bool, base_ro: bool
) -> Managed:
    """Run a session and compare s and mroot before and after.

    Returns the exit status of the command. Raises LayoutError: a second session is told who has the first.
    """
    mounting.require_platform(context.site)
    name = plan.jail.name
    with (
        context.open() as root,
        root.open(".layout") as state,
        locks.held(state, f"manage-{name}.lock", f"to be the only manage session of {name}"),
    ):
        before = _prints(root, name)
        environment = dict(_ENVIRONMENT) if root.lstat("j/mroot/usr/lib/sysimage/dpkg") is not None else {}
        status = session.run(
            session.Session(
                name,
                f"{context.site.root}/manage/{name}",
                lambda: _attach(context.site, plan, sealed=sealed, base_ro=base_ro),
                command,
                environment=environment,
            )
        )
        after = _prints(root, name)
    return Managed(status, list(_changes(before, after)))


def _prints(root: Dir, name: str) -> dict[str, Print]:
    found: dict[str, Print] = {}
    for path, prefix in (("j/mroot", ""), (f"s/{name}", "s/")):
        with root.open(path) as top:
            found.update((prefix + below, print_) for below, print_ in snapshot(top))
    return found


def _changes(before: dict[str, Print], after: dict[str, Print]) -> Iterator[Change]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if old is None:
            yield Change("added", f"/{path}")
        elif new is None:
            yield Change("removed", f"/{path}")
        elif not (stat.S_ISDIR(old.mode) and old.same_but_times(new)):  # its entries tell what changed
            yield Change("changed", f"/{path}")


def _attach(site: Site, plan: JailPlan, *, sealed: bool, base_ro: bool) -> None:
    """In the session's own mount namespace: mount the writable view and what is private to the session."""
    mountpoint = f"{site.root}/manage/{plan.jail.name}"
    tree = [_read_only(plan.tables.manage[0]) if base_ro else plan.tables.manage[0], *plan.tables.manage[1:]]
    t = f"{mountpoint}/t"
    if sealed:
        tree = [mount for mount in tree if mount.target != t]
    live = Live(table.read())
    with open_root(site.root) as root, Mounter(root, mounting.submounts(site.root, live)) as mounter:
        mounter.attach(tree)
        with open_root(mountpoint) as view:
            if sealed:
                _cover(view, "t", _SEALED)
                with root.open("skel/t") as origin, open_root(t) as fresh:
                    write_items(load_tree(origin), fresh)
            _cover(view, "t/tmp", _TEMPORARY)
            if view.lstat("run") is not None:
                _cover(view, "run", _RUN)
                with open_root(f"{mountpoint}/run") as run:
                    run.make_dir("lock", 0o1777)
            _terminals(view)


def _read_only(mount: Mount) -> Mount:
    return replace(mount, options=tuple("ro" if word == "rw" else word for word in mount.options))


def _cover(view: Dir, path: str, how: tuple[int, tuple[tuple[str, str], ...]]) -> None:
    """Mount a private tmpfs over a directory, which must be a real one: t may be hostile."""
    try:
        target = open_directory(view.fd, path)
    except OSError:
        raise LayoutError(
            view.show(path),
            "no real directory",
            "a directory",
            "the jail's t is not what it was: look at it from outside, or use --sealed",
        ) from None
    try:
        made = devices.tmpfs(*how)
        try:
            syscalls.move_mount(made, target, b"")
        finally:
            os.close(made)
    finally:
        os.close(target)


def _terminals(view: Dir) -> None:
    """Give the session pseudo-terminals of its own: none of the host's can be reached."""
    with contextlib.suppress(FileNotFoundError):
        target = open_directory(view.fd, "dev/pts")
        try:
            made = devices.pseudo_terminals()
            try:
                syscalls.move_mount(made, target, b"")
            finally:
                os.close(made)
        finally:
            os.close(target)
