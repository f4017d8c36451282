"""The root of a thin jail, decided: one program, what it needs in order to run, and nothing else.

Reads the tree that the files come from, and neither runs nor writes anything. ldd(1) would run the program.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from layout.core.errors import LayoutError, reason_of
from layout.core.model import Platform
from layout.core.thin import (
    Thin,
    ThinDirectory,
    ThinFile,
    ThinItem,
    ThinLink,
    ThinRoot,
    ThinText,
    accounts_of,
    master,
)
from layout.host.ldso import Root
from layout.host.libraries import Closure, library_closure

__all__ = ["Wanted", "matches", "thin_root"]

_CARRIED = 0o755
"""setuid, setgid and sticky bits stay behind."""
_MOST = 20000
"""Files that one pattern may stand for."""

_CERTIFICATES = {
    Platform.LINUX: ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"),
    Platform.FREEBSD: ("/etc/ssl/cert.pem", "/usr/local/share/certs/ca-root-nss.crt"),
}
_DATABASES = ("/etc/services", "/etc/protocols")
_OF_THE_HOST = ("hosts", "resolv.conf")
"""The network is the host's, and so are these."""
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a root has to hold."""

    name: str
    """Of the jail, for messages."""
    origin: str
    """Absolute path of the tree that the files come from."""
    etc: str
    """Absolute path of the directory with that tree's passwd(5) and group(5)."""
    platform: Platform
    programs: tuple[str, ...]
    """By absolute path."""
    users: tuple[str, ...]
    thin: Thin
    targets: tuple[str, ...]
    """Directories that something is mounted on, relative to the root."""
    host: str = "/"
    """Where the host's own files are; another value than / is for tests."""


def thin_root(wanted: Wanted) -> ThinRoot:
    """Return the root that these programs need, every file as it is now. Raises LayoutError.

    Source: ld.so(8), rtld(1), nsswitch.conf(5), passwd(5).
    """
    root = Root(wanted.origin)
    modules = [path for pattern in wanted.thin.modules for path in _some(root, pattern, "modules", wanted)]
    closure = library_closure(wanted.programs, wanted.origin, modules=modules)
    assembly = _Assembly(root, wanted)
    assembly.programs(closure)
    assembly.data()
    assembly.texts()
    assembly.places()
    return ThinRoot(wanted.origin, assembly.sorted())


def matches(root: Root, pattern: str) -> list[str]:
    """Return the files that a pattern stands for, as spelled; all below a directory that it names."""
    found = [""]
    for part in pattern.strip("/").split("/"):
        found = [f"{one}/{name}" for one in found for name in _named(root, one, part)]
    return [path for one in found for path in _below(root, one)]


def _named(root: Root, directory: str, part: str) -> list[str]:
    if not any(c in part for c in "*?["):
        return [part] if root.resolve(f"{directory}/{part}") else []
    names = fnmatch.filter(root.names(directory or "/"), part)
    return [name for name in names if part.startswith(".") or not name.startswith(".")]


def _below(root: Root, path: str) -> Iterator[str]:
    here = root.resolve(path)
    if here is None:
        return
    mode = root.mode(here.path)
    if stat.S_ISREG(mode):
        yield path
    elif stat.S_ISDIR(mode):
        for name in root.names(path):
            # A link to a directory may lead up again: only what lies here.
            if not stat.S_ISLNK(root.mode(f"{here.path.rstrip('/')}/{name}")):
                yield from _below(root, f"{path}/{name}")
            elif (there := root.resolve(f"{path}/{name}")) and stat.S_ISREG(root.mode(there.path)):
                yield f"{path}/{name}"


def _some(root: Root, pattern: str, key: str, wanted: Wanted) -> list[str]:
    found = matches(root, pattern)
    if not found or len(found) > _MOST:
        amount = f"{len(found)} files" if found else "nothing that matches it"
        hint = f"change thin.{key} of its profile, or install what it is in below {wanted.origin}"
        raise LayoutError(f"{wanted.name}: {pattern}", amount, "files of a service", hint)
    return found


