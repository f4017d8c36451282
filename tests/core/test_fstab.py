"""fstab(5), both platforms: what is written can be read back, and what cannot be said is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from layout.core import fstab
from layout.core.errors import LayoutError
from layout.core.model import Mount, Platform

FREEBSD, LINUX = Platform.FREEBSD, Platform.LINUX
HARD = b" \t\n\\#\xff/a\xc3\xa9\r\x0b\x85"
HINTED = st.binary(min_size=1, max_size=60) | st.lists(st.sampled_from(list(HARD)), max_size=60).map(bytes)
NAMES = HINTED.map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
PATHS = NAMES.map(lambda name: "/" + name)
NUMBERS = st.integers(0, 9)

MOUNTS = {
    FREEBSD: st.builds(
        Mount,
        PATHS | NAMES.filter(bool),
        PATHS,
        st.sampled_from(["nullfs", "devfs", "ufs", "zfs"]),
        st.lists(st.sampled_from(["rw", "ro", "late", "failok", "noauto", "nosuid", "ruleset=4"]), max_size=5)
        .map(tuple)
        .filter(lambda options: fstab.access_word(options) is not None),
        NUMBERS,
        NUMBERS,
    ),
    LINUX: st.builds(
        Mount,
        PATHS | NAMES.filter(bool),
        PATHS,
        st.sampled_from(["none", "tmpfs", "ext4", "odd type#"]),
        st.lists(
            st.sampled_from(
                ["rw", "ro", "bind", "private", "x-a=b c", 'context="a,b"', "#odd", "nodev", "é\\"]
            ),
            min_size=1,
            max_size=5,
        ).map(tuple),
        NUMBERS,
        NUMBERS,
    ),
}


def platforms() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("platform", [FREEBSD, LINUX], ids=["freebsd", "linux"])


@platforms()
@given(data=st.data())
def test_what_is_rendered_is_read_back(platform: Platform, data: st.DataObject) -> None:
    mounts = tuple(data.draw(st.lists(MOUNTS[platform], max_size=3)))
    text = fstab.render(mounts, platform)
    assert fstab.parse(text, platform) == mounts
    # And through a file, as bytes.
    again = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    assert fstab.parse(again, platform) == mounts


@given(MOUNTS[FREEBSD])
def test_nothing_is_rendered_that_jail_would_cut_at_a_hash(mount: Mount) -> None:
    # usr.sbin/jail/config.c: the line ends there, wherever it is.
    assert "#" not in fstab.render_line(mount, FREEBSD)


@platforms()
@given(text=st.text() | st.lists(st.sampled_from(["/a", "\\", "#", " ", "\n", "rw", "0", "\0"])).map("".join))
def test_any_text_gives_mounts_or_a_layout_error(platform: Platform, text: str) -> None:
    try:
        mounts = fstab.parse(text, platform)
    except LayoutError as error:
        assert error.path.startswith("fstab:")
    else:
        assert all(mount.source and mount.options for mount in mounts)


@platforms()
@given(source=st.text(min_size=1), target=st.text(), option=st.text())
def test_any_mount_is_rendered_or_a_layout_error(
    platform: Platform, source: str, target: str, option: str
) -> None:
    mount = Mount(source, target, "tmpfs", ("rw", option))
    try:
        line = fstab.render_line(mount, platform)
    except LayoutError:
        return
    assume("\r" not in option)
    assert fstab.parse_line(line, platform) == mount


def test_a_line_is_that_of_the_message() -> None:
    mount = Mount("/jails/j/mroot", "/jails/j/bind", "nullfs", ("ro",))
    assert fstab.render([mount], FREEBSD) == "/jails/j/mroot /jails/j/bind nullfs ro 0 0\n"


@pytest.mark.parametrize(
    ("char", "escape"),
    [(" ", r"\040"), ("\t", r"\011"), ("\n", r"\012"), ("\\", r"\134"), ("#", r"\043")],
    ids=["blank", "tab", "newline", "backslash", "hash"],
)
@platforms()
def test_what_ends_a_field_is_three_octal_digits(platform: Platform, char: str, escape: str) -> None:
    mount = Mount(f"{char}s", f"/t{char}", "tmpfs", ("rw",))
    assert fstab.render_line(mount, platform) == f"{escape}s /t{escape} tmpfs rw 0 0"


@pytest.mark.parametrize(
    ("field", "path"),
    [
        (r"/a\sb\tc\nd\\e", "/a b\tc\nd\\e"),
        (r"/\r\b\a\v\f\E", "/\r\b\a\v\f\x1b"),
        (r"/\40\1018\7", "/ A8\7"),
        (r"/\x41\x9z", "/A\tz"),
        (r"/\^A\^?\M-i\M^?\$", "/\x01\x7f\udce9\udcff"),
        (r"/\303\251", "/é"),
        (r"/\377", "/\udcff"),
    ],
    ids=["letters", "controls", "octal", "hex", "vis", "utf-8", "not utf-8"],
)
def test_freebsd_decodes_as_strunvis(field: str, path: str) -> None:
    mount = fstab.parse_line(f"{field} {field} nullfs ro", FREEBSD)
    assert mount == Mount(path, path, "nullfs", ("ro",))


@pytest.mark.parametrize("field", ["/a\\", r"/\q", r"/\9", r"/\M", r"/\xg", r"/\000"])
@pytest.mark.parametrize("line", ["{} /b nullfs ro", "/a {} nullfs ro"], ids=["spec", "file"])
def test_freebsd_refuses_a_malformed_escape(line: str, field: str) -> None:
    with pytest.raises(LayoutError, match=r"host:3: found a malformed escape"):
        fstab.parse("\n\n" + line.format(field), FREEBSD, "host")


def test_freebsd_decodes_only_spec_and_file() -> None:
    assert fstab.parse_line(r"/a /b n\040 ro,\040", FREEBSD) == Mount("/a", "/b", r"n\040", ("ro", r"\040"))


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        (r"a\134b /x\040y none bind,x-a=\040b 0 0", Mount("a\\b", "/x y", "none", ("bind", "x-a= b"))),
        (r"/dev/a /m\1z\s\777 ext4 rw", Mount("/dev/a", "/m\\1z\\s\udcff", "ext4", ("rw",))),
        ("UUID=1 none swap", Mount("UUID=1", "none", "swap", ("defaults",))),
        ("UUID=1 none swap sw", Mount("UUID=1", "none", "swap", ("sw",))),
        (" /dev/a\t/  ext4 defaults,errors=remount-ro 0 1 x", None),
        ("proc /proc proc nosuid,nodev 0\r", Mount("proc", "/proc", "proc", ("nosuid", "nodev"))),
        ('t /t tmpfs context="a,b",rw', Mount("t", "/t", "tmpfs", ('context="a,b"', "rw"))),
    ],
    ids=["escapes", "odd escapes", "no options", "swap", "blanks and more", "crlf", "quotes"],
)
def test_linux_reads_as_libmount(line: str, mount: Mount | None) -> None:
    expected = mount or Mount("/dev/a", "/", "ext4", ("defaults", "errors=remount-ro"), 0, 1)
    assert fstab.parse_line(line, LINUX) == expected


@pytest.mark.parametrize(
    "line",
    ["/dev/a", "/dev/a /b", "/dev/a /b auto rw # x", "/dev/a /b auto rw 1x", r"/\000 /b auto rw", "a\0 /b c"],
)
def test_linux_refuses_a_damaged_line(line: str) -> None:
    with pytest.raises(LayoutError, match=r"^fstab:1: "):
        fstab.parse_line(line, LINUX)


@pytest.mark.skipif(shutil.which("findmnt") is None, reason="findmnt (util-linux) is not installed")
@settings(max_examples=40, deadline=None)
@given(
    name=st.text(st.sampled_from("a \\#\té,\"'=0"), min_size=1, max_size=12),
    options=st.lists(st.sampled_from(["rw", "bind", "x-a=b c", 'context="a,b"', "#odd"]), min_size=1),
)
def test_libmount_reads_what_we_write(name: str, options: list[str]) -> None:
    mount = Mount(f"/nowhere/{name}s", f"/nowhere/{name}t", "none", tuple(options))
    text = fstab.render([mount], LINUX)
    words = ["findmnt", "--tab-file", "/dev/stdin", "--json", "--output", "SOURCE,TARGET,FSTYPE,OPTIONS"]
    done = subprocess.run(words, input=text, capture_output=True, encoding="utf-8")
    found = json.loads(done.stdout)["filesystems"][0]
    assert (found["source"], found["target"], found["fstype"]) == (mount.source, mount.target, "none")
    assert found["options"] == ",".join(mount.options)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "# /a /b nullfs ro\n", "  \t \n", " #x /a /b ro", "\t# /a b c d", "/dev/cd /cd cd9660 xx 0 0"],
    ids=["empty", "blank", "comment", "blanks", "first field", "tab", "xx"],
)
def test_freebsd_passes_over(text: str) -> None:
    assert fstab.parse(text, FREEBSD) == ()


def test_a_later_hash_is_no_comment() -> None:
    mount = fstab.parse_line("/a#b /c nullfs ro 0 0 # x", FREEBSD)
    assert mount == Mount("/a#b", "/c", "nullfs", ("ro",))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("/a /b nullfs late,failok", "options 'late,failok'"),
        ("/a /b nullfs", "3 field"),
        ("/dev/da0s1a:/:rw:1:1", "a line without a blank"),
        ("x" * 1023 + " /b nullfs ro", "a line of 1037 bytes"),
        ("#" + "é" * 511, "a line of 1024 bytes"),
        ("/a\0 /b nullfs ro", "a NUL byte"),
    ],
    ids=["no access word", "short", "antique", "long", "long comment", "nul"],
)
def test_freebsd_names_file_line_and_what_is_wrong(line: str, found: str) -> None:
    with pytest.raises(LayoutError) as caught:
        fstab.parse(f"# head\n{line}\n", FREEBSD, "/etc/fstab")
    assert caught.value.path == "/etc/fstab:2"
    assert caught.value.found.startswith(found)
    assert caught.value.expected


def test_the_first_access_word_decides() -> None:
    assert fstab.access_word(("late", "ro", "rw")) == "ro"
    assert fstab.access_word(("noauto", "row")) is None


def test_freebsd_numbers_are_read_as_by_atoi() -> None:
    assert fstab.parse_line("/a /b ufs rw 1x -", FREEBSD) == Mount("/a", "/b", "ufs", ("rw",), 1, 0)


def test_a_freebsd_line_ends_at_1023_bytes() -> None:
    def line(length: int) -> str:
        return fstab.render_line(Mount("é" * 400, "/" + "x" * length, "nullfs", ("ro",)), FREEBSD)

    fits = 1022 - len(" / nullfs ro 0 0") - 800
    assert len(line(fits).encode()) == 1022
    with pytest.raises(LayoutError, match="a line of 1024 bytes"):
        line(fits + 1)


@pytest.mark.parametrize(
    "word", ["bind", "private", "nodev", "nofail", "x-systemd.automount", "size=1,rw", ""]
)
def test_freebsd_refuses_to_write(word: str) -> None:
    with pytest.raises(LayoutError, match=r"^/jails/j/a: "):
        fstab.render_line(Mount("/s", "/jails/j/a", "nullfs", ("ro", word)), FREEBSD)


@pytest.mark.parametrize("word", ["late", "failok", "ruleset=4", "a,b"])
def test_linux_refuses_to_write(word: str) -> None:
    with pytest.raises(LayoutError, match=r"^/jails/j/a: "):
        fstab.render_line(Mount("/s", "/jails/j/a", "none", ("ro", word)), LINUX)


@pytest.mark.parametrize(
    ("platform", "mount"),
    [
        (LINUX, Mount("/s", "/t", "nullfs", ("ro",))),
        (FREEBSD, Mount("/s", "/t", "none", ("ro",))),
        (FREEBSD, Mount("/s", "/t", "nullfs", ("late",))),
        (FREEBSD, Mount("/s", "/t", "nullfs", ("xx",))),
        (FREEBSD, Mount("/s", "/t", "nullfs", ("ro", "a b"))),
        (FREEBSD, Mount("/s", "/t", "null fs", ("ro",))),
        (LINUX, Mount("/s", "t", "none", ("ro",))),
        (LINUX, Mount("/s", "/t", "none", ())),
        (LINUX, Mount("", "/t", "none", ("ro",))),
        (LINUX, Mount("/s", "/t\0", "none", ("ro",))),
        (LINUX, Mount("/s", "/\ud800", "none", ("ro",))),
        (LINUX, Mount("/s", "/t", "none", ("ro",), -1)),
    ],
    ids=[
        "nullfs on linux", "none on freebsd", "no access word", "xx", "blank in options", "blank in type",
        "relative", "no options", "no source", "nul", "no byte", "negative",
    ],
)  # fmt: skip
def test_a_mount_that_no_line_can_say_is_refused(platform: Platform, mount: Mount) -> None:
    with pytest.raises(LayoutError):
        fstab.render_line(mount, platform)


@platforms()
def test_swap_has_no_mount_point(platform: Platform) -> None:
    assert fstab.render_line(Mount("/dev/x", "none", "swap", ("sw",)), platform) == "/dev/x none swap sw 0 0"


@pytest.mark.parametrize(
    ("platform", "text", "targets"),
    [
        (
            FREEBSD,
            "/dev/da0s1a / ufs rw 1 1\n/dev/da0s1b none swap sw 0 0\n"
            "/dev/acd0 /cdrom cd9660 ro,noauto 0 0\n# Jails\n",
            ["/", "none", "/cdrom"],
        ),
        (
            LINUX,
            "UUID=a-b / ext4 errors=remount-ro 0 1\n/swap none swap sw 0 0\n\ntmpfs /tmp tmpfs nosuid\n"
            "proc /proc proc\n"
            "//nas/a\\040b /mnt cifs credentials=/x,_netdev,x-systemd.automount 0 0\n",
            ["/", "none", "/tmp", "/proc", "/mnt"],
        ),
    ],
    ids=["freebsd", "linux"],
)
def test_the_lines_of_a_host_are_legal(platform: Platform, text: str, targets: list[str]) -> None:
    mounts = fstab.parse(text, platform)
    assert [mount.target for mount in mounts] == targets
    assert fstab.parse(fstab.render(mounts, platform), platform) == mounts
