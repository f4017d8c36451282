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
from typing import TYPE_CHECKING, Any

import freebsd_sabotage
import probe_sabotage  # noqa: F401 - adds its rows
import pytest
from sabotage import AFTER, ROWS, Row, make_capable, write
from yard import BASE, Yard, make_base, mount, yard_at

from layout.actions.verifying import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layout.actions.verifying.scene import Check

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


def found_after(yard: Yard, one: Row, *words: str) -> list[tuple[str, str, str]]:
    """Return what verify finds with all its means."""
    needed = {"--probe": one.probe, "--base": one.base}
    return yard.verify(*(word for word, is_needed in needed.items() if is_needed), *words)


@pytest.mark.parametrize("one", ROWS, ids=str)
def test_a_sabotage_is_found(yard: Yard, one: Row) -> None:
    assert found_after(yard, one) == []
    with AFTER:
        one.sabotage(yard)
        found = found_after(yard, one)
        assert (one.who, one.code, one.severity) in found
        if one.only:
            # Whatever is changed in mroot is told by its manifest as well.
            others = {entry[:2] for entry in found} - {("host", "S9-drift")}
            assert others | {(one.who, one.code)} == {(one.who, one.code)}
        assert ((one.who, one.code, one.severity) in yard.verify("--quick")) is one.quick


ON_FREEBSD = {row.code for row in freebsd_sabotage.ROWS.values()}


def codes_in(*where: Path) -> set[str]:
    """Return every code of a finding that these modules have."""
    files = [path for one in where for path in (one.rglob("*.py") if one.is_dir() else [one])]
    return set(re.findall(r'"([A-Z]\d+-[a-z-]+)"', "".join(path.read_text("utf-8") for path in files)))


SOURCE = codes_in(REPOSITORY / "layout")
KNOWN = {code for check in (*registry.HOST, *registry.JAIL) for code in check.codes}
# Those of jails that cannot even be planned, of what cannot be looked at, and of `layout base verify`.
OTHERS = {"S5-record", "S5-destroying", "S5-profile", "S8-unseen"}
OTHERS |= {one.code for one in ROWS if one.base}
OF_KINDS = {code for code in SOURCE - KNOWN - OTHERS if code[0] not in "SA"} | (
    codes_in(*(REPOSITORY / f"layout/{layer}/kinds" for layer in ("core", "actions"))) - KNOWN - OTHERS
)
"""What each kind of jail promises of its own, and has tests of its own for."""
OF_MOUNTS = {"S4-open"}
"""Of directories of the host, which the kind of these rows has not: test_thin.py takes its check out."""


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) + len(freebsd_sabotage.ROWS) >= 150
    assert len({one.sabotage for one in ROWS}) == len(ROWS)


def test_every_code_is_documented_and_no_other() -> None:
    rows = re.findall(
        r"(?m)^\| `([A-Z]\d+-[a-z-]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$",
        (REPOSITORY / "docs/findings.md").read_text("utf-8"),
    )
    assert {code for code, *_ in rows} == SOURCE
    assert all(len(reason.strip()) > 10 and len(cure.strip()) > 3 for _, _, reason, cure in rows)
    assert "](findings.md)" in (REPOSITORY / "docs/reference.md").read_text("utf-8")


def test_every_code_has_its_sabotage() -> None:
    assert {one.code for one in ROWS} | ON_FREEBSD | OF_KINDS | OF_MOUNTS == SOURCE
    tests = [path for path in (REPOSITORY / "tests").rglob("*.py") if path.name != "test_verify.py"]
    assert (OF_KINDS | OF_MOUNTS) - codes_in(*tests) == set()


def test_the_registry_knows_its_codes() -> None:
    assert KNOWN | OTHERS | OF_KINDS == SOURCE
    for check in (*registry.HOST, *registry.JAIL):
        assert all(code.startswith(f"{check.invariant}-") for code in check.codes), check


# --- a check that is taken out is missed --------------------------------------------------------------------

OF_FREEBSD = {row.check for row in freebsd_sabotage.ROWS.values()} - {"files", "auto-run places"}
"""Checks that ask FreeBSD: test_freebsd_verify.py takes them out."""
MUTATIONS = [
    pytest.param(side, check, id=f"{side}: {check.name}")
    for side, checks in (("HOST", registry.HOST), ("JAIL", registry.JAIL))
    for check in checks
    if check.name not in OF_FREEBSD | {"design", "directories of the host"}
]


