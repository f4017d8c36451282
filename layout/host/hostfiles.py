"""The host's own files: configuration, rendered tables, fstab. Read whole, written whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from layout.core.errors import LayoutError, UsageError, reason_of
from layout.host.beneath import Dir, open_root
from layout.host.privilege import AS_ROOT, is_root

LIMIT = 16 << 20
_SHOWN = 64 << 10


def read_text(path: str) -> str | None:
    """Return the content of a regular file, or None when there is none. Bytes that are no UTF-8 survive.

    Follows symbolic links: these are the administrator's files. Raises LayoutError for anything that is no
    regular file or is larger than 16 MiB.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        hint = AS_ROOT if isinstance(error, PermissionError) and not is_root() else ""
        raise LayoutError(path, reason_of(error), "a readable file", hint) from None
    _require_regular(fd, path)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if found.st_size > LIMIT:
            raise LayoutError(path, f"{found.st_size} bytes", f"at most {LIMIT}")
        return file.read(LIMIT).decode("utf-8", "surrogateescape")


def files_of(path: str) -> list[str]:
    """Return a file, or the files of a directory that stands in its place; nothing when there is neither."""
    try:
        return [f"{path}/{name}" for name in sorted(os.listdir(path))]
    except NotADirectoryError:
        return [path]
    except OSError:
        return []


def source(path: str) -> os.stat_result:
    """Return the status of what the administrator named, links followed. Raises OSError."""
    return os.stat(path)


def absolute(path: str) -> str:
    """Return a path that means the same from any working directory. Links stay: they may be moved on."""
    return os.path.abspath(path)


def canonical(path: str) -> str:
    """Return the path without symbolic links."""
    return os.path.realpath(path)


def open_regular(path: str) -> int:
    """Return a descriptor for reading what the administrator named. Raises LayoutError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    _require_regular(fd, path)
    return fd


def _require_regular(fd: int, path: str) -> None:
    """Close what is no regular file, and say what it is. Raises LayoutError."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        found = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise LayoutError(path, found, "a regular file")


def size(path: str) -> int:
    """Return the size of a file in bytes, 0 when there is none. Raises OSError."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def since(path: str, begin: int) -> str:
    """Return what a file has from byte `begin` on, of more than 64 KiB the end; all of a file begun anew.

    A log grows as its jail likes, without a limit. Raises LayoutError, OSError.
    """
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return ""
    with os.fdopen(fd, "rb") as file:
        end = os.fstat(fd).st_size
        file.seek(max(begin if begin <= end else 0, end - _SHOWN))
        return file.read(_SHOWN).decode("utf-8", "surrogateescape")


def write_text(path: str, text: str, mode: int) -> None:
    """Write a file whole: temporary name, fsync, rename. Its directories are made, mode 0755.

    A file that is a symbolic link is refused, not followed and not replaced. Raises LayoutError, OSError.
    """
    try:
        _write(path, text, mode)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        reason = reason_of(error)
        raise LayoutError(path, reason, "a file that can be written") from None


def _write(path: str, text: str, mode: int) -> None:
    head, _, name = path.rpartition("/")
    with make_directories(head) as directory:
        found = directory.lstat(name)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise LayoutError(
                path,
                "a symbolic link or no regular file",
                "a regular file or nothing",
                "name the file itself, or move it aside",
            )
        if found is not None:
            mode = stat.S_IMODE(found.st_mode)
        directory.write_whole(name, text.encode("utf-8", "surrogateescape"), mode)


def make_directories(path: str, mode: int = 0o755) -> Dir:
    """Open a directory by its absolute path, making what is missing of it. Raises LayoutError, OSError."""
    here = open_root("/")
    here.path = ""
    for part in [part for part in path.split("/") if part]:
        try:
            try:
                below = here.open(part)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    here.make_dir(part, mode)
                below = here.open(part)
        finally:
            here.close()
        here = below
    return here


def remove(path: str) -> bool:
    """Remove a file; say whether there was one. Raises LayoutError, OSError."""
    head, _, name = path.rpartition("/")
    try:
        with open_root(head) as directory:
            directory.unlink(name)
    except FileNotFoundError:
        return False
    return True


def read_toml(path: str) -> dict[str, object] | None:
    """Return a parsed TOML file, or None when there is none. Raises UsageError that names file and line."""
    text = read_text(path)
    return None if text is None else parse_toml(text, path)


def parse_toml(text: str, name: str) -> dict[str, object]:
    """Parse TOML. Raises UsageError that names the file and the place."""
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: a number without end, among others
        raise UsageError(
            name, str(error)[:200] or "nesting without end", "TOML", "see layout.toml(5)"
        ) from None


def discard(fd: int) -> None:
    """Let descriptor `fd` lead to /dev/null from now on."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, fd)
    os.close(null)
