"""What is measured on: bases, sites with many jails, trees and archives, made afresh in each run."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.tools import LAYOUT, need

if TYPE_CHECKING:
    from layout.actions.context import Context

_WORDS = 4000


class Site:
    """A ROOT with jails in it; nothing is mounted."""

    def __init__(self, root: Path, base: Path, names: list[str], *, manage: str = "session") -> None:
        self.root = root
        self.names = names
        options = ["--base", str(base), "--manage", manage, "--no-mount", "-q"]
        subprocess.run(
            [LAYOUT, "--root", root, "init", *options, *names], check=True, stdout=subprocess.DEVNULL
        )
        self.table = root.with_name(f"{root.name}.fstab")
        tables = [root / "etc/fstab.d" / f"{name}{half}.fstab" for name in names for half in ("", ".manage")]
        self.table.write_text("".join(table.read_text() for table in tables))

    def layout(self, *words: str) -> list[str]:
        """Return a command line of layout for this ROOT."""
        return [LAYOUT, "--root", str(self.root), *words]

    @property
    def context(self) -> Context:
        """Return what layout itself knows about the site, found anew."""
        from layout.actions.context import Context

        return Context.find(str(self.root), None)


def names(count: int) -> list[str]:
    """Return names of jails."""
    return [f"j{index:04d}" for index in range(count)]


def small_base(place: Path) -> Path:
    """Return a base of a few files: enough for a jail, so that a thousand of them are made quickly."""
    if not place.exists():
        for path in ("bin", "etc", "root", "usr/bin", "usr/local/etc", "var/log", "var/run", "tmp"):
            (place / path).mkdir(parents=True)
        (place / "root").chmod(0o700)
        (place / "tmp").chmod(0o1777)
        shutil.copy(shutil.which("busybox") or "/bin/sh", place / "bin/sh")
        (place / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (place / "etc/group").write_text("root:x:0:\n")
        (place / "var/log/messages").write_text("")
    return place


def base_with_skeleton(place: Path) -> Path:
    """Return a base whose skeleton has 500 files, 327 directories and 30 links, 1.84 MB: like Debian's."""
    if place.exists():
        return place
    small_base(place)
    dice = random.Random(500)
    tops = ["etc", "etc", "etc", "var", "var", "usr/local"]
    present = sum(
        path.is_dir() for top in ("etc", "root", "usr/local", "var", "tmp") for path in _all(place / top)
    )
    folders = [place / top for top in tops]
    for index in range(327 - present):
        parent = dice.choice(folders)
        if len(parent.relative_to(place).parts) > 5:
            parent = place / dice.choice(tops)
        folders.append(parent / f"d{index:03d}")
        folders[-1].mkdir()
    for index in range(500 - 3):
        size = 40_000 if index % 50 == 0 else dice.randrange(200, 5_550)
        path = dice.choice(folders) / f"file{index:03d}.conf"
        path.write_bytes(dice.randbytes(size))
        if index < 30:
            path.with_suffix(".link").symlink_to(path.name)
    return place


def _all(top: Path) -> list[Path]:
    return [top, *top.rglob("*")]


class Archive:
    """A root file system of about 25,000 files and 300 MB as archives, made from words and seeds."""

    def __init__(self, place: Path, files: int, size: int) -> None:
        place.mkdir(exist_ok=True)
        self.place = place
        self.files = files
        self.size = size

    @cached_property
    def plain(self) -> Path:
        """Return the .tar, compressible like text and programs are (about four to one)."""
        dice = random.Random(25)
        words = [dice.randbytes(dice.randrange(2, 9)).hex().encode() for _ in range(_WORDS)]
        weights = [1 / (rank + 3) for rank in range(_WORDS)]
        pool = b" ".join(dice.choices(words, weights, k=5_000_000 if self.size > 1e8 else 500_000))
        tops = ["bin", "etc", "lib", "root", "sbin", "tmp", "usr", "usr/bin", "usr/lib", "usr/share", "var"]
        folders = list(tops)
        for index in range(self.files // 10):
            parent = dice.choice(folders) if index % 3 else "usr/share"
            folders.append(f"{parent if parent.count('/') < 7 else 'usr/lib'}/folder{index}")
        sizes = [dice.lognormvariate(0, 1.6) for _ in range(self.files)]
        scale = self.size / sum(sizes)
        members = [(folder.split("/"), -1) for folder in folders]
        for index, share in enumerate(sizes):
            length = min(int(share * scale), len(pool) // 2)
            members.append(([*dice.choice(folders).split("/"), f"file{index}.dat"], length))
        path = self.place / "base.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            # Depth first, as every program that packs a tree writes them.
            for index, (parts, length) in enumerate(sorted(members)):
                name = "/".join(parts)
                if length < 0:
                    self._add(tar, name, tarfile.DIRTYPE)
                    continue
                start = dice.randrange(len(pool) - length)
                self._add(tar, name, tarfile.REGTYPE, pool[start : start + length])
                if index % 5 == 0:
                    self._add(tar, f"{name}.link", tarfile.SYMTYPE, target=parts[-1])
        return path

    @staticmethod
    def _add(tar: tarfile.TarFile, name: str, kind: bytes, data: bytes = b"", target: str = "") -> None:
        info = tarfile.TarInfo(f"./{name}")
        info.type = kind
        info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        info.size = len(data)
        info.mtime = 1_700_000_000
        info.linkname = target
        tar.addfile(info, io.BytesIO(data))

    def compressed(self, suffix: str) -> Path:
        """Return the archive as .tar.zst or .tar.xz. Raises Skip without the program."""
        path = self.place / f"base.tar.{suffix}"
        if not path.exists():
            command = {"zst": [need("zstd"), "-q", "-3"], "xz": [need("xz"), "-1", "-T1"]}[suffix]
            with self.plain.open("rb") as source, path.open("wb") as sink:
                subprocess.run([*command, "-c"], stdin=source, stdout=sink, check=True)
        return path


def usage(path: Path) -> tuple[int, int]:
    """Return bytes and inodes in use on the file system that holds `path`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.sync()
    found = os.statvfs(path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree


def du(*paths: Path) -> tuple[int, int]:
    """Return bytes and inodes of trees, as `du -s` counts them."""
    found = [os.lstat(path) for top in paths for path in _all(top)]
    inodes = {entry.st_ino: entry.st_blocks * 512 for entry in found}
    return sum(inodes.values()), len(inodes)
