"""verify finds each way in which a layout can be broken, and nothing in one that is not."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sabotage import ROWS, write
from yard import BASE, Yard, mount, yard_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.box

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with yard_at(tmp_path_factory.mktemp("verify")) as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Yard:
    """Two jails, mounted, with nothing to find."""
    whole.renew()
    whole.ok("mount")
    return whole


# --- what is broken is found --------------------------------------------------------------------------------


@pytest.mark.parametrize(("sabotage", "who", "code", "severity", "quick", "only"), ROWS)
def test_a_sabotage_is_found(
    yard: Yard, sabotage: Callable[[Yard], None], who: str, code: str, severity: str, quick: bool, only: bool
) -> None:
    assert yard.verify() == []
    try:
        sabotage(yard)
        found = yard.verify()
        assert (who, code, severity) in found
        if only:
            assert {entry[:2] for entry in found} == {(who, code)}
        assert ((who, code, severity) in yard.verify("--quick")) is quick
    finally:
        yard.top.chmod(0o700)


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) > 55


def test_every_code_is_in_the_reference_and_no_other() -> None:
    source = "".join(path.read_text("utf-8") for path in (REPOSITORY / "layout").rglob("*.py"))
    told = set(re.findall(r'"(S\d+-[a-z-]+)"', source))
    told |= {f"{code}-{kind}" for code in ("S6", "S7") for kind in re.findall(r'f"{code}-([a-z]+)"', source)}
    table = (REPOSITORY / "docs/findings.md").read_text("utf-8")
    assert set(re.findall(r"(?m)^\| `(S\d+-[a-z-]+)`", table)) == told
    provoked = {row.values[2] for row in ROWS} | {"S2-writable-exec", "S2-suid", "S3-session", "S1-platform"}
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        if path.name != "test_verify.py":
            provoked |= set(re.findall(r'"(S\d+-[a-z-]+)"', path.read_text("utf-8"))) & told
    assert told - provoked == set()


# --- what is whole is not blamed ----------------------------------------------------------------------------

CLASSIC = {("a", "S2-suid", "warning"), ("a", "S2-writable-exec", "warning")}


@pytest.mark.parametrize("manage", ["session", "boot"])
@pytest.mark.parametrize(
    ("preset", "expected"), [("hardened", set()), ("classic", CLASSIC)], ids=["hardened", "classic"]
)
def test_a_whole_layout_has_no_findings(
    tmp_path: Path, preset: str, manage: str, expected: set[tuple[str, str, str]]
) -> None:
    with yard_at(tmp_path / "y", "--preset", preset, "--manage", manage, names=("a",)) as yard:
        yard.ok("mount")
        assert set(yard.verify()) == expected
        assert set(yard.verify("--quick")) == expected
        yard.ok("fstab", "--install")
        assert set(yard.verify("a")) == expected


@pytest.mark.parametrize(
    ("opened", "code"),
    [("exec = true", "S2-writable-exec"), ("suid = true", "S2-suid")],
    ids=["exec", "suid"],
)
def test_what_a_profile_opts_out_of_is_a_warning(yard: Yard, opened: str, code: str) -> None:
    (yard.root / "etc/profiles").mkdir(parents=True)
    write(yard.root / "etc/profiles/open.toml", f'kind = "shared"\ndescription = "open"\n{opened}\n')
    yard.ok("init", "c", "--profile", "open")
    assert yard.verify() == [("c", code, "warning")]


def test_what_daemons_leave_in_t_is_theirs(yard: Yard) -> None:
    var = yard.root / "t/a/var"
    os.mkfifo(var / "fifo", 0o666)
    with contextlib.chdir(var), socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind("socket")
    (var / "/".join(["d"] * 200)).mkdir(parents=True)
    (var / "tmp").mkdir(mode=0o1777)
    write(var / "world-writable.log", mode=0o666)
    (var / "out").symlink_to("/etc/passwd")
    (var / "dangling").symlink_to("nowhere")
    write(var / "sparse").open("r+b").truncate(1 << 40)
    (var / "spool").mkdir()
    (var / "spool").chmod(0o2770)
    os.chown(var / "spool", 100, 100)
    begun = time.monotonic()
    assert yard.verify() == []
    assert time.monotonic() - begun < 5


def test_what_the_administrator_edits_is_his(yard: Yard) -> None:
    etc = yard.root / "s/a/etc"
    (etc / "hosts").unlink()
    (etc / "resolv.conf").unlink()
    (etc / "resolv.conf").symlink_to("/var/run/resolv.conf")
    write(etc / "rc.conf", "sshd_enable=NO")
    (etc / "rc.d").mkdir()
    os.chown(etc / "rc.d", 5, 5)
    write(yard.root / "j/mroot/usr/bin/tool", mode=0o755)
    assert yard.verify() == []


def test_a_setuid_file_of_the_base_is_known_where_it_lies(yard: Yard) -> None:
    assert BASE["usr/local/sbin/site-su"] & 0o4000
    assert (yard.root / "s/a/usr-local/sbin/site-su").stat().st_mode & 0o4000
    assert (yard.root / "j/mroot/usr/bin/su").stat().st_mode & 0o4000
    assert yard.verify() == []


def test_an_open_session_is_told(yard: Yard) -> None:
    lock = write(yard.root / ".layout/manage-a.lock", "process 1 (layout manage a)\n")
    with lock.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert yard.verify("--quick") == [("a", "S3-session", "warning")]


def test_another_jail_is_not_blamed(yard: Yard) -> None:
    yard.ok("init", "b", "--manage", "boot")
    assert yard.verify("a") == []
    mount("-t", "tmpfs", "none", yard.root / "j/b/t/tmp")
    assert yard.verify("a") == []
    assert yard.verify("b") == [("b", "S1-extra", "error")]


# --- how it says it -----------------------------------------------------------------------------------------


def test_the_json_document_has_the_keys_of_the_contract(yard: Yard) -> None:
    yard.ok("umount", "b")
    done = yard.run("verify", "--json")
    report = json.loads(done.out)
    assert done.code == 1
    assert list(report) == ["ok", "jails", "host", "counts"]
    assert list(report["jails"]) == ["a", "b"]
    assert report["jails"]["a"] == {"ok": True, "findings": []}
    assert set(report["counts"]) == {"checks", "errors", "warnings", "probes"}
    (finding,) = report["jails"]["b"]["findings"]
    assert set(finding) == {"code", "severity", "path", "expected", "found", "hint"}
    assert finding["path"] == f"{yard.root}/j/b"
    assert finding["hint"] == "layout mount b"


def test_a_hostile_name_neither_moves_the_cursor_nor_forges_a_line(yard: Yard) -> None:
    plain = write(yard.root / "t/a/var/plain", mode=0o4755)
    lines = yard.run("verify").out.count("\n")
    plain.unlink()
    for name in ("\x1b[2J\x1b[1;1Hb  ok\nb  ok", os.fsdecode(b"\xff\x9b\x80"), "\u202e\u2028"):
        hostile = write(yard.root / "t/a/var" / name, mode=0o4755)
        done = yard.run("verify")
        assert done.out.count("\n") == lines
        assert [c for c in done.out if not c.isprintable() and c != "\n"] == []
        assert yard.verify() == [("a", "S7-setuid", "error")]
        hostile.unlink()


def test_a_flood_of_findings_is_counted(yard: Yard) -> None:
    for number in range(150):
        write(yard.root / f"t/a/var/{number}", mode=0o4755)
    report = json.loads(yard.run("verify", "--json").out)
    assert report["counts"]["errors"] == 150
    found = report["jails"]["a"]["findings"]
    assert len(found) == 101
    assert found[-1]["found"].startswith("50 more")


@pytest.mark.parametrize(
    ("words", "code"),
    [(("nosuch",), 1), (("../a",), 2), (("--no-such-option",), 2)],
    ids=["unknown jail", "no name", "unknown option"],
)
def test_what_cannot_be_verified_is_an_error(yard: Yard, words: tuple[str, ...], code: int) -> None:
    done = yard.run("verify", *words)
    assert (done.code, done.out) == (code, "")


@pytest.mark.parametrize("spoil", ["gone", "link", "file", "state"])
def test_not_looked_is_not_passed(yard: Yard, spoil: str) -> None:
    yard.clear()
    match spoil:
        case "link":
            yard.root.symlink_to(yard.top)
        case "file":
            write(yard.root)
        case "state":
            yard.root.mkdir(mode=0o700)
        case _:
            pass
    done = yard.run("verify", "--json")
    report = json.loads(done.out)
    assert (done.code, report["ok"]) == (1, False)
    assert [finding["code"] for finding in report["host"]["findings"]] == ["S8-unseen"]
    if spoil in {"link", "file"}:
        yard.root.unlink()
