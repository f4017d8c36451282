"""A session on FreeBSD: the pair is mounted for it on the host, entered as a jail, and taken away again.

A mount namespace there is not, so what a killed session mounted stays. Before anything is mounted, a note of
it is made in ROOT/.layout; whoever next has the session's lock takes away what the note names.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import structs

from layout.core import compare
from layout.core.compare import Live
from layout.core.covered import COVERED, HOSTILE, mode_of
from layout.core.errors import LayoutError, some
from layout.core.findings import Finding, error
from layout.core.freebsd_files import STATE
from layout.core.model import JailPlan, Mount, Site
from layout.core.mountlist import mount_points
from layout.host import locks
from layout.host.beneath import Dir, load_tree, open_root, write_items
from layout.host.freebsd import devfs, holders, jails, mounts, session, table
from layout.host.run import run as program

_RULESET = 4
"""devfsrules_jail of /etc/defaults/devfs.rules."""
# noexec: the linker's hints are a file of t, and a library that cannot be executed is not loaded.
_GUARDS = ("nosuid", "noexec", "nosymfollow")
"""What the jail's /var always has in a session: its content is the jail's, the session belongs to root."""
_OWN_T = ("rw", "nosuid", "mode=755", "size=1g")
"""The session's t. Its /tmp is a directory in it, which the jail cannot reach."""
_COVER = ("rw", "nosuid", "size=1g")
_NAMED = 4
"""Devices that a note names."""
_PATIENCE = 20
"""Tries, with a pause of so many seconds between them, for mounts that are busy without a jail in them."""
_PAUSE = 0.1
_ENVIRONMENT = {
    # A shell's history would be the one change that every session makes to s.
    "HISTFILE": "",
    "TMPDIR": "/tmp",  # noqa: S108 - the session's private one
    # What these find is trusted, or run: it must not be the jail's own. The files of s say the same.
    "PKG_DBDIR": f"{STATE}/db/pkg",
    "PKG_CACHEDIR": f"{STATE}/cache/pkg",
    "PORT_DBDIR": f"{STATE}/db/ports",
    "WRKDIRPREFIX": f"{STATE}/ports/work",
    "DISTDIR": f"{STATE}/ports/distfiles",
}


def run(
    site: Site,
    root: Dir,
    state: Dir,
    plan: JailPlan,
    command: tuple[str, ...],
    *,
    sealed: bool,
    base_ro: bool,
    chroot: bool,
    notes: list[str],
) -> int:
    """Run a session to its end and return the exit status of its command.

    The caller holds the session's lock. `notes` is given what the administrator should know. Raises
    LayoutError, UsageError.
    """
    name = plan.jail.name
    view = f"{site.root}/manage/{name}"
    notes += clear(site, state, name)
    standing = _stands(plan, sealed=sealed, base_ro=base_ro)
    tree = [] if standing else _tree(plan, view, base_ro=base_ro)
    for mount in tree:
        for ruleset in _rulesets(mount):
            devfs.require(ruleset, mount.target)
    if standing and not chroot:
        notes += _shown(f"{view}/dev")
    tree.append(Mount("tmpfs", f"{view}/t", "tmpfs", _OWN_T))
    own = [] if sealed else _of_jail(plan, view)
    with session.held_signals(), _noted(state, name, [*tree, *own]):
        for mount in tree:
            mounts.attach(mount)
        with root.open("skel/t") as origin, open_root(f"{view}/t") as fresh:
            if sealed:
                write_items(load_tree(origin), fresh)
            else:
                _fill(origin, fresh, own)
        return session.run_session(
            session.Session(
                name,
                view,
                command,
                network=not sealed,
                chroot=chroot,
                ruleset=_RULESET,
                environment=_ENVIRONMENT,
            )
        )


