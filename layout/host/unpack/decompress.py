"""Decompress an archive in a child of its own that can reach nothing but its input and a pipe."""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Protocol, assert_never

from layout.core.errors import UsageError
from layout.host.unpack.report import ArchiveError

__all__ = ["Compression", "detect", "prepare", "pump"]


class Compression(StrEnum):
    """How an archive is compressed."""

    NONE = "none"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    BZIP2 = "bzip2"


_INPUT = 1 << 17
_OUTPUT = 1 << 20
_ZSTD_INPUT = 1 << 14  # zstandard has no limit for the output of one call: 32768 times this at the very worst
_XZ_MEMORY = 512 << 20  # xz -9 needs 65 MiB
_EXPECTED = "tar, alone or compressed with gzip, xz, zstd or bzip2"

_FOREIGN = (
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"LZIP", "lzip data"),
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"\x1f\x9d", "data of compress(1)"),
    (b"hsqs", "a squashfs image"),
    (b"!<arch>\n", "an ar archive or Debian package"),
    (b"070701", "a cpio archive"),
)


class _Engine(Protocol):
    """What one stream of zlib, lzma, bz2 and zstandard have in common, once wrapped."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def detect(fd: int, path: str) -> Compression:
    """Tell the compression from the first bytes, whatever the name says; the file offset stays.

    Raise UsageError for an empty file or a format that is known to be none of ours.
    """
    head = os.pread(fd, 16, 0)
    if not head:
        raise UsageError(path, "an empty file", _EXPECTED)
    if head.startswith(b"\x1f\x8b"):
        return Compression.GZIP
    if head.startswith(b"\xfd7zXZ\0"):
        return Compression.XZ
    if head.startswith(b"\x28\xb5\x2f\xfd") or (0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18"):
        return Compression.ZSTD
    if head[:3] == b"BZh" and head[3:4] in b"123456789" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return Compression.BZIP2
    for magic, name in _FOREIGN:
        if head.startswith(magic):
            raise UsageError(path, name, _EXPECTED)
    return Compression.NONE


def prepare(compression: Compression) -> Callable[[], _Engine]:
    """Import what the compression needs, before the root is changed; return a maker of engines."""
    match compression:
        case Compression.GZIP:
            return _Gzip
        case Compression.XZ:
            return lambda: _Bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
        case Compression.BZIP2:
            return lambda: _Bounded(bz2.BZ2Decompressor())
        case Compression.ZSTD:
            import zstandard

            def zstd() -> _Engine:
                engine: _Engine = zstandard.ZstdDecompressor().decompressobj()
                return engine

            return zstd
        case Compression.NONE:
            raise ValueError("nothing to decompress")
        case _:
            assert_never(compression)


def pump(source: int, sink: int, compression: Compression, engine: Callable[[], _Engine]) -> None:
    """Decompress everything that is read from `source` into the pipe `sink`.

    Raise ArchiveError for damaged or truncated data and for anything but padding between and behind streams,
    BrokenPipeError when the reader is gone.
    """
    for data in _decompressed(source, compression, engine):
        view = memoryview(data)
        while view:
            view = view[os.write(sink, view) :]


def _decompressed(source: int, compression: Compression, make: Callable[[], _Engine]) -> Iterator[bytes]:
    size = _ZSTD_INPUT if compression is Compression.ZSTD else _INPUT
    padding = compression is not Compression.BZIP2  # gzip(1) and xz(1) allow zeros after a stream
    engine: _Engine | None = None
    data = b""
    while True:
        if not data:
            data = os.read(source, size)
            if not data:
                break
        if engine is None:
            if padding and compression is not Compression.ZSTD:
                data = data.lstrip(b"\0")
                if not data:
                    continue
            engine = make()
        try:
            out = engine.decompress(data)
            if out:
                yield out
            # Bounded output: more may be waiting inside without any new input.
            while not engine.eof and getattr(engine, "waiting", False) and (out := engine.decompress(b"")):
                yield out
        except BrokenPipeError:
            raise
        except Exception as error:  # each library's own class: zstandard does not export it in all versions
            raise ArchiveError("", f"damaged {compression} data ({error})", "a whole archive") from None
        if engine.eof:
            data = engine.unused_data
            engine = None
        else:
            data = b""
    if engine is not None:
        raise ArchiveError("", f"truncated {compression} data", "a whole archive", "fetch the archive again")


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.waiting = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, /) -> bytes:
        out = self._inner.decompress(data or self._inner.unconsumed_tail, _OUTPUT)
        self.waiting = len(out) == _OUTPUT or bool(self._inner.unconsumed_tail)
        return out


class _Bounded:
    """A stream of xz or bzip2: so many bytes of output for each call, however few went in."""

    def __init__(self, inner: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def waiting(self) -> bool:
        return not self._inner.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, /) -> bytes:
        return self._inner.decompress(data, _OUTPUT)
