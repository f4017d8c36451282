"""layout manage: what the administrator writes is in the jail, what the jail wrote cannot hurt him."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from yard import Said, Yard, yard_at

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with yard_at(tmp_path_factory.mktemp("manage"), "--base", "host") as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Yard:
    """Two jails made of the host's own programs, not mounted."""
    whole.renew()
    return whole


def manage(yard: Yard, script: str, *words: str, name: str = "a", before: tuple[str, ...] = ()) -> Said:
    """Run a script of sh in a session."""
    with yard.process(
        *before, "manage", name, *words, "--", "sh", "-c", script, stdin=subprocess.DEVNULL
    ) as session:
        out, err = session.communicate(timeout=60)
    return Said(session.returncode, out, err)


def options(yard: Yard, *words: str) -> dict[str, set[str]]:
    """Return the options of each mount inside a session."""
    done = manage(yard, "cat /proc/self/mounts", *words)
    assert done.code == 0, done.err
    fields = [line.split() for line in done.out.splitlines()]
    return {field[1]: set(field[3].split(",")) for field in fields}


# --- what is written is in the jail -------------------------------------------------------------------------


@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "not mounted"])
@pytest.mark.parametrize("half", ["session", "boot"])
def test_what_a_session_writes_is_in_the_read_only_jail_at_once(yard: Yard, mounted: bool, half: str) -> None:
    yard.ok("init", "a", "--manage", half, "--no-mount")
    if mounted:
        yard.ok("mount")
    before = yard.mounts()
    written = ["etc/new", "usr/new", "usr/local/new", "root/new"]
    done = manage(yard, f"for f in {' '.join(written)}; do echo yes >/$f; done")
    assert done.code == 0, done.err
    assert yard.mounts() == before
    yard.ok("mount")
    for name in written:
        assert (yard.root / "j/a" / name).read_text(encoding="utf-8") == "yes\n"
        with pytest.raises(OSError, match="Read-only file system"):
            (yard.root / "j/a" / name).write_text("no", encoding="utf-8")
    assert (yard.root / "j/b/usr/new").exists()
    assert not (yard.root / "j/b/etc/new").exists()
    assert yard.verify() == [("host", "S9-drift", "warning")]


def test_the_base_can_be_left_alone(yard: Yard) -> None:
    done = manage(yard, "echo yes >/etc/new; echo no >/usr/new; echo no >/new", "--base-ro")
    assert done.err.count("Read-only file system") == 2
    assert (yard.root / "s/a/etc/new").exists()
    assert not (yard.root / "j/mroot/usr/new").exists()


def test_var_is_the_jails_and_tmp_is_private(yard: Yard) -> None:
    (yard.root / "t/a/tmp/hostile").touch()
    done = manage(yard, "ls -A /tmp; touch /tmp/mine /var/ours; ls -ld /tmp/.")
    assert "hostile" not in done.out
    assert done.out.startswith("drwxrwxrwt")
    assert os.listdir(yard.root / "t/a/tmp") == ["hostile"]
    assert (yard.root / "t/a/var/ours").exists()


def test_a_sealed_session_sees_nothing_of_t(yard: Yard) -> None:
    (yard.root / "t/a/var/hostile").touch()
    done = manage(yard, "ls -A /var /t; echo x >/var/log/mine && ls /var/log; touch /tmp/x", "--sealed")
    assert (done.code, done.err.splitlines()[:-1]) == (0, [])
    assert "hostile" not in done.out
    assert "mine" in done.out
    assert not (yard.root / "t/a/var/log/mine").exists()


@pytest.mark.parametrize("preset", ["hardened", "classic"])
def test_t_is_guarded_in_every_session(yard: Yard, preset: str) -> None:
    yard.ok("init", "a", "--preset", preset, "--no-mount")
    found = options(yard)
    assert {"rw", "nosuid", "nodev", "noexec", "nosymfollow"} <= found["/t/var"]
    assert {"rw", "nosuid", "nodev"} <= found["/t"] & found["/t/tmp"] & found["/t/var/tmp"]
    assert {"/", "/s", "/dev", "/dev/pts", "/proc"} <= set(found)
    assert "rw" in found["/"] & found["/s"]


