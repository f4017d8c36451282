"""`layout base build directory` and `host`: an archive for --base, from a tree or the host's programs."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from layout.actions.context import Context
from layout.actions.debian import output_place
from layout.actions.populate import Tell, host_items, source_kind
from layout.core.errors import LayoutError, UsageError
from layout.host import hostfiles
from layout.host.beneath import Item, open_root, read_tree
from layout.host.site import running_platform


class Packed(msgspec.Struct, frozen=True):
    """An archive that was made from a tree."""

    path: str
    entries: int
    bytes: int
    """Of content, not compressed."""
    left_out: dict[str, int]
    """Device nodes, FIFOs and sockets, by kind."""


def pack_source(context: Context, source: str, output: str, tell: Tell) -> Packed:
    """Check a source as init does and write it to `output`, a .tar.zst that does not exist yet.

    `source` is a directory or 'host'. Raises UsageError, LayoutError, OSError; nothing is left then.
    """
    from layout.host.unpack.pack import pack

    head, name = output_place(output)
    kind = source_kind(source, context.site.platform, running_platform(), context.site.root)
    if kind not in {"host", "directory"}:
        hint = f"give it to init as it is: --base {source}"
        raise UsageError(source, "no directory", "a directory, or 'host'", hint)
    left_out: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(open_root(head))
        if directory.lstat(name) is not None:
            raise UsageError(output, "a file that exists", "nothing there yet", "name another, or remove it")
        items: Iterable[Item]
        if kind == "host":
            items = host_items(context.site.platform)
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
            reason = (error.strerror or str(error)).lower()
            raise LayoutError(output, reason, "an archive of all of it", "nothing was left there") from None
        except BaseException:
            directory.unlink(new)
            raise
        finally:
            os.close(fd)
    return Packed(f"{head}/{name}", entries, size, dict(left_out))


def _counted(items: Iterable[Item], source: str, tell: Tell) -> Iterator[Item]:
    for index, item in enumerate(items):
        if index % 64 == 0:
            tell(f"packing {source}", index, 0)
        yield item
