"""What a base holds is kept on its way to each jail, and what must not be shared is not."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import struct
import tomllib
from pathlib import Path

import pytest
from small_base import NEWLINE, NOT_UTF8, TIME, archive, build, look

from layout.cli.main import run
from layout.core import mtree

pytestmark = pytest.mark.box
SOURCES = ("directory", "tar", "tar.gz", "tar.xz", "tar.zst")
LINKS = {
    "etc": "s/etc",
    "root": "s/root",
    "tmp": "t/tmp",
    "var": "t/var",
    "usr/local": "../s/usr-local",
    "usr/X11R6": "../s/usr-X11R6",
    "sys": "usr/src/sys",
}
GONE = {
    "etc/hostname",
    "etc/machine-id",
    "etc/mtab",
    "etc/ssh/ssh_host_rsa_key",
    "root/.ssh/id_rsa",
    "var/tmp/left-over",
}
"""Secrets and identities of the small base."""


@pytest.fixture(name="made", scope="module", params=SOURCES)
def _made(request, tmp_path_factory) -> tuple[Path, Path]:
    """The small base, and a ROOT with jails a and b made from it."""
    top = tmp_path_factory.mktemp(request.param.replace(".", "-")).resolve()
    top.chmod(0o755)
    base = build(top / "base")
    source = base if request.param == "directory" else archive(base, top, request.param)
    root = top / "root"
    assert run(["--root", str(root), "-q", "init", "--no-mount", "--base", str(source), "a", "b"]) == 0
    return base, root


def test_entries_of_s_and_t_are_as_in_the_base(made) -> None:
    """Types, modes, owners, times of files and links, content and extended attributes."""
    base, root = made
    wanted = look(base)
    for half, name, below in (("s", "etc", "etc"), ("s", "root", "root"), ("t", "var", "var")):
        for place in ("skel/" + half, f"{half}/a", f"{half}/b"):
            found = look(root / place / below)
            for path, entry in found.items():
                origin = wanted.get(f"{name}/{path}")
                if origin is None or (half == "t" and path == "lib/dpkg"):
                    continue
                if stat.S_ISDIR(entry.mode):  # things were taken out of it or put into it
                    assert (entry.mode, entry.uid, entry.gid) == (origin.mode, origin.uid, origin.gid), path
                    assert entry.xattrs == origin.xattrs, path
                elif path not in {"hostname", "machine-id"}:
                    assert entry == origin, (place, path)


def test_nothing_is_lost_but_secrets_special_files_and_what_moved(made) -> None:
    base, root = made
    wanted = {p for p in look(base) if p.startswith(("etc/", "root/", "var/"))}
    found = {
        f"{name}/{path}"
        for half, name in (("s", "etc"), ("s", "root"), ("t", "var"))
        for path in look(root / "skel" / half / name)
    }
    assert wanted - found == GONE | {"var/fifo", "var/sock", "var/lib/dpkg/status"}
    assert found - wanted == {"etc/dpkg/dpkg.cfg.d/layout"}


def test_odd_names_survive(made) -> None:
    _, root = made
    assert (root / "s/a/etc" / NEWLINE).read_text() == "odd\n"
    assert (root / "s/a/etc" / NOT_UTF8).stat().st_mode & 0o777 == 0o604


def test_hard_links_stay_links_within_a_jail_and_are_not_shared_between_jails(made) -> None:
    _, root = made
    inodes = set()
    for jail in "ab":
        one, two = (root / f"s/{jail}/etc/{name}" for name in ("passwd", "passwd.linked"))
        assert one.stat().st_ino == two.stat().st_ino
        assert one.stat().st_nlink == 2
        inodes.add(one.stat().st_ino)
    assert len(inodes) == 2
    sh, dash = root / "j/mroot/usr/bin/sh", root / "j/mroot/usr/bin/dash"
    assert sh.stat().st_ino == dash.stat().st_ino


def test_mroot_has_exactly_the_planned_links_and_mount_points(made) -> None:
    _, root = made
    mroot = root / "j/mroot"
    assert {path: os.readlink(mroot / path) for path in LINKS} == LINKS
    for name, mode in {"s": 0o755, "t": 0o755, "dev": 0o755, "proc": 0o555, "run": 0o755}.items():
        found = (mroot / name).lstat()
        assert stat.S_ISDIR(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == mode
        assert os.listdir(mroot / name) == []
    for place in ("j/a", "manage/a"):
        assert os.listdir(root / place) == []


def test_the_top_of_mroot_is_roots_whatever_the_top_of_the_source_was(made) -> None:
    _, root = made
    found = (root / "j/mroot").lstat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0, 0o755)


def test_what_the_base_lacks_is_made(made) -> None:
    """usr/local is absent and tmp is a link: both are real directories of the jail now."""
    _, root = made
    assert stat.S_IMODE((root / "t/a/tmp").lstat().st_mode) == 0o1777
    assert (root / "s/a/usr-local").is_dir()
    assert not (root / "s/a/usr-local").is_symlink()


def test_secrets_and_identities_are_gone_from_the_skeleton(made) -> None:
    _, root = made
    for path in GONE:
        half = "t" if path.startswith("var") else "s"
        assert not os.path.lexists(root / "skel" / half / path), path
    record = tomllib.loads((root / ".layout/bases/mroot.toml").read_text())
    assert set(record["removed"]) == GONE
    assert b"secret" not in b"".join(
        p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and not p.is_symlink() and p.stat().st_size < 99
    )


def test_each_jail_has_an_identity_of_its_own(made) -> None:
    _, root = made
    ids = {(root / f"s/{jail}/etc/machine-id").read_text() for jail in "ab"}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}\n", text) for text in ids)
    assert [(root / f"s/{jail}/etc/hostname").read_text() for jail in "ab"] == ["a\n", "b\n"]


def test_setuid_files_are_kept_and_listed(made) -> None:
    _, root = made
    record = tomllib.loads((root / ".layout/bases/mroot.toml").read_text())
    assert sorted((s["path"], s["mode"], s["uid"], s["gid"]) for s in record["setuid"]) == [
        ("usr/bin/su", "4755", 0, 0),
        ("usr/bin/wall", "2755", 0, 5),
    ]
    assert stat.S_IMODE((root / "j/mroot/usr/bin/su").lstat().st_mode) == 0o4755


def test_special_files_are_counted_and_left_out(made) -> None:
    base, root = made
    record = tomllib.loads((root / ".layout/bases/mroot.toml").read_text())
    counts = {kind.lower(): count for kind, count in record["left_out"].items()}
    assert sum(count for kind, count in counts.items() if "fifo" in kind) == 1
    if (base / "dev/null").exists():
        assert sum(count for kind, count in counts.items() if "device" in kind) == 1
    if "base.tar" not in record["source"]:  # tar(1) leaves sockets out itself
        assert counts["socket"] == 1
    special = [p for p in root.rglob("*") if not (p.is_symlink() or p.is_dir() or p.is_file())]
    assert special == []


def test_the_package_database_is_out_of_the_jails_reach(made) -> None:
    _, root = made
    assert (root / "j/mroot/usr/lib/sysimage/dpkg/status").read_text() == "Package: small\n"
    assert os.readlink(root / "t/a/var/lib/dpkg") == "/usr/lib/sysimage/dpkg"
    assert "admindir=/usr/lib/sysimage/dpkg" in (root / "s/a/etc/dpkg/dpkg.cfg.d/layout").read_text()


def test_times_of_files_are_the_bases(made) -> None:
    _, root = made
    assert (root / "s/a/etc/ssh/sshd_config").stat().st_mtime == TIME
    assert (root / "s/a/etc/empty").stat().st_mtime == TIME


def test_the_manifest_is_of_mroot_only(made) -> None:
    """It has exactly what is there, with its hash; of what belongs to the jails only the links."""
    _, root = made
    data = (root / ".layout/bases/mroot.mtree").read_bytes()
    entries = {entry.path: entry for entry in mtree.parse_manifest(data, "manifest")}
    assert not any(path.startswith(("etc/", "var/", "root/")) for path in entries)
    assert set(entries) == {".", *look(root / "j/mroot")}
    assert (entries["etc"].kind, entries["etc"].target) == ("link", "s/etc")
    found = {path: entry for path, entry in look(root / "j/mroot").items() if stat.S_ISREG(entry.mode)}
    files = {path: entry for path, entry in entries.items() if entry.kind == "file"}
    assert {path: (e.digest, 0o100000 | e.mode, e.uid, e.gid) for path, e in files.items()} == {
        path: (e.content, e.mode, e.uid, e.gid) for path, e in found.items()
    }
    links = {path: entry.nlink_of for path, entry in entries.items() if entry.nlink_of}
    assert links in ({"usr/bin/dash": "usr/bin/sh"}, {"usr/bin/sh": "usr/bin/dash"})


def _flags(path: Path, change: int | None = None) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        raw = fcntl.ioctl(fd, 0x80086601, b"\0" * 8)
        word: int = struct.unpack_from("=I", raw)[0]
        if change is not None:
            fcntl.ioctl(fd, 0x40086602, struct.pack("=II", change, 0))
        return word
    finally:
        os.close(fd)


IMMUTABLE, APPEND = 0x10, 0x20


def test_file_flags_are_kept_and_a_jail_with_them_can_be_destroyed(tmp_path: Path) -> None:
    """Immutable directories, links' homes and hard links included: nothing of them stops the split."""
    base = build(tmp_path / "base")
    flagged = {"etc": IMMUTABLE, "etc/passwd": IMMUTABLE, "var/log": APPEND, "usr/bin/su": IMMUTABLE}
    try:
        for path, flag in flagged.items():
            _flags(base / path, flag)
    except OSError as error:
        pytest.skip(f"no file flags on this file system: {error.strerror}")
    root = tmp_path / "root"
    where = ["--root", str(root), "-q"]
    assert run([*where, "init", "--no-mount", "--base", str(base), "a"]) == 0
    for half, top in (("skel/s", "skel/t"), ("s/a", "t/a")):
        assert _flags(root / half / "etc") & IMMUTABLE
        assert _flags(root / half / "etc/passwd") & IMMUTABLE
        assert _flags(root / top / "var/log") & APPEND
    assert _flags(root / "j/mroot/usr/bin/su") & IMMUTABLE
    assert os.readlink(root / "s/a/etc/os-release") == "../usr/lib/os-release"
    assert run([*where, "destroy", "a"]) == 0
    assert not (root / "s/a").exists()