def test_a_link_in_t_does_not_lead_a_session_into_s(yard: Yard) -> None:
    (yard.root / "t/a/var/report").symlink_to("/etc/passwd")
    before = (yard.root / "s/a/etc/passwd").read_bytes()
    done = manage(yard, "echo pwned >/var/report")
    assert "Too many levels of symbolic links" in done.err
    assert (yard.root / "s/a/etc/passwd").read_bytes() == before


HOSTILE = {
    "missing": lambda path: None,
    "a link": lambda path: path.symlink_to("/s/etc"),
    "a FIFO": os.mkfifo,
    "a file": lambda path: path.write_text("", encoding="utf-8"),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_var_that_cannot_be_used_is_an_error_with_a_way_out(yard: Yard, hostile: str) -> None:
    (yard.root / "t/a/var").rename(yard.root / "t/a/gone")
    HOSTILE[hostile](yard.root / "t/a/var")
    done = manage(yard, "echo pwned >/var/passwd")
    assert (done.code, done.out) == (1, "")
    assert f"{yard.root}/t/a/var: found " in done.err
    assert "--sealed" in done.err
    assert b"pwned" not in (yard.root / "s/a/etc/passwd").read_bytes()
    assert manage(yard, "echo ran", "--sealed").out == "ran\n"
    assert yard.mounts() == []


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("place", ["tmp", "var/tmp", "var/lib"])
def test_whatever_the_jail_made_of_other_places_a_session_opens(yard: Yard, place: str, hostile: str) -> None:
    (yard.root / "t/a" / place).rename(yard.root / "t/a/gone")
    HOSTILE[hostile](yard.root / "t/a" / place)
    done = manage(yard, "echo mine >/tmp/mine && cat /tmp/mine")
    assert (done.code, done.out) == (0, "mine\n"), done.err
    assert not (yard.root / "s/a/etc/mine").exists()


def test_a_running_jail_cannot_take_the_private_tmp_away(yard: Yard) -> None:
    """A mount point goes with its directory when somebody in another namespace renames that."""
    t, root = yard.root / "t/a", yard.root / "s/a/root"
    script = (
        "touch /root/ready; until test -e /root/go; do sleep 0.02; done; ls -A /tmp /var/tmp/; echo x >/tmp/x"
    )
    with yard.process("manage", "a", "--", "sh", "-c", script, stdin=subprocess.DEVNULL) as session:
        end = time.monotonic() + 60
        while not (root / "ready").exists() and time.monotonic() < end:
            time.sleep(0.02)
        (t / "tmp").rename(t / "gone")
        (t / "tmp").mkdir()
        (t / "tmp/trap").touch()
        (t / "var").rename(t / "other")
        (t / "var").mkdir()
        (t / "var/trap").touch()
        (root / "go").touch()
        out, err = session.communicate(timeout=60)
    assert session.returncode == 0, err
    assert "trap" not in out
    assert os.listdir(t / "tmp") == ["trap"]


def test_what_tools_believe_is_the_sessions_own(yard: Yard) -> None:
    """As the skeleton has it, and gone with the session."""
    for tree in ("skel/t", "t/a"):
        for place in ("var/lib/apt", "var/cache/debconf"):
            (yard.root / tree / place).mkdir(parents=True, exist_ok=True)
            (yard.root / tree / place / "from").write_text(tree, encoding="utf-8")
    done = manage(yard, "cat /var/lib/apt/from; cat /var/cache/debconf/from; touch /var/lib/apt/mine")
    assert (done.code, done.out) == (0, "skel/tskel/t"), done.err
    assert not (yard.root / "t/a/var/lib/apt/mine").exists()


# --- what the caller gets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 7", 7), ("nosuchcommand", 127), ("kill -TERM $$", 143)]
)
def test_the_exit_status_passes_through(yard: Yard, script: str, code: int) -> None:
    assert manage(yard, script).code == code


