"""The reader alone: what it accepts, what it refuses, and that nothing else comes out of any bytes."""

from __future__ import annotations

import base64
import io
import tarfile

import pytest
from handmade import END, header, long_name, member, pax
from hypothesis import given, settings
from hypothesis import strategies as st

from layout.core.errors import LayoutError
from layout.core.mtree import decode_name, decode_path, encode_name, encode_path
from layout.host.unpack.names import clean_name, climbs
from layout.host.unpack.report import ArchiveError, NotAnArchive
from layout.host.unpack.tarstream import Entry, TarReader


def read(archive: bytes, **limits: int) -> list[tuple[Entry, bytes]]:
    """Every entry with its content."""
    reader = TarReader(io.BytesIO(archive).readinto, **limits)
    out = []
    for entry in reader.entries():
        data = b""
        if entry.kind == "file":
            whole = reader.content()
            data = bytes(whole) if whole is not None else b"".join(map(bytes, reader.chunks()))
        out.append((entry, data))
    return out


def one(archive: bytes) -> Entry:
    """The only entry."""
    [(entry, _)] = read(archive + END)
    return entry


class Slow(io.BytesIO):
    """A pipe that hands out little at a time."""

    def readinto(self, view: memoryview) -> int:
        return super().readinto(view[:777])


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("source", [io.BytesIO, Slow])
def test_what_tarfile_writes_is_read_back(format: int, source: type[io.BytesIO]) -> None:
    out = io.BytesIO()
    long = "d/" * 40 + "f" * 90
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for index, size in enumerate([0, 1, 511, 512, 513, 262144, 3_000_001]):
            info = tarfile.TarInfo(long if index == 2 else f"file{index}")
            info.size, info.mtime, info.uid, info.mode = size, 1_000_000 + index, index, 0o4755
            tar.addfile(info, io.BytesIO(bytes([index]) * size))
    reader = TarReader(source(out.getvalue()).readinto)
    seen = []
    for index, entry in enumerate(reader.entries()):
        data = reader.content()
        content = bytes(data) if data is not None else b"".join(map(bytes, reader.chunks()))
        seen.append(entry.path.decode())
        assert content == bytes([index]) * entry.size
        assert (entry.uid, entry.mode, entry.mtime) == (index, 0o4755, (1_000_000 + index) * 10**9)
    assert seen == ["file0", "file1", long, "file3", "file4", "file5", "file6"]


def test_content_that_nobody_reads_is_passed_over() -> None:
    archive = member(b"a", b"x" * 3_000_000) + member(b"b", b"y") + END
    assert [entry.path for entry in TarReader(io.BytesIO(archive).readinto).entries()] == [b"a", b"b"]


def test_pax_beats_gnu_beats_the_header() -> None:
    assert one(long_name(b"gnu") + member(b"header")).path == b"gnu"
    entry = one(
        pax({b"path": b"a\nb\xff", b"mtime": b"-1.25", b"uid": b"70000", b"gid": b"4294967294"})
        + member(b"header")
    )
    assert (entry.path, entry.mtime, entry.uid, entry.gid) == (b"a\nb\xff", -1_250_000_000, 70000, 4294967294)
    assert one(pax({b"mtime": b"7"}, b"g") + member(b"a")).mtime == 7_000_000_000
    assert one(pax({b"mtime": b""}) + member(b"a")).mtime == int(b"14000000000", 8) * 10**9


def test_extended_attributes_come_from_star_and_libarchive() -> None:
    extra = one(
        pax(
            {
                b"SCHILY.xattr.user.a%3Db": b"\0\1",
                b"LIBARCHIVE.xattr.user.c": base64.b64encode(b"\xff\n").rstrip(b"="),
                b"SCHILY.fflags": b"schg",
                b"SCHILY.acl.access": b"user::rw-",
                b"SCHILY.xattr.system.posix_acl_access": b"x",
            }
        )
        + member(b"a")
    ).extra
    assert extra is not None
    assert extra.xattrs == {b"user.a=b": b"\0\1", b"user.c": b"\xff\n"}
    assert extra.flags
    assert extra.acls


