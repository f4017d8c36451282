"""The root of a thin jail holds what its program needs and nothing else, and follows every change of that."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from layout.core.errors import LayoutError, UsageError
from layout.core.model import Platform
from layout.core.thin import (
    Thin,
    ThinDirectory,
    ThinFile,
    ThinLink,
    ThinRoot,
    ThinText,
    accounts_of,
    check_thin,
)
from layout.host import thin_cache
from layout.host.beneath import open_root, thin_tree
from layout.host.thin_closure import Wanted, thin_root

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

SHARED = ("-shared", "-fPIC", "-nostdlib")
LIBRARY = "int answer(void) { return %d; }\n"


def compile_(*words: str | Path, text: str) -> None:
    subprocess.run(["gcc", "-x", "c", "-", "-x", "none", *words], input=text, text=True, check=True)


@pytest.fixture(name="origin")
def _origin(tmp_path: Path) -> Path:
    """A tree with a program, its library in a directory of its own, a module, and accounts."""
    top = tmp_path / "origin"
    for name in ("usr/bin", "usr/lib/app/modules", "etc/ssl/certs", "usr/share/app", "lib64"):
        (top / name).mkdir(parents=True)
    (top / "bin").symlink_to("usr/bin")
    library = top / "usr/lib/app/libanswer.so.1"
    compile_(*SHARED, "-Wl,-soname,libanswer.so.1", "-o", library, text=LIBRARY % 42)
    module = top / "usr/lib/app/modules/back_one.so"
    compile_(*SHARED, "-o", module, text=LIBRARY % 1)
    module.chmod(0o644)
    # Everything that it needs lies in this tree: no libc.
    start = "int answer(void);\nvoid _start(void) { answer(); for (;;); }\n"
    words = ("-nostdlib", "-Wl,-rpath,/usr/lib/app", "-Wl,--dynamic-linker=/lib64/ld.so", library)
    compile_(*words, "-o", top / "usr/bin/app", text=start)
    compile_(*SHARED, "-o", top / "lib64/ld.so", text=LIBRARY % 0)
    (top / "usr/bin/app").chmod(0o4755)
    (top / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\napp:secret:77:78:App:/var/app:/bin/sh\neve:x:99:99::/:/bin/sh\n"
    )
    (top / "etc/group").write_text("root:x:0:\napp:x:78:\nmedia:x:90:eve,app\neve:x:99:\n")
    (top / "etc/ssl/certs/ca-certificates.crt").write_text("trusted\n")
    (top / "usr/share/app/data").write_text("data\n")
    (top / "etc/localtime").symlink_to("../usr/share/app/data")
    return top


def wanted(origin: Path, thin: Thin | None = None, **more: object) -> Wanted:
    plain = Wanted(
        "a",
        str(origin),
        str(origin / "etc"),
        Platform.LINUX,
        ("/bin/app",),
        ("app",),
        thin or Thin(),
        ("var/log/app",),
        host=str(origin),
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def test_a_root_holds_the_closure_the_accounts_and_the_mount_points(origin: Path) -> None:
    thin = Thin(modules=("/usr/lib/app/modules/back_*",), files=("/usr/share/app",))
    root = thin_root(wanted(origin, thin))
    items = {item.path: item for item in root.items}
    files = {item.path for item in root.items if isinstance(item, ThinFile)}
    assert files == {
        "usr/bin/app",
        "usr/lib/app/libanswer.so.1",
        "usr/lib/app/modules/back_one.so",
        "lib64/ld.so",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/share/app/data",
        "etc/localtime",
    }
    assert items["bin"] == ThinLink("bin", "usr/bin")
    assert items["var/log/app"] == ThinDirectory("var/log/app", 0o755)
    assert items["etc/passwd"] == ThinText("etc/passwd", "app:*:77:78:App:/var/app:/nonexistent\n", 0o644)
    assert items["etc/group"] == ThinText("etc/group", "app:*:78:\nmedia:*:90:app\n", 0o644)
    program = items["usr/bin/app"]
    assert isinstance(program, ThinFile)
    assert program.mode == 0o755
    paths = [item.path for item in root.items]
    assert all(os.path.dirname(path) in {"", *paths[:number]} for number, path in enumerate(paths))


def test_what_a_profile_does_not_want_is_left_out(origin: Path) -> None:
    root = thin_root(wanted(origin, Thin(certificates=False, timezone=False)))
    files = {item.path for item in root.items if isinstance(item, ThinFile)}
    assert files == {"usr/bin/app", "usr/lib/app/libanswer.so.1", "lib64/ld.so"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"users": ("nosuch",)}, "no user nosuch"),
        ({"thin": Thin(modules=("/usr/lib/app/none*",))}, "nothing that matches"),
        ({"thin": Thin(files=("/none",))}, "nothing that matches"),
        ({"programs": ("/bin/none",)}, "nothing by that name"),
        ({"targets": ("bin/app/x",)}, "a place for a directory"),
        ({"targets": ("bin/x",)}, "a place for a directory"),
    ],
)
def test_what_cannot_be_had_is_named(origin: Path, change: dict[str, object], said: str) -> None:
    with pytest.raises(LayoutError) as error:
        thin_root(wanted(origin, **change))
    assert said in str(error.value)


def test_a_root_is_made_once_and_again_when_a_library_changes(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with open_root(str(tmp_path / "state")) as state:
        first, made = thin_cache.provide(state, "a", thin_root(wanted(origin)))
        assert made
        assert thin_cache.provide(state, "a", thin_root(wanted(origin))) == (first, False)
        assert list(thin_cache.differences(state, first.digest)) == []
        top = tmp_path / "state/thin" / first.digest
        assert (top / "usr/bin/app").read_bytes() == (origin / "usr/bin/app").read_bytes()
        assert stat.S_IMODE((top / "usr/bin/app").stat().st_mode) == 0o755
        # Another jail with the same content has the same root.
        other, _ = thin_cache.provide(state, "b", thin_root(wanted(origin)))
        assert other.digest == first.digest
        library = origin / "usr/lib/app/libanswer.so.1"
        compile_(*SHARED, "-Wl,-soname,libanswer.so.1", "-o", library, text=LIBRARY % 43)
        second, made = thin_cache.provide(state, "a", thin_root(wanted(origin)))
        assert made
        assert second.digest != first.digest
        assert thin_cache.collect(state) == []  # b has it still
        thin_cache.provide(state, "b", thin_root(wanted(origin)))
        assert thin_cache.collect(state) == [first.digest]
        thin_cache.forget(state, "a")
        thin_cache.forget(state, "b")
        assert thin_cache.collect(state) == [second.digest]


def test_only_a_new_time_makes_no_new_root(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with open_root(str(tmp_path / "state")) as state:
        first, _ = thin_cache.provide(state, "a", thin_root(wanted(origin)))
        os.utime(origin / "usr/bin/app")
        second, made = thin_cache.provide(state, "a", thin_root(wanted(origin)))
        assert made
        assert second.digest == first.digest
        assert second.key != first.key


def test_a_library_of_the_same_size_and_time_is_another_one(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    library = origin / "usr/lib/app/libanswer.so.1"
    with open_root(str(tmp_path / "state")) as state:
        first, _ = thin_cache.provide(state, "a", thin_root(wanted(origin)))
        before = library.stat()
        data = bytearray(library.read_bytes())
        data[-1] ^= 1
        with library.open("r+b") as file:
            file.write(data)
        os.utime(library, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = library.stat()
        assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
            before.st_ino,
            before.st_size,
            before.st_mtime_ns,
        )
        second, made = thin_cache.provide(state, "a", thin_root(wanted(origin)))
        assert made
        assert second.digest != first.digest
        copy = tmp_path / "state/thin" / second.digest / "usr/lib/app/libanswer.so.1"
        assert copy.read_bytes() == bytes(data)


@pytest.mark.parametrize("way", ["cloned", "copied by the kernel", "copied by hand"])
def test_the_digest_is_that_of_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "cloned":  # as on a file system that shares blocks
        monkeypatch.setattr(thin_tree, "_cloned", lambda source, fd: os.sendfile(fd, source, 0, 1 << 20) > 0)
    if way == "copied by hand":
        monkeypatch.delattr(os, "copy_file_range")
    origin = tmp_path / "origin"
    origin.mkdir()
    data = os.urandom(300_001)
    (origin / "x").write_bytes(data)
    found = (origin / "x").stat()
    times = found.st_mtime_ns, found.st_ctime_ns
    file = ThinFile("x", "x", 0o644, found.st_size, *times, found.st_ino, found.st_dev)
    digest = hashlib.sha256(data).hexdigest()
    known: dict[str, str] = {}
    with open_root(str(origin)) as source:
        for number in range(2):  # the second time, the digest is known
            top = tmp_path / f"copy{number}"
            top.mkdir()
            with open_root(str(top)) as to:
                (entry,) = thin_tree.write_root(to, source, ThinRoot(str(origin), (file,)), known)
            assert entry.content == digest
            assert (top / "x").read_bytes() == data
            state = (found.st_dev, found.st_ino, found.st_size, *times)
            known = {":".join(map(str, state)): digest}


def test_a_root_that_was_cut_short_is_made_anew(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with open_root(str(tmp_path / "state")) as state:
        record, _ = thin_cache.provide(state, "a", thin_root(wanted(origin)))
        damaged = tmp_path / "state/thin" / record.digest / "usr/lib/app/libanswer.so.1"
        damaged.write_bytes(b"")
        assert [found[0] for found in thin_cache.differences(state, record.digest)]
        (tmp_path / "state/thin/.new-a").mkdir()  # of a run that was killed
        again, made = thin_cache.provide(state, "a", thin_root(wanted(origin)))
        assert (again.digest, made) == (record.digest, True)
        assert list(thin_cache.differences(state, record.digest)) == []


def root_of_a_shell() -> ThinRoot:
    """Return a root with one file, the host's shell: at rest for long."""
    program = os.path.realpath("/bin/sh")
    found = os.stat(program)
    times = found.st_mtime_ns, found.st_ctime_ns
    file = ThinFile("sh", program[1:], 0o755, found.st_size, *times, found.st_ino, found.st_dev)
    return ThinRoot("/", (file,))


