"""An administrator's session in a jail whose root has planted everything it can think of in its t.

Ordinary work in it (look around, query, upgrade and remove a package, merge its configuration, build, edit,
read a log) changes what the administrator changed and nothing else: not the host, not mroot, not s. The same
plants work against a bare chroot, which is the control.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.house import Jails
from tests.hostile.house import changed, make_victim, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.e2e

NAME = "bind"
PWNED = "#!/bin/sh\necho pwned >/etc/pwned; echo pwned >/usr/pwned\necho pwned >VICTIM/etc/passwd\nexit 0\n"
STAYS = "allow = no\n"
"""What the administrator made of the package's configuration."""


def package(top: Path, version: str) -> Path:
    """Make a package with a program, a file of configuration and a script."""
    tree = top / f"demo_{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "etc").mkdir()
    (tree / "usr/share/demo").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: demo\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@y.test>\nDescription: x\n"
    )
    (tree / "DEBIAN/conffiles").write_text("/etc/demo.conf\n")
    (tree / "DEBIAN/prerm").write_text("#!/bin/sh\nexit 0\n")
    (tree / "DEBIAN/prerm").chmod(0o755)
    (tree / "etc/demo.conf").write_text(f"# {version}\nallow = yes\n")
    (tree / "usr/share/demo/version").write_text(version)
    archive = top / f"demo_{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, archive],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return archive


def with_libraries(program: Path) -> set[Path]:
    """Return a program of the host with the libraries that it needs."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return {program, *(Path(path) for path in re.findall(r"(/\S+) \(0x", said))}


def install_compiler(mroot: Path) -> None:
    """Bring what compiles and assembles, and make(1), from the host: the base has none."""
    assembler = shutil.which("as")
    compiler = shutil.which("gcc")
    builder = shutil.which("make")
    assert assembler and compiler and builder
    proper = subprocess.run(
        ["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True
    ).stdout.strip()
    for program in (assembler, compiler, builder, proper):
        for file in with_libraries(Path(program)):
            # The same name, in the directory that it really is in: /lib is a link in both.
            place = mroot / str(file.parent.resolve() / file.name).lstrip("/")
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)


class Attacked:
    """The jail, what was planted in its t, and what nobody may touch."""

    def __init__(self, jails: Jails, top: Path) -> None:
        self.jails = jails
        self.top = top
        self.root = jails.root
        self.t = jails.root / "t" / NAME
        self.victim = make_victim(top / "victim")

    def state(self) -> dict[str, dict[str, tuple[object, ...]]]:
        """Return the victim by content, mroot and s by what no one can forge: inode and times of change."""
        return {
            "victim": tree(self.victim),
            "host": {name: facts(Path(name)) for name in ("/etc/passwd", "/etc", "/usr", "/usr/bin")},
            "mroot": prints(self.root / "j/mroot"),
            "s": prints(self.root / "s" / NAME),
            **{name: prints(self.root / "s" / name) for name in ("ldap", "heimdal")},
        }

    def session(self, script: str, *words: str, **more: object) -> object:
        return self.jails.run("manage", NAME, *words, "--", "/bin/sh", "-c", script, **more)

    def works(self, script: str, expected: set[str], *words: str, code: int = 0) -> str:
        """Run a script in a session: exactly these paths of mroot and s change, and nothing outside."""
        before = self.state()
        done = self.session(script, *words)
        after = self.state()
        assert done.code == code, (script, done)
        differ = {place: changed(before[place], after[place]) for place in before}
        found = {f"/{path}" for path in differ.pop("mroot")} | {seen(path) for path in differ.pop("s")}
        assert {path for path in found if not any(re.fullmatch(one, path) for one in expected)} == set(), (
            script
        )
        assert all(any(re.fullmatch(one, path) for path in found) for one in expected), (script, found)
        assert {place: paths for place, paths in differ.items() if paths} == {}, script
        assert not (self.root / "j/mroot/usr/pwned").exists()
        assert not (self.root / "s" / NAME / "etc/pwned").exists()
        return str(done.out)


def seen(path: str) -> str:
    """Return how the jail sees a path of its s."""
    return "/usr/local" + path.removeprefix("usr-local") if path.startswith("usr-local") else f"/{path}"


def facts(path: Path) -> tuple[object, ...]:
    s = path.lstat()
    return (s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns)


def prints(top: Path) -> dict[str, tuple[object, ...]]:
    """Return what tells each entry from any other, of directories without times: their entries speak."""
    found = {}
    for where, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(where, name)
            s = os.lstat(path)
            is_dir = os.path.isdir(path) and not os.path.islink(path)
            times = (0, 0, 0, 0) if is_dir else (s.st_nlink, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            found[os.path.relpath(path, top)] = (s.st_mode, s.st_uid, s.st_gid, s.st_ino, *times)
    return found


@pytest.fixture(name="attacked", scope="module")
def _attacked(jails: Jails, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A package in the base, its configuration edited in the jail; then the jail's root plants."""
    top = tmp_path_factory.mktemp("attack").resolve()
    one, two = package(top, "1"), package(top, "2")
    share = jails.root / "j/mroot/usr/share"
    for archive in (one, two):
        shutil.copy(archive, share)
    (share / "push").write_text(PUSH)
    install_compiler(jails.root / "j/mroot")
    jails.ok("manage", "--base", "--", "dpkg", "-i", f"/usr/share/{one.name}")
    s = jails.root / "s" / NAME
    (s / "etc/demo.conf").write_text(STAYS)
    (s / "etc/motd").write_text("hello\n")
    (s / "usr-local/port").mkdir()
    (s / "usr-local/port/x.c").write_text(
        "".join(f"int f{n}(int x) {{ return x * {n}; }}\n" for n in range(300))
    )
    (s / "usr-local/port/Makefile").write_text(
        "PORT_DBDIR ?= /var/db/ports\n-include $(PORT_DBDIR)/demo/options\nall:\n\tgcc -c -o x.o x.c\n"
    )
    attacked = Attacked(jails, top)
    plant(attacked)
    yield attacked
    shutil.rmtree(attacked.t / "var/db/ports")


