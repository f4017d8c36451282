"""A session on Linux: the writable view in mount, pid and other namespaces that only the session has."""

from __future__ import annotations

import contextlib
import os
import stat

from msgspec import structs

from layout.actions import mounting_linux
from layout.core.compare import Live
from layout.core.covered import COVERED, HOSTILE, mode_of
from layout.core.errors import LayoutError
from layout.core.model import JailPlan, Mount, Site
from layout.host.beneath import Dir, load_tree, open_root, write_items
from layout.host.beneath.resolve import open_directory
from layout.host.linux import devices, session, syscalls, table
from layout.host.linux.mounts import Mounter

_TEMPORARY = (syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "1777"), ("size", "1g")))
_RUN = (syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "755"), ("size", "64m")))
_SEALED = (syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV, (("mode", "755"), ("size", "512m")))
_GUARDS = ("nosuid", "nodev", "noexec", "nosymfollow")
"""What the jail's /var always has in a session: its content is the jail's, the session belongs to root."""
# A shell's history would be the one change that every session makes to s.
_ENVIRONMENT = {"HISTFILE": ""}
_DPKG = {"DPKG_ADMINDIR": "/usr/lib/sysimage/dpkg"}


def run(
    site: Site, root: Dir, plan: JailPlan, command: tuple[str, ...], *, sealed: bool, base_ro: bool
) -> int:
    """Run a session to its end and return the exit status of its command. Raises LayoutError."""
    name = plan.jail.name
    return session.run(
        session.Session(
            name,
            f"{site.root}/manage/{name}",
            lambda: _attach(site, plan, sealed=sealed, base_ro=base_ro),
            command,
            environment=_ENVIRONMENT | (_DPKG if _has_dpkg(root) else {}),
        )
    )


def run_world(site: Site, plan: JailPlan, command: tuple[str, ...]) -> int:
    """Run a session in the world of a full jail, whose own programs run in it; return its exit status.

    It has the host's network only when the jail has it as well: nothing in a world is to be believed.
    """
    name = plan.jail.name
    shared = plan.jail.settings.network.is_of_host
    return session.run(
        session.Session(
            name,
            f"{site.root}/manage/{name}",
            lambda: _attach_world(site, plan, network=shared),
            command,
            environment=_ENVIRONMENT,
        )
    )


def _attach_world(site: Site, plan: JailPlan, *, network: bool) -> None:
    """In the session's own mount namespace: mount the world, devices, and a /run of the session's own."""
    if not network:
        syscalls.unshare(syscalls.CLONE_NEWNET)
    live = Live(table.read())
    with open_root(site.root) as root, Mounter(root, mounting_linux.submounts(site.root, live)) as mounter:
        mounter.attach(list(plan.tables.manage))
        with open_root(f"{site.root}/manage/{plan.jail.name}") as view:
            if view.lstat("run") is not None:
                _cover(view, "run", _RUN)
            _terminals(view)


def run_base(site: Site, root: Dir, command: tuple[str, ...], environment: dict[str, str]) -> int:
    """Run a session in mroot with the skeletons as its s and t; no jail can be seen in it."""
    return session.run(
        session.Session(
            "base",
            f"{site.root}/j/mroot",
            lambda: _attach_base(site),
            command,
            environment=_ENVIRONMENT | (_DPKG if _has_dpkg(root) else {}) | environment,
        )
    )


def _attach_base(site: Site) -> None:
    """In the session's own mount namespace: mount mroot on itself, the skeletons in it, what is private."""
    top = f"{site.root}/j/mroot"
    bound = ("bind", "rw", "nodev", "private")
    device = ("rw", "nosuid", "noexec", "mode=755", "size=64k", "nr_inodes=64")
    tree = [
        Mount(top, top, "none", bound),
        Mount(f"{site.root}/skel/s", f"{top}/s", "none", bound),
        Mount(f"{site.root}/skel/t", f"{top}/t", "none", (*bound, "nosuid")),
        Mount("tmpfs", f"{top}/dev", "tmpfs", device),
    ]
    live = Live(table.read())
    with open_root(site.root) as root, Mounter(root, mounting_linux.submounts(site.root, live)) as mounter:
        mounter.attach(tree)
        with open_root(top) as view:
            _private(view)


