"""`layout manage`: a confined session in the writable view, and the list of what it changed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import structs

from layout.actions import mounting
from layout.actions.context import Context
from layout.core.compare import Live
from layout.core.errors import LayoutError, printable
from layout.core.model import JailPlan, Mount, Site
from layout.core.plan import SPLIT
from layout.host import locks
from layout.host.beneath import Dir, load_tree, open_root, snapshot, write_items
from layout.host.beneath.resolve import open_directory
from layout.host.beneath.walk import Print
from layout.host.linux import devices, session, syscalls, table
from layout.host.linux.mounts import Mounter
from layout.host.linux.standard import fill_closed

_TEMPORARY = (syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "1777"), ("size", "1g")))
_RUN = (syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "755"), ("size", "64m")))
_SEALED = (syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "755"), ("size", "512m")))
_GUARDS = ("nosuid", "nodev", "nosymfollow")
"""What a session's t always has: its content is the jail's, and the session belongs to root."""
_PLACES = {place[2:]: f"/{name}" for name, place in SPLIT if place.startswith("s/")}
"""Where in the jail the directories of s are seen through the links of mroot."""
# A shell's history would be the one change that every session makes to s.
_ENVIRONMENT = {"HISTFILE": ""}
_DPKG = {"DPKG_ADMINDIR": "/usr/lib/sysimage/dpkg"}


@dataclass(frozen=True, slots=True)
class Change:
    """One path of s or mroot that a session changed."""

    kind: str
    """'added', 'changed' or 'removed'."""
    path: str
    """As the jail sees it, through the links of mroot: /etc/rc.conf."""


@dataclass(slots=True)
class Managed:
    """What came of a session."""

    status: int
    changes: list[Change] = field(default_factory=list)


def manage(
    context: Context,
    plan: JailPlan,
    command: tuple[str, ...],
    *,
    sealed: bool = False,
    base_ro: bool = False,
    to_stderr: bool = False,
) -> Managed:
    """Run a session and compare s and mroot before and after.

    `sealed`: without the jail's t, and a fresh one from the skeleton in its place. `base_ro`: with mroot
    read-only. `to_stderr`: what the command writes to its stdout comes out on stderr. Returns the exit status
    of the command. Raises LayoutError: a second session is told who has the first.
    """
    mounting.require_platform(context.site)
    name = plan.jail.name
    with (
        context.open() as root,
        root.open(".layout") as state,
        locks.held(state, f"manage-{name}.lock", f"to be the only manage session of {name}"),
    ):
        before = _prints(root, name)
        environment = _ENVIRONMENT | (_DPKG if _has_dpkg(root) else {})
        with _stdout_to_stderr() if to_stderr else contextlib.nullcontext():
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


def _has_dpkg(root: Dir) -> bool:
    try:
        return root.lstat("j/mroot/usr/lib/sysimage/dpkg") is not None
    except LayoutError:  # a link on the way, in a base of another kind
        return False


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Let descriptor 1 be descriptor 2 meanwhile."""
    fill_closed()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _prints(root: Dir, name: str) -> dict[str, Print]:
    """Return the prints of mroot and s by the paths that an administrator uses for them."""
    found: dict[str, Print] = {}
    with root.open("j/mroot") as top:
        found.update((f"/{below}", print_) for below, print_ in snapshot(top))
    with root.open(f"s/{name}") as top:
        for below, print_ in snapshot(top):
            head, slash, rest = below.partition("/")
            found[f"{_PLACES.get(head, f'/s/{head}')}{slash}{rest}"] = print_
    return found


def _changes(before: dict[str, Print], after: dict[str, Print]) -> Iterator[Change]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if old is None:
            yield Change("added", printable(path))
        elif new is None:
            yield Change("removed", printable(path))
        elif not (stat.S_ISDIR(old.mode) and old.same_but_times(new)):  # its entries tell what changed
            yield Change("changed", printable(path))


def _attach(site: Site, plan: JailPlan, *, sealed: bool, base_ro: bool) -> None:
    """In the session's own mount namespace: mount the writable view and what is private to the session."""
    mountpoint = f"{site.root}/manage/{plan.jail.name}"
    t = f"{mountpoint}/t"
    tree = []
    for mount in plan.tables.manage:
        if mount.target == mountpoint and base_ro:
            tree.append(_with(mount, "ro"))
        elif mount.target != t:
            tree.append(mount)
        elif not sealed:
            tree.append(_with(mount, *_GUARDS))
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


def _with(mount: Mount, *words: str) -> Mount:
    """Return a mount with these options as well; ro takes the place of rw."""
    kept = [word for word in mount.options if word not in words and not (word == "rw" and "ro" in words)]
    return structs.replace(mount, options=(*kept, *words))


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