def run_world(
    site: Site, state: Dir, plan: JailPlan, command: tuple[str, ...], *, chroot: bool, notes: list[str]
) -> int:
    """Run a session in the world of a full jail, whose own programs run in it; return its exit status.

    It has the host's network only when the jail has it as well. The caller holds the session's lock. Raises
    LayoutError.
    """
    name = plan.jail.name
    view = f"{site.root}/manage/{name}"
    notes += clear(site, state, name)
    tree = [] if _stands(plan, sealed=False, base_ro=False) else list(plan.tables.manage)
    for mount in tree:
        for ruleset in _rulesets(mount):
            devfs.require(ruleset, mount.target)
    with session.held_signals(), _noted(state, name, tree):
        for mount in tree:
            mounts.attach(mount)
        return session.run_session(
            session.Session(
                name,
                view,
                command,
                network=plan.jail.settings.network.is_of_host,
                chroot=chroot,
                ruleset=_RULESET,
                environment={"HISTFILE": ""},
            )
        )


def _stands(plan: JailPlan, *, sealed: bool, base_ro: bool) -> bool:
    """Say whether somebody mounted the pair for longer than a session, whole and as planned."""
    live = Live(mount_points(table.lines()))
    there = [mount.target for mount in plan.tables.manage if live.at(mount.target)]
    if not there:
        return False
    name = plan.jail.name
    missing = [mount.target for mount in plan.tables.manage if mount.target not in there]
    if missing:
        hint = f"layout umount --manage {name}, or layout mount --manage {name}"
        raise LayoutError(missing[0], "no mount, but others of the pair", "all of them, or none", hint)
    if sealed or base_ro:
        option = "--sealed" if sealed else "--base-ro"
        hint = f"layout umount --manage {name} first: {option} needs mounts of its own"
        raise LayoutError(there[0], "the pair, already mounted", f"none of it with {option}", hint)
    for finding in compare.compare(plan.tables.manage, live):
        if finding.severity == "error":
            hint = finding.hint.replace("NAME", name)
            raise LayoutError(finding.path, finding.found, finding.expected, hint)
    return True


def _tree(plan: JailPlan, view: str, *, base_ro: bool) -> list[Mount]:
    """Return the pair as a session mounts it, parents first, without t: that is never the jail's."""
    found = []
    for mount in plan.tables.manage:
        if mount.target == view and base_ro:
            found.append(_with(mount, "ro"))
        elif mount.fstype == "devfs" and not _rulesets(mount):
            # As the message of 2010 has it, a devfs shows every disk.
            found.append(_with(mount, f"ruleset={_RULESET}"))
        elif mount.target != f"{view}/t":
            found.append(mount)
    return found


def _with(mount: Mount, *words: str) -> Mount:
    """Return a mount with these options as well; ro takes the place of rw."""
    kept = [word for word in mount.options if word not in words and not (word == "rw" and "ro" in words)]
    return structs.replace(mount, options=(*kept, *words))


def _rulesets(mount: Mount) -> list[int]:
    """Return the number of the ruleset that a devfs is mounted with, if it is one and has any."""
    if mount.fstype != "devfs":
        return []
    words = [word.removeprefix("ruleset=") for word in mount.options if word.startswith("ruleset=")]
    return [int(word) for word in words if word.isdigit() and int(word)]


def _shown(dev: str) -> list[str]:
    """Say which devices of the host a devfs that others mounted shows, if it does."""
    try:
        rules = devfs.require(_RULESET, dev)
    except LayoutError as problem:
        return [f"{dev}: {problem.found}, so every device may be shown; hint: {problem.hint}"]
    extra = [node for node in devfs.nodes(dev) if not devfs.is_shown(node, rules)]
    if not extra:
        return []
    return [f"{dev}: shows {some(extra, _NAMED)}, so the session is not kept from them"]


def _of_jail(plan: JailPlan, view: str) -> list[Mount]:
    """Return the jail's /var as a session sees it, and what may be covered in it, parents first."""
    found = []
    for mount in plan.tables.manage:
        if mount.target == f"{view}/t":
            var = structs.replace(mount, source=f"{mount.source}/var", target=f"{mount.target}/var")
            found.append(_with(var, *_GUARDS))
            found += [Mount("tmpfs", f"{view}/t/{path}", "tmpfs", _COVER) for path in COVERED]
    return found


