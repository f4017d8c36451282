"""Linker hints are read as rtld(1) reads them, and what a jail can write to is told."""

from __future__ import annotations

import struct

import pytest

from layout.core import size
from layout.core.autorun import hinted, is_writable


def hints(text: str, order: str = "<", version: int = 1) -> bytes:
    data = text.encode() + b"\0"
    head = struct.pack(f"{order}6I", 0x746E6845, version, 128, len(data), 0, len(text))
    return head.ljust(128, b"\0") + data


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_the_directories_of_hints_are_read(order: str) -> None:
    assert hinted(hints("/lib:/usr/lib:/var/tmp", order)) == ["/lib", "/usr/lib", "/var/tmp"]


@pytest.mark.parametrize(
    "data",
    [b"", b"text", hints("/lib")[:100], hints("/lib", version=2), hints("/lib")[:-3], b"\xff" * 200],
    ids=["empty", "text", "cut", "version", "short", "noise"],
)
def test_anything_else_is_no_hints(data: bytes) -> None:
    assert hinted(data) is None


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        *[(path, False) for path in ("/lib", "/usr/local/lib", "/variety")],
        *[(path, True) for path in ("/var/lib", "//tmp", "/./var", "lib", "/usr/../var", "/t/var")],
    ],
)
def test_what_a_jail_can_write_to_is_known(directory: str, expected: bool) -> None:
    assert is_writable(directory) is expected


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *[("4096", 4096), ("512K", 1 << 19), ("64M", 1 << 26), ("1g", 1 << 30), ("2TB", 2 << 40)],
        *[(text, None) for text in ("", "-1", "1.5G", "M", "9" * 20)],
    ],
)
def test_sizes_are_read_as_administrators_write_them(text: str, count: int | None) -> None:
    assert size.parse(text) == count


def test_sizes_are_shown_in_the_largest_unit() -> None:
    assert [size.show(n) for n in (0, 1023, 1024, 5 << 20, 3 << 40)] == [
        "0 bytes",
        "1023 bytes",
        "1K",
        "5M",
        "3T",
    ]
