"""layout manage on FreeBSD: a jail for the administrator, and nothing of it left afterwards."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.freebsd_host import HERE, SHIM, FreeBSD
from tests.personality.host import ENTER, Done
from tests.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box

VIEW = [("j/mroot", "manage/a"), ("s/a", "manage/a/s"), ("devfs", "manage/a/dev")]
OF_SESSION = [("tmpfs", "manage/a/t"), ("t/a/var", "manage/a/t/var"), ("tmpfs", "manage/a/t/var/tmp")]


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeBSD]:
    host = FreeBSD(tmp_path_factory.mktemp("manage").resolve())
    host.ok(f"mkdir -m 1777 {host.small_base()}/var/tmp")
    host.does("init", "a", "--base", host.base, "--no-mount")
    yield host
    host.close()


@pytest.fixture(name="host")
def _host(whole: FreeBSD) -> Iterator[FreeBSD]:
    """A pretended FreeBSD host with jail a, not mounted; every test leaves nothing mounted and no jail."""
    yield whole
    assert whole.layout_mounts() == []
    assert json.loads(whole.ok("jls --libxo=json"))["jail-information"]["jail"] == []
    assert not list((whole.root / ".layout").glob("*.mounts"))


def command(host: FreeBSD, *words: str) -> str:
    """Return layout as a command line for a shell on the host."""
    layout = shlex.join([sys.executable, "-m", "layout", "--root", str(host.root), *words])
    return f"env PYTHONPATH={SHIM}:{HERE.parent} NO_COLOR=1 LC_ALL=C.UTF-8 {layout}"


def manage(host: FreeBSD, script: str, *words: str) -> Done:
    return host.layout("manage", "a", *words, "--", "sh", "-c", script)


def until(condition: str) -> str:
    """Return a loop of sh that waits for something, but not forever."""
    return f"n=0; until {condition} || test $n -gt 900; do n=$((n+1)); sleep 0.02; done"


WAITING = until("test -e /root/go")


def meanwhile(host: FreeBSD, script: str, *words: str) -> Done:
    """Run a script on the host while a session is open."""
    go = f"{host.root}/s/a/root/go"
    return host(
        f"{command(host, 'manage', 'a', *words, '--', 'sh', '-c', WAITING)} &\n"
        f"{until('jls -j layout-manage-a >/dev/null 2>&1')}\n"
        f"{script}\ntouch {go}; wait $!; code=$?; rm {go}; exit $code"
    )


def killed(host: FreeBSD, *words: str) -> None:
    """Open a session in which something runs, wait until it does, and kill layout."""
    host.ok("rm -f jails/s/a/root/ready")
    inside = "touch /root/ready; sleep 1000"
    pid = host.ok(
        f"{command(host, 'manage', 'a', *words, '--', 'sh', '-c', inside)} >/dev/null 2>&1 & echo $!"
    )
    ready = host.root / "s/a/root/ready"
    end = time.monotonic() + 60
    while not ready.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    host.ok(f"kill -9 {pid}")


def codes(host: FreeBSD) -> set[str]:
    return {
        finding["code"] for finding in host.findings("a") if finding["path"].startswith(f"{host.root}/manage")
    }


# --- a session ----------------------------------------------------------------------------------------------


def test_a_session_edits_s_passes_its_status_on_and_says_what_changed(host: FreeBSD) -> None:
    done = manage(host, "echo new >/etc/made; echo out; hostname; exit 7")
    assert (done.code, done.out) == (7, "out\na\n"), done
    assert "added    /etc/made" in done.err
    assert (host.root / "s/a/etc/made").read_text() == "new\n"
    host.ok(f"rm {host.root}/s/a/etc/made")


@pytest.mark.parametrize(("words", "status"), [(["no-such-program"], 127), (["/etc"], 126)])
def test_a_program_that_is_not_there_is_told_from_one_that_failed(
    host: FreeBSD, words: list[str], status: int
) -> None:
    assert host.layout("manage", "a", "--", *words).code == status


def test_a_session_is_a_jail_that_may_do_little(host: FreeBSD) -> None:
    asked = "jls -j layout-manage-a -n path children.max enforce_statfs allow.chflags ip4 allow.set_hostname"
    done = meanwhile(host, f"sleep 0.1; {asked} >asked; mount -p >mounted")
    assert done.code == 0, done
    text = (host.work / "asked").read_text()
    assert f"path={host.root}/manage/a children.max=0 enforce_statfs=2 allow.chflags=true ip4=inherit" in text
    assert "allow.set_hostname=false" in text
    rows = [line.split() for line in (host.work / "mounted").read_text().splitlines()]
    options = {row[1].removeprefix(f"{host.root}/manage/a"): set(row[3].split(",")) for row in rows}
    assert {"rw", "nosuid", "noexec", "nosymfollow"} <= options["/t/var"]
    assert {"rw", "nosuid"} <= options["/t"] & options["/t/var/tmp"]


def test_a_session_has_nothing_of_the_caller_and_var_of_the_jail(host: FreeBSD) -> None:
    host.ok(f"touch {host.root}/t/a/tmp/trap {host.root}/t/a/var/theirs")
    inside = "set; cat <&9 || echo closed; ls /tmp /var; touch /tmp/mine"
    done = host(f"exec 9</; SECRET=x {command(host, 'manage', 'a', '--', 'sh', '-c', inside)}")
    assert done.code == 0, done
    found = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
    assert "SECRET" not in found
    assert found["PKG_DBDIR"] == "'/usr/local/var/db/pkg'"
    assert found["TMPDIR"] == "'/tmp'"
    assert found["HISTFILE"] == "''"
    words = done.out.split()
    assert {"closed", "theirs"} <= set(words)
    assert "trap" not in words
    assert not (host.root / "t/a/tmp/mine").exists()
    host.ok(f"rm {host.root}/t/a/tmp/trap {host.root}/t/a/var/theirs")


def test_a_sealed_session_has_no_t_of_the_jail_and_no_network(host: FreeBSD) -> None:
    host.ok(f"touch {host.root}/t/a/var/theirs")
    asked = "jls -j layout-manage-a ip4 ip6; jexec layout-manage-a ls /var"
    done = meanwhile(host, f"{asked}; jexec layout-manage-a touch /var/mine /tmp/mine", "--sealed")
    assert done.code == 0, done
    assert done.out.startswith("disable disable\n")
    assert "theirs" not in done.out
    assert "log" in done.out.split()
    assert not (host.root / "t/a/var/mine").exists()
    host.ok(f"rm {host.root}/t/a/var/theirs")


def test_the_base_can_be_left_alone(host: FreeBSD) -> None:
    done = manage(host, "touch /etc/new && touch /usr/new", "--base-ro")
    assert "Read-only" in done.err
    assert "added    /etc/new" in done.err
    host.ok(f"rm {host.root}/s/a/etc/new")


HOSTILE = {
    "missing": "true",
    "a link": "ln -s /etc {}",
    "a link into s": "ln -s {root}/s/a/etc {}",
    "a FIFO": "mkfifo {}",
    "a file": "touch {}",
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_var_that_cannot_be_used_is_an_error_with_a_way_out(host: FreeBSD, hostile: str) -> None:
    var, kept = host.root / "t/a/var", host.root / "t/a/kept"
    host.ok(f"mv {var} {kept}; {HOSTILE[hostile].format(var, root=host.root)}")
    try:
        done = manage(host, "touch /var/pwned; echo ran")
        assert (done.code, done.out) == (1, ""), done
        assert f"{var}: found " in done.err
        assert "--sealed" in done.err
        assert host.layout_mounts() == []
        assert not (host.root / "s/a/etc/pwned").exists()
        if hostile == "a link":
            assert manage(host, "echo ran", "--sealed").out == "ran\n"
    finally:
        host.ok(f"rm -f {var}; mv {kept} {var}")


def test_whatever_the_jail_made_of_other_places_a_session_opens(host: FreeBSD) -> None:
    host.ok(f"cd {host.root}/t/a; mv tmp kept; ln -s /etc tmp; mv var/tmp var/kept; mkfifo var/tmp")
    try:
        done = manage(host, "echo mine >/tmp/mine && cat /tmp/mine")
        assert (done.code, done.out) == (0, "mine\n"), done
    finally:
        host.ok(f"cd {host.root}/t/a; rm tmp var/tmp; mv kept tmp; mv var/kept var/tmp")


def swapped(host: FreeBSD, *names: str) -> None:
    """Rename directories of t as a jail does that runs; Linux lets only another mount namespace do it."""
    for name in names:
        place = host.root / "t/a" / name
        place.rename(place.with_name(f"{name}.kept"))
        place.mkdir()
        (place / "trap").touch()


def put_back(host: FreeBSD, *names: str) -> None:
    for name in names:
        place = host.root / "t/a" / name
        (place / "trap").unlink()
        place.rmdir()
        place.with_name(f"{name}.kept").rename(place)


@pytest.mark.parametrize("standing", [False, True], ids=["of its own", "always mounted"])
def test_a_running_jail_cannot_take_the_private_tmp_away(host: FreeBSD, standing: bool) -> None:
    if standing:
        host.does("mount", "a", "--manage")
    before = host.layout_mounts()
    root = host.root / "s/a/root"
    script = f"touch /root/ready; {until('test -e /root/go')}; ls -A /tmp /var/tmp/; echo mine >/tmp/mine"
    line = command(host, "manage", "a", "--", "sh", "-c", script)
    host.ok(f"{line} >out 2>err & echo $! >pid")
    end = time.monotonic() + 60
    while not (root / "ready").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    swapped(host, "tmp", "var")
    (root / "go").touch()
    host.ok(until("! kill -0 $(cat pid) 2>/dev/null"))
    said, told = (host.work / "out").read_text(), (host.work / "err").read_text()
    assert said == "/tmp:\n\n/var/tmp/:\n", (said, told)
    assert [entry.name for entry in (host.root / "t/a/tmp").iterdir()] == ["trap"]
    put_back(host, "tmp", "var")
    assert host.layout_mounts() == before
    host.ok(f"rm {root}/ready {root}/go")
    if standing:
        host.does("umount", "a")


def test_a_tmp_on_a_directory_of_the_jail_is_taken_away(host: FreeBSD) -> None:
    """The control for the one above: what a session had before."""
    host.ok(
        f"mkdir view; mount -t nullfs -o rw,nosuid,noexec,nosymfollow {host.root}/t/a $PWD/view\n"
        "cd view/tmp && mount -t tmpfs -o rw,nosuid tmpfs . && touch ../tmp/mine"
    )
    assert host.ok(f"ls {host.work}/view/tmp") == "mine\n"
    swapped(host, "tmp")
    assert host.ok(f"ls {host.work}/view/tmp") == "trap\n"
    put_back(host, "tmp")
    host.ok(f"umount {host.work}/view/tmp; umount {host.work}/view; rmdir {host.work}/view")


def test_what_tools_believe_is_the_sessions_own(host: FreeBSD) -> None:
    """As the skeleton has it, and gone with the session."""
    places = [host.root / tree / "var/db/ports" for tree in ("skel/t", "t/a")]
    for place in places:
        host.ok(f"mkdir -p {place}; echo {place.parts[-4]} >{place}/from")
    done = manage(host, "cat /var/db/ports/from; touch /var/db/ports/mine")
    assert (done.code, done.out) == (0, "t\n"), done
    for place in places:
        assert not (place / "mine").exists()
        host.ok(f"rm -r {place}")


def test_what_is_left_running_ends_with_the_session(host: FreeBSD) -> None:
    done = manage(host, "sleep 4321 & sleep 4321 & echo started")
    assert done.out == "started\n"
    assert "4321" not in host.ok("ps -o args | cat")


def test_a_second_session_is_told_who_has_the_first(host: FreeBSD) -> None:
    done = meanwhile(
        host,
        f"{command(host, 'manage', 'a', '--', 'true')}; echo $?\n"
        f"{command(host, '--json', 'verify', 'a')} >found; {command(host, 'recover')}",
    )
    assert "1" in done.out.split()
    assert "a lock held by process" in done.err
    found = json.loads((host.work / "found").read_text())["jails"]["a"]["findings"]
    about = [(f["code"], f["severity"]) for f in found if "/manage/" in f["path"]]
    assert about == [("S3-session", "warning")]
    assert "nothing to recover from" in done.err


# --- on a terminal ------------------------------------------------------------------------------------------


class Terminal(Screen):
    """A session on a terminal whose other end we hold."""

    errors = "replace"

    def __init__(self, host: FreeBSD, *words: str) -> None:
        line = command(host, "manage", "a", *words)
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(host.work)
            os.execvp(ENTER, [ENTER, "--join", str(host.shell.pid), "sh", "-c", f"{line}; echo code=$?"])

    def close(self) -> None:
        os.close(self.master)
        os.waitpid(self.pid, 0)


def test_a_shell_on_a_terminal_has_its_prompt_and_ctrl_c_ends_what_runs_in_it(host: FreeBSD) -> None:
    terminal = Terminal(host)
    terminal.expect(r"\[manage:a\] ")
    terminal.send("sleep 87104\r")
    terminal.until_it_runs("sleep", "87104")
    terminal.send("\x03")
    terminal.expect(r"\[manage:a\] ")
    terminal.send("test -t 0 && echo is-a-te''rminal; touch /etc/by-hand; exit 5\r")
    terminal.expect("is-a-terminal")
    terminal.expect("added +/etc/by-hand")
    terminal.expect("code=5")
    terminal.close()
    host.ok(f"rm {host.root}/s/a/etc/by-hand")


def test_a_terminal_that_goes_away_ends_the_session(host: FreeBSD) -> None:
    terminal = Terminal(host)
    terminal.expect(r"\[manage:a\] ")
    terminal.close()
    end = time.monotonic() + 60
    while host.layout_mounts():
        assert time.monotonic() < end
        time.sleep(0.1)


# --- killed -------------------------------------------------------------------------------------------------


def test_what_a_killed_session_left_is_found_by_verify_and_cleared_by_recover(host: FreeBSD) -> None:
    killed(host)
    assert host.layout_mounts() == [*VIEW, *OF_SESSION]
    assert {"S3-left", "S3-view"} <= codes(host)
    said = host.layout("recover")
    assert "ended jail layout-manage-a" in said.out + said.err
    assert host.layout_mounts() == []
    assert codes(host) == set()


def test_the_next_session_clears_what_a_killed_one_left(host: FreeBSD) -> None:
    killed(host, "--sealed")
    done = manage(host, "ls /var")
    assert done.code == 0, done
    assert "ended jail layout-manage-a, which a killed session left" in done.err
    assert "sleep 1000" not in host.ok("ps -o args | cat")


def test_after_a_reboot_there_is_nothing_left_to_clear(host: FreeBSD) -> None:
    (host.root / ".layout/manage-a.mounts").write_text(json.dumps([["nullfs", f"{host.root}/manage/a"]]))
    assert codes(host) == set()
    assert manage(host, "true").err == "a: 0 changes in s and mroot\n"


# --- in the way ---------------------------------------------------------------------------------------------


def test_a_jail_of_that_name_elsewhere_is_left_alone(host: FreeBSD) -> None:
    host.ok(f"jail -c name=layout-manage-a path={host.base} persist")
    done = manage(host, "echo ran")
    assert (done.code, done.out) == (1, "")
    assert "jail layout-manage-a: found one with its root at" in done.err
    assert {"S3-left"} == {
        finding["code"] for finding in host.findings("a") if "layout-manage" in finding["path"]
    }
    host.ok("jail -R layout-manage-a")


def test_a_view_that_is_busy_at_the_end_is_named_and_cleared_later(host: FreeBSD) -> None:
    done = meanwhile(host, f"jail -c name=guest path={host.root}/manage/a/s persist")
    assert done.code == 1
    assert f"{host.root}/manage/a/s: found a mount in use by jail guest" in done.err
    assert "layout recover" in done.err
    host.ok("jail -R guest")
    host.does("recover")


def test_a_session_opens_on_the_oldest_release_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    host = FreeBSD(tmp_path_factory.mktemp("old").resolve(), "--release", "14.3-RELEASE")
    try:
        host.does("init", "a", "--base", host.small_base(), "--manage", "boot", "--preset", "classic")
        before, clean = host.layout_mounts(), codes(host)
        looks = f"{command(host, '--json', 'verify', 'a')} >found"
        done = meanwhile(host, f"{looks}; {command(host, 'mount', 'a')}")
        assert (done.code, done.out) == (0, "0 mounts mounted, 1 jail\n"), done
        found = json.loads((host.work / "found").read_text())["jails"]["a"]["findings"]
        assert {f["code"] for f in found if "/manage/" in f["path"]} == clean | {"S3-session"}
        done = manage(host, "echo $TMPDIR")
        assert (done.code, done.out) == (0, "/tmp\n"), done
        assert f"{host.root}/manage/a/dev: shows ada0" in done.err
        assert host.layout_mounts() == before
    finally:
        host.close()


def test_without_its_devfs_rules_nothing_is_mounted(tmp_path_factory: pytest.TempPathFactory) -> None:
    host = FreeBSD(tmp_path_factory.mktemp("unloaded").resolve(), "--devfs-unloaded")
    try:
        host.does("init", "a", "--base", host.small_base(), "--no-mount", "--preset", "classic")
        done = manage(host, "echo ran")
        assert (done.code, done.out) == (1, "")
        assert "devfs ruleset 4" in done.err
        assert "service devfs restart" in done.err
        assert host.layout_mounts() == []
    finally:
        host.close()


def test_a_pair_that_is_always_mounted_stays(host: FreeBSD) -> None:
    host.does("mount", "a", "--manage")
    before = host.layout_mounts()
    done = meanwhile(host, f"{command(host, '--json', 'verify', 'a')} >found")
    found = json.loads((host.work / "found").read_text())["jails"]["a"]["findings"]
    assert [f["code"] for f in found if "/manage/" in f["path"]] == ["S3-session"]
    done = manage(host, "touch /tmp/mine; echo ran")
    assert (done.code, done.out) == (0, "ran\n"), done
    assert not (host.root / "t/a/tmp/mine").exists()
    assert host.layout_mounts() == before
    done = manage(host, "echo ran", "--sealed")
    assert "layout umount --manage a first" in done.err
    killed(host)
    assert host.layout_mounts() == [*before, *OF_SESSION]
    assert "S3-left" in codes(host)
    assert "layout recover" in host.fails("umount", "a")
    host.does("recover")
    assert host.layout_mounts() == before
    host.does("umount", "a")


def test_a_chroot_is_what_the_message_of_2010_did(host: FreeBSD) -> None:
    done = manage(host, "echo new >/etc/made; exit 4", "--chroot")
    assert done.code == 4, done
    assert "added    /etc/made" in done.err
    host.ok(f"rm {host.root}/s/a/etc/made")


def test_a_chroot_does_not_end_what_it_leaves_running_and_says_that_it_is_in_the_way(host: FreeBSD) -> None:
    done = manage(host, "sleep 8765 </dev/null >/dev/null 2>&1 & echo $!", "--chroot")
    assert done.code == 1
    assert f"{host.root}/manage/a/dev: found a mount in use" in done.err
    host.ok(f"kill {done.out}")
    assert "unmounted what a killed session left" in host.does("recover")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_layout_ends_the_session(host: FreeBSD, number: signal.Signals) -> None:
    inside = "trap 'exit 9' INT; touch /root/ready; while :; do sleep 0.02; done"
    done = host(
        f"{command(host, 'manage', 'a', '--', 'sh', '-c', inside)} & "
        f"{until(f'test -e {host.root}/s/a/root/ready')}; "
        f"kill -{number:d} $!; wait $!; echo code=$?; rm {host.root}/s/a/root/ready"
    )
    assert f"code={143 if number == signal.SIGTERM else 9}" in done.out