def plant(attacked: Attacked) -> None:
    """Be root of the jail, in its t."""
    var = attacked.t / "var"
    evil = PWNED.replace("VICTIM", str(attacked.victim))

    def write(path: Path, text: str, mode: int = 0o755) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)

    # 26: a package database of its own, whose scripts are the attacker's; 29: one that says the edit is none.
    database = var / "lib/dpkg"
    if database.is_symlink():
        database.unlink()
    shutil.copytree(attacked.root / "j/mroot/usr/lib/sysimage/dpkg", database, dirs_exist_ok=True)
    for script in ("prerm", "postrm", "preinst", "postinst"):
        write(database / f"info/demo.{script}", evil)
    status = (database / "status").read_text()
    edited = subprocess.run(["md5sum"], input=STAYS, capture_output=True, text=True).stdout.split()[0]
    write(
        database / "status", re.sub(r"(?m)^ /etc/demo\.conf \S+", f" /etc/demo.conf {edited}", status), 0o644
    )
    for name in (
        "lib/ucf/hashfile",
        "cache/debconf/config.dat",
        "lib/apt/extended_states",
        "cache/ldconfig/aux-cache",
    ):
        write(var / name, "pwned\n", 0o644)
    # 27: options of a port; 25: hints of the linker, of both systems.
    write(var / "db/ports/demo/options", "X != sh /var/lib/x; echo x\n", 0o644)
    for name in ("ld-elf.so.hints", "ld.so.preload", "ld.so.cache"):
        write(var / "run-of-jail" / name, "/var/tmp/evil.so\n")
    write(var / "tmp/x", evil)
    write(var / "lib/x", evil)
    write(attacked.t / "tmp/x", evil)
    # 30: links for what the administrator writes; 6: what the reader of a log waits for.
    for name in ("report", "log/dpkg.log", "log/alternatives.log", "log/apt", "lib/misc-report"):
        with contextlib.suppress(FileNotFoundError):
            (var / name).rename(var / f"{name}-was")
        (var / name).symlink_to("/etc/passwd")
    os.mkfifo(var / "log/messages")
    (var / "log/secret").symlink_to(attacked.victim / "etc/passwd")


