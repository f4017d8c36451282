"""Finds files and libraries inside a root as the kernel and ld.so(8) do, by reading alone."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from layout.core.errors import LayoutError
from layout.host.elf import Elf, Script, read_program

__all__ = ["Found", "Loaded", "Resolved", "Root", "Search"]

_MAX_LINKS = 40  # as the kernel of Linux; FreeBSD stops at 32 (MAXSYMLINKS)
_MAX_INCLUDES = 10


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a path leads, seen from inside the root."""

    path: str
    """Canonical: absolute, and no component is a symlink."""
    links: tuple[str, ...]
    """The symlinks that were followed, each by its canonical directory and own name, in order."""


class Root:
    """Read-only view of a tree in which absolute paths and links start at `root`, as after chroot(2).

    Everything is read once and remembered: an object describes one moment.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = os.path.abspath(root).rstrip("/")
        self._kinds: dict[str, tuple[int, str]] = {}
        self._resolved: dict[str, Resolved | None] = {}
        self._programs: dict[str, Elf | Script | LayoutError] = {}

    def real(self, path: str) -> str:
        """Return where a canonical path of the root lies on the host."""
        return self._root + path

    def mode(self, path: str) -> int:
        """Return the st_mode of a canonical path, without following it; 0 when it cannot be seen."""
        return self._lstat(path)[0]

    def resolve(self, path: str) -> Resolved | None:
        """Follow every symlink of `path`, step by step; None when it leads nowhere."""
        if path not in self._resolved:
            self._resolved[path] = self._resolve(path)
        return self._resolved[path]

    def program(self, path: str) -> Elf | Script:
        """Return what the program at the canonical `path` needs. Raises LayoutError, see read_program."""
        if path not in self._programs:
            try:
                self._programs[path] = read_program(self.real(path))
            except LayoutError as error:
                self._programs[path] = error
        answer = self._programs[path]
        if isinstance(answer, LayoutError):
            raise answer
        return answer

    def names(self, directory: str) -> list[str]:
        """Return the sorted names in a directory; none when it is missing or cannot be read."""
        here = self.resolve(directory)
        try:
            return sorted(os.listdir(self.real(here.path))) if here else []
        except OSError:
            return []

    def text(self, path: str) -> str:
        """Return the text of a file; '' when it is missing or cannot be read."""
        here = self.resolve(path)
        if here is None or not stat.S_ISREG(self.mode(here.path)):
            return ""
        try:
            with open(self.real(here.path), encoding="utf-8", errors="surrogateescape") as file:
                return file.read()
        except OSError:
            return ""

    def _lstat(self, path: str) -> tuple[int, str]:
        if path not in self._kinds:
            try:
                mode = os.lstat(self.real(path)).st_mode
                target = os.readlink(self.real(path)) if stat.S_ISLNK(mode) else ""
            except (OSError, ValueError):
                mode, target = 0, ""
            self._kinds[path] = (mode, target)
        return self._kinds[path]

    def _resolve(self, path: str) -> Resolved | None:
        links: list[str] = []
        here, todo = "", path.split("/")[::-1]
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            step = f"{here}/{part}"
            mode, target = self._lstat(step)
            if stat.S_ISLNK(mode):
                links.append(step)
                if len(links) > _MAX_LINKS:
                    return None
                if target.startswith("/"):
                    here = ""
                todo += target.split("/")[::-1]
            elif mode == 0 or (todo and not stat.S_ISDIR(mode)):
                return None
            else:
                here = step
        return Resolved(here or "/", tuple(links))


@dataclass(frozen=True, slots=True)
class Loaded:
    """An object in the order in which ld.so(8) would load it."""

    elf: Elf
    origin: str
    """The directory it was found in: what $ORIGIN stands for."""
    loader: Loaded | None
    """The object that needs it; None for the program."""


@dataclass(frozen=True, slots=True)
class Found:
    """A library, by the directory and name under which it was found."""

    directory: str
    """Canonical."""
    name: str
    source: str
    """Canonical path of the file with the content."""
    links: tuple[str, ...]
    """Symlinks on the way to the directory."""
    configured: bool = False
    """Only ld.so.conf names the directory: a loader without the cache of ldconfig(8) does not look there."""


class Search:
    """Where the loader `interpreter` looks for libraries in `root`."""

    def __init__(self, root: Root, interpreter: str) -> None:
        self._root = root
        # By canonical path, with the spelling that the loader uses.
        configured, default = _directories(root, os.path.basename(interpreter))
        self.configured = _existing(root, configured)
        self.default = _existing(root, default)
        self._found: dict[tuple[str, str, tuple[int, bool, str]], Found | None] = {}

    def find(self, name: str, user: Loaded) -> Found | None:
        """Return the library `name` as the object `user` gets it; None when there is none that fits.

        Order as ld.so(8): RPATH of the object and of those that loaded it (only without RUNPATH), RUNPATH of
        the object, the directories of ld.so.conf (the cache holds no others), the loader's own. Left out:
        LD_LIBRARY_PATH, LD_PRELOAD and the glibc-hwcaps variants, of which the plain library runs everywhere.
        """
        abi = user.elf.abi
        if "/" in name:
            directory, _slash, name = name.rpartition("/")
            return self._look(directory or "/", name, abi) if directory.startswith("/") else None
        for directory, configured in self._directories(user):
            found = self._look(directory, name, abi)
            if found is not None:
                return replace(found, configured=configured)
        return None

    def _directories(self, user: Loaded) -> Iterator[tuple[str, bool]]:
        if not user.elf.runpath:
            holder: Loaded | None = user
            while holder is not None:
                if not holder.elf.runpath:
                    yield from ((d, False) for d in self._expanded(holder.elf.rpath, holder.origin))
                holder = holder.loader
        yield from ((directory, False) for directory in self._expanded(user.elf.runpath, user.origin))
        if not user.elf.nodeflib:
            for canonical, directory in self.configured.items():
                yield directory, canonical not in self.default
            yield from ((directory, False) for directory in self.default.values())

    def _expanded(self, directories: tuple[str, ...], origin: str) -> Iterator[str]:
        for directory in directories:
            text = directory.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
            if "$LIB" in text or "${LIB}" in text:
                for default in self.default.values():
                    lib = default.removeprefix("/usr/").removeprefix("/")
                    yield text.replace("${LIB}", lib).replace("$LIB", lib)
            # What is relative depends on the caller's directory: the host's user chooses it, not the file.
            elif text.startswith("/") and "$" not in text:
                yield text

    def _look(self, directory: str, name: str, abi: tuple[int, bool, str]) -> Found | None:
        key = (directory, name, abi)
        if key not in self._found:
            self._found[key] = self._open(directory, name, abi)
        return self._found[key]

    def _open(self, directory: str, name: str, abi: tuple[int, bool, str]) -> Found | None:
        where = self._root.resolve(directory)
        file = where and self._root.resolve(f"{where.path}/{name}")
        if where is None or file is None or not stat.S_ISREG(self._root.mode(file.path)):
            return None
        try:
            library = self._root.program(file.path)
        except LayoutError:
            return None  # a linker script such as libc.so: the loader goes on searching as well
        if not isinstance(library, Elf) or library.abi != abi:
            return None
        return Found(where.path, name, file.path, where.links)


def _existing(root: Root, directories: Iterable[str]) -> dict[str, str]:
    """Map the canonical path of each directory that exists to its first spelling, in order.

    /lib/x86_64-linux-gnu and /usr/lib/x86_64-linux-gnu are often one directory.
    """
    existing: dict[str, str] = {}
    for directory in directories:
        here = root.resolve(directory)
        if here is not None:
            existing.setdefault(here.path, directory)
    return existing


def _read_conf(root: Root, path: str, depth: int) -> Iterator[str]:
    """Yield the directories of an ld.so.conf, as ldconfig(8): one a line, include with globs, # comments."""
    for line in root.text(path).splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] == "include":
            for pattern in words[1:]:
                folder, _slash, last = os.path.join(os.path.dirname(path), pattern).rpartition("/")
                for name in fnmatch.filter(root.names(folder), last):
                    # As glob(3): a leading dot has to be written. An editor's backup is not configuration.
                    if depth < _MAX_INCLUDES and (last.startswith(".") or not name.startswith(".")):
                        yield from _read_conf(root, f"{folder}/{name}", depth + 1)
        elif words[0].startswith("/"):
            yield words[0].partition("=")[0].rstrip("/") or "/"


def _directories(root: Root, loader: str) -> tuple[Iterable[str], Iterable[str]]:
    """Return the directories that are configured for a loader, and those built into it, by its file name."""
    if loader.startswith("ld-elf"):
        # rtld(1). What rc.conf's ldconfig_paths adds is for ports; these are in the hints of every host.
        bits = "32" if loader.startswith("ld-elf32") else ""
        built_in = [f"/lib{bits}", f"/usr/lib{bits}"]
        return [*built_in, f"/usr/local/lib{bits}"], built_in
    if loader.startswith("ld-musl"):
        return [], ["/lib", "/usr/local/lib", "/usr/lib"]
    # Debian's glibc has its multiarch directory built in, others lib64: class and machine tell them apart.
    multiarch = [f"{lib}/{n}" for lib in ("/lib", "/usr/lib") for n in root.names(lib) if "-linux-" in n]
    plain = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/libx32", "/usr/libx32", "/lib32", "/usr/lib32"]
    return _read_conf(root, "/etc/ld.so.conf", 0), multiarch + plain
