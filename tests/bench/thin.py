"""The root of a thin jail against cp(1) of the same files."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.report import Row
from tests.bench.tools import Skip, need, rounds, spawn

if TYPE_CHECKING:
    from tests.bench.rows import Bench

_FILES = 40
_LARGEST = 8 << 20
"""Bytes: compilers' libraries are larger, and no daemon has one."""


def thin(bench: Bench) -> Iterator[Row]:
    """The root of forty files: as init leaves it to start, all at once, and when nothing has changed."""
    from layout.core.thin import ThinDirectory, ThinFile, ThinRoot
    from layout.host import thin_cache
    from layout.host.beneath import open_root

    libraries = _libraries()
    files = []
    for path in libraries:
        found = path.stat()
        mode = stat.S_IMODE(found.st_mode) & 0o755
        files.append(
            ThinFile(
                f"lib/{path.name}",
                str(path)[1:],
                mode,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
                found.st_ino,
                found.st_dev,
            )
        )
    root = ThinRoot("/", (ThinDirectory("lib", 0o755), *files))
    state, copy = bench.work / "thin", bench.work / "thin-cp"
    state.mkdir()

    def ours() -> float:
        with open_root(str(state)) as top:
            thin_cache.forget(top, "a")
            thin_cache.collect(top)
            begin = time.perf_counter()
            thin_cache.provide(top, "a", root)
            return time.perf_counter() - begin

    def learnt() -> float:
        with open_root(str(state)) as top:
            thin_cache.forget(top, "a")
            thin_cache.collect(top)
            thin_cache.learn(top, root)
            begin = time.perf_counter()
            thin_cache.provide(top, "a", root)
            return time.perf_counter() - begin

    def again() -> float:
        with open_root(str(state)) as top:
            begin = time.perf_counter()
            _, made = thin_cache.provide(top, "a", root)
            assert not made
            return time.perf_counter() - begin

    def floor() -> float:
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        return spawn([need("cp"), "-p", "-t", str(copy), *map(str, libraries)])

    told = rounds(bench.rounds(11), floor=floor, ours=ours, learnt=learnt, again=again)
    what = f"the root of a thin jail at its first start, {len(files)} files, {root.size / 1e6:.0f} MB"
    yield Row(what, "`cp -p` of them", told["learnt"], told["floor"], 2.0)
    yield Row("the same, of files not hashed by init", "`cp -p` of them", told["ours"], told["floor"], 2.0)
    yield Row("the same, when nothing has changed", "`cp -p` of them", told["again"], told["floor"], 0.5)


def _libraries() -> list[Path]:
    """Return forty libraries of the host, as those of a daemon are: most of them small, a few large."""
    found = []
    for directory in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"):
        if os.path.isdir(directory):
            paths = (one for one in Path(directory).iterdir() if ".so" in one.name)
            plain = (one for one in paths if one.is_file() and not one.is_symlink())
            found = sorted(one for one in plain if one.stat().st_size < _LARGEST)
        if len(found) >= _FILES:
            largest = sorted(found, key=lambda one: -one.stat().st_size)
            return [*largest[:4], *largest[4 :: max(1, len(largest) // _FILES)]][:_FILES]
    raise Skip(f"no {_FILES} libraries in a directory of this host")