def test_a_session_says_what_it_is(yard: Yard) -> None:
    done = manage(yard, 'echo "$LAYOUT_MANAGE|$PS1|$(hostname)"')
    assert done.out == "a|[manage:a] $PWD # |a\n"


CHANGE = (
    "echo x >/etc/new; echo y >>/etc/hosts; rm /root/.profile; mkdir /usr/d; chmod 700 /srv; echo on stdout"
)
CHANGES = {
    ("added", "/etc/new"),
    ("changed", "/etc/hosts"),
    ("removed", "/root/.profile"),
    ("added", "/usr/d"),
    ("changed", "/srv"),
}


def prepare(yard: Yard) -> None:
    (yard.root / "s/a/root/.profile").write_text("umask 022\n", encoding="utf-8")
    (yard.root / "j/mroot/srv").mkdir(exist_ok=True)
    (yard.root / "j/mroot/srv").chmod(0o755)


def test_what_changed_is_listed_on_stderr(yard: Yard) -> None:
    prepare(yard)
    done = manage(yard, CHANGE)
    assert done.out == "on stdout\n"
    assert {tuple(line.split()) for line in done.err.splitlines()[:-1]} == CHANGES
    assert done.err.splitlines()[-1] == "a: 5 changes in s and mroot"
    assert manage(yard, "cat /etc/new").err == "a: 0 changes in s and mroot\n"


def test_with_json_stdout_is_one_document_and_the_command_writes_to_stderr(yard: Yard) -> None:
    prepare(yard)
    done = manage(yard, f"{CHANGE}; exit 3", before=("--json",))
    document = json.loads(done.out)
    assert (done.code, document["status"]) == (3, 3)
    assert {(change["kind"], change["path"]) for change in document["changes"]} == CHANGES
    assert done.err == "on stdout\n"


def test_an_odd_name_among_the_changes_is_escaped(yard: Yard) -> None:
    done = manage(yard, "touch \"$(printf '/etc/\\033[2J\\377')\"")
    assert done.err.splitlines()[0] == r"added    /etc/\x1b[2J\udcff"
    assert json.loads(manage(yard, "rm /etc/*2J*", before=("--json",)).out)["changes"][0]["kind"] == "removed"


def test_a_second_session_is_told_who_has_the_first(yard: Yard) -> None:
    words = ("manage", "a", "--", "sh", "-c", "echo ready; read _")
    with yard.process(*words, stdin=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        done = manage(yard, "echo ran")
        assert (done.code, done.out) == (1, "")
        assert f"held by process {first.pid} (layout" in done.err
        assert "manage a" in done.err
        assert manage(yard, "echo ran", name="b").out == "ran\n"
        assert f"process {first.pid}" in yard.ok("status", "a")
        first.communicate("\n")
    assert manage(yard, "echo ran").out == "ran\n"


def running(word: str) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in command:
                found.append(entry)
    return found


def test_killed_it_leaves_no_process_and_no_mount(yard: Yard) -> None:
    yard.ok("mount", "a")
    before = yard.mounts()
    mark = "sleep 987654"
    words = ("manage", "a", "--", "sh", "-c", f"setsid {mark} & echo ready; {mark}")
    with yard.process(*words, stdin=subprocess.DEVNULL) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "ready\n"
        assert running("987654")
        session.kill()
    end = time.monotonic() + 60
    while running("987654") and time.monotonic() < end:
        time.sleep(0.02)
    assert running("987654") == []
    assert yard.mounts() == before
    assert manage(yard, "echo ran").out == "ran\n"


def test_a_session_on_linux_is_never_a_plain_chroot(yard: Yard) -> None:
    done = manage(yard, "true", "--chroot")
    assert done.code == 2
    assert "--chroot: found linux, expected FreeBSD" in done.err


@pytest.mark.parametrize("name", ["nosuch", "../a", "mroot"])
def test_what_is_no_jail_cannot_be_managed(yard: Yard, name: str) -> None:
    done = manage(yard, "echo ran", name=name)
    assert done.code in {1, 2}
    assert done.out == ""
