"""ELF files and scripts are read as the loader and the kernel read them, and no bytes break the reader."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layout.core.errors import LayoutError
from layout.host.elf import Elf, Script, read_program

SHELL = os.path.realpath("/bin/sh")
GCC = shutil.which("gcc")

needs_gcc = pytest.mark.skipif(GCC is None, reason="no gcc to make an example with")


def compile_program(folder: Path, *options: str, source: str = "int main(void) { return 0; }\n") -> Path:
    (folder / "main.c").write_text(source)
    assert GCC is not None
    made = subprocess.run(
        [GCC, "-o", folder / "main", folder / "main.c", *options], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"gcc cannot do {' '.join(options)}: {made.stderr.strip()[:200]}")
    return folder / "main"


def test_a_program_of_the_host_names_its_loader_and_its_libraries() -> None:
    elf = read_program("/bin/ls")
    assert isinstance(elf, Elf)
    assert elf.bits == (64 if sys.maxsize > 1 << 32 else 32)
    assert elf.little_endian == (sys.byteorder == "little")
    assert elf.interpreter is not None and os.path.exists(elf.interpreter)
    assert any(name.startswith("libc.") for name in elf.needed)
    assert not elf.static


def test_the_loader_itself_needs_nothing() -> None:
    program = read_program("/bin/ls")
    assert isinstance(program, Elf) and program.interpreter is not None
    loader = read_program(program.interpreter)
    assert isinstance(loader, Elf)
    assert loader.static
    assert loader.abi == program.abi


@needs_gcc
@pytest.mark.parametrize("option", ["-static", "-static-pie"])
def test_a_static_program_is_told_apart(tmp_path: Path, option: str) -> None:
    elf = read_program(str(compile_program(tmp_path, option)))
    assert isinstance(elf, Elf)
    assert elf.static
    assert elf.needed == ()


@needs_gcc
def test_runpath_and_rpath_are_kept_apart_and_split(tmp_path: Path) -> None:
    new = read_program(
        str(compile_program(tmp_path, "-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib:/opt/x,-z,nodefaultlib"))
    )
    assert isinstance(new, Elf)
    assert (new.runpath, new.rpath, new.nodeflib) == (("$ORIGIN/lib", "/opt/x"), (), True)
    old = read_program(str(compile_program(tmp_path, "-Wl,--disable-new-dtags,-rpath,/opt/y")))
    assert isinstance(old, Elf)
    assert (old.runpath, old.rpath, old.nodeflib) == ((), ("/opt/y",), False)


@needs_gcc
def test_filters_are_read(tmp_path: Path) -> None:
    elf = read_program(
        str(compile_program(tmp_path, "-shared", "-fPIC", "-Wl,-soname,liba.so.1,-f,libb.so.7,-F,libc.so.8"))
    )
    assert isinstance(elf, Elf)
    assert elf.soname == "liba.so.1"
    assert elf.filters == ("libc.so.8", "libb.so.7")


@needs_gcc
def test_section_headers_are_not_needed_and_not_believed(tmp_path: Path) -> None:
    program = compile_program(tmp_path)
    before = read_program(str(program))
    data = bytearray(program.read_bytes())
    wide = data[4] == 2
    data[0x28 if wide else 0x20 : 0x30 if wide else 0x24] = b"\xff" * (8 if wide else 4)  # e_shoff
    program.write_bytes(data)
    assert read_program(str(program)) == before


@pytest.mark.parametrize(
    ("line", "script"),
    [
        ("#!/bin/sh\n", Script("/bin/sh", "")),
        ("#! /bin/sh -e\necho\n", Script("/bin/sh", "-e")),
        ("#!/usr/bin/env  -S awk -f \r\n", Script("/usr/bin/env", "-S awk -f")),
        ("#!/bin/sh", Script("/bin/sh", "")),
    ],
)
def test_a_script_names_its_interpreter(tmp_path: Path, line: str, script: Script) -> None:
    (tmp_path / "script").write_bytes(line.encode())
    assert read_program(str(tmp_path / "script")) == script


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "another kind"),
        (b"hello\n", "another kind"),
        (b"\x7fELF", "damaged"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "damaged|type"),
        (b"#!\n", "no interpreter"),
        (b"#!  \0/bin/sh\n", "no interpreter"),
        (Path(SHELL).read_bytes()[:200], "damaged"),
        (Path(SHELL).read_bytes()[:5000], "damaged"),
    ],
    ids=["empty", "text", "magic", "zeros", "no-name", "nul", "cut-headers", "cut-segments"],
)
def test_other_bytes_are_refused(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(LayoutError, match=found) as caught:
        read_program(str(tmp_path / "file"))
    assert caught.value.path == str(tmp_path / "file")
    assert caught.value.exit_code == 1


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for path, found in [
        (str(tmp_path), "a directory"),
        (str(tmp_path / "fifo"), "a FIFO"),
        ("/dev/null", "a device"),
        (str(tmp_path / "none"), "no such file"),
        (str(tmp_path / "loop"), "symbolic links"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(LayoutError, match=found):
            read_program(path)


@needs_gcc
def test_an_object_file_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="ET_REL"):
        read_program(str(compile_program(tmp_path, "-c")))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated") / "elf"


_SEED = Path(os.path.realpath("/bin/true")).read_bytes()
# Headers and the dynamic segment, where a changed byte means something; then anywhere.
_PLACES = st.one_of(st.integers(0, 1023), st.integers(0, len(_SEED) - 1))
_BYTES = st.one_of(st.sampled_from(b"\x00\x01\x7f\x80\xff"), st.integers(0, 255))


@settings(max_examples=400, deadline=30_000)
@given(
    changes=st.lists(st.tuples(_PLACES, _BYTES), min_size=1, max_size=12),
    size=st.one_of(st.just(len(_SEED)), st.integers(0, len(_SEED))),
)
def test_mutated_files_give_an_answer_or_a_layout_error(
    scratch: Path, changes: list[tuple[int, int]], size: int
) -> None:
    data = bytearray(_SEED)
    for place, byte in changes:
        data[place] = byte
    scratch.write_bytes(data[:size])
    try:
        assert isinstance(read_program(str(scratch)), Elf | Script)
    except LayoutError as error:
        assert str(error).isprintable()


@settings(max_examples=200, deadline=30_000)
@given(
    data=st.binary(max_size=300), magic=st.sampled_from([b"", b"#!", b"\x7fELF\x01\x01", b"\x7fELF\x02\x02"])
)
def test_any_bytes_give_an_answer_or_a_layout_error(scratch: Path, data: bytes, magic: bytes) -> None:
    scratch.write_bytes(magic + data)
    try:
        assert isinstance(read_program(str(scratch)), Elf | Script)
    except LayoutError as error:
        assert str(error).isprintable()