def test_a_file_is_hashed_once_and_verify_believes_no_digest_of_before(tmp_path: Path) -> None:
    root = root_of_a_shell()
    (tmp_path / "state").mkdir()
    known = tmp_path / "state/thin/digests.json"
    with open_root(str(tmp_path / "state")) as state:
        first, _ = thin_cache.provide(state, "a", root)
        thin_cache.provide(state, "keeper", ThinRoot("/", ()))
        ((key, digest),) = json.loads(known.read_text()).items()
        assert len(digest) == 64
        known.write_text(json.dumps({key: "0" * 64}))
        thin_cache.forget(state, "a")
        thin_cache.collect(state)
        second, _ = thin_cache.provide(state, "a", root)
        assert second.digest != first.digest
        assert list(thin_cache.differences(state, second.digest)) != []
        known.write_text("damaged")
        thin_cache.forget(state, "a")
        assert thin_cache.provide(state, "a", root)[0].digest == first.digest
        for name in ("a", "keeper"):
            thin_cache.forget(state, name)
        thin_cache.collect(state)
        assert os.listdir(tmp_path / "state/thin") == []


def test_what_init_has_hashed_is_only_copied_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = root_of_a_shell()
    (tmp_path / "state").mkdir()

    def read(*_: object) -> str:
        raise AssertionError("hashed once more")

    with open_root(str(tmp_path / "state")) as state:
        with monkeypatch.context() as patch:
            patch.setattr(thin_tree, "_read", read)
            with pytest.raises(AssertionError):
                thin_cache.provide(state, "a", root)
        thin_cache.learn(state, root)
        assert os.listdir(tmp_path / "state/thin") == ["digests.json"]
        with monkeypatch.context() as patch:
            patch.setattr(thin_tree, "_read", read)
            thin_cache.learn(state, root)
            record, made = thin_cache.provide(state, "a", root)
        assert made
        assert list(thin_cache.differences(state, record.digest)) == []
        gone = ThinFile("sh", "usr/bin/none", 0o755, 1, 1, 1, 1, 1)
        thin_cache.learn(state, ThinRoot("/", (gone,)))  # whoever makes that root says so