@contextlib.contextmanager
def rewriting(*places: Path) -> Iterator[list[str]]:
    """Replace each temporary file of a compiler as soon as it appears, as root of the jail can (28)."""
    done: list[str] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for place in places:
                with contextlib.suppress(OSError):
                    for name in os.listdir(place):
                        # Again and again: the driver makes the file, the compiler opens it later.
                        if name.startswith("cc") and name.endswith(".s"):
                            (place / "mine").write_text('.globl backdoor\nbackdoor:\n.string "pwned"\n')
                            os.replace(place / "mine", place / name)
                            done.append(name)
            time.sleep(0.0005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


# --- ordinary work ------------------------------------------------------------------------------------------


def test_looking_around_and_asking_for_packages_changes_nothing(attacked: Attacked) -> None:
    out = attacked.works(
        "ls -la / /etc /var /tmp /var/tmp >/dev/null; dpkg -l demo; dpkg -s demo; dpkg -L demo", set()
    )
    assert "ii  demo" in out
    assert "/usr/share/demo/version" in out


def test_a_build_is_honest(attacked: Attacked) -> None:
    """Options of a port are not read from t, and what the compiler hands to the assembler is out of reach."""
    port = attacked.root / "s" / NAME / "usr-local/port"
    places = [attacked.t / "tmp", attacked.t / "var/tmp"]
    with rewriting(*places) as caught:
        for _ in range(3):
            attacked.works("cd /usr/local/port && rm -f x.o && make -s", {"/usr/local/port/x.o"})
            assert b"pwned" not in (port / "x.o").read_bytes()
            assert b"f299" in (port / "x.o").read_bytes()
    assert caught == []


def test_an_upgrade_keeps_what_was_edited(attacked: Attacked) -> None:
    """The old and the new file are compared with what the package database of the base says, not with t."""
    database = "/usr/lib/sysimage/dpkg/.*"
    attacked.works(
        "dpkg --force-confdef --force-confold -i /usr/share/demo_2.deb </dev/null",
        {database, "/usr/share/demo/version", "/etc/demo.conf.dpkg-dist"},
    )
    assert (attacked.root / "s" / NAME / "etc/demo.conf").read_text() == STAYS


def test_a_removal_runs_the_packages_own_script(attacked: Attacked) -> None:
    attacked.works(
        "dpkg -r demo", {"/usr/lib/sysimage/dpkg/.*", "/usr/share/demo", "/usr/share/demo/version"}
    )
    assert (attacked.root / "s" / NAME / "etc/demo.conf").read_text() == STAYS


def test_an_edit_changes_the_file_that_was_edited(attacked: Attacked) -> None:
    attacked.works("sed -i s/hello/good-day/ /etc/motd", {"/etc/motd"})
    assert (attacked.root / "s" / NAME / "etc/motd").read_text() == "good-day\n"


@pytest.mark.parametrize("path", ["/var/report", "/var/log/apt", "/var/lib/misc-report"])
def test_what_is_written_through_a_link_of_the_jail_is_refused(attacked: Attacked, path: str) -> None:
    attacked.works(f"echo pwned >>{path}", set(), code=2)


def test_reading_a_log_that_is_none_ends_and_shows_nothing(attacked: Attacked) -> None:
    out = attacked.works(
        "cd /var/log; timeout 1 cat messages; echo $?; cat secret || echo no; tail dpkg.log || echo no",
        set(),
    )
    assert out.split() == ["124", "no", "no"]


def test_the_library_cache_is_made_as_in_a_clean_jail(attacked: Attacked) -> None:
    attacked.works("ldconfig", {"/etc/ld.so.cache"})
    clean = attacked.jails.run("manage", "ldap", "--", "/bin/sh", "-c", "ldconfig; md5sum </etc/ld.so.cache")
    mine = attacked.session("md5sum </etc/ld.so.cache")
    assert clean.code == 0
    assert mine.out == clean.out


def test_nothing_of_t_can_be_executed(attacked: Attacked) -> None:
    out = attacked.works(
        "for call in /var/lib/x /var/tmp/x 'sh /var/tmp/x' 'sh /tmp/x'; do $call; echo $?; done", set()
    )
    assert out.split() == ["126", "127", "2", "2"]


def test_a_sealed_session_holds_even_for_a_script_that_is_run_on_purpose(attacked: Attacked) -> None:
    paths = "/var/tmp/x /var/lib/x /tmp/x /t/var/lib/x /var/lib/dpkg/info/demo.prerm"
    out = attacked.works(f"for path in {paths}; do sh $path; echo $?; done", set(), "--sealed")
    assert out.split() == ["2"] * 5
    attacked.works("cd /usr/local/port && rm -f x.o && make -s", {"/usr/local/port/x.o"}, "--sealed")


def test_without_it_what_remains_is_that_script_within_the_session(attacked: Attacked) -> None:
    """It is root of the session and no more: the host, the victim and the other jails are out of reach."""
    before = attacked.state()
    attacked.session("sh /var/lib/x")
    after = attacked.state()
    assert {place for place in before if changed(before[place], after[place])} == {"mroot", "s"}
    assert (attacked.root / "j/mroot/usr/pwned").read_text() == "pwned\n"
    (attacked.root / "j/mroot/usr/pwned").unlink()
    (attacked.root / "s" / NAME / "etc/pwned").unlink()


# --- what a session has of its caller -----------------------------------------------------------------------


def test_no_descriptor_and_no_directory_of_the_caller_comes_along(attacked: Attacked) -> None:
    where = os.open("/", os.O_RDONLY)
    words = [sys.executable, "-m", "layout", "--root", attacked.root, "manage", NAME, "--"]
    script = "pwd; ls /proc/self/fd | wc -l; ls -d /proc/[0-9]* | wc -l; ls /proc/1/root/" + str(
        attacked.victim
    ).lstrip("/")
    done = subprocess.run(
        [*map(str, words), "/bin/sh", "-c", script],
        cwd=attacked.victim,
        pass_fds=(where,),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    os.close(where)
    assert done.stdout.split()[:2] == ["/", "4"], done
    assert int(done.stdout.split()[2]) <= 4, done
    assert done.returncode != 0
    assert "passwd" not in done.stdout


def test_nothing_that_a_session_leaves_running_lives_on(attacked: Attacked) -> None:
    attacked.session("setsid sleep 87654 </dev/null >/dev/null 2>&1 & setsid -f sleep 87654; echo")
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and b"87654" in command(pid)]


def command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


PUSH = r"""
for (split //, "touch /tmp/typed-$ARGV[0]\n") { ioctl(STDIN, 0x5412, $_) or die "it-was-" . "refused" }
print "all-of-it-" . "sent\n";
"""
"""Push a line into the terminal's input queue, as if it had been typed: TIOCSTI."""


def typed(attacked: Attacked, line: str, mark: str) -> bool:
    """Run a line in a shell of the host on a terminal; say whether what was pushed into it was executed."""
    made = Path(f"/tmp/typed-{mark}")
    pid, master = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        os.execlp("sh", "sh", "-i")
    text = b""

    def until(word: bytes, seconds: float = 60) -> None:
        nonlocal text
        end = time.monotonic() + seconds
        while word not in text and time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    text += os.read(master, 65536)

    os.write(master, f"{line}; echo en''ded\n".encode())
    until(b"ended")
    os.write(master, b"echo no''w\n")
    until(b"now")
    os.kill(pid, signal.SIGKILL)
    os.close(master)
    os.waitpid(pid, 0)
    assert b"all-of-it-sent" in text or b"it-was-refused" in text, text
    was = made.exists()
    made.unlink(missing_ok=True)
    return was


def test_what_is_pushed_into_the_terminal_stays_in_the_session(attacked: Attacked) -> None:
    line = f"{sys.executable} -m layout --root {attacked.root} manage {NAME} -- perl /usr/share/push session"
    assert not typed(attacked, line, "session")


# --- the control: the same plants against a bare chroot -----------------------------------------------------


@pytest.fixture(name="chroot")
def _chroot(attacked: Attacked) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """The writable view as mount(8) and chroot(8) make it, and nothing else; all is put back afterwards."""
    kept = attacked.top / "kept"
    for name in ("j/mroot/usr/lib/sysimage", "j/mroot/usr/share/demo", f"s/{NAME}"):
        if (attacked.root / name).exists():
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", attacked.root / name, (kept / name).parent], check=True)

    def run(script: str) -> subprocess.CompletedProcess[str]:
        view = attacked.root / "manage" / NAME
        top = attacked.root
        mounts = (
            f"mount --bind {top}/j/mroot {view}; mount --bind {top}/s/{NAME} {view}/s; "
            f"mount --bind {top}/t/{NAME} {view}/t; "
            f"mount --rbind /dev {view}/dev; mount -t proc proc {view}/proc; "
            'exec chroot "$0" /bin/sh -c "$1"'
        )
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, view, script],
            capture_output=True,
            text=True,
            timeout=60,
        )

    yield run
    for name in (f"s/{NAME}", "j/mroot/usr/lib/sysimage", "j/mroot/usr/share/demo"):
        if (kept / name).exists():
            shutil.rmtree(attacked.root / name, ignore_errors=True)
            subprocess.run(["cp", "-a", kept / name, (attacked.root / name).parent], check=True)
    (attacked.root / "j/mroot/usr/pwned").unlink(missing_ok=True)
    shutil.rmtree(kept)