def _fill(origin: Dir, fresh: Dir, own: Sequence[Mount]) -> None:
    """Give the session's empty t a /tmp and the jail's /var. Raises LayoutError.

    A tmpfs, and the jail's own /var below it: a mount point in the jail's t is a vnode of nullfs over a
    directory, and goes with that when the jail renames it, and the session's private /tmp with it.
    """
    fresh.make_dir("tmp", 0o1777)
    fresh.make_dir("var", 0o755)
    for mount in own:
        if mount.fstype == "nullfs":
            _attach_var(mount)
        else:
            _replace(origin, fresh, mount)


def _attach_var(mount: Mount) -> None:
    """Mount the jail's /var, which may be anything, also from one moment to the next. Raises LayoutError.

    mount_nullfs(8) follows links, and so does mount(2) once more when it looks the name up again. So the
    table must name the source that was meant, and what is seen must be the directory that was opened without
    following any.
    """
    try:
        with open_root(mount.source) as var:
            mounts.attach(mount)
            top = mounts.topmost(mount.target, table.lines())
            with open_root(mount.target) as seen:
                same = os.fstat(seen.fd).st_ino == os.fstat(var.fd).st_ino
        if top is None or not (mounts.is_made(mount) and same):
            found = f"a mount of {top.special}" if top is not None else "no mount"
            raise LayoutError(mount.target, found, f"one of {mount.source}")
    except FileNotFoundError:
        raise LayoutError(mount.source, "no such directory", "a directory", HOSTILE) from None
    except LayoutError as problem:
        raise LayoutError(problem.path, problem.found, problem.expected, HOSTILE) from None


def _replace(origin: Dir, fresh: Dir, mount: Mount) -> None:
    """Give the session its own directory in place of one of the jail's /var, if that has it.

    What is there and is no directory, or is reached through a link, cannot be used in a session anyway.
    """
    path = mount.target[len(fresh.path) + 1 :]
    try:
        with fresh.open(path) as found:
            there = os.fstat(found.fd)
    except (FileNotFoundError, LayoutError):
        return
    _cover(_with(mount, f"mode={mode_of(path, stat.S_IMODE(there.st_mode)):o}"))
    with fresh.open(path) as own:
        if os.fstat(own.fd).st_dev == there.st_dev:
            raise LayoutError(mount.target, "the jail's own directory again", "the session's", HOSTILE)
        with contextlib.suppress(FileNotFoundError, LayoutError), origin.open(path) as skeleton:
            write_items(load_tree(skeleton), own)


def _cover(mount: Mount) -> None:
    """Mount a private tmpfs on a directory of the jail's /var, which may be hostile. Raises LayoutError.

    mount(8) follows links in the name that it is given. So it is given "." in a working directory that
    chdir(2) did not enter through a link, for /var is mounted nosymfollow; and the table is read afterwards.
    """
    before = table.lines()
    words = ("mount", "-t", mount.fstype, "-o", ",".join(mount.options), mount.source, ".")
    program(*words, cwd=mount.target, hint=HOSTILE)
    # Of what is new elsewhere, others are the makers.
    top = f"{mount.target.partition('/t/var/')[0]}/"
    new = [line for line in table.lines() if line not in before and line.node.startswith(top)]
    if [(line.node, line.fstype) for line in new] != [(mount.target, "tmpfs")]:
        for line in new:
            mounts.detach_line(line, table.lines())
        raise LayoutError(mount.target, "no mount of the session's own", "a private tmpfs", HOSTILE)


@contextlib.contextmanager
def _noted(state: Dir, name: str, planned: Sequence[Mount]) -> Iterator[None]:
    """Have a note of mounts while they are made and used, and take them away at the end. Raises LayoutError.

    With the type of each: below the t of a session there may be one that is always mounted.
    """
    targets = [(mount.fstype, mount.target) for mount in planned]
    state.write_whole(_note(name), json.dumps(targets).encode(), 0o600)
    try:
        yield
    finally:
        _take_away(state, name, targets)


