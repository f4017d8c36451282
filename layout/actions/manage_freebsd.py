"""A session on FreeBSD: the pair is mounted for it on the host, entered as a jail, and taken away again.

A mount namespace there is not, so what a killed session mounted stays. Before anything is mounted, a note of
it is made in ROOT/.layout; whoever next has the session's lock takes away what the note names.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence

from msgspec import structs

from layout.core import compare
from layout.core.compare import Live
from layout.core.errors import LayoutError
from layout.core.findings import Finding, error
from layout.core.freebsd_files import STATE
from layout.core.model import JailPlan, Mount, Site
from layout.core.mountlist import mount_points
from layout.host import locks
from layout.host.beneath import Dir, load_tree, open_root, write_items
from layout.host.beneath.resolve import open_directory
from layout.host.freebsd import devfs, holders, jails, mounts, session, table
from layout.host.run import run as program

_RULESET = 4
"""devfsrules_jail of /etc/defaults/devfs.rules."""
# noexec: the linker's hints are a file of t, and a library that cannot be executed is not loaded.
_GUARDS = ("nosuid", "noexec", "nosymfollow")
"""What a session's t always has: its content is the jail's, and the session belongs to root."""
_SEALED = ("rw", "nosuid", "mode=755", "size=512m")
_TEMPORARY = ("rw", "nosuid", "mode=1777", "size=1g")
_NAMED = 4
"""Devices that a note names."""
_PATIENCE = 20
"""Tries, with a pause of so many seconds between them, for mounts that are busy without a jail in them."""
_PAUSE = 0.1
_ENVIRONMENT = {
    # A shell's history would be the one change that every session makes to s.
    "HISTFILE": "",
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
    tree = [] if standing else _tree(plan, view, sealed=sealed, base_ro=base_ro)
    for mount in tree:
        for ruleset in _rulesets(mount):
            devfs.require(ruleset, mount.target)
    private = f"{view}/t/tmp"
    if sealed or not (standing and not _guarded(f"{view}/t")):
        temporary = "/tmp"  # noqa: S108 - the session's private one
    else:
        temporary, private = "/root", ""
        notes.append(f"{view}/t: mounted without nosymfollow, so /tmp is the jail's own; TMPDIR is /root")
    if standing and not chroot:
        notes += _shown(f"{view}/dev")
    with session.held_signals(), _mounted(state, name, tree, "" if sealed else private):
        if sealed:
            with root.open("skel/t") as origin, open_root(f"{view}/t") as fresh:
                write_items(load_tree(origin), fresh)
        return session.run_session(
            session.Session(
                name,
                view,
                command,
                network=not sealed,
                chroot=chroot,
                ruleset=_RULESET,
                environment={**_ENVIRONMENT, "TMPDIR": temporary},
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
    network = plan.jail.settings.network
    notes += clear(site, state, name)
    tree = [] if _stands(plan, sealed=False, base_ro=False) else list(plan.tables.manage)
    for mount in tree:
        for ruleset in _rulesets(mount):
            devfs.require(ruleset, mount.target)
    with session.held_signals(), _mounted(state, name, tree, ""):
        return session.run_session(
            session.Session(
                name,
                view,
                command,
                network="inherit" in (*network.ip4, *network.ip6),
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


def _tree(plan: JailPlan, view: str, *, sealed: bool, base_ro: bool) -> list[Mount]:
    """Return the pair as a session mounts it, parents first."""
    found = []
    for mount in plan.tables.manage:
        if mount.target == view and base_ro:
            found.append(_with(mount, "ro"))
        elif mount.target == f"{view}/t":
            found.append(Mount("tmpfs", mount.target, "tmpfs", _SEALED) if sealed else _with(mount, *_GUARDS))
        elif mount.fstype == "devfs" and not _rulesets(mount):
            # As the message of 2010 has it, a devfs shows every disk.
            found.append(_with(mount, f"ruleset={_RULESET}"))
        else:
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
    more = " and more" if len(extra) > _NAMED else ""
    return [f"{dev}: shows {', '.join(extra[:_NAMED])}{more}, so the session is not kept from them"]


def _guarded(target: str) -> bool:
    """Say whether no link is followed in what is mounted on `target`."""
    return any(line.node == target and "nosymfollow" in line.options for line in table.lines())


@contextlib.contextmanager
def _mounted(state: Dir, name: str, tree: Sequence[Mount], private: str) -> Iterator[None]:
    """Have these mounts, and a tmpfs on the directory `private`, meanwhile. Raises LayoutError."""
    targets = [mount.target for mount in tree] + [private] * bool(private)
    _remember(state, name, targets)
    try:
        for mount in tree:
            mounts.attach(mount)
        if private:
            _cover(private)
        yield
    finally:
        _take_away(state, name, targets)


def _cover(path: str) -> None:
    """Mount a private tmpfs on a directory of the jail's t, which may be hostile.

    mount(8) follows links in the name that it is given. So it is given "." in a working directory that
    chdir(2) did not enter through a link, for t is mounted nosymfollow; and the table is read afterwards.
    """
    hint = "the jail's t is not what it was: look at it from outside, or use --sealed"
    head, _, name = path.rpartition("/")
    try:
        with open_root(head) as top:
            os.close(open_directory(top.fd, name))
    except OSError:
        raise LayoutError(path, "no real directory", "a directory", hint) from None
    before = table.lines()
    program("mount", "-t", "tmpfs", "-o", ",".join(_TEMPORARY), "tmpfs", ".", cwd=path)
    new = [line for line in table.lines() if line not in before]
    if [(line.node, line.fstype) for line in new] != [(path, "tmpfs")]:
        for line in new:
            mounts.detach(line.node, table.lines())
        raise LayoutError(path, "no mount of the session's own", "a private tmpfs", hint)


def _note(name: str) -> str:
    return f"manage-{name}.mounts"


def _remember(state: Dir, name: str, targets: Sequence[str]) -> None:
    state.write_whole(_note(name), json.dumps(list(targets)).encode(), 0o600)


def _remembered(state: Dir, name: str) -> list[str]:
    """Return what a session that was killed had mounted or was about to. Raises LayoutError."""
    try:
        found = json.loads(state.read(_note(name)))
        if isinstance(found, list) and all(isinstance(target, str) for target in found):
            return found
    except FileNotFoundError:
        return []
    except ValueError:
        pass
    path = state.show(_note(name))
    raise LayoutError(path, "no list of mount points", "what layout wrote", "unmount the view, remove it")


def _take_away(state: Dir, name: str, targets: Sequence[str]) -> list[str]:
    """Unmount what is still there, deepest first; return the mount points. Raises LayoutError."""
    gone = []
    patience = _PATIENCE
    lines = table.lines() if targets else []
    for target in reversed(targets):
        while any(line.node == target for line in lines):
            try:
                lines = mounts.detach(target, lines)
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


def left(site: Site, state: Dir, name: str) -> tuple[str, list[str]]:
    """Return what a killed session left: its jail, or "", and its mounts. Raises LayoutError.

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
    there = {line.node for line in table.lines()} if targets else set()
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
        found.append(error("S3-left", targets[0], seen, "none between sessions", hint))
    return found
