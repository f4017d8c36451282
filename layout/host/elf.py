"""Reads what a program needs from its file, and never runs it.

ldd(1) runs the program under its loader; for a file that is not trusted that is an attack, and for a file
of another platform it cannot work. What ld.so(8) reads, the program headers and the dynamic segment of
elf(5), is enough. Section headers are left alone: the loader does not look at them, so they can lie.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from dataclasses import dataclass
from typing import IO, Any

from layout.core.errors import LayoutError, printable

__all__ = ["Elf", "Script", "parse_program", "read_program"]

# Numbers of elf(5) and, for the last five, of the System V gABI as Solaris, FreeBSD and glibc extend it.
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH = 0, 1, 5, 10, 14, 15
_DT_RUNPATH, _DT_FLAGS_1, _DT_AUXILIARY, _DT_FILTER = 29, 0x6FFFFFFB, 0x7FFFFFFD, 0x7FFFFFFF
_DF_1_NODEFLIB = 0x800

# A real file stays far below these; they bound the work that a hostile header can ask for.
_MAX_SEGMENTS = 1024
_MAX_DYNAMIC = 1 << 20
_MAX_STRINGS = 16 << 20
_MAX_PATH = 4096

_EXPECTED = "an ELF program or library, or a script"


@dataclass(frozen=True, slots=True)
class Elf:
    """What ld.so(8) reads of one ELF file. Names are as written in the file, not yet looked for."""

    bits: int
    """Word size of the class: 32 or 64."""
    little_endian: bool
    machine: str
    """e_machine as elf(5) names it (EM_X86_64), or its number when it has no name there."""
    interpreter: str | None
    """The loader that PT_INTERP names, an absolute path."""
    soname: str | None
    needed: tuple[str, ...]
    filters: tuple[str, ...]
    """Libraries that stand in for this one's symbols (DT_FILTER, DT_AUXILIARY): FreeBSD's libc and libsys."""
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    nodeflib: bool
    """Linked with -z nodeflib: the loader's own directories are not searched."""

    @property
    def abi(self) -> tuple[int, bool, str]:
        """Class, byte order and machine: a library fits a program when these are equal."""
        return (self.bits, self.little_endian, self.machine)

    @property
    def static(self) -> bool:
        """Say whether it needs no loader and no library (static-pie included; so is a loader itself)."""
        return self.interpreter is None and not self.needed


@dataclass(frozen=True, slots=True)
class Script:
    """A text file that names its interpreter in the first line (execve(2))."""

    interpreter: str
    argument: str
    """Everything after the interpreter: the kernel of Linux passes it as one argument, '' is none."""


def read_program(path: str) -> Elf | Script:
    """Return what the file at `path` needs in order to run; links are followed.

    Raises LayoutError when it cannot be read, is not a regular file, or is neither an ELF program or library
    (ET_EXEC, ET_DYN) nor a script. Whatever the bytes are, no other exception comes out. Source: elf(5),
    ld.so(8), execve(2).
    """
    try:
        # Non-blocking: opening a FIFO must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LayoutError(path, found.lower(), _EXPECTED) from None
    # fdopen() refuses a directory itself, with its own exception: the kind is looked at before.
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise LayoutError(path, _kind(mode), _EXPECTED)
    with os.fdopen(fd, "rb") as file:
        return _program(path, file)


def parse_program(data: bytes, path: str) -> Elf | Script:
    """Return the same of a file that was read already; `path` is for messages. Raises as read_program."""
    return _program(path, io.BytesIO(data))


def _program(path: str, file: IO[bytes]) -> Elf | Script:
    try:
        head = file.read(_MAX_PATH)
        if head.startswith(b"#!"):
            return _script(path, head)
        if not head.startswith(b"\x7fELF"):
            raise LayoutError(path, "a file of another kind", _EXPECTED)
        return _elf(path, file)
    except LayoutError:
        raise
    except Exception as error:  # pyelftools does not say which exceptions damaged bytes can raise.
        raise _damaged(path, printable(str(error)) or type(error).__name__) from error


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _damaged(path: str, what: str) -> LayoutError:
    return LayoutError(
        path, f"a damaged ELF file ({what})", _EXPECTED, "reinstall the package that the file belongs to"
    )


def _script(path: str, head: bytes) -> Script:
    line = head[2:].partition(b"\n")[0].strip(b" \t\r")
    words = line.split(None, 1)
    if not words or b"\0" in line:
        raise LayoutError(path, "a script whose first line names no interpreter", "'#!' and a path")
    return Script(os.fsdecode(words[0]), os.fsdecode(words[1]) if len(words) > 1 else "")