def test_base_256_numbers_are_read() -> None:
    assert (
        one(header(b"a", mode=b"0000644", uid=(b"\x80" + (300000).to_bytes(6, "big"))[:7])).uid == 300000 << 8
    )
    assert (
        one(header(b"a", mtime=(-(5 << 8) & (1 << 96) - 1).to_bytes(12, "big")[:11])).mtime
        == -5 * 256 * 10**9
    )


REFUSED = {
    "absolute name": member(b"/etc/passwd", b"x"),
    "dot-dot name": member(b"../x", b"x"),
    "dot-dot inside": member(b"a/../../x", b"x"),
    "dot-dot harmless": member(b"a/../x", b"x"),
    "empty name": member(b""),
    "long component": long_name(b"a" * 256) + member(b"a"),
    "longer than PATH_MAX": long_name(b"a/" * 2100 + b"a") + member(b"a"),
    "257 deep": long_name(b"a/" * 256 + b"a") + member(b"a"),
    "5000 deep": long_name(b"a/" * 5000 + b"a") + member(b"a"),
    "NUL in a pax path": pax({b"path": b"a\0b"}) + member(b"a"),
    "NUL in a long name": long_name(b"a\0b") + member(b"a"),
    "climbing link": member(b"a/l", flag=b"2", link=b"../../x"),
    "climbing link by detour": member(b"l", flag=b"2", link=b"a/b/../../../x"),
    "empty link": member(b"l", flag=b"2"),
    "hard link up": member(b"l", flag=b"1", link=b"../../etc/passwd"),
    "absolute hard link": member(b"l", flag=b"1", link=b"/etc/passwd"),
    "hard link with content": member(b"l", b"x", flag=b"1", link=b"a"),
    "root as a link": member(b".", flag=b"2", link=b"a"),
    "bad checksum": member(b"ok") + header(b"a")[:10] + b"x" + header(b"a")[11:],
    "negative size": header(b"a", size_field=b"\xff" * 12),
    "negative octal size": header(b"a", size_field=b"-0000000001\0"),
    "size with underscore": header(b"a", size_field=b"0000_000001\0"),
    "size 8": header(b"a", size_field=b"00000000008\0"),
    "absurd size": header(b"a", size_field=b"\x80" + b"\x7f" * 11),
    "absurd pax size": pax({b"size": b"99999999999999999999"}) + member(b"a"),
    "negative pax size": pax({b"size": b"-1"}) + member(b"a"),
    "endless pax header": header(b"p", 1 << 30, b"x") + bytes(4096),
    "pax record too long": member(b"p", b"99 path=a\n", b"x") + member(b"a"),
    "pax record of length 0": member(b"p", b"0 path=a\n", b"x") + member(b"a"),
    "pax without equals": member(b"p", b"7 path\n", b"x") + member(b"a"),
    "global path": pax({b"path": b"a"}, b"g") + member(b"b"),
    "xattr with NUL": pax({b"SCHILY.xattr.user.\0": b"x"}) + member(b"a"),
    "xattr not base64": pax({b"LIBARCHIVE.xattr.user.a": b"???"}) + member(b"a"),
    "time without end": pax({b"mtime": b"9" * 40}) + member(b"a"),
    "owner -1": pax({b"uid": b"4294967295"}) + member(b"a"),
    "sparse, old": member(b"a", flag=b"S"),
    "sparse, pax": pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}) + member(b"a"),
    "multi-volume": member(b"a", flag=b"M"),
    "unknown type": member(b"a", flag=b"!"),
    "two archives": member(b"a") + END + member(b"b"),
    "end after an extended header": pax({b"path": b"a"}),
    "device with content": member(b"a", b"x", flag=b"3"),
}


@pytest.mark.parametrize("archive", REFUSED.values(), ids=REFUSED)
def test_hostile_and_broken_entries_are_refused(archive: bytes) -> None:
    with pytest.raises(ArchiveError) as caught:
        read(archive + END)
    assert not isinstance(caught.value, NotAnArchive)


def test_errors_name_the_entry() -> None:
    with pytest.raises(ArchiveError, match=r"^a/\.\./\.\./x: found a '\.\.' component") as caught:
        read(member(b"fine") + member(b"a/../../x") + END)
    assert caught.value.path == "a/../../x"


