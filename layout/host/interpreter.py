"""A tiny base with nothing in it but the running Python: what `layout selftest` puts into its jails."""

from __future__ import annotations

import json
import os
import sys

from layout.core.errors import LayoutError
from layout.host.attacks import files
from layout.host.elf import Elf, read_program
from layout.host.run import run

HOME = "/usr/lib/selftest"
"""Of the interpreter in the base: it looks for its library beside itself."""
_MODULES = (
    "__future__ contextlib ctypes collections.abc errno fcntl functools json os platform pty re select "
    "signal socket stat struct sys termios time traceback typing warnings zlib encodings.ascii "
    "encodings.latin_1 encodings.utf_8"
)
_LOOK = """
import importlib, json, sys
for name in sys.argv[1].split():
    try:
        importlib.import_module(name)
    except ImportError:
        if name not in ("zlib", "pty"):
            raise
files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
with open("/proc/self/maps") as maps:
    mapped = sorted({line.split(None, 5)[5].strip() for line in maps if ".so" in line and "/" in line})
print(json.dumps([sys.executable, sys.platlibdir, "%d.%d" % sys.version_info[:2], files, mapped, sys.path]))
"""
_DIRECTORIES = (
    *("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "usr/local", "usr/lib"),
    *("var/tmp", "var/log", "var/lib", "var/db", "var/run", "var/cache"),
)


def build(top: str) -> str:
    """Make the base at `top`, a new directory of the host; return the interpreter's path in it.

    Raises LayoutError when this Python cannot be taken along.
    """
    executable, libraries, version, modules, mapped, search = _look()
    for name in _DIRECTORIES:
        files.directories(f"{top}/{name}")
    place = f"{HOME}/bin/python3"
    _copy(executable, f"{top}{place}", 0o755)
    stdlib = f"{top}{HOME}/{libraries}/python{version}"
    files.directories(f"{stdlib}/lib-dynload")
    roots = sorted((path for path in search if path), key=len, reverse=True)
    for file in modules:
        root = next((path for path in roots if file.startswith(path + "/")), None)
        if root is None:
            raise LayoutError(file, "a module outside sys.path", "one of Python's own library")
        below = file[len(root) + 1 :]
        _copy(file, f"{stdlib}/{'lib-dynload/' if root.endswith('lib-dynload') else ''}{below}", 0o644)
    program = _elf(executable)
    if program is not None and program.interpreter is not None:
        _copy(program.interpreter, f"{top}{program.interpreter}", 0o755)
    _libraries(top, mapped, program)
    for name, text in (
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ):
        with open(f"{top}/{name}", "w", encoding="ascii") as out:
            out.write(text)
    return place


def _look() -> tuple[str, str, str, list[str], list[str], list[str]]:
    """Ask a fresh interpreter what it loads. Raises LayoutError."""
    executable = os.path.realpath(sys.executable)
    done = run(executable, "-I", "-S", "-c", _LOOK, _MODULES, timeout=20)
    try:
        found = json.loads(done.stdout)
        return executable, found[1], found[2], found[3], found[4], found[5]
    except (ValueError, IndexError):
        raise LayoutError(executable, repr(done.stdout[:80]), "a list of its modules") from None


def _libraries(top: str, mapped: list[str], program: Elf | None) -> None:
    """Put every library beside libc, where each loader looks, under the name by which it is asked for."""
    loader = os.path.realpath(program.interpreter) if program is not None and program.interpreter else ""
    found = {}
    for path in mapped:
        library = _elf(path)
        if library is not None and os.path.realpath(path) != loader and "/lib-dynload/" not in path:
            found[path] = library.soname or os.path.basename(path)
    home = next(
        (os.path.dirname(path) for path, name in found.items() if name.startswith("libc.")), "/usr/lib"
    )
    for path, name in found.items():
        _copy(path, f"{top}{home}/{name}", 0o755)


def _elf(path: str) -> Elf | None:
    found = read_program(path)
    return found if isinstance(found, Elf) else None


def _copy(source: str, target: str, mode: int) -> None:
    if not os.path.lexists(target):
        files.copy(source, target, mode)
