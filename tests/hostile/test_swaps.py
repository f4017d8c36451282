"""A swap before every look into t, of every command: no way to win, however often the attacker may try.

The attacker is deterministic (an audit hook, as in CVE tests of path libraries on one processor): before the
k-th event that reaches into t, for each k, a directory of t becomes a link to the victim's. An event is any
call of os by path or descriptor, os.stat included, and any call of the mount interface; those outside t
cannot tell whether t was swapped before them or before the next one inside, so they are no points.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import shutil
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from busybox_yard import BUSYBOX, busybox_yard, profile
from yard import Yard, clear_mounts, mounts

from layout.cli.main import run
from layout.host.beneath import resolve
from layout.host.linux import syscalls
from tests.hostile.house import CASES, changed, make_victim, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.box, pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")]

SWAPPED = ("var", "var/lib/site")
MAKING = {"init", "destroy"}
"""Commands that change what is in t: with them /tmp is swapped too, and FreeBSD's way to walk is tried."""
MOST = 400
"""Points at which the attacker gives up: every command has fewer."""
STATE = """
[[linux.state]]
path = "var/lib/site"
owner = "web"
[linux.service]
command = ["/bin/sleep", "1000"]
"""
IN_T = {
    "verify": ("verify a",),
    "init": ("init a --no-mount",),
    "plan": ("plan a",),
    "audit": ("audit a",),
    "mount": ("mount a", "mount --manage a"),
    "umount": ("umount a",),
    "manage": ("manage a -- sh -c true", "manage a --sealed -- sh -c true", "manage --base -- sh -c true"),
    "destroy": ("destroy a",),
    "recover": ("recover",),
    "base merge": ("base merge",),
    "base build dir": ("base build dir ROOT/t/a --output TOP/x.tar.zst",),
    "start": ("start a",),
}
"""Commands for which t has to be there as they find it; all others are tried with the words of CASES."""
SKIPPED = {
    "base build debian": "it makes its base in namespaces of its own, and needs the network",
    "base build host": "it copies the host's programs and looks at no jail",
}


class Tally:
    """What came of one command."""

    def __init__(self) -> None:
        self.points = self.honest = self.wins = 0

    def __str__(self) -> str:
        return f"{self.points} points, {self.honest} honest successes, {self.wins} wins"


TALLIES: dict[str, Tally] = {}


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with busybox_yard(tmp_path_factory.mktemp("swaps").resolve(), names=("a",)) as yard:
        profile(yard, "default", STATE)
        yard.ok("init", "--no-mount", "a")
        make_victim(yard.top / "victim/var")
        make_victim(yard.top / "victim/var/lib/site")
        make_victim(yard.top / "victim/tmp")
        (yard.top / "victim/var/lib/site/etc/passwd").write_text("VICTIM", encoding="utf-8")
        (yard.root / "t/a/var/lib/site/file").write_text("mine", encoding="utf-8")
        yard.keep()
        yield yard
    total = Tally()
    for name, tally in sorted(TALLIES.items()):
        print(f"{name}: {tally}")
        total.points += tally.points
        total.honest += tally.honest
        total.wins += tally.wins
    print(f"all commands: {total}")


class Attacker:
    """Counts events in t, in this process and in all that it forks, and swaps before one of them."""

    def __init__(self, yard: Yard, swapped: str, point: int) -> None:
        self.t = yard.root / "t/a"
        self.swapped = swapped
        self.point = point
        self.victim = yard.top / "victim" / swapped
        # t itself, what the mounted jail and a session show of it, and t below a detached copy of ROOT.
        self.places = [str(self.t), f"{yard.root}/j/a/t", f"{yard.root}/manage/a/t/var", "/t/a"]
        self.shared = mmap.mmap(-1, 8)
        self.on = False

    @property
    def count(self) -> int:
        return int(struct.unpack("=q", self.shared[:8])[0])

    def event(self, name: str, arguments: tuple[object, ...]) -> None:
        """The audit hook."""
        if name != "swap.point" or not self.on:
            return
        count = self.count + 1
        self.shared[:8] = struct.pack("=q", count)
        if count == self.point:
            self.on = False
            place = str(self.t / self.swapped)
            with contextlib.suppress(OSError):  # it is gone already: destroyed
                _rename(place, f"{self.t}/aside")
                _symlink(str(self.victim), place)
            self.on = True

    def arm(self) -> None:
        """Let every call by path or descriptor in this process be an event."""
        for name in PATCHED:
            setattr(os, name, self._told(getattr(os, name)))
        for name in ("openat2", "open_tree", "mount"):
            setattr(syscalls, name, self._told(getattr(syscalls, name), directory_first=name != "mount"))
        move = syscalls.move_mount
        setattr(syscalls, "move_mount", lambda fd, to, path: (self._look(path, to), move(fd, to, path))[1])  # noqa: B010
        sys.addaudithook(self.event)
        self.on = True

    def _told(self, function: Callable[..., Any], *, directory_first: bool = False) -> Callable[..., Any]:
        def told(*arguments: Any, **options: Any) -> Any:
            if directory_first:
                self._look(arguments[1], arguments[0])
            elif arguments:
                fd = options.get("dir_fd", options.get("src_dir_fd"))
                self._look(arguments[0], fd)
                if "dst_dir_fd" in options:
                    self._look(arguments[1], options["dst_dir_fd"])
            return function(*arguments, **options)

        return told

    def _look(self, path: Any, fd: int | None) -> None:
        if not self.on:
            return
        try:
            if isinstance(path, int):
                where = _readlink(f"/proc/self/fd/{path}")
            else:
                where = os.fsdecode(path)
                if fd is not None and fd >= 0 and not where.startswith("/"):
                    where = f"{_readlink(f'/proc/self/fd/{fd}')}/{where}"
        except (OSError, TypeError):
            return
        if any(where == place or where.startswith(f"{place}/") for place in self.places):
            sys.audit("swap.point", where)


