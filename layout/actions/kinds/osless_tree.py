"""The tree of an OS-less jail on disk: made, filled while it is writable for a moment, closed again."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

import msgspec

from layout.actions import mounting
from layout.actions.observe import Is, Step, observe
from layout.core import zfs as data
from layout.core.errors import LayoutError, UsageError, reason_of
from layout.core.kinds import osless
from layout.core.model import Directory, File, Jail, JailPlan, Site
from layout.core.zfs import Dataset
from layout.host import elf, hostfiles, records, zfs
from layout.host.beneath import Dir, open_root

LIMIT = 512 << 20
"""Bytes of a program."""
PROGRAM_MODE = 0o555


def static_program(path: str) -> bytes:
    """Return the content of a file of the host. Raises LayoutError when it is no static program."""
    try:
        fd = hostfiles.open_regular(path)
    except OSError as error:
        found = reason_of(error)
        raise LayoutError(path, found, "the static program of the jail", "build it, then try again") from None
    with os.fdopen(fd, "rb") as file:
        content = file.read(LIMIT + 1)
    require_static(content, path)
    return content


def require_static(content: bytes, path: str) -> None:
    """Make sure that these bytes are a program that needs no loader and no library. Raises LayoutError."""
    if len(content) > LIMIT:
        raise LayoutError(path, f"more than {LIMIT} bytes", "a program")
    found = elf.parse_program(content, path)
    hint = "link it with -static; for Go: CGO_ENABLED=0, or -ldflags '-linkmode external -extldflags -static'"
    if isinstance(found, elf.Script):
        raise LayoutError(path, f"a script for {found.interpreter}", "a static ELF program", hint)
    if not found.static:
        needs = found.interpreter or " ".join(found.needed)
        raise LayoutError(path, f"a program that needs {needs}", "a static one", hint)


def require_roots(path: str) -> None:
    """Make sure that only root can change a file of the host that is executed there. Raises LayoutError."""
    found = hostfiles.source(path)
    if found.st_uid or found.st_mode & 0o022:
        seen = f"mode {found.st_mode & 0o7777:04o}, user {found.st_uid}"
        hint = f"install -o root -m 755 it to a place of its own, then change osless.program: {path}"
        raise LayoutError(path, seen, "root's, and closed: it is started from there", hint)


def half(jail: Jail, site: Site, which: str) -> Dataset | None:
    """Return the dataset that is one half of a jail; None for a plain directory."""
    return next((one for one in osless.datasets(jail, site) if one.half == which), None)


@contextlib.contextmanager
def writable(plan: JailPlan, site: Site) -> Iterator[None]:
    """Let the tree be written meanwhile. Raises LayoutError; it is read-only again whatever happens.

    The jail itself sees it by a mount that stays read-only.
    """
    dataset = half(plan.jail, site, "s")
    if dataset is None:
        yield
        return
    zfs.set_readonly(dataset, on=False)
    try:
        yield
    finally:
        zfs.set_readonly(dataset, on=True)


def check(plan: JailPlan, site: Site, root: Dir | None) -> None:
    """Make sure that the tree can be made. Raises UsageError, LayoutError."""
    jail = plan.jail
    settings = jail.settings.osless
    if site.zfs:
        zfs.require_zfs()
    for dataset in osless.datasets(jail, site):
        _refuse_directory(dataset, root)
    path = osless.installed(jail)
    if not path or root is None or root.lstat(path) is None:
        static_program(settings.program)
    if settings.self_jailing:
        require_roots(settings.program)


def _refuse_directory(dataset: Dataset, root: Dir | None) -> None:
    """Refuse a dataset that would hide what a plain directory has already. Raises UsageError."""
    if root is None:
        return
    below = f"{dataset.half}/{dataset.name.rpartition('/')[2]}"
    try:
        with root.open(below) as found:
            names = found.names()
    except FileNotFoundError:
        return
    if names and not zfs.exists(dataset.name):
        hint = "take zfs out of layout.toml, or layout destroy it and make it again"
        raise UsageError(dataset.mountpoint, f"a directory with {names[0]} in it", "an empty one", hint)


class Placed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where `init` has put the program of a jail: .layout/osless/NAME.toml."""

    path: str
    """Below ROOT; "" for a program that is none of the tree's."""


