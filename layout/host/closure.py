"""The embedded base `host`: a small root file system from the host's own programs; no download is needed.

Decides only. The host is read, nothing below ROOT is, and what comes out is data that another module writes.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass

from layout.core.errors import UsageError
from layout.core.model import Platform
from layout.host import base_data
from layout.host.ldso import Root
from layout.host.libraries import Closure, Missing, library_closure

__all__ = [
    "BaseDirectory",
    "BaseFile",
    "BaseItem",
    "BaseLink",
    "BaseText",
    "Closure",
    "HostBase",
    "Missing",
    "host_base",
    "library_closure",
]

# setuid, setgid and sticky bits stay behind: a program that gives privileges away is the site's decision.
_CARRIED = 0o755


@dataclass(frozen=True, slots=True)
class BaseDirectory:
    """A directory of the base, owned by root. Paths are relative to the new root, here and below."""

    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class BaseLink:
    """A symlink with exactly this target."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class BaseFile:
    """A file, owned by root, with the content of a file of the host."""

    path: str
    source: str
    """Canonical path on the host."""
    mode: int


@dataclass(frozen=True, slots=True)
class BaseText:
    """A file, owned by root, with this text."""

    path: str
    text: str
    mode: int


BaseItem = BaseDirectory | BaseLink | BaseFile | BaseText


@dataclass(frozen=True, slots=True)
class HostBase:
    """Everything that the base consists of."""

    items: tuple[BaseItem, ...]
    """Sorted by path components: parents first, and no path twice or below a symlink."""
    missing: tuple[Missing, ...]
    """Wanted programs that are left out."""
    size: int
    """Bytes of all files together."""

    @property
    def files(self) -> int:
        """Number of files, links and directories not counted."""
        return sum(isinstance(item, BaseFile | BaseText) for item in self.items)


def open_source(path: str) -> int:
    """Return a descriptor of a host file whose content a BaseFile asks for. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def host_base(platform: Platform, *, root: str = "/") -> HostBase:
    """Return the base made of the host's own programs and everything they need.

    `root` is where the host's files lie; another value than / is for tests. Raises UsageError when
    `platform` is not the one this host runs, LayoutError when a program without which there is no base is
    missing.
    Source: hier(7), ld.so(8), os-release(5).
    """
    if not sys.platform.startswith(platform.value):
        raise UsageError(
            "--base host",
            f"a base for {platform.value}",
            f"one for the platform that this host runs, {sys.platform}",
            f"give --base a directory or an archive with {platform.value}'s base system",
        )
    host = Root(root)
    closure = library_closure(base_data.REQUIRED, root, wanted=base_data.WANTED, without=base_data.UNWANTED)
    assembly = _Assembly(host)
    assembly.mirror()
    assembly.programs(closure)
    assembly.data(platform)
    assembly.texts(platform, closure)
    # Last: where the host's own layout has put something else, such as a link for usr/sbin, that stays.
    for path, target in base_data.LINKS[platform].items():
        assembly.add(BaseLink(path, target))
    for path, mode in base_data.DIRECTORIES[platform].items():
        assembly.add(BaseDirectory(path, mode))
    return HostBase(assembly.sorted(), closure.missing, assembly.size)


class _Assembly:
    """The items by path; the first for a path stays."""

    def __init__(self, host: Root) -> None:
        self._host = host
        self._items: dict[str, BaseItem] = {}
        self.size = 0

    def add(self, item: BaseItem, size: int = 0) -> None:
        """Add an item of `size` bytes, unless there is one for its path."""
        if item.path not in self._items:
            self._items[item.path] = item
            self.size += size

    def sorted(self) -> tuple[BaseItem, ...]:
        """Return all items, the directories that they lie in included, parents first."""
        for path in list(self._items):
            while path := os.path.dirname(path):
                self.add(BaseDirectory(path, 0o755))
        return tuple(self._items[path] for path in sorted(self._items, key=lambda path: path.split("/")))

    def mirror(self) -> None:
        """Make bin -> usr/bin and the like where the host has them."""
        for path in base_data.MIRRORED:
            here = self._host.resolve(f"/{path}")
            if stat.S_ISLNK(self._host.mode(f"/{path}")) and here is not None:
                self._link(f"/{path}", here.path)
                self.add(BaseDirectory(here.path[1:], 0o755))

    def programs(self, closure: Closure) -> None:
        """Add the programs, their libraries, and the links that lead to them."""
        for file in closure.files:
            self.add(BaseFile(file.path[1:], self._host.real(file.source), file.mode & _CARRIED), file.size)
        for link in (*closure.links, *closure.beside_libc()):
            self._link(link.path, link.target)

    def data(self, platform: Platform) -> None:
        """Add files of the host that are neither programs nor libraries."""
        for path in base_data.DATA[platform] + base_data.COPIED:
            directory, here = self._host.resolve(f"/{os.path.dirname(path)}"), self._host.resolve(f"/{path}")
            if directory is None or here is None or not stat.S_ISREG(self._host.mode(here.path)):
                continue
            source = self._host.real(here.path)
            place = path if path in base_data.COPIED else f"{directory.path}/{os.path.basename(path)}"[1:]
            self.add(BaseFile(place, source, 0o644), os.stat(source).st_size)

    def texts(self, platform: Platform, closure: Closure) -> None:
        """Add what is written for the base."""
        absent = {program.name for program in closure.missing}
        texts = dict(base_data.TEXTS[platform])
        texts["etc/shells"] = (base_data.shells(n for n in ("sh", "bash", "dash") if n not in absent), 0o644)
        host_release = self._host.text("/etc/os-release") or self._host.text("/usr/lib/os-release")
        texts["usr/lib/os-release"] = (base_data.os_release(host_release, platform), 0o644)
        if self._host.resolve("/etc/ld.so.conf"):
            # For ldconfig(8) in a manage session: what is installed below /usr/local is found then.
            places = {os.path.basename(os.path.dirname(file.path)) for file in closure.files}
            local = [f"/usr/local/lib/{name}" for name in sorted(places) if "-linux-" in name]
            lines = dict.fromkeys(["/usr/local/lib", *local, *closure.directories])
            texts["etc/ld.so.conf"] = ("".join(f"{line}\n" for line in lines), 0o644)
        for path, (text, mode) in texts.items():
            self.add(BaseText(path, text, mode), len(text.encode("utf-8", "surrogateescape")))

    def _link(self, path: str, target: str) -> None:
        self.add(BaseLink(path[1:], os.path.relpath(target, os.path.dirname(path))))