_readlink, _rename, _symlink = os.readlink, os.rename, os.symlink
PATCHED = (
    *("open", "stat", "lstat", "scandir", "listdir", "mkdir", "rmdir", "unlink", "rename", "symlink", "link"),
    *(
        "readlink",
        "chown",
        "chmod",
        "fchown",
        "fchmod",
        "utime",
        "listxattr",
        "getxattr",
        "setxattr",
        "mknod",
    ),
    *("fstat", "chdir", "fchdir", "access", "statvfs"),
)


def attacked(yard: Yard, words: list[str], swapped: str, point: int, way: Any) -> tuple[int, int, str]:
    """Run a command in a process of its own; return its exit status, the points it passed, what it said."""
    attacker = Attacker(yard, swapped, point)
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape") for _ in range(2))
        try:
            resolve._chosen[:] = [way]
            attacker.arm()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run(["--root", str(yard.root), *words])
            attacker.on = False
        finally:
            out.flush()
            err.flush()
            os.write(send, out.buffer.getvalue()[-16384:] + err.buffer.getvalue()[-16384:])
            os._exit(code)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        said = pipe.read().decode("utf-8", "surrogateescape")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in {0, 1, 2}, (words, swapped, point, code, said)
    assert "mistake in layout" not in said, (words, swapped, point, said)
    return code, attacker.count, said


def ended(yard: Yard) -> None:
    if (yard.root / ".layout/run/a.toml").exists():
        yard.run("stop", "a")


def renewed(yard: Yard) -> None:
    """Make all of it anew; first end what runs, of which nothing would be known afterwards."""
    ended(yard)
    yard.renew()


def clean(yard: Yard, name: str) -> None:
    """Put back what the last run may have changed; what runs is stopped first."""
    if name == "destroy":
        renewed(yard)
        return
    ended(yard)
    if yard.mounts():
        clear_mounts(yard.root)
    t = yard.root / "t"
    shutil.rmtree(t / "a")
    shutil.copytree(yard.top / "as-made/t/a", t / "a", symlinks=True)
    (yard.top / "x.tar.zst").unlink(missing_ok=True)


def lines_of(name: str) -> tuple[str, ...]:
    return IN_T.get(name, tuple(" ".join(words) for words in CASES[name]))


WAYS = {"openat2": resolve._openat2_to, "walk": resolve.walk_to}


def swapped_of(name: str) -> tuple[str, ...]:
    return (*SWAPPED, "tmp") if name in MAKING else SWAPPED


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *((name, "openat2") for name in sorted(set(CASES) - set(SKIPPED))),
        *((name, "walk") for name in sorted(MAKING)),
    ],
)
def test_no_swap_before_any_look_into_t_reaches_the_victim(whole: Yard, name: str, way: str) -> None:
    tally = TALLIES.setdefault(name, Tally())
    before = tree(whole.top / "victim")
    for line in lines_of(name):
        words = line.replace("ROOT", str(whole.root)).replace("TOP", str(whole.top)).split()
        whole.run(*words)  # whatever the command imports is there for all that are forked
        renewed(whole)
        for swapped in swapped_of(name):
            for point in range(1, MOST):
                clean(whole, name)
                if name in {"umount", "verify"}:
                    whole.ok("mount", "a")
                if name in {"exec", "stop"}:
                    whole.ok("start", "a")
                code, count, said = attacked(whole, words, swapped, point, WAYS[way])
                won = changed(before, tree(whole.top / "victim")) or "VICTIM" in said
                tally.wins += bool(won)
                assert not won, (words, swapped, point)
                assert mounts(whole.top / "victim") == []
                tally.honest += code == 0
                if count < point:
                    break
                tally.points += 1
            else:
                pytest.fail(f"{line}: more than {MOST} points")
    renewed(whole)
    assert tally.wins == 0


NAIVE: dict[str, Callable[[str], object]] = {
    "chown by path": lambda t: os.chown(f"{t}/var/lib/site", 80, 80),
    "chmod after lstat": lambda t: os.lstat(f"{t}/var/lib/site") and os.chmod(f"{t}/var/lib/site", 0o700),
    "realpath, then open": lambda t: (
        os.path.realpath(f"{t}/var/lib/site/file").startswith(t)
        and os.close(os.open(f"{t}/var/lib/site/file", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    ),
    "islink, then write": lambda t: (
        not os.path.islink(f"{t}/var/lib/site")
        and os.close(os.open(f"{t}/var/lib/site/file", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    ),
    "mkdir -p": lambda t: os.mkdir(f"{t}/var/lib/site/new"),
}
"""Host code that goes by path, checks first or not: what the attacker has to win against."""


@pytest.mark.parametrize("name", NAIVE)
def test_the_attacker_wins_against_code_that_goes_by_path(
    whole: Yard, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: at some point at least one win, or the zeros above would mean nothing."""
    monkeypatch.setattr(sys.modules[__name__], "run", lambda words: (NAIVE[name](f"{words[1]}/t/a"), 0)[1])
    victim = whole.top / "victim/var/lib/site"
    before = tree(victim)
    wins = 0
    for point in range(1, 12):
        clean(whole, name)
        _, count, _ = attacked(whole, [], "var/lib/site", point, resolve.walk_to)
        if changed(before, tree(victim)):
            wins += 1
            shutil.rmtree(victim)
            make_victim(victim)
            (victim / "etc/passwd").write_text("VICTIM", encoding="utf-8")
            before = tree(victim)
        if count < point:
            break
    assert wins > 0
