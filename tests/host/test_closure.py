"""The closure is what the loader would load, and the base made from it runs.

Trees with absolute links are written in the box alone, where a mistake cannot reach the host through them.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layout.core.errors import LayoutError, UsageError
from layout.core.model import Platform
from layout.host.base_data import REQUIRED
from layout.host.closure import (
    BaseDirectory,
    BaseFile,
    BaseLink,
    BaseText,
    HostBase,
    host_base,
    library_closure,
)
from layout.host.elf import Elf, read_program

GCC = shutil.which("gcc")
HERE = Platform.FREEBSD if sys.platform.startswith("freebsd") else Platform.LINUX

needs_gcc = pytest.mark.skipif(GCC is None, reason="no gcc to make an example with")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="chroot(2) needs root")
only_glibc = pytest.mark.skipif(not os.path.exists("/etc/ld.so.conf"), reason="not a host with glibc")

# Opened by glibc while it runs: no file names them, so ldd does not either.
DLOPENED = {"libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1"}


def ldd(program: str) -> set[str]:
    """What the loader says, by running it: for programs that this test trusts."""
    answer = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    assert "not found" not in answer
    return {os.path.realpath(path) for path in re.findall(r"^\t(?:.* => )?(/\S+) \(0x", answer, re.M)}


def create(top: Path, path: str, content: bytes, mode: int) -> None:
    """Make a new file below `top`, never through a link that leads out of it: this test may run as root."""
    place = top / path
    assert place.parent.resolve().is_relative_to(top.resolve()), f"{place} lies outside {top}"
    with place.open("xb") as file:  # exclusive: what exists is never overwritten
        file.write(content)
    place.chmod(mode)


def write(base: HostBase, top: Path) -> None:
    """Write a base in the order given; that every parent is there first is part of the test."""
    for item in base.items:
        path = top / item.path
        assert path.parent.resolve().is_relative_to(top.resolve()), f"{path} lies outside {top}"
        match item:
            case BaseDirectory(mode=mode):
                path.mkdir()
                path.chmod(mode)
            case BaseLink(target=target):
                path.symlink_to(target)
            case BaseFile(source=source, mode=mode):
                create(top, item.path, Path(source).read_bytes(), mode)
            case BaseText(text=text, mode=mode):
                create(top, item.path, text.encode(), mode)


def inside(top: Path, *command: str) -> subprocess.CompletedProcess[str]:
    def enter() -> None:
        os.chroot(top)
        os.chdir("/")

    return subprocess.run(
        command, capture_output=True, text=True, preexec_fn=enter, env={"PATH": "/usr/bin:/bin"}
    )


@pytest.fixture(scope="module")
def base() -> HostBase:
    return host_base(HERE)


# --- library_closure against the real loader --------------------------------------------------------


@only_glibc
@pytest.mark.parametrize(
    "name", ["ls", "bash", "tar", "mount", "ps", "awk", "less", "vi", "ssh", "git", "curl", "perl"]
)
def test_the_closure_is_what_ldd_says(name: str) -> None:
    program = shutil.which(name, path="/usr/bin:/bin")
    if program is None:
        pytest.skip(f"no {name} on this host")
    closure = library_closure([name])
    sources = {file.source for file in closure.files} - {os.path.realpath(program)}
    expected = ldd(program)
    assert expected <= sources
    assert {os.path.basename(f.path) for f in closure.files if f.source in sources - expected} <= DLOPENED


def test_a_name_and_its_path_have_one_closure() -> None:
    ls = shutil.which("ls", path="/usr/bin:/bin")
    assert ls is not None
    assert library_closure([ls]).files == library_closure(["ls"]).files


def test_every_content_is_there_once(base: HostBase) -> None:
    sources = [item.source for item in base.items if isinstance(item, BaseFile)]
    assert len(sources) == len(set(sources))


def test_a_missing_program_is_an_error_only_when_it_is_required() -> None:
    with pytest.raises(LayoutError, match="no-such-program") as caught:
        library_closure(["no-such-program"])
    assert caught.value.hint
    closure = library_closure(["ls"], wanted=["no-such-program", "cat"])
    assert [(m.name, m.reason) for m in closure.missing] == [
        ("no-such-program", "no-such-program: nothing by that name")
    ]
    assert any(file.path.endswith("/cat") for file in closure.files)


# --- examples compiled here --------------------------------------------------------------------------


def build(folder: Path, *options: str, two: str = "lib") -> Path:
    """main -> libone -> libtwo; `two` is the folder of libtwo."""
    assert GCC is not None
    for name in ("lib", two):
        (folder / name).mkdir(exist_ok=True)
    (folder / "two.c").write_text("int two(void) { return 2; }\n")
    (folder / "one.c").write_text("int two(void); int one(void) { return two() - 1; }\n")
    (folder / "main.c").write_text("int one(void); int main(void) { return one() - 1; }\n")
    shared = [GCC, "-shared", "-fPIC"]
    main_options = [option for option in options if not option.startswith("one:")]
    one_options = [option.removeprefix("one:") for option in options if option.startswith("one:")]
    for command in (
        [*shared, "-o", f"{folder}/{two}/libtwo.so.1", "-Wl,-soname,libtwo.so.1", f"{folder}/two.c"],
        [*shared, "-o", f"{folder}/lib/libone.so.1", "-Wl,-soname,libone.so.1", f"{folder}/one.c",
         f"{folder}/{two}/libtwo.so.1", *one_options],
        [GCC, "-o", f"{folder}/main", f"{folder}/main.c", f"{folder}/lib/libone.so.1",
         f"-Wl,-rpath-link,{folder}/{two}", *main_options],
    ):  # fmt: skip
        made = subprocess.run(command, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
    return folder / "main"


@needs_gcc
@pytest.mark.parametrize(
    "options",
    [
        ("-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib", "one:-Wl,--enable-new-dtags,-rpath,$ORIGIN"),
        ("-Wl,--enable-new-dtags,-rpath,${ORIGIN}/lib", "one:-Wl,--enable-new-dtags,-rpath,${ORIGIN}/../lib"),
        ("-Wl,--disable-new-dtags,-rpath,$ORIGIN/lib",),
    ],
    ids=["runpath", "braces", "rpath-is-inherited"],
)
def test_runpath_and_rpath_lead_where_the_loader_goes(tmp_path: Path, options: tuple[str, ...]) -> None:
    main = build(tmp_path, *options)
    assert subprocess.run([main]).returncode == 0
    closure = library_closure([str(main)])
    sources = {file.source for file in closure.files}
    assert ldd(str(main)) <= sources
    assert {f"{tmp_path}/lib/libone.so.1", f"{tmp_path}/lib/libtwo.so.1"} <= sources


@needs_gcc
def test_runpath_is_not_inherited(tmp_path: Path) -> None:
    main = build(tmp_path, "-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib")
    assert subprocess.run([main], capture_output=True).returncode == 127  # the loader says the same
    with pytest.raises(LayoutError, match=r"libtwo\.so\.1"):
        library_closure([str(main)])


@needs_gcc
def test_a_library_for_another_machine_is_passed_over(tmp_path: Path) -> None:
    main = build(tmp_path, "-Wl,--disable-new-dtags,-rpath,$ORIGIN/other:$ORIGIN/lib")
    (tmp_path / "other").mkdir()
    foreign = bytearray((tmp_path / "lib/libtwo.so.1").read_bytes())
    foreign[18] ^= 0xFF  # e_machine
    (tmp_path / "other/libtwo.so.1").write_bytes(foreign)
    (tmp_path / "other/libone.so.1").write_text("GROUP ( libone.so )\n")
    paths = {file.path for file in library_closure([str(main)]).files}
    assert {f"{tmp_path}/lib/libone.so.1", f"{tmp_path}/lib/libtwo.so.1"} <= paths
    assert not any(path.startswith(f"{tmp_path}/other") for path in paths)


# --- other roots: absolute paths and links start there ---------------------------------------------


LOADER_OF_LS = read_program("/bin/ls")
assert isinstance(LOADER_OF_LS, Elf)


def fake_root(top: Path, *, merged: bool, interpreter: str = "", libraries: str = "usr/lib") -> Path:
    """A root with one program that is called by every name, as busybox is, and with its libraries.

    Everything is written by its real directory, and the absolute links come last: a write through one of
    them would reach the host.
    """
    assert isinstance(LOADER_OF_LS, Elf) and LOADER_OF_LS.interpreter
    programs = "usr/bin" if merged else "bin"
    loader = LOADER_OF_LS.interpreter
    place = (interpreter or loader).lstrip("/")
    for name in (
        programs,
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "etc/alternatives",
        libraries,
        os.path.dirname(place),
    ):
        (top / name).mkdir(parents=True, exist_ok=True)
    program = Path(os.path.realpath("/bin/true")).read_bytes()
    if interpreter:
        old, new = loader.encode() + b"\0", interpreter.encode() + b"\0"
        program = program.replace(old, new.ljust(len(old), b"\0"))
    create(top, f"{programs}/busybox", program, 0o4755)
    create(top, place, Path(os.path.realpath(loader)).read_bytes(), 0o755)
    for file in library_closure(["true"]).files:
        name = os.path.basename(file.path)
        if name.startswith("lib") and name not in DLOPENED:
            create(top, f"{libraries}/{name}.9", Path(file.source).read_bytes(), 0o644)
            (top / libraries / name).symlink_to(f"{name}.9")
    for name in REQUIRED:
        if name not in {"sh", "env"}:
            (top / programs / name).symlink_to("busybox")
    (top / programs / "sh").symlink_to("/bin/busybox")
    (top / "etc/alternatives/env").symlink_to("/bin/busybox")
    (top / "usr/bin/env").symlink_to("/etc/alternatives/env")
    for name in ("bin", "sbin", "lib"):
        if merged:
            (top / name).symlink_to(f"/usr/{name}")
        else:
            (top / name).mkdir(exist_ok=True)
    return top


@pytest.mark.box
@only_glibc
@pytest.mark.parametrize("merged", [True, False], ids=["merged", "plain"])
def test_the_links_of_the_host_are_mirrored(tmp_path: Path, merged: bool) -> None:
    top = fake_root(tmp_path / "root", merged=merged)
    found = {item.path: item for item in host_base(HERE, root=str(top)).items}
    bin_ = "usr/bin" if merged else "bin"
    if merged:
        assert found["bin"] == BaseLink("bin", "usr/bin")
        assert found["lib"] == BaseLink("lib", "usr/lib")
    else:
        assert found["bin"] == BaseDirectory("bin", 0o755)
    # setuid stays behind, each name is a link to the one file, and the way through /etc is cut short.
    assert found[f"{bin_}/busybox"] == BaseFile(f"{bin_}/busybox", f"{top}/{bin_}/busybox", 0o755)
    assert found[f"{bin_}/ls"] == BaseLink(f"{bin_}/ls", "busybox")
    assert found[f"{bin_}/sh"] == BaseLink(f"{bin_}/sh", "busybox")
    assert found["usr/bin/env"] == BaseLink("usr/bin/env", "busybox" if merged else "../../bin/busybox")
    assert not any(path.startswith("etc/alternatives") for path in found)
    library = found["usr/lib/libc.so.6"]
    assert isinstance(library, BaseFile) and library.source == f"{top}/usr/lib/libc.so.6.9"


@pytest.mark.box
@only_glibc
def test_a_library_of_ld_so_conf_is_found_without_a_cache(tmp_path: Path) -> None:
    top = fake_root(tmp_path / "root", merged=True, libraries="opt/own")
    with pytest.raises(LayoutError, match=r"libc\.so\.6"):
        host_base(HERE, root=str(top))
    (top / "etc/ld.so.conf.d").mkdir()
    (top / "etc/ld.so.conf").write_text("# local\ninclude ld.so.conf.d/*.conf\n")
    (top / "etc/ld.so.conf.d/own.conf").write_text("/nowhere\n/opt/own/ # ours\n")
    (top / "etc/ld.so.conf.d/loop.conf").write_text("include /etc/ld.so.conf\n")
    closure = library_closure(["ls"], str(top))
    assert closure.directories == ("/opt/own",)
    found = {item.path: item for item in host_base(HERE, root=str(top)).items}
    libc = found["opt/own/libc.so.6"]
    assert isinstance(libc, BaseFile) and libc.source == f"{top}/opt/own/libc.so.6.9"
    text = found["etc/ld.so.conf"]
    assert isinstance(text, BaseText) and "/opt/own\n" in text.text


@pytest.mark.box
@only_glibc
def test_freebsd_has_its_own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = fake_root(tmp_path / "root", merged=False, interpreter="/libexec/ld-elf.so.1", libraries="lib")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "freebsd14")
        base = host_base(Platform.FREEBSD, root=str(top))
    found = {item.path: item for item in base.items}
    assert isinstance(found["libexec/ld-elf.so.1"], BaseFile)
    assert isinstance(found["lib/libc.so.6"], BaseFile)
    assert isinstance(found["etc/master.passwd"], BaseText)
    assert found["var/run"] == BaseDirectory("var/run", 0o755)
    assert not {"run", "etc/mtab", "etc/shadow"} & found.keys()


def test_scripts_bring_their_interpreter_and_languages_stay_out(tmp_path: Path) -> None:
    for name, text in {
        "sh-script": "#!/bin/sh\n",
        "env-script": "#!/usr/bin/env -S sort -u\n",
        "perl-script": "#!/usr/bin/perl -w\n",
        "relative": "#!sh\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "not-executable").write_text("#!/bin/sh\n")
    wanted = [str(path) for path in sorted(tmp_path.iterdir())]
    closure = library_closure([], wanted=wanted, without=["perl"])
    names = {os.path.basename(file.path) for file in closure.files}
    assert {"sh-script", "env-script", "env", "sort", os.path.basename(os.path.realpath("/bin/sh"))} <= names
    assert [os.path.basename(missing.name) for missing in closure.missing] == [
        "not-executable",
        "perl-script",
        "relative",
    ]


# --- the base ------------------------------------------------------------------------------------------


def test_the_base_is_small(base: HostBase) -> None:
    assert base.files < 200
    assert base.size < 40_000_000
    assert base.size == sum(
        len(item.text.encode()) if isinstance(item, BaseText) else os.stat(item.source).st_size
        for item in base.items
        if isinstance(item, BaseText | BaseFile)
    )


def test_parents_come_first_and_nothing_lies_below_a_link(base: HostBase) -> None:
    seen: set[str] = set()
    for item in base.items:
        parent = os.path.dirname(item.path)
        assert item.path not in seen and not item.path.startswith("/") and ".." not in item.path.split("/")
        assert parent == "" or parent in seen
        seen.add(item.path)
    directories = {item.path for item in base.items if isinstance(item, BaseDirectory)}
    assert {os.path.dirname(path) for path in seen} - {""} <= directories


def test_sources_are_canonical_and_no_mode_gives_privileges_away(base: HostBase) -> None:
    for item in base.items:
        if isinstance(item, BaseFile):
            assert item.source == os.path.realpath(item.source)
            assert stat.S_ISREG(os.lstat(item.source).st_mode)
        if isinstance(item, BaseFile | BaseText):
            assert item.mode & ~0o755 == 0


def test_modes_of_the_directories(base: HostBase) -> None:
    modes = {item.path: item.mode for item in base.items if isinstance(item, BaseDirectory)}
    assert (modes["root"], modes["tmp"], modes["var/tmp"], modes["var/empty"]) == (
        0o700,
        0o1777,
        0o1777,
        0o555,
    )


def test_the_base_is_made_in_well_under_a_second() -> None:
    best = min(_timed() for _ in range(3))
    assert best < 1.0


def _timed() -> float:
    """Seconds of the processor: what others take of it meanwhile is not ours."""
    start = time.process_time()
    host_base(HERE)
    return time.process_time() - start


def test_a_base_for_the_other_platform_is_refused() -> None:
    other = Platform.LINUX if HERE is Platform.FREEBSD else Platform.FREEBSD
    with pytest.raises(UsageError, match=other.value) as caught:
        host_base(other)
    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.box
def test_written_links_resolve(base: HostBase, tmp_path: Path) -> None:
    write(base, tmp_path)
    for item in base.items:
        # What leads into /proc and /run is there when the jail runs.
        if isinstance(item, BaseLink) and "proc/" not in item.target and not item.target.startswith("/run"):
            assert not os.path.isabs(item.target)
            assert os.path.exists(tmp_path / item.path), item


@pytest.mark.box
@needs_root
def test_the_base_runs(base: HostBase, tmp_path: Path) -> None:
    write(base, tmp_path)
    script = 'ls / && cat /etc/os-release && awk "BEGIN{print 6*7}" && id -un && echo a | sed s/a/b/'
    ran = inside(tmp_path, "/bin/sh", "-c", script)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert {"bin", "etc", "usr", "var"} <= set(lines)
    assert 'VARIANT="layout host base"' in lines
    assert lines[-3:] == ["42", "root", "b"]


@pytest.mark.box
@needs_root
@only_glibc
def test_every_program_of_the_base_finds_its_libraries_there(base: HostBase, tmp_path: Path) -> None:
    write(base, tmp_path)
    checked = 0
    for item in base.items:
        if not isinstance(item, BaseFile) or not re.match(r"(usr/)?s?bin/", item.path):
            continue
        elf = read_program(item.source)
        if isinstance(elf, Elf) and elf.interpreter:
            ran = inside(tmp_path, elf.interpreter, "--list", f"/{item.path}")
            assert ran.returncode == 0 and "not found" not in ran.stdout, (item.path, ran.stderr)
            checked += 1
    assert checked > 20  # positive control: the loop has looked at something
    assert inside(tmp_path, elf.interpreter or "", "--list", "/etc/passwd").returncode != 0