def _note(name: str) -> str:
    return f"manage-{name}.mounts"


def _remembered(state: Dir, name: str) -> list[tuple[str, str]]:
    """Return what a session that was killed had mounted or was about to. Raises LayoutError."""
    try:
        return msgspec.json.decode(state.read(_note(name)), type=list[tuple[str, str]])
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError:
        path = state.show(_note(name))
        hint = "unmount the view, remove it"
        raise LayoutError(path, "no list of mount points", "what layout wrote", hint) from None


def _take_away(state: Dir, name: str, targets: Sequence[tuple[str, str]]) -> list[str]:
    """Unmount what is still there, deepest first; return the mount points. Raises LayoutError."""
    gone = []
    patience = _PATIENCE
    lines = table.lines() if targets else []
    for fstype, target in reversed(targets):
        while line := next((x for x in reversed(lines) if (x.fstype, x.node) == (fstype, target)), None):
            try:
                lines = mounts.detach_line(line, lines)
            except FileNotFoundError:
                lines = table.lines()
                continue
            except mounts.Busy:
                # Processes of a removed jail are killed, and gone a little later; jails stay.
                if patience and not holders.below([target]):
                    patience -= 1
                    time.sleep(_PAUSE)
                    continue
                who = holders.describe(holders.of(target)) or "somebody: see fstat -f"
                hint = f"stop it, then layout recover (or layout manage {name}); nothing was forced"
                raise LayoutError(target, f"a mount in use by {who}", "a mount nobody uses", hint) from None
            gone.append(target)
    with contextlib.suppress(FileNotFoundError):
        state.unlink(_note(name))
    return gone


def left(site: Site, state: Dir, name: str) -> tuple[str, list[tuple[str, str]]]:
    """Return what a killed session left: its jail, or "", and its mounts by type. Raises LayoutError.

    The caller knows that no session has the lock.
    """
    view = f"{site.root}/manage/{name}"
    jail = session.jail_name(name)
    found = jails.find(jail)
    if found is not None and found.path != view:
        hint = f"it is not layout's: jail -r {jail}, or give it another name"
        raise LayoutError(
            f"jail {jail}", f"one with its root at {found.path}", f"none, or one at {view}", hint
        )
    targets = _remembered(state, name)
    there = {(line.fstype, line.node) for line in table.lines()} if targets else set()
    return (jail if found is not None else ""), [target for target in targets if target in there]


def clear(site: Site, state: Dir, name: str) -> list[str]:
    """End and unmount what a killed session left; return that in words. Raises LayoutError.

    The caller holds the session's lock.
    """
    jail, targets = left(site, state, name)
    done = []
    if jail:
        session.remove(jail)
        done.append(f"{name}: ended jail {jail}, which a killed session left")
    if gone := _take_away(state, name, targets):
        done.append(f"{name}: unmounted what a killed session left: {', '.join(gone)}")
    return done


def recover(site: Site, state: Dir, names: Sequence[str]) -> list[str]:
    """Clear what killed sessions of these jails left; open ones are left alone."""
    done = []
    for name in names:
        lock = f"manage-{name}.lock"
        if locks.holder(state, lock) is None:
            with locks.held(state, lock, f"no manage session of {name}"):
                done += clear(site, state, name)
    return done


def findings(site: Site, state: Dir, name: str) -> list[Finding]:
    """Return what a killed session left, as findings; the mounts are found with all the others."""
    try:
        jail, targets = left(site, state, name)
    except LayoutError as problem:
        return [error("S3-left", problem.path, problem.found, problem.expected, problem.hint)]
    view = f"{site.root}/manage/{name}"
    hint = "layout recover"
    found = []
    if jail:
        found.append(error("S3-left", view, f"jail {jail}, with no session", "no jail without one", hint))
    if targets:
        seen = f"{len(targets)} mounts of a session that was killed"
        found.append(error("S3-left", targets[0][1], seen, "none between sessions", hint))
    return found
