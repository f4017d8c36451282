"""A small root file system with everything in it that is hard to keep, as a directory and as archives."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import os
import socket
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

import zstandard

NEWLINE = "new\nline"
NOT_UTF8 = os.fsdecode(b"\xff\xfe latin")
TIME = 1_000_000_000


def build(base: Path) -> Path:
    """Make the base below `base`, which must not exist. Needs root."""
    for name, mode in {
        "": 0o700,
        "dev": 0o755,
        "etc": 0o755,
        "etc/dpkg": 0o755,
        "etc/dpkg/dpkg.cfg.d": 0o755,
        "etc/empty": 0o555,
        "etc/ssh": 0o755,
        "proc": 0o555,
        "root": 0o700,
        "root/.ssh": 0o700,
        "usr": 0o755,
        "usr/bin": 0o755,
        "usr/lib": 0o755,
        "var": 0o755,
        "var/lib": 0o755,
        "var/lib/dpkg": 0o755,
        "var/mail": 0o2775,
        "var/tmp": 0o1777,
        "var/log": 0o755,
    }.items():
        (base / name).mkdir()
        (base / name).chmod(mode)
    for name, text, mode in (
        ("usr/bin/sh", "#!a shell\n", 0o755),
        ("usr/bin/su", "#!become root\n", 0o4755),
        ("usr/bin/wall", "#!write to all\n", 0o2755),
        ("usr/lib/os-release", "ID=small\n", 0o644),
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\nopenldap:x:101:103::/:/bin/false\nbad:x:²:0\n", 0o644),
        ("etc/group", "root:x:0:\nopenldap:x:103:\nbind:x:104:\n", 0o644),
        ("etc/shadow", "root:*:\n", 0o640),
        ("etc/hostname", "builder\n", 0o644),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444),
        ("etc/ssh/ssh_host_rsa_key", "secret\n", 0o600),
        ("etc/ssh/sshd_config", "Port 22\n", 0o644),
        (f"etc/{NEWLINE}", "odd\n", 0o644),
        (f"etc/{NOT_UTF8}", "odd\n", 0o604),
        ("root/.profile", "umask 022\n", 0o644),
        ("root/.ssh/id_rsa", "secret\n", 0o600),
        ("var/lib/dpkg/status", "Package: small\n", 0o644),
        ("var/tmp/left-over", "x", 0o644),
        ("var/log/big", "x" * 3_000_000, 0o640),
    ):
        (base / name).write_text(text, encoding="utf-8")
        (base / name).chmod(mode)
    (base / "bin").symlink_to("usr/bin")
    (base / "tmp").symlink_to("var/tmp")
    (base / "etc/os-release").symlink_to("../usr/lib/os-release")
    (base / "etc/mtab").symlink_to("../proc/self/mounts")
    (base / "etc/dangling").symlink_to("../nowhere/at/all")
    (base / "var/run").symlink_to("../run")
    os.link(base / "usr/bin/sh", base / "usr/bin/dash")
    os.link(base / "etc/passwd", base / "etc/passwd.linked")
    for name, uid, gid in (
        ("etc/shadow", 0, 42),
        ("var/log", 1, 4),
        ("usr/bin/wall", 0, 5),
        ("var/mail", 0, 8),
    ):
        os.chown(base / name, uid, gid)
    os.chown(base / "etc/dangling", 7, 7, follow_symlinks=False)
    (base / "usr/bin/wall").chmod(0o2755)  # chown(2) cleared it
    (base / "var/mail").chmod(0o2775)
    with contextlib.suppress(OSError):
        os.setxattr(base / "etc/passwd", "user.note", b"\x00kept\xff")
        os.setxattr(base / "root", "user.dir", b"kept as well")
    os.mkfifo(base / "var/fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(base / "var/sock"))
    with contextlib.suppress(PermissionError):
        os.mknod(base / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    for path in sorted(base.rglob("*"), reverse=True):
        os.utime(path, (TIME, TIME), follow_symlinks=False)
    return base


def archive(base: Path, target: Path, kind: str) -> Path:
    """Pack the base: kind is tar, tar.gz, tar.xz or tar.zst."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:

        def with_xattrs(info: tarfile.TarInfo) -> tarfile.TarInfo:
            path = base / info.name
            if not path.is_symlink():
                for name in os.listxattr(path):
                    value = os.getxattr(path, name)
                    info.pax_headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
            return info

        tar.add(base, ".", filter=with_xattrs)
    data = plain.getvalue()
    pack = {
        "tar": bytes,
        "tar.gz": gzip.compress,
        "tar.xz": lambda raw: lzma.compress(raw, preset=0),
        "tar.zst": zstandard.ZstdCompressor().compress,
    }[kind]
    path = target / f"base.{kind}"
    path.write_bytes(pack(data))
    return path


@dataclass(frozen=True)
class Entry:
    """All that is to be kept of an entry."""

    mode: int
    uid: int
    gid: int
    mtime: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]


def look(top: Path, *, times: bool = True) -> dict[str, Entry]:
    """Return everything below `top` by relative path."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFLNK:
                content = os.readlink(path)
            case stat.S_IFREG:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            case _:
                content = ""
        xattrs = () if path.is_symlink() else tuple((n, os.getxattr(path, n)) for n in os.listxattr(path))
        found[os.fspath(path.relative_to(top))] = Entry(
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns if times else 0,
            content,
            xattrs,
        )
    return found
