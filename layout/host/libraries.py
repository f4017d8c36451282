"""What a set of programs needs in order to run: their libraries, loaders, interpreters and links.

Only reads the host and runs nothing. The embedded base `host` and thin jails are made from it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import assert_never

from layout.core.errors import LayoutError
from layout.host.elf import Elf, Script
from layout.host.ldso import Found, Loaded, Resolved, Root, Search

__all__ = ["PATH", "Closure", "ClosureFile", "ClosureLink", "Missing", "library_closure"]

PATH = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
"""Where programs are looked for: no directory in which anyone but the base system installs."""

# What a C library opens by name while it runs, so that no file says it is needed: the databases of
# nsswitch.conf(5), and libgcc_s for pthread_cancel(3) and pthread_exit(3), which abort without it.
_DLOPENED = {
    "libc.so.6": ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1"),
    "libc.so.7": ("libgcc_s.so.1",),
}

# Scripts that hand over to a program which their first line does not name (Ubuntu's ldconfig).
_COMPANIONS = {"ldconfig": "ldconfig.real"}

# Trees that are split from the base or made per jail: what belongs to the base cannot lie there.
_FOREIGN = re.compile(r"/(etc|var|tmp|root|home|run|proc|dev|sys)(/|$)")


@dataclass(frozen=True, slots=True)
class ClosureFile:
    """A program or library: the content of `source` under the name `path`."""

    path: str
    """Absolute within the root; no directory of it is a symlink."""
    source: str
    """Canonical path within the root."""
    mode: int
    """st_mode of the source, permission bits only."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class ClosureLink:
    """A symlink of the root that leads to something in the closure."""

    path: str
    """Absolute within the root; no directory of it is a symlink."""
    target: str
    """Where it leads in the end: absolute within the root, never another link."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A wanted program that is left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Closure:
    """Everything that has to be there for the programs to run, sorted by path."""

    files: tuple[ClosureFile, ...]
    links: tuple[ClosureLink, ...]
    directories: tuple[str, ...]
    """Directories with libraries that a loader finds only by ld.so.conf(5) and the cache of ldconfig(8)."""
    missing: tuple[Missing, ...]

    def beside_libc(self) -> Iterator[ClosureLink]:
        """Yield the links that take the place of the cache of ldconfig(8): every loader looks beside libc."""
        libc = (f.path for f in self.files if os.path.basename(f.path).startswith("libc.so."))
        beside = os.path.dirname(next(libc, ""))
        for file in self.files:
            directory, name = os.path.split(file.path)
            if beside and directory in self.directories:
                yield ClosureLink(f"{beside}/{name}", file.path)


def library_closure(
    programs: Iterable[str],
    root: str = "/",
    *,
    wanted: Iterable[str] = (),
    without: Collection[str] = (),
    modules: Iterable[str] = (),
) -> Closure:
    """Return the files and links that `programs` need in order to run inside `root`.

    A program is an absolute path, or a name that is looked for in PATH above. Those in `wanted` are left out
    and reported in `missing` when they, or something they need, cannot be had: for `programs` that is an
    error. A wanted program is also left out when it needs a file whose name starts with one of `without`.
    The interpreter of a script and what glibc opens while it runs (name services, libgcc_s) are included.
    `modules` are absolute paths of libraries that are opened by name (dlopen(3)): they and what they need.
    Raises LayoutError: path, what was found, what was expected. Source: ld.so(8), execve(2), elf(5).
    """
    builder = _Builder(Root(root))
    for name in programs:
        builder.add(name, ())
    for name in modules:
        builder.add_module(name)
    missing = []
    for name in wanted:
        try:
            builder.add(name, tuple(without))
        except LayoutError as error:
            missing.append(Missing(name, f"{error.path}: {error.found}"))
    return builder.closure(missing)


class _Builder:
    """Collects the closure one program at a time; a program that fails leaves nothing behind."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._searches: dict[str, Search] = {}
        self._files: dict[str, str] = {}  # path -> source
        self._places: dict[str, str] = {}  # source -> the first path that has its content
        self._links: set[str] = set()
        self._configured: set[str] = set()
        self._loaded_by = ""

    def add(self, name: str, without: tuple[str, ...]) -> None:
        """Add one program with everything it needs. Raises LayoutError."""
        needs = _Needs()
        self._program(name, needs, without)
        self._take(needs)

    def add_module(self, name: str) -> None:
        """Add a library that a program opens by its path, with everything it needs. Raises LayoutError."""
        needs = _Needs()
        here, directory = self._root.resolve(name), self._root.resolve(os.path.dirname(name))
        if here is None or directory is None or not stat.S_ISREG(self._root.mode(here.path)):
            raise LayoutError(name, "nothing by that name", "a library")
        library = self._root.program(here.path)
        if not isinstance(library, Elf):
            raise LayoutError(name, "a script", "a library")
        needs.place(f"{directory.path.rstrip('/')}/{os.path.basename(name)}", here.path)
        needs.links.update(directory.links)
        self._libraries(name, here.path, library, needs, (), self._loaded_by)
        self._take(needs)

    def _take(self, needs: _Needs) -> None:
        for path, source in needs.files.items():
            self._files.setdefault(path, source)
            self._places.setdefault(source, path)
        self._links |= needs.links
        self._configured |= needs.configured

    def closure(self, missing: list[Missing]) -> Closure:
        """Return what was collected: each content once, every other name of it as a link."""
        files, links = [], {}
        for path, source in self._files.items():
            if self._places[source] != path:
                links[path] = self._places[source]
                continue
            status = self._status(source)
            files.append(ClosureFile(path, source, stat.S_IMODE(status.st_mode), status.st_size))
        for path in self._links:
            here = self._root.resolve(path)
            if here is not None and path not in self._files and not _FOREIGN.match(path):
                links[path] = self._places.get(here.path, here.path)
        return Closure(
            tuple(sorted(files, key=lambda file: file.path.split("/"))),
            tuple(ClosureLink(path, links[path]) for path in sorted(links, key=lambda path: path.split("/"))),
            tuple(sorted(self._configured)),
            tuple(missing),
        )

    def _status(self, source: str) -> os.stat_result:
        try:
            return os.lstat(self._root.real(source))
        except OSError as error:  # gone since it was read: packages are being upgraded
            raise LayoutError(
                source, str(error.strerror).lower(), "a file that was just read", "try again"
            ) from None

    def _find(self, name: str) -> tuple[str, Resolved]:
        """Return a program's absolute name, and where that leads. Raises LayoutError."""
        # An absolute name is that of a profile; the others are those of a base of the host's programs.
        is_absolute = name.startswith("/")
        for candidate in (name,) if is_absolute else (f"{directory}/{name}" for directory in PATH):
            here = self._root.resolve(candidate)
            if here is not None and stat.S_IFMT(self._root.mode(here.path)) == stat.S_IFREG:
                return candidate, here
        if is_absolute:
            raise LayoutError(name, "nothing by that name", "a program", "install it")
        hint = "install it, or give --base a directory or an archive"
        raise LayoutError(name, "nothing by that name", f"a program in {' '.join(PATH)}", hint)

    def _program(self, name: str, needs: _Needs, without: tuple[str, ...]) -> None:
        candidate, here = self._find(name)
        if here.path in needs.programs:
            return
        needs.programs.add(here.path)
        _refuse(candidate, here.path, without)
        # The content lies at its own place, and the name that was asked for is a link to it; where its own
        # place belongs to another tree than the base, the name takes the content.
        asked = self._root.resolve(os.path.dirname(candidate))
        place = f"{asked.path.rstrip('/')}/{os.path.basename(candidate)}" if asked else here.path
        needs.place(place if _FOREIGN.match(here.path) else here.path, here.path)
        needs.links.update(here.links)
        if not self._root.mode(here.path) & 0o111:
            raise LayoutError(candidate, "a file that nobody may execute", "a program")
        match self._root.program(here.path):
            case Script(interpreter, argument):
                self._interpreter(candidate, interpreter, argument, needs, without)
            case Elf() as elf:
                self._loaded_by = self._loaded_by or elf.interpreter or ""
                self._libraries(candidate, here.path, elf, needs, without, elf.interpreter or "")
            case unknown:
                assert_never(unknown)
        companion = _COMPANIONS.get(os.path.basename(candidate))
        if companion and self._root.resolve(f"{os.path.dirname(candidate)}/{companion}"):
            self._program(f"{os.path.dirname(candidate)}/{companion}", needs, without)

    def _interpreter(
        self, script: str, interpreter: str, argument: str, needs: _Needs, without: tuple[str, ...]
    ) -> None:
        if not interpreter.startswith("/"):
            raise LayoutError(
                script, f"a script for the interpreter {interpreter}", "an absolute path after '#!'"
            )
        self._program(interpreter, needs, without)
        if os.path.basename(interpreter) == "env":
            words = [word for word in argument.split() if not word.startswith("-") and "=" not in word]
            if words:
                self._program(words[0], needs, without)

    def _libraries(
        self, program: str, path: str, elf: Elf, needs: _Needs, without: tuple[str, ...], loader: str
    ) -> None:
        """Add what a loader would load for one program: breadth first, each name once, as ld.so(8)."""
        known: set[str] = set()
        if elf.interpreter is not None:
            known |= self._loader(program, elf, needs)
        search = self._search(loader)
        queue = [Loaded(elf, os.path.dirname(path), None)]
        for user in queue:
            # A loader may do without what only speeds a library up or stands in for its symbols.
            optional = user.elf.filters + _DLOPENED.get(user.elf.soname or "", ())
            for name in dict.fromkeys(user.elf.needed + optional):
                if name in known:
                    continue
                found = search.find(name, user)
                if found is None and name not in user.elf.needed:
                    continue
                if found is None:
                    hint = "install the package that it is in, and run ldconfig(8)"
                    raise LayoutError(program, f"that it needs {name}, which is nowhere", "its library", hint)
                _refuse(program, name, without)
                known.add(name)
                queue.append(self._load(found, user, needs, known))

    def _load(self, found: Found, user: Loaded, needs: _Needs, known: set[str]) -> Loaded:
        library = self._root.program(found.source)
        assert isinstance(library, Elf)  # Search returns nothing else
        needs.place(f"{found.directory}/{found.name}", found.source)
        needs.links.update(found.links)
        if found.configured:
            needs.configured.add(found.directory)
        if library.soname:
            known.add(library.soname)
        return Loaded(library, found.directory, user)

    def _loader(self, program: str, elf: Elf, needs: _Needs) -> set[str]:
        """Add the loader of a program; return the names by which libraries ask for it."""
        interpreter = elf.interpreter or ""
        directory, _slash, name = interpreter.rpartition("/")
        where, here = self._root.resolve(directory or "/"), self._root.resolve(interpreter)
        if where is None or here is None:
            raise LayoutError(program, f"the loader {interpreter}, which does not exist", "its loader")
        loader = self._root.program(here.path)
        if not isinstance(loader, Elf) or loader.abi != elf.abi:
            raise LayoutError(
                program, f"the loader {interpreter}, which is for another machine", "its loader"
            )
        needs.place(f"{where.path.rstrip('/')}/{name}", here.path)
        needs.links.update(where.links)
        return {name, loader.soname or name}

    def _search(self, interpreter: str) -> Search:
        if interpreter not in self._searches:
            self._searches[interpreter] = Search(self._root, interpreter)
        return self._searches[interpreter]


class _Needs:
    """What one program adds, until it is known that all of it is there."""

    def __init__(self) -> None:
        self.programs: set[str] = set()
        self.files: dict[str, str] = {}
        self.links: set[str] = set()
        self.configured: set[str] = set()

    def place(self, path: str, source: str) -> None:
        """Ask for the content of `source` under the name `path`."""
        self.files.setdefault(path, source)


def _refuse(program: str, path: str, without: tuple[str, ...]) -> None:
    name = os.path.basename(path)
    if without and name.startswith(without):
        raise LayoutError(program, f"that it needs {name}", "a program that does without it")
