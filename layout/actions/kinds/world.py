"""The world of a full jail: unpacked beside its place, made ready, then given its name."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import secrets

from layout.actions.freebsd_base import check_userland, complete_var
from layout.actions.populate import fill, fill_from_installer, source_kind
from layout.actions.split import check_base, make_parents
from layout.actions.telling import Progress
from layout.core.errors import LayoutError
from layout.core.kinds.full import IDENTITIES, TOPS, configured
from layout.core.model import Jail, Platform, World
from layout.host.beneath import Dir, put_flags, remove_tree
from layout.host.site import running_platform

NEW = ".new-"


def check_source(jail: Jail, root: str) -> str:
    """Return what kind of source a jail has, having looked that a world can be made of it.

    Raises UsageError, LayoutError.
    """
    return source_kind(jail.source, jail.platform, running_platform(), root)


def make_world(root: Dir, state: Dir, entry: World, tell: Progress) -> None:
    """Make a world. Raises LayoutError, UsageError, OSError; nothing has appeared then."""
    jail = entry.jail
    kind = check_source(jail, root.path)
    half, _, name = entry.path.partition("/")
    new = f"{NEW}{name}"
    with root.open(half) as parent:
        remove_tree(parent, new)
        parent.make_dir(new, 0o755)
        try:
            with parent.open(new) as world:
                flags = _fill(root, world, state, jail, kind, f"{half}/{new}", tell)
                tell("writing to disk", 0, 0)
                put_flags(world, [(path, value) for path, value in flags if path])
                world.sync()
                parent.rename(new, name)
                put_flags(world, [(path, value) for path, value in flags if not path])
        except BaseException:
            remove_tree(parent, new)
            raise


def _fill(
    root: Dir, world: Dir, state: Dir, jail: Jail, kind: str, place: str, tell: Progress
) -> list[tuple[str, int]]:
    """Fill an empty directory with a world; return the file flags yet to be set."""
    if kind == "installer":
        filled = fill_from_installer(root, world, state, jail.source, jail.platform, tell, place)
    else:
        filled = fill(world, state, jail.source, jail.platform, kind, tell)
    # Whoever owned the top of the source: in the jail it is /.
    os.fchown(world.fd, 0, 0)
    os.fchmod(world.fd, 0o755)
    check_base(world, jail.source)
    if jail.platform is Platform.FREEBSD:
        check_userland(world, jail.source)
        filled.flags += complete_var(world, world) if running_platform() is jail.platform else []
    for top, mode in TOPS[jail.platform]:
        if world.lstat(top) is None:
            world.make_dir(top, mode)
    for mount in jail.settings.mounts:
        make_parents(world, f"{mount.target}/.")
    _forget(world)
    for path, text, mode in list(configured(jail, lambda path: _text(world, path))):
        _write(world, path, text, mode)
    if jail.platform is Platform.LINUX:
        _write(world, "etc/machine-id", f"{secrets.token_hex(16)}\n", 0o444)
    written = {path for path, _, _ in configured(jail, lambda path: None)}
    return [(path, value) for path, value in filled.flags if path not in written]


def _text(world: Dir, path: str) -> str | None:
    try:
        return world.read(path).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, LayoutError):  # none, or a link to elsewhere, which is replaced
        return None


def _write(world: Dir, path: str, text: str, mode: int) -> None:
    make_parents(world, path)
    head, _, name = path.rpartition("/")
    with world.open(head or ".") as parent:
        # The world is on disk, all of it, before it gets its name.
        parent.write_whole(name, text.encode("utf-8", "surrogateescape"), mode, durable=False)


def _forget(world: Dir) -> None:
    """Remove what tells a host from all others: a world made of the same source is another one."""
    for pattern in IDENTITIES:
        head, _, name = pattern.rpartition("/")
        with contextlib.suppress(FileNotFoundError, LayoutError), world.open(head) as parent:
            for found in parent.names():
                if fnmatch.fnmatchcase(found, name):
                    parent.unlink(found)
