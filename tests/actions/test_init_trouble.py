"""Wrong input, a bad base, a bad ROOT: one clear error, and nothing changed."""

from __future__ import annotations

import ctypes
import io
import os
import re
import tarfile
from pathlib import Path

import pytest
from small_base import archive, build, look

from layout.cli.main import run

pytestmark = pytest.mark.box


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    """An empty directory, root's and closed."""
    path = tmp_path.resolve() / "place"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture(name="small_disk")
def _small_disk(place: Path):
    """A tmpfs of so many kilobytes at `place`/disk."""
    disk = place / "disk"
    disk.mkdir(mode=0o700)
    libc = ctypes.CDLL(None, use_errno=True)

    def make(size: str) -> Path:
        assert libc.mount(b"disk", os.fsencode(disk), b"tmpfs", 0, f"size={size},mode=700".encode()) == 0
        return disk

    yield make
    libc.umount2(os.fsencode(disk), 2)


def assert_clear(done, code: int, *words: str) -> None:
    """One error in the shape of all errors."""
    assert done.code == code, done
    assert done.out == ""
    first = done.err.splitlines()[0]
    assert re.match(r"layout: .+: found .+, expected .+", first), done.err
    assert len([line for line in done.err.splitlines() if line.startswith("layout:")]) == 1
    for word in words:
        assert word in done.err, done.err


# --- names, profiles, configuration --------------------------------------------------------------------

