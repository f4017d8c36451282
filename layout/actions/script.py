"""`layout plan --script`: gather what the host has, and print the plan as a script that needs no Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, assert_never

import msgspec

from layout import __version__
from layout.actions import init, mounting
from layout.actions.context import Choice, Context
from layout.actions.distribution import check_archive
from layout.actions.installed import installer
from layout.actions.kinds import design_of
from layout.actions.observe import Is
from layout.actions.populate import source_kind
from layout.core import devices
from layout.core.errors import UsageError
from layout.core.model import BaseTree, HostFile, Mount, Platform
from layout.core.script import render
from layout.core.work import TREES, Item, Node, Part, Source, Work, Written
from layout.host import hostfiles
from layout.host.records import BASE_RECORD, JailRecord
from layout.host.site import running_platform

if TYPE_CHECKING:
    from layout.host import closure


def script_of(context: Context, names: Sequence[str], choice: Choice, *, mount: bool) -> str:
    """Return the script that makes what is missing for these jails. Writes nothing.

    Mounts of another platform than the one running cannot be looked at: the script has all of them then,
    and finds out itself which are there. Raises UsageError or LayoutError, as init would.
    """
    _refuse_kinds(context, names, choice)
    here = context.site.platform is running_platform()
    found = init.survey(context, names, choice, mount=mount and here)
    work = Work(
        __version__,
        found.plan,
        _source(context, found),
        tuple(_part(context.site.root, part) for part in found.parts),
        tuple(_trees(found, every=not here)) if mount else (),
        _devices(),
    )
    return render(work)


def _refuse_kinds(context: Context, names: Sequence[str], choice: Choice) -> None:
    """Make sure that these jails are made of a shared base: the script builds nothing else."""
    for plan in context.described(names, choice):
        name, design = plan.jail.name, design_of(plan.jail.kind)
        if not design.shares_root:
            instead = design.by_hand[plan.jail.platform is Platform.FREEBSD].format(name=name)
            hint = f"layout plan {name} lists what init does, a line a step; {instead}"
            expected = "kind shared: a script can only build a shared root"
            raise UsageError(f"layout plan --script: {name}", f"kind {plan.jail.kind}", expected, hint)


def _part(root: str, part: init.Part) -> Part:
    steps = tuple((one.entry, one.state is Is.MODE) for one in part.todo)
    files = tuple(Written(file, hostfiles.read_text(file.path)) for file in part.files)
    return Part(part.entries, steps, files, _record(root, part.record))


def _record(root: str, record: JailRecord | None) -> Written | None:
    if record is None:
        return None
    path = f"{root}/.layout/jails/{record.name}.toml"
    file = HostFile(path, _toml(msgspec.to_builtins(record)), 0o600, "what was decided about it")
    return Written(file, hostfiles.read_text(path))


def _source(context: Context, found: init.Survey) -> Source | None:
    bases = [one.entry for one in found.shared.todo if isinstance(one.entry, BaseTree)]
    if not bases:
        return None
    base = bases[0]
    recorded = hostfiles.read_text(f"{context.site.root}/.layout/{BASE_RECORD}") is not None
    trees = tuple(entry.path for entry in bases) if recorded else TREES
    platform = context.site.platform
    toml = _value(base.source)
    match source_kind(base.source, platform, running_platform(), context.site.root):
        case "host":
            return Source("host", base.source, toml, trees, tuple(_host_items(platform)))
        case "directory":
            return Source("directory", base.source, toml, trees)
        case "installer":
            made = installer(base.source, platform, running_platform(), context.site.root)
            return Source(
                "installer",
                base.source,
                toml,
                trees,
                commands=made.commands,
                configuration=made.configuration,
                keys=made.keys,
            )
        case _:
            if platform is Platform.LINUX:
                return Source("archive", base.source, toml, trees)
            checked = check_archive(base.source)
            notes = tuple(_value(note) for note in checked.notes)
            return Source("archive", base.source, toml, trees, sha256=checked.sha256, notes=notes)


def _host_items(platform: Platform) -> Iterator[Item]:
    from layout.host import closure

    for item in closure.host_base(platform).items:
        yield _host_item(item)


def _host_item(item: closure.BaseItem) -> Item:
    from layout.host import closure

    match item:
        case closure.BaseDirectory(path=path, mode=mode):
            return Item("dir", path, mode)
        case closure.BaseLink(path=path, target=target):
            return Item("link", path, 0o777, target)
        case closure.BaseText(path=path, text=text, mode=mode):
            return Item("text", path, mode, text)
        case closure.BaseFile(path=path, source=source, mode=mode):
            return Item("copy", path, mode, source)
        case _:
            assert_never(item)


def _value(text: str) -> str:
    return _toml({"text": text}).partition(" = ")[2].rstrip("\n")


def _toml(data: dict[str, object]) -> str:
    import tomli_w

    return tomli_w.dumps(data)


def _trees(found: init.Survey, *, every: bool) -> Iterator[tuple[Mount, ...]]:
    """Whole trees where nothing is mounted yet, else each missing mount for itself."""
    missing = set(found.mounts)
    for plan in found.plan.jails:
        for tree in mounting.wanted(plan):
            absent = tuple(mount for mount in tree if every or mount.target in missing)
            if len(absent) == len(tree):
                yield tree
            else:
                yield from ((mount,) for mount in absent)


def _devices() -> tuple[Node, ...]:
    nodes = [Node("node", name, str(major), str(minor)) for name, major, minor in devices.NODES]
    links = [Node("link", name, target) for name, target in devices.LINKS]
    return (*nodes, *links, Node("dir", "shm", "1777"), Node("dir", "pts", "755"))