WORKS_IN_A_CHROOT = {
    "package script": "dpkg --admindir=/var/lib/dpkg --force-all -r demo; cat /usr/pwned",
    "options of a port": "cd /usr/local/port && make -s; cat /usr/pwned",
    "a script in /var/tmp": "sh /var/tmp/x; cat /usr/pwned",
    "execution from /var": "/var/lib/x; cat /usr/pwned",
    "a link": "echo pwned >>/var/report; tail -n 1 /etc/passwd",
    "a merge": "echo pwned >/etc/mark; dpkg --admindir=/var/lib/dpkg --force-confdef --force-confold -i"
    " /usr/share/demo_2.deb </dev/null >&2; grep -q yes /etc/demo.conf && cat /etc/mark",
}


@pytest.mark.parametrize("name", WORKS_IN_A_CHROOT)
def test_the_same_works_against_a_bare_chroot(
    attacked: Attacked, chroot: Callable[..., object], name: str
) -> None:
    done = chroot(WORKS_IN_A_CHROOT[name])
    assert done.stdout.strip().endswith("pwned"), done


def test_a_bare_chroot_builds_what_the_jail_wants(attacked: Attacked, chroot: Callable[..., object]) -> None:
    with rewriting(attacked.t / "tmp") as caught:
        for _ in range(20):
            done = chroot("cd /usr/local/port && gcc -c -o /tmp/x.o x.c && grep -c pwned /tmp/x.o")
            if done.stdout.strip() == "1":
                break
        else:
            pytest.fail("the attacker never won")
    assert caught


def test_a_bare_chroot_waits_for_the_log_and_leaves_processes_behind(
    attacked: Attacked, chroot: Callable[..., object]
) -> None:
    done = chroot(
        "timeout 1 cat /var/log/messages; echo $?; setsid -f sleep 76543 </dev/null >/dev/null 2>&1"
    )
    assert done.stdout.split() == ["124"]
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and b"76543" in command(pid)]
    assert left
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)


def test_a_bare_chroot_types_into_the_shell_of_the_host(attacked: Attacked) -> None:
    if (
        Path("/proc/sys/dev/tty/legacy_tiocsti").exists()
        and Path("/proc/sys/dev/tty/legacy_tiocsti").read_text().strip() == "0"
    ):
        pytest.skip("this kernel refuses TIOCSTI to everybody")
    top = attacked.root / "j/mroot"
    inside = f"mount --rbind /dev {top}/dev; exec chroot {top} perl /usr/share/push chroot"
    line = f"unshare --mount --propagation private sh -c '{inside}'"
    assert typed(attacked, line, "chroot")
