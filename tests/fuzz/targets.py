"""What reads words of others, each as a function of bytes: it may take them, or refuse them as layout does.

Any exception but LayoutError (UsageError is one) is a crash: a user would see a mistake of the program.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from layout.core import (
    accounts,
    aptsources,
    distribution,
    dpkg,
    fstab,
    hostblock,
    jailconf,
    mountinfo,
    mountlist,
    mtree,
    mtree_spec,
    nftables,
    profile,
    release,
    size,
    zfs,
)
from layout.core.compare import Live
from layout.core.errors import LayoutError
from layout.core.fstab import Platform
from layout.core.kinds import dropin
from layout.core.merge_text import Clash, merge_text
from layout.core.model import Boot, Manage, Preset, Site
from layout.core.names import check_name, is_name
from layout.core.plan import plan_jail
from layout.core.profile import Config, Profile
from layout.core.running import RunRecord
from layout.core.tables import load_template
from layout.host import elf, hostfiles, records, shipped, site
from layout.host.freebsd import devfs, jails
from layout.host.run import Done
from layout.host.unpack import decompress, pax
from layout.host.unpack.tarstream import TarReader

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "host/unpack"))
import handmade  # noqa: E402

SITES = {
    Platform.LINUX: Site("/jails", "/etc/layout", Platform.LINUX, "/etc/fstab"),
    Platform.FREEBSD: Site("/jails", "/usr/local/etc/layout", Platform.FREEBSD, "/etc/fstab"),
}


@dataclass(frozen=True)
class Target:
    """One reader, inputs that it takes, and words that its format is made of."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()


TARGETS: dict[str, Target] = {}
_COMMON = b"\0 \n \t \r / .. ../ \xff \xc2\x9b \x1b[2J = \" ' \\ # $ { } [ ] , ; : @ -1 0 4294967296 \\040"
COMMON = (*_COMMON.split(b" "), b"9" * 5000, b"[" * 3000, b'{"a":' * 3000)
"""What is special somewhere."""


def target(
    name: str, *seeds: bytes | str, words: str = ""
) -> Callable[[Callable[[bytes], object]], Callable[[bytes], object]]:
    """Add a target."""

    def add(function: Callable[[bytes], object]) -> Callable[[bytes], object]:
        found = tuple(
            seed.encode("utf-8", "surrogateescape") if isinstance(seed, str) else seed for seed in seeds
        )
        TARGETS[name] = Target(function, found, tuple(words.encode().split()) + COMMON)
        return function

    return add


def tried(one: Target, data: bytes) -> bool:
    """Run a target on one input: True when it was taken, False when it was refused in our way."""
    try:
        one.run(data)
    except LayoutError as error:
        for text in (str(error), error.path, error.found, error.expected, error.hint):
            assert isinstance(text, str)
        assert str(error).isprintable(), "an error that could move a terminal's cursor"
        return False
    return True


def each_of(*readers: Callable[[], object]) -> None:
    """Let every one of them read; refused is what none of them takes."""
    problems = []
    for read in readers:
        try:
            read()
        except LayoutError as problem:
            problems.append(problem)
    if len(problems) == len(readers):
        raise problems[0]


def text_of(data: bytes) -> str:
    """As layout reads files that others wrote."""
    return data.decode("utf-8", "surrogateescape")


def shipped_files(pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(REPOSITORY.glob(pattern))]