def _place(name: str) -> str:
    return f".layout/osless/{name}.toml"


def abandoned(root: Dir, jail: Jail) -> str:
    """Return where a program lies that `init` has put there and the profile has elsewhere now; "" for none.

    Raises LayoutError.
    """
    placed = records.read(root, _place(jail.name), Placed)
    now = {osless.installed(jail), *(one.path for one in osless.content(jail))}
    if placed is None or placed.path in now or not placed.path.startswith(f"s/{jail.name}/"):
        return ""
    there = root.lstat(placed.path)
    return placed.path if there is not None and stat.S_ISREG(there.st_mode) else ""


def _remember(root: Dir, jail: Jail) -> None:
    """Write down where the program is. Raises LayoutError, OSError."""
    placed = Placed(osless.installed(jail))
    if records.read(root, _place(jail.name), Placed) != placed:
        with contextlib.suppress(FileExistsError):
            root.make_dir(".layout/osless", 0o700)
        records.write(root, _place(jail.name), placed)


def forget_place(state: Dir, name: str) -> None:
    """Take away the record of where the program was."""
    with contextlib.suppress(FileNotFoundError):
        state.unlink(f"osless/{name}.toml")


def steps(plan: JailPlan, site: Site, root: Dir | None) -> list[Step]:
    """Return what `make` would do."""
    found = []
    if root is not None and (old := abandoned(root, plan.jail)):
        found.append(Step("remove", f"{site.root}/{old}", "the program, which the profile has elsewhere now"))
    for dataset in osless.datasets(plan.jail, site):
        if not zfs.exists(dataset.name):
            words = data.create(dataset.name, dataset.properties)
            found.append(Step("zfs", dataset.name, " ".join(words)))
            continue
        for path, is_, wanted in zfs.problems(dataset):
            found.append(Step("zfs", path, f"{is_}, planned is {wanted}"))
    for one in observe(root, osless.content(plan.jail)):
        if one.state is not Is.PRESENT:
            found.append(
                Step(type(one.entry).__name__.lower(), f"{site.root}/{one.entry.path}", one.entry.reason)
            )
    path = osless.installed(plan.jail)
    if path and (root is None or root.lstat(path) is None):
        found.append(Step("install", f"{site.root}/{path}", plan.jail.settings.osless.program))
    return found


def make(plan: JailPlan, site: Site) -> list[str]:
    """Make datasets and content as far as they are missing; return what was done. Raises LayoutError."""
    done = _datasets(plan, site)
    # Opened only now: a ROOT from before it was bound on itself does not have the datasets in it.
    with open_root(site.root) as root:
        done += [*_clear(plan, site, root), *_content(plan, site, root)]
        _remember(root, plan.jail)
        return done


def _clear(plan: JailPlan, site: Site, root: Dir) -> list[str]:
    """Take away the program from before the profile had another place for it."""
    old = abandoned(root, plan.jail)
    if not old:
        return []
    with writable(plan, site):
        root.unlink(old)
    return [f"{old}: removed"]


def _content(plan: JailPlan, site: Site, root: Dir) -> list[str]:
    done: list[str] = []
    todo = [one for one in observe(root, osless.content(plan.jail)) if one.state is not Is.PRESENT]
    for one in todo:
        if one.state is Is.CONFLICT:
            path = f"{site.root}/{one.entry.path}"
            raise LayoutError(path, one.found, one.expected, "move it aside, then run init again")
    path = osless.installed(plan.jail)
    missing = path if path and root.lstat(path) is None else ""
    if todo or missing:
        program = static_program(plan.jail.settings.osless.program) if missing else b""
        with writable(plan, site):
            for one in todo:
                _one(root, one.entry, exists=one.state is Is.MODE)
                done.append(one.entry.path)
            if missing:
                install(root, missing, program, PROGRAM_MODE)
                done.append(missing)
    elif (dataset := half(plan.jail, site, "s")) is not None and zfs.problems(dataset):
        # An init that was interrupted before it had closed the tree.
        zfs.set_readonly(dataset, on=True)
        done.append(f"{dataset.name}: readonly=on")
    return done