@pytest.mark.parametrize("cut", [100, 512, 600, 1024, 1536, 2047, 2048])
def test_truncation_is_an_error_wherever_it_happens(cut: int) -> None:
    archive = member(b"a", b"x" * 600) + member(b"b", b"y")
    assert len(archive) == 2560
    with pytest.raises(ArchiveError):
        read(archive[:cut])
    with pytest.raises(ArchiveError, match="end of the file at byte 2560"):
        read(archive)
    read(archive + END[:512])


@pytest.mark.parametrize("archive", [b"", b"x", b"#!/bin/sh\n" * 200])
def test_what_is_no_archive_is_called_so(archive: bytes) -> None:
    with pytest.raises(NotAnArchive):
        read(archive)


def test_limits_hold() -> None:
    with pytest.raises(ArchiveError, match="more than 2 entries"):
        read(member(b"a") * 3 + END, max_entries=2)
    with pytest.raises(ArchiveError, match="beyond 4096"):
        read(header(b"a", 5000), max_bytes=4096)
    with pytest.raises(ArchiveError, match="beyond 100000"):
        read(member(b"a") + bytes(5_000_000), max_bytes=100_000)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [(b"./a", b"a"), (b".", b"."), (b"./", b"."), (b"a//b/", b"a/b"), (b"a/./b", b"a/b"), (b"a//", b"a"),
     (b"./././a/.b", b"a/.b"), (b"..a/b..", b"..a/b.."), (b".//a", b"a"), (b"a" * 255, b"a" * 255)],
)  # fmt: skip
def test_names_are_cleaned(raw: bytes, clean: bytes) -> None:
    assert clean_name(raw, raw) == clean


@given(st.lists(st.sampled_from([b"", b".", b"..", b"a", b"..b", b"c" * 200, b"\xff", b"\0"])).map(b"/".join))
def test_a_clean_name_has_only_plain_components(raw: bytes) -> None:
    try:
        clean = clean_name(raw, raw)
    except ArchiveError:
        assert not raw or raw[:1] == b"/" or b".." in raw.split(b"/") or b"\0" in raw or len(raw) > 4095
        return
    assert clean == b"." or all(part not in (b"", b".", b"..") for part in clean.split(b"/"))
    assert [part for part in raw.split(b"/") if part not in (b"", b".")] == [
        part for part in clean.split(b"/") if part != b"."
    ]


def test_links_may_climb_to_the_root_and_no_further() -> None:
    assert not climbs(1, b"../usr/lib/os-release")
    assert not climbs(2, b"../../x")
    assert climbs(1, b"../../x")
    assert climbs(0, b"a/../..")


@given(st.lists(st.sampled_from(rb"\\ #[]*?/a=." + b"\n\xff")).map(bytes))
def test_manifest_names_survive_encoding(name: bytes) -> None:
    for encoded in (encode_name(name), encode_path(name)):
        assert not set(encoded) & set(b" \t\n#*?[\xff")
    assert decode_name(encode_name(name)) == name
    assert decode_path(encode_path(name)) == name


SEED = (
    pax({b"path": b"x", b"mtime": b"1.5", b"SCHILY.xattr.user.a": b"b"})
    + member(b"a", b"data")
    + long_name(b"l" * 120)
    + member(b"b", flag=b"2", link=b"a")
    + END
)


def _sum_right(block: bytes) -> bytes:
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_any_damage_gives_entries_or_our_error(changes: list[tuple[int, int]], right: bool) -> None:
    data = bytearray(SEED)
    for position, value in changes:
        data[position] = value
    if right:  # else almost everything ends at the checksum
        for start in (0, 1024, 2048, 3072):
            data[start : start + 512] = _sum_right(bytes(data[start : start + 512]))
    try:
        for entry, _ in read(bytes(data), max_bytes=1 << 24):
            assert b".." not in entry.path.split(b"/")
            assert entry.path[:1] != b"/"
            assert 0 <= entry.mode <= 0o7777
    except LayoutError as error:
        assert str(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_give_entries_or_our_error(data: bytes) -> None:
    try:
        read(data)
        read(_sum_right(data.ljust(512, b"\0")[:512]) + data + END)
    except LayoutError as error:
        assert str(error)
