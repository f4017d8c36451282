"""`layout base build archive`, `dir` and `host`: an archive for --base, from another, a tree or the host."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from layout.actions.context import Context
from layout.actions.debian import output_place
from layout.actions.populate import host_items, source_kind
from layout.actions.telling import Progress
from layout.core.errors import LayoutError, UsageError, reason_of
from layout.host import hostfiles
from layout.host.beneath import Dir, Item, open_root, read_tree, remove_tree
from layout.host.site import running_platform


class Packed(msgspec.Struct, frozen=True):
    """An archive that was made from a tree."""

    path: str
    entries: int
    bytes: int
    """Of content, not compressed."""
    left_out: dict[str, int]
    """Device nodes, FIFOs and sockets, by kind."""


def pack_source(context: Context, source: str, wanted: str, output: str, tell: Progress) -> Packed:
    """Check a source as init does and write it to `output`, a .tar.zst that does not exist yet.

    `source` is what `wanted` says: a directory, an archive (unpacked in confined children, as init does) or
    'host'. Raises
    UsageError, LayoutError, OSError; nothing is left then.
    """
    from layout.host.unpack.pack import pack

    head, name = output_place(output)
    kind = source_kind(source, context.site.platform, running_platform(), context.site.root)
    if kind != wanted:
        hint = "layout base build --help has what can be packed"
        raise UsageError(source, f"a source of kind {kind}", f"one of kind {wanted}", hint)
    left_out: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(open_root(head))
        if directory.lstat(name) is not None:
            raise UsageError(output, "a file that exists", "nothing there yet", "name another, or remove it")
        items: Iterable[Item]
        if kind == "host":
            items = host_items(context.site.platform)
        elif kind == "archive":
            tree = stack.enter_context(_unpacked(directory, name, source, left_out, tell))
            items = read_tree(tree, left_out)
        else:
            items = read_tree(stack.enter_context(open_root(hostfiles.canonical(source))), left_out)
        new = f".new-{name}.{secrets.token_hex(4)}"
        fd = directory.create(new, 0o600)
        try:
            entries, size = pack(_counted(items, source, tell), fd)
            os.fsync(fd)
            directory.rename(new, name)
        except OSError as error:
            directory.unlink(new)
            reason = reason_of(error)
            raise LayoutError(output, reason, "an archive of all of it", "nothing was left there") from None
        except BaseException:
            directory.unlink(new)
            raise
        finally:
            os.close(fd)
    return Packed(f"{head}/{name}", entries, size, dict(left_out))


@contextlib.contextmanager
def _unpacked(
    directory: Dir, name: str, source: str, left_out: Counter[str], tell: Progress
) -> Iterator[Dir]:
    """Unpack an archive beside the output for as long as it is read."""
    from layout.host import unpack

    stage = f".new-{name}.{secrets.token_hex(4)}.d"
    directory.make_dir(stage, 0o700)
    try:
        with directory.open(stage) as tree:
            archive = hostfiles.open_regular(source)
            manifest = directory.scratch()
            try:
                found = unpack.unpack(
                    archive,
                    source,
                    tree.fd,
                    manifest,
                    progress=lambda done, total: tell(f"unpacking {source}", done, total),
                )
            finally:
                os.close(archive)
                os.close(manifest)
            left_out.update({kind: count for kind, count in found.left_out.items() if count})
            yield tree
    finally:
        remove_tree(directory, stage)


def _counted(items: Iterable[Item], source: str, tell: Progress) -> Iterator[Item]:
    for index, item in enumerate(items):
        if index % 64 == 0:
            tell(f"packing {source}", index, 0)
        yield item