def _datasets(plan: JailPlan, site: Site) -> list[str]:
    done: list[str] = []
    found = osless.datasets(plan.jail, site)
    if found:
        # What is mounted before ROOT is bound on itself would be there twice.
        mounting.private_root(site)
    for dataset in found:
        if not zfs.exists(dataset.name):
            done += zfs.create(dataset, site.zfs)
        elif zfs.problems(dataset):
            done += zfs.repair(dataset)
        if dataset.half == "t":
            _hand_over(plan, site)
    return done


def _hand_over(plan: JailPlan, site: Site) -> None:
    """Give a new dataset for logs to the jail's user; one that has an owner keeps it."""
    settings, path = plan.jail.settings.osless, f"t/{plan.jail.name}"
    with open_root(site.root) as root:
        found = root.lstat(path)
        if found is not None and not found.st_uid:
            root.chown_chmod(path, 0o755, settings.uid, settings.gid)


def _one(root: Dir, entry: object, *, exists: bool) -> None:
    match entry:
        case Directory(path=path, mode=mode) if exists:
            root.chown_chmod(path, mode, 0, 0)
        case Directory(path=path, mode=mode):
            root.make_dir(path, mode)
        case File(path=path, text=text, mode=mode):
            install(root, path, text.encode(), mode)
        case _:
            raise TypeError(entry)


def install(root: Dir, path: str, content: bytes, mode: int) -> None:
    """Put a file of root's into the tree, whole, in the place of what is there. Raises OSError."""
    head, _, name = path.rpartition("/")
    with root.open(head) as parent:
        parent.sweep(name)
        parent.write_whole(name, content, mode, owner=(0, 0))


def require_mounted(site: Site, plan: JailPlan, mount: Callable[[Dataset], bool] = zfs.mount) -> None:
    """Mount the datasets of a jail: without them, empty directories would be shown. Raises LayoutError.

    `mount` is zfs.mount, or zfs.show for one that a deploy has left open.
    """
    found = osless.datasets(plan.jail, site)
    if found:
        mounting.private_root(site)
    for dataset in found:
        if not zfs.exists(dataset.name):
            hint = f"layout init {plan.jail.name}; or put zfs back as it was in layout.toml"
            raise LayoutError(
                dataset.name, "no such dataset", f"the file system of {dataset.mountpoint}", hint
            )
        mount(dataset)


def both(site: Site, name: str) -> tuple[Dataset, ...]:
    """Return the datasets that a jail of this name can have, whatever its profile says."""
    if not site.zfs:
        return ()
    return data.datasets(site.zfs, site.root, name, writable=True, exec_=True)


def check_forget(site: Site, name: str) -> None:
    """Make sure that the datasets of a jail are nothing but its own. Raises LayoutError."""
    for dataset in both(site, name):
        if not zfs.exists(dataset.name):
            continue
        place = zfs.properties(dataset.name)["mountpoint"]
        if place != dataset.mountpoint:
            hint = "it is not destroyed; rename it, or set it back"
            raise LayoutError(dataset.name, f"mountpoint={place}", dataset.mountpoint, hint)
        zfs.require_alone(dataset)


def forget(site: Site, name: str) -> int:
    """Destroy the datasets of a jail; return their number. Raises LayoutError."""
    check_forget(site, name)
    return sum(zfs.destroy(dataset) for dataset in reversed(both(site, name)))


class Deploy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A deploy that has begun: .layout/update/NAME.toml. Beside it, NAME.old has what was there before."""

    path: str
    """What is replaced, below ROOT."""
    mode: int
    had: bool
    """There was something in its place."""
    ran: bool
    """The jail ran, so it is started again."""
    proven: bool = False
    """The new one has come up: only the old one is left to be removed."""