def _has_dpkg(root: Dir) -> bool:
    try:
        return root.lstat("j/mroot/usr/lib/sysimage/dpkg") is not None
    except LayoutError:  # a link on the way, in a base of another kind
        return False


def _attach(site: Site, plan: JailPlan, *, sealed: bool, base_ro: bool) -> None:
    """In the session's own mount namespace: mount the writable view and what is private to the session."""
    mountpoint = f"{site.root}/manage/{plan.jail.name}"
    t = f"{mountpoint}/t"
    tree = []
    of_jail = []
    for mount in plan.tables.manage:
        if mount.target == t:
            of_jail.append(_with(mount, *_GUARDS))
        else:
            tree.append(_with(mount, "ro") if mount.target == mountpoint and base_ro else mount)
    live = Live(table.read())
    with open_root(site.root) as root, Mounter(root, mounting_linux.submounts(site.root, live)) as mounter:
        mounter.attach(tree)
        with open_root(mountpoint) as view, root.open("skel/t") as origin:
            # A tmpfs, and the jail's own /var below it: a mount point in the jail's t would go with the
            # directory when the jail renames that, and the session's private /tmp with it.
            _cover(view, "t", _SEALED)
            with open_root(t) as fresh:
                if sealed:
                    write_items(load_tree(origin), fresh)
                else:
                    fresh.make_dir("var", 0o755)
                    fresh.make_dir("tmp", 0o1777)
            if not sealed:
                for mount in of_jail:
                    _attach_var(mounter, mount)
                for path in COVERED:
                    _replace(view, origin, path)
            _private(view)


def _attach_var(mounter: Mounter, t: Mount) -> None:
    """Mount the jail's /var, which may be anything. Raises LayoutError."""
    var = structs.replace(t, source=f"{t.source}/var", target=f"{t.target}/var")
    try:
        mounter.attach([var])
    except LayoutError as problem:
        raise LayoutError(problem.path, problem.found, problem.expected, HOSTILE) from None


def _replace(view: Dir, skeleton: Dir, path: str) -> None:
    """Give the session its own directory in place of one of the jail's t, if that has it.

    What is there and is no directory, or is reached through a link, cannot be used in a session anyway.
    """
    try:
        with view.open(f"t/{path}") as found:
            mode = stat.S_IMODE(os.fstat(found.fd).st_mode)
    except (FileNotFoundError, LayoutError):
        return
    flags, _ = _TEMPORARY
    _cover(view, f"t/{path}", (flags, (("mode", f"{mode_of(path, mode):o}"), ("size", "1g"))))
    with (
        contextlib.suppress(FileNotFoundError, LayoutError),
        skeleton.open(path) as origin,
        view.open(f"t/{path}") as fresh,
    ):
        write_items(load_tree(origin), fresh)


def _private(view: Dir) -> None:
    """Mount what no session shares with anything: /tmp, /run, pseudo-terminals."""
    _cover(view, "t/tmp", _TEMPORARY)
    if view.lstat("run") is not None:
        _cover(view, "run", _RUN)
        with open_root(view.show("run")) as run:
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
        raise LayoutError(view.show(path), "no real directory", "a directory", HOSTILE) from None
    _attach_there(devices.tmpfs(*how), target)


def _terminals(view: Dir) -> None:
    """Give the session pseudo-terminals of its own: none of the host's can be reached."""
    with contextlib.suppress(FileNotFoundError):
        target = open_directory(view.fd, "dev/pts")
        _attach_there(devices.pseudo_terminals(), target)


def _attach_there(made: int, target: int) -> None:
    """Attach a detached mount to a directory; closes both. Raises OSError."""
    try:
        syscalls.move_mount(made, target, b"")
    finally:
        os.close(made)
        os.close(target)
