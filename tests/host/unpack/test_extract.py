"""Whole archives into a real tree: the same as GNU tar makes, and nothing outside it in any case."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from handmade import END, Desk, header, listing, long_name, member, pax

from layout.core.errors import LayoutError, UsageError
from layout.host.unpack import Privileged, children

ODD = [
    "with space",
    "new\nline",
    "hash#",
    "back\\slash",
    "[glob]*?",
    "eq=ual",
    "ünï",
    "\udcff\udcfe",
    "-rf",
    "tab\t",
]
TOOLS = {"none": None, "gz": ["gzip"], "xz": ["xz", "-1"], "zst": ["zstd", "-q"], "bz2": ["bzip2"]}


def source(top: Path) -> Path:
    """A small root file system with one of everything."""
    tree = top / "in"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / ("deep/" * 60)).mkdir(parents=True)
    (tree / ("deep/" * 60) / "file").write_text("far down")
    (tree / "etc/*").mkdir()
    (tree / "etc/*/[").write_text("a test")
    for number, name in enumerate(ODD):
        (tree / "etc" / name).write_text(name * number, errors="surrogateescape")
    (tree / "usr/bin/big").write_bytes(os.urandom(3_000_001))
    (tree / "usr/bin/middle").write_bytes(os.urandom(100_000))
    (tree / "usr/bin/su").write_bytes(b"setuid")
    os.chown(tree / "usr/bin/su", 0, 42)
    os.chmod(tree / "usr/bin/su", 0o6755)
    os.link(tree / "usr/bin/su", tree / "usr/bin/alias")
    os.symlink("usr/bin", tree / "bin")
    os.symlink("../usr/lib/os release", tree / "etc/os-release")
    os.symlink("/absolute", tree / "etc/absolute")
    os.lchown(tree / "etc/absolute", 5, 6)
    (tree / "tmp").mkdir()
    os.chmod(tree / "tmp", 0o1777)
    (tree / "mail").mkdir()
    os.chmod(tree / "mail", 0o2775)
    os.chown(tree / "mail", 0, 8)
    (tree / "secret").mkdir()
    (tree / "secret/x").write_text("")
    os.chmod(tree / "secret", 0)
    for number, (where, dirs, files) in enumerate(os.walk(tree, topdown=False)):
        for name in (*dirs, *files):
            time_ns = (1_600_000_000 + number) * 10**9
            os.utime(Path(where, name), ns=(time_ns, time_ns), follow_symlinks=False)
    os.utime(tree, ns=(10**18, 10**18))
    return tree


def compress(archive: Path, tool: list[str] | None) -> Path:
    if tool is None:
        return archive
    if shutil.which(tool[0]) is None:
        pytest.skip(f"no {tool[0]}")
    out = archive.with_suffix(".packed")  # no name tells the compression
    out.write_bytes(subprocess.run([*tool, "-c", archive], check=True, capture_output=True).stdout)
    archive.unlink()
    return out


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar"])
@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_the_tree_is_what_gnu_tar_makes(
    desk: Desk, tmp_path: Path, form: str, tool: list[str] | None
) -> None:
    tree = source(tmp_path)
    if form == "ustar":
        shutil.rmtree(tree / "deep")
    archive = tmp_path / "in.tar"
    subprocess.run(["tar", "-C", tree, f"--format={form}", "-cf", archive, "."], check=True)
    (tmp_path / "in.gnu").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "in.gnu", "-xpf", archive, "--same-owner"], check=True)
    result = desk.unpack(compress(archive, tool))
    assert listing(desk.tree) == listing(tmp_path / "in.gnu")
    assert len(desk.entries()) == len(listing(desk.tree)) == result.entries
    assert result.left_out == {}
    for path, entry in desk.entries().items():
        if entry.kind == "file":
            data = (desk.tree / path).read_bytes()
            assert (entry.size, entry.digest) == (len(data), hashlib.sha256(data).hexdigest())
    assert {entry.path for entry in result.setuid} == {"./usr/bin/su"[2:], "usr/bin/alias", "mail"}
    assert Privileged("mail", "dir", 0o2775, 0, 8) in result.setuid
    linked = [entry for entry in desk.entries().values() if entry.nlink_of]
    assert {(entry.path, entry.nlink_of) for entry in linked} <= {
        ("usr/bin/su", "usr/bin/alias"),
        ("usr/bin/alias", "usr/bin/su"),
    }
    assert len(linked) == 1


def test_tarfile_and_its_pax_headers(desk: Desk, tmp_path: Path) -> None:
    tree = source(tmp_path)
    archive = tmp_path / "in.tar.xz"
    with tarfile.open(archive, "w:xz", format=tarfile.PAX_FORMAT, preset=0) as tar:
        tar.add(tree, ".")
    desk.unpack(archive)
    assert listing(desk.tree) == listing(tree)


@pytest.mark.skipif(shutil.which("mtree") is None, reason="no mtree (Debian: mtree-netbsd)")
def test_mtree_accepts_the_manifest_and_finds_a_changed_byte(desk: Desk, tmp_path: Path) -> None:
    archive = tmp_path / "in.tar"
    subprocess.run(["tar", "-C", source(tmp_path), "-cf", archive, "."], check=True)
    desk.unpack(archive)
    check = ["mtree", "-f", desk.manifest, "-p", desk.tree]
    right = subprocess.run(check, capture_output=True)
    assert (right.returncode, right.stdout.decode()) == (0, "")
    with (desk.tree / "usr/bin/middle").open("r+b") as file:
        old = file.read(1)
        file.seek(0)
        file.write(bytes([old[0] ^ 1]))
    wrong = subprocess.run(check, capture_output=True)
    assert wrong.returncode == 2
    assert b"usr/bin/middle" in wrong.stdout


def test_extended_attributes_and_capabilities_are_set_or_counted(desk: Desk) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    result = desk.unpack(
        pax({b"SCHILY.xattr.security.capability": capability, b"SCHILY.xattr.trusted.x": b"1"})
        + member(b"ping", b"#!")
        + pax({b"SCHILY.xattr.user.a": b"\0b", b"SCHILY.fflags": b"schg", b"SCHILY.acl.access": b"user::rwx"})
        + member(b"dir/", flag=b"5")
        + END
    )
    assert os.getxattr(desk.tree / "ping", "security.capability") == capability
    assert result.setuid == (Privileged("ping", "file", 0o644, 0, 0, capability=True),)
    unset = result.left_out.pop("xattr")
    assert result.left_out == {"flags": 1, "acl": 1}
    assert [names for _, names in result.flags] == ["schg"]
    # trusted.* needs CAP_SYS_ADMIN, which the child gave up; user.* is missing on some tmpfs.
    if unset == 1:
        assert os.getxattr(desk.tree / "dir", "user.a") == b"\0b"
    assert unset in (1, 2)


def test_devices_and_fifos_are_left_out_and_counted(desk: Desk) -> None:
    result = desk.unpack(
        member(b"null", flag=b"3")
        + member(b"sda", flag=b"4")
        + member(b"pipe", flag=b"6")
        + member(b"f", b"x")
        + END
    )
    assert result.left_out == {"device": 2, "fifo": 1}
    assert (result.entries, result.bytes) == (4, 1)
    assert os.listdir(desk.tree) == ["f"]


def test_missing_directories_are_made_and_listed(desk: Desk) -> None:
    desk.unpack(member(b"a/b/c", b"x") + END)
    assert list(desk.entries()) == [".", "a", "a/b", "a/b/c"]
    assert oct(os.stat(desk.tree / "a/b").st_mode) == oct(0o40755) == oct(os.stat(desk.tree).st_mode)


def test_later_entries_replace_earlier_ones_of_their_kind(desk: Desk) -> None:
    result = desk.unpack(
        member(b"d/", flag=b"5", mode=b"0000700")
        + member(b"f", b"old", mode=b"0004755")
        + member(b"h", flag=b"1", link=b"f")
        + member(b"f", b"newer")
        + member(b"l", flag=b"2", link=b"f")
        + member(b"l", b"a file, and f stays as it is")
        + member(b"d/", flag=b"5", mode=b"0000750")
        + END
    )
    assert (desk.tree / "f").read_text() == "newer"
    assert (desk.tree / "h").read_text() == "old"
    assert not (desk.tree / "l").is_symlink()
    assert oct(os.stat(desk.tree / "d").st_mode) == oct(0o40750)
    entries = desk.entries()
    assert entries["f"].size == 5
    assert entries["h"].digest == hashlib.sha256(b"old").hexdigest()
    assert entries["h"].nlink_of == ""  # what it was linked to is another file by now
    assert [entry.path for entry in result.setuid] == ["h"]


OUT = b"/proc/self/cwd/../victim"
"""Absolute, and the victim: tests chdir into the directory beside it."""
LINK_OUT = member(b"l", flag=b"2", link=OUT)
HOSTILE = {
    "absolute name": (member(OUT + b"/passwd", b"x"), "/victim/passwd", "absolute name"),
    "dot-dot name": (member(b"../victim/passwd", b"x"), "../victim/passwd", "component"),
    "dot-dot inside": (member(b"a/../../victim/passwd", b"x"), "a/../../victim/passwd", "component"),
    "write through a relative symlink": (
        member(b"d/", flag=b"5") + member(b"l", flag=b"2", link=b"d") + member(b"l/passwd", b"x"),
        "l/passwd",
        "leads through 'l'",
    ),
    "write through an absolute symlink": (LINK_OUT + member(b"l/passwd", b"x"), "l/passwd", "leads through"),
    "mkdir through a symlink": (LINK_OUT + member(b"l/d/", flag=b"5"), "l/d", "leads through"),
    "symlink through a symlink": (LINK_OUT + member(b"l/m", flag=b"2", link=b"x"), "l/m", "leads through"),
    "directory over a symlink": (LINK_OUT + member(b"l/", flag=b"5"), "l", "a directory where"),
    "hard link up": (member(b"h", flag=b"1", link=b"../victim/passwd"), "h", "component"),
    "hard link through a symlink": (LINK_OUT + member(b"h", flag=b"1", link=b"l/passwd"), "h", "nothing"),
    "hard link to a symlink": (LINK_OUT + member(b"h", flag=b"1", link=b"l"), "h", "no file"),
    "hard link to a directory": (
        member(b"d/", flag=b"5") + member(b"h", flag=b"1", link=b"d"),
        "h",
        "no file",
    ),
    "hard link to itself": (member(b"h", b"x") + member(b"h", flag=b"1", link=b"h"), "h", "itself"),
    "hard link to what comes later": (member(b"h", flag=b"1", link=b"f") + member(b"f"), "h", "nothing"),
    "climbing symlink": (member(b"a/l", flag=b"2", link=b"../../victim"), "a/l", "above the archive's root"),
    "long climb": (member(b"l", flag=b"2", link=b"a/" * 10 + b"../" * 11), "l", "above the archive's root"),
    "PATH_MAX": (long_name(b"a/" * 2100 + b"x") + member(b"a"), "a/a", "a name of 4201 bytes"),
    "5000 deep": (long_name(b"/".join([b"d"] * 5000)) + member(b"a"), "d/d", "a name of 9999 bytes"),
    "300 deep": (long_name(b"/".join([b"d"] * 300)) + member(b"a"), "d/d", "300 directories deep"),
    "file over a directory": (member(b"d/", flag=b"5") + member(b"d", b"x"), "d", "had a directory"),
    "symlink over a directory": (
        member(b"d/x", b"x") + member(b"d", flag=b"2", link=OUT),
        "d",
        "had a directory",
    ),
    "file below a file": (member(b"f", b"x") + member(b"f/passwd", b"x"), "f/passwd", "leads through 'f'"),
    "directory over a file": (member(b"f", b"x") + member(b"f/", flag=b"5"), "f", "a directory where"),
    "bad checksum": (member(b"f") + header(b"g").replace(b"g", b"h", 1), "", "wrong checksum"),
    "negative size": (header(b"f", size_field=b"\xff" * 12), "f", "a size of -1 bytes"),
    "absurd size": (header(b"f", size_field=b"\x80" + b"\x7f" * 11), "f", "beyond"),
    "endless pax header": (header(b"p", 1 << 32, b"x"), "p", "an extended header (x) of 4294967296 bytes"),
    "NUL in a name": (pax({b"path": b"f\0g"}) + member(b"f"), "f\0g", "NUL"),
    "sparse file": (member(b"f", flag=b"S"), "f", "a sparse file"),
}


@pytest.mark.parametrize(("archive", "entry", "found"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_archives_are_refused_by_name(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, archive: bytes, entry: str, found: str
) -> None:
    monkeypatch.chdir(desk.victim)
    assert os.stat(OUT).st_ino == os.stat(desk.victim).st_ino  # a naive reader would get there
    with pytest.raises(LayoutError) as caught:
        desk.unpack(member(b"first", b"1") + archive + END)
    error = caught.value
    assert not isinstance(error, UsageError)
    assert error.path.startswith("base.tar: " if entry else "base.tar")
    assert entry in error.path
    assert found in error.found
    assert str(error).isprintable()


def test_absolute_links_stay_text_and_odd_names_stay_bytes(desk: Desk) -> None:
    desk.unpack(
        member(b"l", flag=b"2", link=b"/etc/../../passwd")
        + pax({b"path": b"a\n\xff b"})
        + member(b"x", b"1")
        + END
    )
    assert os.readlink(desk.tree / "l") == "/etc/../../passwd"
    assert sorted(os.listdir(os.fsencode(desk.tree))) == [b"a\n\xff b", b"l"]
    assert set(desk.entries()) == {".", "l", "a\n\udcff b"}


def zstd(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKERS = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress, "zstd": zstd}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_concatenated_streams_are_one_archive_and_cut_ones_none(desk: Desk, pack: object) -> None:
    assert callable(pack)
    plain = member(b"a", os.urandom(700_000)) + member(b"b", b"y") + END
    desk.unpack(pack(plain[:1000]) + pack(b"") + pack(plain[1000:]))
    assert sorted(desk.entries()) == [".", "a", "b"]
    packed = pack(plain)
    for cut in (len(packed) // 2, len(packed) - 1):
        shutil.rmtree(desk.tree)
        with pytest.raises(LayoutError, match=r"base\.tar: found truncated"):
            desk.unpack(packed[:cut])
    shutil.rmtree(desk.tree)
    with pytest.raises(LayoutError, match=r"base\.tar: found damaged"):
        desk.unpack(packed + b"garbage" * 10)
    shutil.rmtree(desk.tree)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    with pytest.raises(LayoutError):
        desk.unpack(bytes(flipped))


def test_skippable_frames_and_padding_are_passed_over(desk: Desk) -> None:
    plain = member(b"a", b"x") + END
    desk.unpack(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(plain) + b"\x5f\x2a\x4d\x18\0\0\0\0")
    shutil.rmtree(desk.tree)
    desk.unpack(gzip.compress(plain) + bytes(512))
    shutil.rmtree(desk.tree)
    desk.unpack(lzma.compress(plain) + bytes(8))
    assert sorted(desk.entries()) == [".", "a"]


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_bombs_hit_the_limit(desk: Desk, pack: object) -> None:
    assert callable(pack)
    bomb = pack(member(b"a", b"x") + bytes(30_000_000))
    with pytest.raises(LayoutError, match="beyond 10000000"):
        desk.unpack(bomb, max_bytes=10_000_000)
    shutil.rmtree(desk.tree)
    with pytest.raises(LayoutError, match=r"zeros: found .* beyond 10000000"):
        desk.unpack(pack(member(b"zeros", bytes(30_000_000)) + END), max_bytes=10_000_000)
    assert os.listdir(desk.tree) == []


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh\n" * 100, b"PK\x03\x04" + bytes(600), gzip.compress(b"text"), b"x"]
)
def test_what_is_no_archive_is_a_usage_error(desk: Desk, data: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        desk.unpack(data)
    assert caught.value.path == "base.tar"


def test_the_staging_directory_must_be_empty(desk: Desk) -> None:
    desk.unpack(member(b"a") + END)
    with pytest.raises(LayoutError, match="expected an empty one"):
        desk.unpack(member(b"b") + END)
    assert os.listdir(desk.tree) == ["a"]


def test_progress_ends_with_everything(desk: Desk) -> None:
    calls: list[tuple[int, int]] = []
    archive = gzip.compress(member(b"a", os.urandom(20_000_000)) + END, 1)
    desk.unpack(archive, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(archive), len(archive))
    assert all(0 <= done <= total == len(archive) for done, total in calls)
    assert calls == sorted(calls)


def test_the_children_are_confined(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at them while they work; the lock of the parent is not among their descriptors."""
    seen: dict[str, dict[str, str]] = {}
    expected = {"decompresses": 0, "unpacks": 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 31}
    lock = os.open(desk.victim / "passwd", os.O_RDONLY)
    os.set_inheritable(lock, True)
    watch = children.watch

    def look(family: list[children.Child], tick: object) -> None:
        for child in family:
            # Until it is shut in, and not much longer: on a fast machine all is soon unpacked.
            deadline = time.monotonic() + 30
            while True:
                lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
                status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                # The lines of one reading need not be of one moment: all are to be as they stay.
                capabilities = {int(status[f"Cap{kind}"], 16) for kind in ("Eff", "Prm")}
                shut_in = capabilities == {expected[child.task]} and status["NoNewPrivs"] == "1"
                is_nobody = status["Uid"].split() == ["65534"] * 4
                if shut_in and (is_nobody or child.task == "unpacks"):
                    break
                if time.monotonic() > deadline:
                    break
            status["root"] = os.readlink(f"/proc/{child.pid}/root")
            links = []
            for name in os.listdir(f"/proc/{child.pid}/fd"):
                # A file that it unpacks is closed again soon; what it inherited stays.
                with contextlib.suppress(FileNotFoundError):
                    links.append(os.readlink(f"/proc/{child.pid}/fd/{name}"))
            status["fds"] = " ".join(sorted(links))
            status["net"] = os.readlink(f"/proc/{child.pid}/ns/net")
            seen[child.task] = status
            os.kill(child.pid, signal.SIGCONT)
        for child in family:
            os.kill(child.pid, signal.SIGKILL)
        watch(family, None)

    monkeypatch.setattr(children, "watch", look)
    try:
        # Far more than can be unpacked while we look; they are not to finish it.
        archive = gzip.compress(member(b"a", bytes(500_000_000)) + END, 1)
        with pytest.raises(LayoutError, match="signal 9"):
            desk.unpack(archive)
    finally:
        os.close(lock)
    for task, capabilities in expected.items():
        status = seen[task]
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == capabilities
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        assert int(status["CapBnd"], 16) & ~capabilities == 0
        assert status["NoNewPrivs"] == "1"
        assert status["root"] == str(desk.tree)
        assert status["net"] != os.readlink("/proc/self/ns/net")
        assert str(desk.victim) not in status["fds"]
    assert seen["decompresses"]["Uid"].split() == ["65534"] * 4