@pytest.mark.parametrize(("side", "check"), MUTATIONS)
def test_without_a_check_a_sabotage_is_overlooked(
    whole: Yard, monkeypatch: pytest.MonkeyPatch, side: str, check: Check[Any]
) -> None:
    tried = []
    for one in ROWS:
        if one.code in (check.codes or {"S8-unseen"}) and (one.who == "host") is (side == "HOST"):
            whole.renew()
            whole.ok("mount")
            with AFTER, monkeypatch.context() as patch:
                one.sabotage(whole)
                finding = (one.who, one.code, one.severity)
                assert finding in found_after(whole, one)
                others = tuple(other for other in getattr(registry, side) if other is not check)
                patch.setattr(registry, side, others)
                if finding not in found_after(whole, one):
                    return
            tried.append(str(one))
    pytest.fail(f"{check.name} is missed by none of {tried}")


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
    assert time.monotonic() - begun < 60


def test_what_the_administrator_edits_is_his(yard: Yard) -> None:
    etc = yard.root / "s/a/etc"
    (etc / "hosts").unlink()
    (etc / "resolv.conf").unlink()
    (etc / "resolv.conf").symlink_to("/var/run/resolv.conf")
    write(etc / "rc.conf", "sshd_enable=NO")
    (etc / "rc.d").mkdir()
    (etc / "rc.d").chmod(0o700)
    assert yard.verify() == []


def test_a_setuid_file_of_the_base_is_known_where_it_lies(yard: Yard) -> None:
    assert BASE["usr/local/sbin/site-su"] & 0o4000
    assert (yard.root / "s/a/usr-local/sbin/site-su").stat().st_mode & 0o4000
    assert (yard.root / "j/mroot/usr/bin/su").stat().st_mode & 0o4000
    assert yard.verify() == []


def test_what_came_with_the_base_is_known(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    os.chown(base / "usr/bin/su", 7, 7)
    (base / "usr/bin/su").chmod(0o4755)
    (base / "usr/local/share").mkdir()
    os.chown(base / "usr/local/share", 0, 50)
    (base / "usr/local/share").chmod(0o2775)
    (base / "usr/mail").symlink_to("../var/mail")
    make_capable(base / "bin/sh")
    make_capable(write(base / "usr/local/sbin/ping", mode=0o755))
    with yard_at(tmp_path / "y", "--base", base, names=("a",)) as yard:
        yard.ok("mount")
        assert yard.verify() == [("host", "S5-into-t", "warning")]
        os.setxattr(
            yard.root / "j/mroot/bin/sh", "security.capability", bytes.fromhex("0000000201" + "0" * 30)
        )
        (yard.root / "s/a/usr-local/share").chmod(0o2777)
        os.chown(yard.root / "j/mroot/usr/bin/su", 8, 7)
        found = {entry[:2] for entry in yard.verify()}
        assert found >= {("host", "S6-capability"), ("a", "S6-loose"), ("host", "S6-owner")}


def test_files_of_a_user_that_the_profile_names_are_expected(yard: Yard) -> None:
    write(yard.root / "s/a/etc/passwd", "root:x:0:0::/root:/bin/sh\nnamed:x:53:53::/:/bin/false\n")
    os.chown(write(yard.root / "s/a/etc/key", mode=0o600), 53, 53)
    assert yard.verify("a") == [("a", "S6-owner", "warning")]
    (yard.root / "etc/profiles").mkdir(parents=True)
    text = 'kind = "shared"\ndescription = "named"\n[linux.service]\nuser = "named"\n'
    write(yard.root / "etc/profiles/default.toml", text)
    assert yard.verify("a") == []


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


def test_what_both_proofs_say_is_said_once(yard: Yard) -> None:
    (one,) = (one for one in ROWS if one.code == "S9-pending")
    one.sabotage(yard)
    report = json.loads(yard.run("--json", "verify", "--no-probe", "--base").out)
    assert report["host"]["findings"] == []
    assert [finding["code"] for finding in report["jails"]["a"]["findings"]] == ["S9-pending"]
    assert (report["counts"]["errors"], report["counts"]["warnings"]) == (0, 1)


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