CLIMBERS = {
    "etc/os-release": "../usr/lib/os-release",
    "etc/deep/er/link": "../../../usr/lib/os-release",
    "etc/absolute": "/usr/lib/os-release",
    "etc/mergedlib": "../lib/os-release",
    "usr/local/lib/up": "../../lib/os-release",
    "usr/local/top": "../lib/os-release",
    "usr/local/rooted": "../../usr/lib/os-release",
    "usr/local/etcless": "../../etc/passwd",
    "root/up": "../usr/lib/os-release",
    "root/etc": "../etc/passwd",
    "var/lib/x": "../../usr/lib/os-release",
    "var/toetc": "../etc/passwd",
    "var/totmp": "../tmp/file",
    "root/top": "..",
    "usr/lib/into": "../../etc/passwd",
    "usr/lib/local": "../local/file",
}
"""Links that leave the directory they are in, by path."""


@pytest.mark.parametrize("view", ["jail", "manage"])
def test_links_that_climb_lead_where_they_led(tmp_path: Path, view: str) -> None:
    base = build(tmp_path / "base")
    (base / "tmp").unlink()
    for path in ("tmp", "lib", "usr/local", "usr/local/lib", "etc/deep", "etc/deep/er"):
        (base / path).mkdir()
    for path in ("lib/os-release", "usr/local/file", "var/file"):
        (base / path).write_text(f"{path}\n")
    for path, target in CLIMBERS.items():
        if not (base / path).is_symlink():
            (base / path).symlink_to(target)
        elif os.readlink(base / path) != target:
            (base / path).unlink()
            (base / path).symlink_to(target)
    os.chown(base / "etc/mergedlib", 5, 6, follow_symlinks=False)
    root = tmp_path / "root"
    assert run(["--root", str(root), "-q", "init", "--base", str(base), "a"]) == 0
    assert run(["--root", str(root), "-q", "mount", "--manage", "a"]) == 0
    (root / "t/a/tmp/file").write_text("file in tmp\n")
    # In the manage view t is mounted nosymfollow: no link of the jail's leads the administrator anywhere.
    paths = [path for path in CLIMBERS if view == "jail" or not path.startswith("var/")]
    wanted = {path: _read_in(base, path) for path in paths if path != "var/totmp"}
    assert wanted["etc/mergedlib"] == "lib/os-release\n"  # control: it is read inside that root
    top = root / ("j/a" if view == "jail" else "manage/a")
    assert {path: _read_in(top, path) for path in wanted} == wanted
    assert _read_in(top, "var/totmp") == ("file in tmp\n" if view == "jail" else "OSError")
    assert (root / "s/a/etc/mergedlib").lstat().st_uid == 5


def _read_in(top: Path, path: str) -> str:
    """Read a file with `top` as the root directory."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.chroot(top)
            os.chdir("/")
            found = Path("/", path)
            # A directory is known by a file in it: etc/passwd, seen from the root.
            os.write(send, (found / "etc/passwd" if found.is_dir() else found).read_bytes())
        except OSError as error:
            os.write(send, f"{type(error).__name__}".encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text