def test_a_file_that_changes_while_it_is_copied_is_noticed(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    root = thin_root(wanted(origin))
    os.utime(origin / "usr/bin/app")
    with open_root(str(tmp_path / "state")) as state:
        with pytest.raises(LayoutError, match="has just changed"):
            thin_cache.provide(state, "a", root)
        assert os.listdir(tmp_path / "state/thin") == []


@pytest.mark.parametrize(
    "thin",
    [Thin(root="usr"), Thin(modules=("lib/x",)), Thin(files=("/usr/../etc/shadow",)), Thin(users=("a:b",))],
)
def test_a_profile_cannot_name_what_is_no_path(thin: Thin) -> None:
    with pytest.raises(UsageError):
        check_thin(thin, "a: linux.thin")
    check_thin(Thin(root="/srv/system", modules=("/usr/lib/*/x.so",), users=("bind",)), "a: linux.thin")


def test_freebsd_gets_the_file_that_its_databases_are_made_of(origin: Path) -> None:
    root = thin_root(wanted(origin, platform=Platform.FREEBSD))
    items = {item.path: item for item in root.items}
    text = "app:*:77:78::0:0:App:/var/app:/nonexistent\n"
    assert items["etc/master.passwd"] == ThinText("etc/master.passwd", text, 0o600)


def test_nobody_else_is_in_the_accounts() -> None:
    passwd, group, missing = accounts_of(
        ("a", "b"), "a:x:1:2:::/bin/sh\nc:x:3:2:::\n", "g:x:2:c,a\nh:x:9:c\n"
    )
    assert (passwd, group, missing) == ("a:*:1:2:::/nonexistent\n", "g:*:2:a\n", ("b",))