class _Assembly:
    """The items by path; the first for a path stays."""

    def __init__(self, root: Root, wanted: Wanted) -> None:
        self._root = root
        self._wanted = wanted
        self._items: dict[str, ThinItem] = {}

    def sorted(self) -> tuple[ThinItem, ...]:
        """Return all items, the directories that they lie in included, parents first."""
        for path in list(self._items):
            while path := os.path.dirname(path):
                self._items.setdefault(path, ThinDirectory(path, 0o755))
        return tuple(self._items[path] for path in sorted(self._items, key=lambda path: path.split("/")))

    def programs(self, closure: Closure) -> None:
        """Add the programs, their libraries, and the links that lead to them."""
        for file in closure.files:
            self._file(file.path, file.source)
        for link in (*closure.links, *closure.beside_libc()):
            self._link(link.path, link.target)

    def data(self) -> None:
        """Add files that are neither programs nor libraries."""
        thin = self._wanted.thin
        for pattern in thin.files:
            for path in _some(self._root, pattern, "files", self._wanted):
                self._copy(path)
        if thin.certificates:
            for path in _CERTIFICATES[self._wanted.platform]:
                self._copy(path, follow=True)
        if thin.timezone:
            self._copy("/etc/localtime", follow=True)
        for path in _DATABASES:
            self._copy(path, follow=True)

    def texts(self) -> None:
        """Add what is written for the jail."""
        wanted = self._wanted
        passwd, group = (_text(f"{wanted.etc}/{name}") for name in ("passwd", "group"))
        people, groups, missing = accounts_of(wanted.users, passwd, group)
        if missing:
            hint = "add the user, or change service.user or thin.users of the profile"
            found = f"no user {', '.join(missing)}"
            raise LayoutError(f"{wanted.name}: {wanted.etc}/passwd", found, "the user of its service", hint)
        self._text("etc/passwd", people)
        self._text("etc/group", groups)
        if wanted.platform is Platform.FREEBSD:
            self._items["etc/master.passwd"] = ThinText("etc/master.passwd", master(people), 0o600)
        self._text("etc/nsswitch.conf", _NSSWITCH)
        for name in _OF_THE_HOST:
            self._text(f"etc/{name}", _text(f"{wanted.host.rstrip('/')}/etc/{name}"))

    def places(self) -> None:
        """Add the directories that something is mounted on, and those that every program may expect."""
        for path in self._wanted.targets:
            self._refuse_link(path)
            self._items.setdefault(path, ThinDirectory(path, 0o755))
        mode = 0o555 if self._wanted.platform is Platform.FREEBSD else 0o755
        for path in ("dev", "tmp", *(("proc", "run") if self._wanted.platform is Platform.LINUX else ())):
            self._items.setdefault(path, ThinDirectory(path, mode))
        below_run = any(path.startswith("var/run") for path in self._items)
        if self._wanted.platform is Platform.LINUX and not below_run:
            self._items["var/run"] = ThinLink("var/run", "../run")

    def _refuse_link(self, target: str) -> None:
        path = target
        while path:
            item = self._items.get(path)
            if item is not None and not isinstance(item, ThinDirectory):
                name = f"{self._wanted.name}: {target}"
                raise LayoutError(name, "a file or link of the program there", "a place for a directory")
            path = os.path.dirname(path)

    def _copy(self, path: str, *, follow: bool = False) -> None:
        """Add a file of the tree at its own place; `follow`: only if it is there, under this very name."""
        here, directory = self._root.resolve(path), self._root.resolve(os.path.dirname(path))
        if here is None or directory is None or not stat.S_ISREG(self._root.mode(here.path)):
            return
        place = path if follow else f"{directory.path.rstrip('/')}/{os.path.basename(path)}"
        if not follow:
            for link in directory.links:
                there = self._root.resolve(link)
                if there is not None:
                    self._link(link, there.path)
        self._file(place, here.path)

    def _file(self, path: str, source: str) -> None:
        if path[1:] in self._items:
            return
        try:
            found = os.lstat(self._root.real(source))
        except OSError as error:  # gone since it was read: packages are being upgraded
            raise LayoutError(source, str(error.strerror).lower(), "a file just read", "try again") from None
        self._items[path[1:]] = ThinFile(
            path[1:],
            source[1:],
            stat.S_IMODE(found.st_mode) & _CARRIED | 0o444,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
            found.st_ino,
            found.st_dev,
        )

    def _link(self, path: str, target: str) -> None:
        relative = os.path.relpath(target, os.path.dirname(path))
        self._items.setdefault(path[1:], ThinLink(path[1:], relative))

    def _text(self, path: str, text: str) -> None:
        self._items.setdefault(path, ThinText(path, text, 0o644))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise LayoutError(path, reason_of(error), "to be able to read it") from None