class Held:
    """A directory of records with one text in it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, path: str, limit: int) -> bytes:
        return self.data[:limit]

    def show(self, name: str) -> str:
        return f"/jails/.layout/{name}"


# --- words and TOML -----------------------------------------------------------------------------------------


@target("names", "bind", "a-b_c", "../x", "bind\n", "-rf", "x" * 300, "mroot", "0", "a.b", "*", "$x")
def _names(data: bytes) -> None:
    text = text_of(data)
    taken = is_name(text)
    try:
        assert check_name(text) == text
    finally:
        assert not taken or (
            text.isascii() and "/" not in text and "\n" not in text and not text.startswith("-")
        )


@target(
    "profiles",
    *shipped_files("profiles/*.toml"),
    words=(
        "[linux] [freebsd] [[linux.state]] kind preset mode owner path command ready network "
        "ip4 interface service exec suid true false 0o7 1e400 nan"
    ),
)
def _profiles(data: bytes) -> None:
    found = profile.check(
        profile.decode(hostfiles.parse_toml(text_of(data), "p.toml"), Profile, "p.toml"), "p.toml"
    )
    for platform, here in SITES.items():
        jail = profile.decide("a", "p", found, platform, Preset.HARDENED, Manage.SESSION, Boot.JAIL)
        plan = plan_jail(jail, here, shipped.template(here, jail.kind, jail.preset, platform))
        if platform is Platform.FREEBSD and jailconf.has_file(plan):
            jailconf.jails(jailconf.render(plan, here))


@target(
    "config",
    *shipped_files("layout/share/layout.toml.sample"),
    'root = "/jails"\nmin_space = "1G"\n',
    words="root base preset manage boot zfs min_space min_inodes require_quota",
)
def _config(data: bytes) -> None:
    found = profile.check_config(
        profile.decode(hostfiles.parse_toml(text_of(data), "l.toml"), Config, "l.toml"), "l.toml"
    )
    site.checked_path(found.root)
    if found.zfs:
        zfs.check_parent(found.zfs, "l.toml")


@target(
    "records",
    (
        'name = "a"\nprofile = "default"\nplatform = "linux"\npreset = "hardened"\nmanage = '
        '"session"\ncreated = "x"\nstate = "ready"\n'
    ),
    'engine = "bwrap"\ngrade = "weak"\nsince = "x"\n[process]\npid = 1\nstart = 2\n',
)
def _records(data: bytes) -> None:
    held: Any = Held(data)
    kinds = (records.JailRecord, records.BaseRecord, records.CommitRecord, RunRecord)
    each_of(*(partial(records.read, held, "x.toml", kind) for kind in kinds))


# --- tables -------------------------------------------------------------------------------------------------

_FSTAB = shipped_files("fstab.d/*.in")


@target(
    "fstab",
    *_FSTAB,
    "/a\\040b /c nullfs ro 0 0\n# x\nnone /d none bind,ro 0 0\n",
    words="nullfs tmpfs none bind,ro noauto 0 xx update,ro \\134 \\s",
)
def _fstab(data: bytes) -> None:
    text = text_of(data)
    each_of(
        lambda: fstab.parse(text, Platform.LINUX),
        lambda: fstab.parse(text, Platform.FREEBSD),
        lambda: load_template(text, "t", Platform.LINUX),
        lambda: load_template(text, "t", Platform.FREEBSD),
    )


@target(
    "host fstab",
    hostblock.install("/dev/ada0 / ufs rw 1 1\n", "/a /b nullfs ro 0 0\n"),
    "proc /proc proc rw 0 0\n",
    words="layout >>> <<<",
)
def _hostblock(data: bytes) -> None:
    text = text_of(data)
    hostblock.block(text)
    hostblock.is_hand_edited(text)
    hostblock.check_targets(text, {"/jails/j/a"})
    new = hostblock.install(text, "/jails/j/mroot /jails/j/a nullfs ro 0 0\n")
    hostblock.remove(new)


@target(
    "mountinfo",
    (HERE.parent / "data/linux.mountinfo").read_bytes(),
    b"36 35 98:0 /m /n rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n",
    words="shared:1 master:2 - \\040 \\012 0:32",
)
def _mountinfo(data: bytes) -> None:
    live = Live(mountinfo.parse(data))
    live.below("/jails/j")
    live.place("/jails/j/a")


@target(
    "mount -v --libxo=json",
    (
        '{"mount": {"mounted": [{"special": "/a", "node": "/b", "fstype": "nullfs", "opts": '
        '["ro"], "fsid": "1"}]}}'
    ),
    words='"mount" "mounted" "node" null [] {} 1e999',
)
def _mount_json(data: bytes) -> None:
    mountlist.mount_points(mountlist.from_json(text_of(data)))


@target(
    "mount -p",
    "/a\t\t/b\tnullfs\tro 0 0\n/jails/j/mroot /jails/j/a nullfs ro,nosuid 0 0\n",
    words="nullfs devfs ro 0",
)
def _mount_p(data: bytes) -> None:
    mountlist.mount_points(mountlist.from_fstab(text_of(data)))


def _said(module: Any, text: str, reading: Callable[[], object]) -> None:
    """Let a program of the host have said this."""
    before = module.run
    module.run = lambda *words, **more: Done(0, text, "")
    try:
        reading()
    finally:
        module.run = before


@target(
    "jls",
    '{"__version": "2", "jail-information": {"jail": [{"jid": 1, "name": "a", "path": "/jails/j/a"}]}}',
    "1 a /jails/j/a\n",
    words='"jid" "name" "path" "jail" null [] {}',
)
def _jls(data: bytes) -> None:
    text = text_of(data)
    _said(jails, text, jails.listed)
    _said(jails, text, lambda: jails.parameters("a", ["path"]))


@target(
    "devfs rules",
    "100 include 1\n200 hide\n300 path 'pts/*' unhide\n",
    words="include hide unhide path type mode",
)
def _devfs(data: bytes) -> None:
    _said(devfs, text_of(data), lambda: devfs.is_shown("ada0", devfs.require(4, "/dev")))


@target(
    "jail.conf",
    (
        "a {\n  path = \"/jails/j/a\";\n  exec.start = '/bin/sh /etc/rc';\n  mount.fstab = "
        '$x;\n}\n.include "/etc/jail.*.conf";\n# x\n'
    ),
    words="{ } ; += = .include * $path /* */ //",
)
def _jailconf(data: bytes) -> None:
    jailconf.jails(text_of(data))


@target(
    "zfs",
    "zroot/jails\ttype\tfilesystem\t-\nzroot/jails\treadonly\ton\ttemporary\n",
    "zroot/a\nzroot/a@b\n",
    words="readonly mountpoint on off -",
)
def _zfs(data: bytes) -> None:
    text = text_of(data)
    zfs.names(text)
    zfs.values(text, "zroot/jails")


@target(
    "nft",
    (
        '{"nftables": [{"metainfo": {}}, {"chain": {"name": "c", "hook": "input", "prio": '
        '0}}, {"rule": {"chain": "c", "expr": [{"accept": null}]}}]}'
    ),
    words='"chain" "rule" "expr" null [] {} -1',
)
def _nft(data: bytes) -> None:
    nftables.parse(text_of(data), "a")


# --- archives and files -------------------------------------------------------------------------------------

_ARCHIVE = (
    handmade.pax({b"path": b"x", b"mtime": b"1.5", b"SCHILY.xattr.user.a": b"b"})
    + handmade.member(b"a", b"data")
    + handmade.long_name(b"l" * 120)
    + handmade.member(b"b", flag=b"2", link=b"a")
    + handmade.END
)


def _sums_right(data: bytes) -> bytes:
    """Make the checksum of every block that looks like a header right: else almost all end there."""
    out = bytearray(data)
    for start in range(0, len(out) - 511, 512):
        if out[start + 257 : start + 262] == b"ustar":
            out[start + 148 : start + 156] = b" " * 8
            out[start + 148 : start + 156] = b"%06o\0 " % sum(out[start : start + 512])
    return bytes(out)


def _entries(data: bytes) -> None:
    pos = 0

    def readinto(view: memoryview) -> int:
        nonlocal pos
        piece = data[pos : pos + len(view)]
        view[: len(piece)] = piece
        pos += len(piece)
        return len(piece)

    reader = TarReader(readinto, max_bytes=1 << 22, max_entries=1000)
    for entry in reader.entries():
        assert b".." not in entry.path.split(b"/")
        assert entry.path[:1] != b"/"
        reader.content()


@target(
    "archive headers",
    _ARCHIVE,
    handmade.member(b"d/", flag=b"5") + handmade.END,
    words="ustar 0000644 ../x /x GNU.sparse SCHILY.xattr",
)
def _archive(data: bytes) -> None:
    each_of(lambda: _entries(data), lambda: _entries(_sums_right(data)))


def _compressed() -> list[bytes]:
    import bz2
    import gzip
    import lzma

    import zstandard

    small = handmade.member(b"a", b"data") + handmade.END
    return [bz2.compress(small), gzip.compress(small), lzma.compress(small), zstandard.compress(small)]


@target("compressed archives", *_compressed())
def _compression(data: bytes) -> None:
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        compression = decompress.detect(fd, "x.tar")
        if compression is decompress.Compression.NONE:
            return
        out = 0
        for piece in decompress._decompressed(fd, compression, decompress.prepare(compression)):
            out += len(piece)
            if out > 1 << 24:
                return
    finally:
        os.close(fd)


@target("pax records", b"20 path=" + b"x" * 11 + b"\n", b"16 mtime=1.5000\n")
def _pax(data: bytes) -> None:
    found = pax.parse_records(data, b"x")
    for key, value in found.items():
        if key == b"mtime":
            pax.parse_time(value, b"x")


@target(
    "manifests",
    mtree.text(
        [
            mtree.ManifestEntry(".", "dir", 0o755, 0, 0),
            mtree.ManifestEntry("a b", "file", 0o4755, 0, 0, 1, "0" * 64),
            mtree.ManifestEntry("c", "link", 0o777, 0, 0, target="a b"),
            mtree.ManifestEntry("d", "file", 0o4755, 0, 0, 1, "0" * 64, nlink_of="a b"),
        ]
    ),
    words="type=dir type=file type=link mode= uid= gid= size= link= sha256digest= /set .. \\040",
)
def _manifest(data: bytes) -> None:
    list(mtree.parse_manifest(data, "m"))
    mtree.digests(data)
    mtree.rests(data)


@target(
    "mtree specs",
    "/set type=dir uname=root gname=wheel mode=0755\n.\n    etc\n        rc.d\n        ..\n    ..\n..\n",
    words="/set uname= gname= mode= type=dir .. tags=",
)
def _spec(data: bytes) -> None:
    mtree_spec.directories(text_of(data), "BSD.root.dist")


@target(
    "elf",
    Path("/bin/true").read_bytes()[:4096] if Path("/bin/true").exists() else b"\x7fELF",
    b"#!/bin/sh -e\n",
    b"#! /usr/bin/env python3\n",
)
def _elf(data: bytes) -> None:
    elf.parse_program(data, "/bin/x")


@target(
    "distributions",
    "base.txz\t" + "0" * 64 + '\t100\tbase\t"Base system"\ton\n',
    words="base.txz kernel.txz on off",
)
def _distribution(data: bytes) -> None:
    distribution.parse(text_of(data), "MANIFEST")


# --- files of a base ----------------------------------------------------------------------------------------


@target(
    "dpkg status",
    "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nStatus: deinstall ok config-files\n",
    words="Package: Status: install ok installed",
)
def _dpkg(data: bytes) -> None:
    dpkg.installed(text_of(data))


@target(
    "apt sources",
    "deb [arch=amd64 signed-by=/x] http://deb.debian.org/debian bookworm main\n",
    "Types: deb\nURIs: http://x/\nSuites: bookworm\nComponents: main\n",
    words="deb deb-src bookworm [ ] Types: URIs: Suites: Enabled: no",
)
def _apt(data: bytes) -> None:
    text = text_of(data)
    aptsources.mirrors({"/etc/apt/sources.list": text, "/etc/apt/sources.list.d/a.sources": text}, "bookworm")


@target("accounts", "root:x:0:0:root:/root:/bin/sh\nweb:*:80:80::/:/bin/false\n", words=": root x 0 -1")
def _accounts(data: bytes) -> None:
    text = text_of(data)
    accounts.ids(text)
    accounts.account("web", text, text)


@target(
    "merges",
    (
        b"root:x:0:0::/:\na:x:1:1::/:\n\xfe\xfdroot:x:0:0::/:\na:x:1:1::/:\nb:x:2:2::/:\n\xfe"
        b"\xfdroot:x:0:0::/:\nc:x:2:2::/:\n"
    ),
    words="root:x:0: \xfe\xfd",
)
def _merges(data: bytes) -> None:
    parts = [*data.split(b"\xfe\xfd"), b"", b"", b""][:3]
    # What clashes is a conflict that the caller tells of.
    with contextlib.suppress(Clash):
        each_of(*(partial(merge_text, path, *parts) for path in ("etc/passwd", "etc/group", "etc/hosts")))


@target(
    "units",
    "[Unit]\nDescription=x\n[Service]\nExecStart=/bin/x\nUser=y\nCapabilityBoundingSet=CAP_CHOWN\n",
    words="[Service] ExecStart= = \\ ~ %n",
)
def _units(data: bytes) -> None:
    text = text_of(data)
    dropin.parse([text, text])


@target("releases and sizes", "14.3-RELEASE-p1", "15.0-CURRENT", "64M", "1G", words="RELEASE p K M G T -")
def _small(data: bytes) -> None:
    text = text_of(data)
    release.parse(text)
    size.parse(text)