NAMES = [
    "../x",
    "a b",
    "a\n",
    "-rf",
    "x" * 300,
    "0",
    "mroot",
    "",
    ".",
    "a.b",
    "A",
    "*",
    "$x",
    "\x1b[31m",
    "ä",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_no_jail_can_have(place: Path, base: Path, layout, name: str) -> None:
    done = layout("--root", place / "jails", "init", "--base", base, "--", "fine", name)
    assert_clear(done, 2, "hint: ")
    assert done.err.isprintable() or set(done.err) - set(map(chr, range(32, 127))) <= {"\n", "ä"}
    assert list(place.iterdir()) == []


def test_an_unknown_profile_names_the_nearest(place: Path, base: Path, layout) -> None:
    done = layout("--root", place / "jails", "init", "--base", base, "--profile", "ldpa", "x")
    assert_clear(done, 2, "profile 'ldpa': found no such profile", "did you mean 'ldap'?")
    assert list(place.iterdir()) == []


PROFILES = {
    "an unknown key": ("prset = 'classic'", "unknown key 'prset'", "did you mean 'preset'?"),
    "an unknown key inside": (
        "[[linux.state]]\npath = 'var/x'\nownr = 'a'",
        "unknown key 'linux.state[0].ownr'",
        "did you mean 'owner'?",
    ),
    "no TOML": ("= ]", "at line 3", ""),
    "a wrong value": ("manage = 'sometimes'", "manage", ""),
    "an absolute path": ("[[linux.state]]\npath = '/etc/x'", "'/etc/x'", "below var or tmp"),
    "a path that climbs": ("[[linux.state]]\npath = 'var/../../x'", "'var/../../x'", ""),
    "a path in s": ("[[linux.state]]\npath = 'etc/x'", "'etc/x'", ""),
    "var itself": ("[[linux.state]]\npath = 'var'", "'var'", ""),
    "a setuid directory": ("[[linux.state]]\npath = 'var/x'\nmode = '4755'", "'4755'", ""),
    "an odd owner": ("[[linux.state]]\npath = 'var/x'\nowner = 'a:b\\u0000'", "owner", ""),
}


@pytest.mark.parametrize(("text", "found", "hint"), PROFILES.values(), ids=PROFILES.keys())
def test_a_bad_profile_names_file_and_key(
    place: Path, base: Path, layout, text: str, found: str, hint: str
) -> None:
    """A profile may come from a stranger: data only, and nothing outside var and tmp."""
    profile = place / "etc/profiles/bad.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text(f"kind = 'shared'\ndescription = ''\n{text}\n")
    before = look(place)
    done = layout("--root", place, "init", "--base", base, "--profile", "bad", "x")
    assert_clear(done, 2, str(profile), found, hint)
    assert look(place) == before


def test_a_bad_configuration_names_the_nearest_key(place: Path, base: Path, layout) -> None:
    (place / "etc").mkdir()
    (place / "etc/layout.toml").write_text("prset = 'classic'\n")
    done = layout("--root", place, "init", "--base", base, "x")
    assert_clear(done, 2, f"{place}/etc/layout.toml", "unknown key 'prset'", "did you mean 'preset'?")
    assert sorted(os.listdir(place)) == ["etc"]


# --- ROOT ----------------------------------------------------------------------------------------------


def _symlink(place: Path) -> Path:
    (place / "real").mkdir(mode=0o700)
    (place / "jails").symlink_to("real")
    return place / "jails"


def _below_symlink(place: Path) -> Path:
    return _symlink(place) / "deeper"


def _world_writable(place: Path) -> Path:
    (place / "jails").mkdir()
    (place / "jails").chmod(0o777)
    return place / "jails"


def _below_writable(place: Path) -> Path:
    return _world_writable(place) / "deeper"


def _anothers(place: Path) -> Path:
    (place / "jails").mkdir(mode=0o700)
    os.chown(place / "jails", 1000, 1000)
    return place / "jails"


def _file(place: Path) -> Path:
    (place / "jails").write_text("")
    return place / "jails"


def _no_parent(place: Path) -> Path:
    return place / "nowhere/jails"


def _slash(place: Path) -> Path:
    return Path("/")


def _read_only(place: Path) -> Path:
    return Path("/usr/share/layout-jails")  # tests/box shows / read-only


def _nul(place: Path) -> Path:
    return place / "a\0b"


ROOTS = [
    (_symlink, 2, "a symbolic link to real"),
    (_below_symlink, 2, "a symbolic link to real"),
    (_world_writable, 2, "mode 0777, which others can write to"),
    (_below_writable, 2, "mode 0777"),
    (_anothers, 2, "a directory of user 1000"),
    (_file, 2, "no directory"),
    (_no_parent, 2, "no such directory"),
    (_slash, 2, "a directory of its own"),
    (_read_only, 1, "a read-only file system"),
    (_nul, 2, "no path"),
]


@pytest.mark.parametrize(("make", "code", "found"), ROOTS, ids=[make.__name__[1:] for make, *_ in ROOTS])
def test_a_root_that_cannot_be_used(place: Path, base: Path, layout, make, code: int, found: str) -> None:
    root = make(place)
    before = look(place)
    assert_clear(layout("--root", root, "init", "--base", base, "x"), code, found)
    assert look(place) == before


def test_an_ordinary_user_is_told_to_be_root(place: Path, base: Path, capfd) -> None:
    words = ["--root", str(place / "jails"), "init", "--base", str(base), "--no-mount", "x"]
    assert run([*words, "--dry-run"]) == 0  # what is imported now, a user need not be able to read
    capfd.readouterr()
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        os._exit(run(words))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert "found user 65534, expected root" in said.err
    assert "hint: " in said.err
    assert list(place.iterdir()) == []


# --- the base ------------------------------------------------------------------------------------------


def _empty(place: Path, base: Path) -> Path:
    (place / "empty").mkdir()
    return place / "empty"


def _missing(place: Path, base: Path) -> Path:
    return place / "missing"


def _text_file(place: Path, base: Path) -> Path:
    (place / "text").write_text("not an archive\n" * 1000)
    return place / "text"


def _empty_file(place: Path, base: Path) -> Path:
    (place / "nothing").write_text("")
    return place / "nothing"


def _fifo(place: Path, base: Path) -> Path:
    os.mkfifo(place / "fifo")
    return place / "fifo"


def _no_shell(place: Path, base: Path) -> Path:
    (place / "tree/etc").mkdir(parents=True)
    return place / "tree"


def _no_shell_archive(place: Path, base: Path) -> Path:
    return archive(_no_shell(place, base), place, "tar.gz")


def _split_already(place: Path, base: Path) -> Path:
    for name, target in (("etc", "s/etc"), ("var", "t/var"), ("root", "s/root")):
        (place / "mroot").mkdir(exist_ok=True)
        (place / "mroot" / name).symlink_to(target)
    return place / "mroot"


def _usr_link(place: Path, base: Path) -> Path:
    (_no_shell(place, base) / "usr").symlink_to("System")
    (place / "tree/bin").mkdir()
    (place / "tree/bin/sh").write_text("")
    return place / "tree"


def _own_s(place: Path, base: Path) -> Path:
    (_no_shell(place, base) / "s/mine").mkdir(parents=True)
    return place / "tree"


def _truncated(kind: str):
    def make(place: Path, base: Path) -> Path:
        whole = archive(base, place, kind)
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        return whole

    make.__name__ = f"_truncated_{kind}"
    return make


def _hostile(**attributes: object):
    def make(place: Path, base: Path) -> Path:
        path = archive(base, place, "tar")
        with tarfile.open(path, "a") as tar:
            info = tarfile.TarInfo("x")
            for name, value in attributes.items():
                setattr(info, name, value)
            tar.addfile(info, io.BytesIO(b"x" * info.size))
        return path

    make.__name__ = f"_hostile_{attributes['name']}_{attributes.get('linkname', '')}"
    return make


BASES = [
    (_empty, 2, "found nothing, expected a root file system"),
    (_missing, 2, "no such file"),
    (_text_file, 2, "archive"),
    (_empty_file, 2, "found an empty file"),
    (_fifo, 2, "neither a directory nor a regular file"),
    (_no_shell, 2, "a root file system with etc and bin/sh"),
    (_no_shell_archive, 2, "a root file system with etc and bin/sh"),
    (_split_already, 2, "etc as a symbolic link to s/etc"),
    (_usr_link, 2, "usr as a symbolic link"),
    (_own_s, 2, "/s in use"),
    (_truncated("tar"), 1, ""),
    (_truncated("tar.gz"), 1, ""),
    (_truncated("tar.xz"), 1, ""),
    (_truncated("tar.zst"), 1, ""),
    (_hostile(name="../../escaped", size=1), 1, "'..'"),
    (_hostile(name="/escaped", size=1), 1, "absolute"),
    (_hostile(name="etc/out", type=tarfile.LNKTYPE, linkname="../../../escaped"), 1, ""),
]


@pytest.mark.parametrize(("make", "code", "found"), BASES, ids=[make.__name__[1:] for make, *_ in BASES])
def test_a_base_that_cannot_be_one(place: Path, base: Path, layout, make, code: int, found: str) -> None:
    """No final name, no staging: not even ROOT is there afterwards. A ROOT that was there is as it was."""
    source = make(place, base)
    before = look(place)
    assert_clear(layout("--root", place / "jails", "init", "--base", source, "x"), code, found)
    assert look(place) == before
    (place / "jails").mkdir(mode=0o700)
    assert_clear(layout("--root", place / "jails", "init", "--base", source, "x"), code, found)
    assert list((place / "jails").iterdir()) == []


def _bind(source: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(os.fsencode(source), os.fsencode(target), None, 4096, None) == 0


@pytest.mark.parametrize("at", ["usr/lib", "etc/passwd"])
def test_a_base_with_a_mount_inside(place: Path, layout, at: str) -> None:
    """A bind mount of the same file system, of a single file as well."""
    base = build(place / "base")
    _bind(base / at, base / at)
    before = look(place)
    done = layout("--root", place / "jails", "init", "--base", base, "x")
    assert_clear(done, 2, f"a mount inside, at {base / at}", f"umount {base / at}")
    assert look(place) == before


@pytest.mark.parametrize("source", ["", "s/a", "j/mroot", ".."])
def test_a_base_that_is_or_holds_root(place: Path, base: Path, layout, source: str) -> None:
    root = place / "jails"
    assert layout("--root", root, "init", "--no-mount", "--base", base, "a").code == 0
    (root / ".layout/bases/mroot.toml").unlink()
    before = look(root)
    done = layout("--root", root, "init", "--no-mount", "--base", root / source, "a")
    assert_clear(done, 2, "expected a base of its own")
    assert look(root) == before


def test_tables_that_cannot_be_written_leave_no_jail(place: Path, base: Path, layout) -> None:
    """ETC is /etc/layout here, which tests/box shows read-only."""
    (place / "layout.toml").write_text(f"root = '{place}/jails'\n")
    done = layout("--config", place / "layout.toml", "init", "--no-mount", "--base", base, "a")
    assert_clear(done, 1, "/etc/layout/fstab.d/a.fstab: found read-only file system")
    assert sorted(os.listdir(place / "jails/s")) == sorted(os.listdir(place / "jails/.layout/jails")) == []


# --- a full disk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["directory", "tar", "tar.zst"])
def test_a_disk_too_small_for_the_base(small_disk, tmp_path: Path, base: Path, layout, kind: str) -> None:
    disk = small_disk("1m")
    source = base if kind == "directory" else archive(base, tmp_path, kind)
    done = layout("--root", disk / "jails", "init", "--base", source, "x")
    assert_clear(done, 1, "pace")
    assert list(disk.iterdir()) == []


def test_a_disk_too_small_for_the_second_jail(small_disk, base: Path, layout) -> None:
    """The base and the first jail are whole; of the second there is nothing. With room, init goes on."""
    disk = small_disk("11m")  # the base, its skeleton and each jail have a file of 3 MB
    root = disk / "jails"
    names = ["a", "b", "c", "d"]
    done = layout("--root", root, "init", "--no-mount", "--base", base, *names)
    assert_clear(done, 1, "no space left", "free some")
    made = sorted(os.listdir(root / "s"))
    assert made
    assert made != names
    for place in ("j", "manage", "t"):
        assert sorted(set(os.listdir(root / place)) - {"mroot"}) == made
    assert sorted(path.stem for path in (root / ".layout/jails").iterdir()) == made
    assert layout("--root", root, "init", "--no-mount", *made).out.endswith("0 changes\n")
    libc = ctypes.CDLL(None)
    assert libc.mount(b"disk", os.fsencode(disk), b"tmpfs", 32, b"size=64m") == 0
    assert layout("--root", root, "init", "--no-mount", *names).code == 0
    assert sorted(os.listdir(root / "s")) == names