def _elf(path: str, file: IO[bytes]) -> Elf:
    from elftools.elf.elffile import ELFFile  # 90 ms, for those who read ELF files only

    elf: Any = ELFFile(file)
    if elf["e_type"] not in {"ET_EXEC", "ET_DYN"}:
        raise LayoutError(path, f"an ELF file of type {elf['e_type']}", "a program or a library")
    if elf["e_phnum"] > _MAX_SEGMENTS:
        raise _damaged(path, f"{elf['e_phnum']} segments")
    # Not iter_segments(): for the dynamic segment it parses every section header (three times the work).
    headers = []
    for number in range(elf["e_phnum"]):
        file.seek(elf["e_phoff"] + number * elf["e_phentsize"])
        headers.append(elf.structs.Elf_Phdr.parse_stream(file))

    interpreter = None
    tags: list[tuple[int, int]] = []
    for header in headers:
        if header["p_type"] == "PT_INTERP" and interpreter is None:
            interpreter = _interpreter(path, _segment(path, file, header, _MAX_PATH))
        elif header["p_type"] == "PT_DYNAMIC" and not tags:
            tags = _tags(elf, _segment(path, file, header, _MAX_DYNAMIC))

    values: dict[int, int] = dict(reversed(tags))
    strings = _strings(path, file, headers, values) if tags else b""

    def text(tag: int) -> tuple[str, ...]:
        return tuple(_string(path, strings, value) for found, value in tags if found == tag)

    def directories(tag: int) -> tuple[str, ...]:
        return tuple(part for value in text(tag) for part in value.split(":") if part)

    return Elf(
        bits=elf.elfclass,
        little_endian=elf.little_endian,
        machine=str(elf["e_machine"]),
        interpreter=interpreter,
        soname=next(iter(text(_DT_SONAME)), None),
        needed=text(_DT_NEEDED),
        filters=text(_DT_FILTER) + text(_DT_AUXILIARY),
        rpath=directories(_DT_RPATH),
        runpath=directories(_DT_RUNPATH),
        nodeflib=bool(values.get(_DT_FLAGS_1, 0) & _DF_1_NODEFLIB),
    )


def dynamic_names(path: str) -> frozenset[str]:
    """Return all names in the dynamic string table of an ELF file: functions, and libraries.

    Imported and defined ones alike; none for a static program. Raises LayoutError as read_program does.
    """
    from elftools.elf.elffile import ELFFile

    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            headers = []
            for number in range(min(elf["e_phnum"], _MAX_SEGMENTS)):
                file.seek(elf["e_phoff"] + number * elf["e_phentsize"])
                headers.append(elf.structs.Elf_Phdr.parse_stream(file))
            for header in headers:
                if header["p_type"] == "PT_DYNAMIC":
                    tags = _tags(elf, _segment(path, file, header, _MAX_DYNAMIC))
                    strings = _strings(path, file, headers, dict(reversed(tags)))
                    return frozenset(name.decode("ascii", "replace") for name in strings.split(b"\0"))
    except LayoutError:
        raise
    except Exception as error:  # as above: whatever damaged bytes raise
        raise _damaged(path, printable(str(error)) or type(error).__name__) from error
    return frozenset()


def _segment(path: str, file: IO[bytes], header: Any, limit: int) -> bytes:
    size: int = header["p_filesz"]
    if size > limit:
        raise _damaged(path, f"a {header['p_type']} of {size} bytes")
    file.seek(header["p_offset"])
    data = file.read(size)
    if len(data) < size:
        raise _damaged(path, f"{header['p_type']} ends beyond the file")
    return data


def _interpreter(path: str, data: bytes) -> str:
    name, terminator, _rest = data.partition(b"\0")
    if not terminator or not name.startswith(b"/"):
        raise _damaged(path, "PT_INTERP is not an absolute path")
    return os.fsdecode(name)


def _tags(elf: Any, data: bytes) -> list[tuple[int, int]]:
    layout = ("<" if elf.little_endian else ">") + ("QQ" if elf.elfclass == 64 else "II")
    tags = []
    for tag, value in struct.iter_unpack(layout, data[: len(data) - len(data) % struct.calcsize(layout)]):
        if tag == _DT_NULL:
            break
        tags.append((tag, value))
    return tags


def _strings(path: str, file: IO[bytes], headers: list[Any], values: dict[int, int]) -> bytes:
    """Return the dynamic string table: DT_STRTAB is an address, PT_LOAD says where in the file it lies."""
    address, size = values.get(_DT_STRTAB), values.get(_DT_STRSZ, 0)
    if address is None:
        return b""
    if size > _MAX_STRINGS:
        raise _damaged(path, f"a string table of {size} bytes")
    for header in headers:
        start = header["p_vaddr"]
        if header["p_type"] == "PT_LOAD" and start <= address < start + header["p_filesz"]:
            file.seek(address - start + header["p_offset"])
            data = file.read(size)
            if len(data) == size:
                return data
            break
    raise _damaged(path, "its string table lies beyond the file")


def _string(path: str, strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset)
    if end < 0:
        raise _damaged(path, "a name lies outside the string table")
    return os.fsdecode(strings[offset:end])