@pytest.mark.parametrize("task", ["decompresses", "unpacks"])
def test_a_child_that_dies_is_an_error(desk: Desk, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    watch = children.watch

    def murder(family: list[children.Child], tick: object) -> None:
        os.kill(next(child.pid for child in family if child.task == task), signal.SIGKILL)
        watch(family, None)

    monkeypatch.setattr(children, "watch", murder)
    with pytest.raises(LayoutError, match="signal 9"):
        desk.unpack(gzip.compress(member(b"a", os.urandom(10_000_000)) + END, 1))


def offspring() -> set[str]:
    """Return the numbers of this process's children, ended ones included (proc_pid_stat(5))."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = (
                Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(") ")[2]
            )
            if words.split()[1] == str(os.getpid()):
                found.add(pid)
    return found


def test_an_interrupt_leaves_no_child(desk: Desk) -> None:
    archive = gzip.compress(member(b"a", os.urandom(60_000_000)) + END, 1)
    # To this thread, as a Ctrl-C to layout, which has no other: the timer would pass by our mask.
    timer = threading.Timer(0.1, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
    before = offspring()  # of other tests
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        desk.unpack(archive)
    timer.join()
    assert offspring() <= before


def test_unmapped_owners_become_root_without_setuid(desk: Desk, tmp_path: Path) -> None:
    """In a user namespace that maps nothing but root."""
    probe = subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True)
    if probe.returncode != 0:
        pytest.skip("no user namespaces here")
    archive = tmp_path / "in.tar"
    archive.write_bytes(
        member(b"su", b"x", uid=b"0001750", mode=b"0004755")
        + member(b"l", flag=b"2", link=b"su", uid=b"0001750")
        + END
    )
    script = (
        "import os, sys; from layout.host.unpack import unpack\n"
        "os.mkdir('in.t', 0o700); a = os.open('in.tar', 0); t = os.open('in.t', 0)\n"
        "m = os.open('in.m', os.O_WRONLY | os.O_CREAT)\n"
        "r = unpack(a, 'in.tar', t, m); print(r.unmapped, r.setuid, oct(os.stat('in.t/su').st_mode))"
    )
    run = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )
    assert (run.stdout, run.stderr) == ("2 () 0o100755\n", "")


def test_a_full_disk_is_named(desk: Desk) -> None:
    """RLIMIT_FSIZE stands in for it: both make write(2) come short or fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(LayoutError, match=r"base\.tar: big: found .* while writing it"):
            archive = io.BytesIO(member(b"big", bytes(3_000_000)) + END).getvalue()
            desk.unpack(gzip.compress(archive))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
