"""Unpack a root file system archive, safely and fast, with a SHA-256 manifest made in the same pass.

Two forked children do it, and neither could do harm if the archive took it over: one decompresses, as user
nobody, with no capability and no way to open a file; one parses and writes, its root changed to the staging
directory, with CHOWN, DAC_OVERRIDE, FOWNER, FSETID and SETFCAP. The parent looks at the first 16 bytes only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable
from functools import partial

from layout.core.errors import UsageError
from layout.host.unpack import children, confine
from layout.host.unpack.decompress import Compression, detect, prepare, pump
from layout.host.unpack.extract import Extractor
from layout.host.unpack.report import Done, Privileged, Unpacked
from layout.host.unpack.tarstream import MAX_BYTES, MAX_ENTRIES, TarReader

__all__ = ["MAX_BYTES", "MAX_ENTRIES", "Privileged", "Unpacked", "unpack"]

_KEEP = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP")
_FAST = (Compression.NONE, Compression.ZSTD)
"""Others are slower than hashing: a thread would take the processor from them."""
_INTERVAL = 0.1


def unpack(
    archive_fd: int,
    archive_path: str,
    staging_fd: int,
    manifest_fd: int,
    *,
    progress: Callable[[int, int], None] | None = None,
    max_bytes: int = MAX_BYTES,
    max_entries: int = MAX_ENTRIES,
) -> Unpacked:
    """Unpack the archive into the empty directory `staging_fd` and write its manifest to `manifest_fd`.

    `archive_fd` is a regular file, read from its start; its offset moves. `archive_path` names it in
    errors. The manifest is mtree(5), in the archive's order, complete only when this returns; whoever
    passed the descriptors makes them durable, and removes the staging directory after an error. `progress`
    gets bytes of the archive consumed and in all, at most ten times a second. `max_bytes` bounds the
    decompressed archive.

    Kept: numeric owners, modes with setuid bits, times, extended attributes, symbolic and hard links. An
    owner that the user namespace does not map becomes 0:0 without setuid. Left out and counted: devices,
    FIFOs, ACLs, file flags, attributes that could not be set. A later entry for a path replaces the
    earlier, unless one of them is a directory and the other is not. Call it as root, of the host or of a
    user namespace (user_namespaces(7)), from a process with one thread.

    Raise UsageError when the input is no archive; LayoutError, with the entry's name where one is to blame,
    when it is truncated, damaged, hostile or too big, when writing failed, or when a child died.
    """
    total = os.fstat(archive_fd).st_size
    try:
        os.lseek(archive_fd, 0, os.SEEK_SET)
    except OSError as error:
        raise UsageError(archive_path, f"no regular file ({error.strerror})", "an archive file") from None
    compression = detect(archive_fd, archive_path)
    family: list[children.Child] = []
    parent = os.pidfd_open(os.getpid()) if sys.platform == "linux" else -1
    pipe: tuple[int, ...] = ()
    try:
        stream = archive_fd
        if compression is not Compression.NONE:
            pipe = _wide_pipe()
            stream, sink = pipe
            _decompress(archive_fd, sink, compression, staging_fd, parent, family)

        def extract() -> Done:
            read = partial(_readinto, stream)
            reader = TarReader(read, max_bytes=max_bytes, max_entries=max_entries)
            return Extractor(reader, thread=compression in _FAST).run(manifest_fd)

        def inside(send: int) -> None:
            keep = (stream, manifest_fd, send)
            confine.confine(staging_fd, keep, _KEEP, parent=parent, nobody=False, files=1024)

        children.fork("unpacks", inside, extract, family)
        # Whoever writes into a pipe must notice that its reader is gone, and the other way round.
        for fd in pipe:
            os.close(fd)
        pipe = ()
        children.watch(family, _ticker(archive_fd, total, progress))
        done = children.outcome(family, archive_path)
    finally:
        for fd in pipe:
            os.close(fd)
        if parent >= 0:
            os.close(parent)
        for child in family:
            child.end()
    if progress is not None:
        progress(total, total)
    return _unpacked(done)


def _wide_pipe() -> tuple[int, int]:
    """Make a pipe that holds a megabyte, where there are such."""
    stream, sink = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # beyond fs.pipe-user-pages-soft: slower, no more
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 1 << 20)
    return stream, sink


def _decompress(
    archive_fd: int,
    sink: int,
    compression: Compression,
    staging_fd: int,
    parent: int,
    family: list[children.Child],
) -> None:
    """Start the child that decompresses the archive into `sink`."""
    engine = prepare(compression)

    def decompress() -> Done:
        pump(archive_fd, sink, compression, engine)
        return Done()

    def alone(send: int) -> None:
        confine.confine(staging_fd, (archive_fd, sink, send), (), parent=parent, nobody=True, files=0)

    children.fork("decompresses", alone, decompress, family)


def _unpacked(done: Done) -> Unpacked:
    """Return what the child reports, its bytes decoded as names of files."""
    return Unpacked(
        entries=done.entries,
        bytes=done.bytes_,
        left_out=done.left_out,
        setuid=tuple(
            Privileged(os.fsdecode(path), kind, mode, uid, gid, capability)
            for path, kind, mode, uid, gid, capability in done.setuid
        ),
        unmapped=done.unmapped,
        flags=tuple((os.fsdecode(path), os.fsdecode(names)) for path, names in done.flags),
    )


def _readinto(fd: int, view: memoryview) -> int:
    return os.readv(fd, [view])


def _ticker(fd: int, total: int, progress: Callable[[int, int], None] | None) -> Callable[[], None] | None:
    """Report how far the shared file offset has moved."""
    if progress is None:
        return None
    last = 0.0

    def tick() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _INTERVAL:
            last = now
            progress(min(os.lseek(fd, 0, os.SEEK_CUR), total), total)

    return tick
