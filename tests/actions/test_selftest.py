"""The selftest passes on layout as it is, fails on a layout that is weaker, and leaves nothing behind."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from busybox_yard import eventually, processes
from yard import mounts

from layout.actions import prepare_linux, selftest_linux
from layout.actions.kinds import osless_tree
from layout.actions.selftest import Document, selftest
from layout.core.attacks import ENGINE, HOST, HOST_OF_THIN, OSLESS, SESSION, THIN, TRAPS, Result
from layout.host.attacks import frame, known, programs
from layout.host.linux import devices, logs, namespaces_filter, process, sandbox
from layout.host.linux.engines import bwrap

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
]
HERE = Path(frame.__file__).parent


def run() -> Document:
    return selftest(lambda *_: None)


def of(found: Document, place: str) -> dict[str, Result]:
    (results,) = (one.results for one in found.places if one.name == place)
    return {one.id: one for one in results}


@pytest.fixture(name="found", scope="module")
def _found() -> Document:
    before, table = processes(), mounts()
    found = run()
    assert processes() - before == set()
    assert mounts() == table
    return found


def test_all_that_must_be_blocked_is_blocked_under_every_engine(found: Document) -> None:
    engines = [name for name, module in prepare_linux.ENGINES.items() if shutil.which(module.PROGRAM)]
    assert {place.name for place in found.places if place.results} >= {
        *(f"{engine}, {grade}" for engine in engines for grade in ("full", "weak"))
    }
    for engine in engines:
        for grade in ("full", "weak"):
            results = of(found, f"{engine}, {grade}")
            assert results.keys() == {one.id for one in (*ENGINE, *HOST)}
            bad = {i: (r.verdict, r.found) for i, r in results.items() if r.must_be_blocked}
            assert {i: r for i, r in bad.items() if r[0] != "blocked"} == {}
    assert found.ok


def test_a_thin_jail_and_one_without_a_system_are_attacked_as_well(found: Document) -> None:
    for place, attacks in (("bwrap, thin", THIN), ("direct, osless", OSLESS)):
        results = of(found, place)
        assert results.keys() == {one.id for one in (*attacks, *HOST)}
        bad = {i: (r.verdict, r.found) for i, r in results.items() if r.must_be_blocked}
        assert {i: r for i, r in bad.items() if r[0] != "blocked"} == {}
    left = {one.id for one in of(found, "direct, osless").values() if one.verdict == "residue"}
    assert left == {"setuid-file", "anonymous", "abstract-socket"}


def test_what_cannot_be_attacked_here_is_named_with_the_reason(found: Document) -> None:
    missing = {name for name, module in prepare_linux.ENGINES.items() if not shutil.which(module.PROGRAM)}
    assert {one.name for one in found.not_tried} == {"unit", *missing}
    assert all(one.because for one in found.not_tried)


def test_the_residue_is_named_and_nothing_else_works(found: Document) -> None:
    named = {one.id for one in (*ENGINE, *HOST_OF_THIN, *TRAPS) if one.residue}
    for place in found.places:
        assert {one.id for one in place.results if one.verdict == "residue"} <= named
    assert {"interpreter", "flock", "fifo", "socket", "log-mode", "abstract-socket"} <= {
        one.id for one in of(found, "bwrap, weak").values() if one.verdict == "residue"
    }


@pytest.mark.parametrize("place", ["manage", "manage --sealed"])
def test_a_session_reaches_nothing_of_the_host(found: Document, place: str) -> None:
    results = of(found, place)
    assert {one.id for one in SESSION} <= results.keys()
    assert {i: r.found for i, r in results.items() if r.verdict not in {"blocked", "residue"}} == {}


def test_an_administrator_who_works_runs_nothing_that_was_planted(found: Document) -> None:
    results = of(found, "manage")
    assert {one.id for one in TRAPS} <= results.keys()
    assert {one.id for one in TRAPS if results[one.id].verdict == "residue"} == {"script", "fifo-log"}
    # The tool did its work, with what is the administrator's own.
    assert results["package-script"].found == "what ran was not the attacker's"
    assert results["build-options"].found == "what ran was not the attacker's"
    assert results["merge-base"].found == "the edit was seen, and kept"
    assert results["temporary"].found.endswith("stayed as it was written")


def test_a_sealed_session_has_no_residue_but_the_network_of_the_host(found: Document) -> None:
    assert {i for i, one in of(found, "manage --sealed").items() if one.verdict != "blocked"} == {
        "abstract-socket"
    }


def test_a_session_with_the_jails_own_t_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without its guards and its own directories, most of what was planted works."""
    from layout.actions import manage_linux

    monkeypatch.setattr(manage_linux, "_GUARDS", ())
    monkeypatch.setattr(manage_linux, "COVERED", ())
    monkeypatch.setattr(manage_linux, "_DPKG", {})
    monkeypatch.setattr(prepare_linux, "ENGINES", {"bwrap": bwrap})
    found = run()
    assert not found.ok
    broken = {one.id for one in of(found, "manage").values() if one.verdict == "worked"}
    assert {
        "linker-hints",
        "package-script",
        "answers",
        "merge-base",
        "script-in-tmp",
    } <= broken
    assert {one.verdict for one in of(found, "manage --sealed").values()} == {"blocked", "residue"}


def test_an_engine_that_keeps_all_capabilities_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of all the others: what is weaker does not pass."""
    strict = bwrap.arguments

    def weak(program: str, spec: object) -> tuple[str, ...]:
        words = list(strict(program, spec))  # type: ignore[arg-type]
        at = words.index("--cap-drop")
        return (*words[:at], "--cap-add", "ALL", *words[at + 2 :])

    monkeypatch.setattr(bwrap, "arguments", weak)
    monkeypatch.setattr(process, "become_user", lambda *_: None)
    monkeypatch.setattr(process, "forbid_new_privileges", lambda: None)
    monkeypatch.setattr(namespaces_filter, "apply", lambda: None)
    monkeypatch.setattr(process, "leave_keyrings", lambda: None)
    monkeypatch.setattr(process, "forbid_core_dumps", lambda: None)
    monkeypatch.setattr(devices, "null", lambda flags: os.open("/dev/null", flags))
    monkeypatch.setattr(logs, "_GUARD", 0)
    monkeypatch.setattr(prepare_linux, "ENGINES", {"bwrap": bwrap})
    found = run()
    assert not found.ok
    everything = {"remount", "umount", "mount", "handle", "own-namespace", "namespace-memory"}
    everything |= {"standard-input", "keys", "core-limit"}
    # The thin jail is in a user namespace: capabilities there are none of the host.
    for place, least in (
        ("bwrap, weak", {*everything, "log"}),
        ("bwrap, thin", {"mount"}),
        ("direct, osless", everything),
    ):
        assert least <= {one.id for one in of(found, place).values() if one.verdict == "worked"}, place
    # What a session is kept from by the same filter.
    for place in ("manage", "manage --sealed"):
        assert {one.id for one in of(found, place).values() if one.verdict == "worked"} == {
            "own-namespace",
            "namespace-memory",
            "keys",
            "core-limit",
        }


def test_in_a_user_namespace_what_has_no_control_is_not_shown_and_nothing_is_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = sandbox.run
    monkeypatch.setattr(
        sandbox, "run", lambda work, seconds, user_namespace: real(work, seconds, user_namespace=True)
    )
    monkeypatch.setattr(prepare_linux, "ENGINES", {"bwrap": bwrap})
    found = run()
    assert not found.ok
    assert (found.counts.worked, found.counts.odd) == (0, 0)
    results = of(found, "bwrap, weak")
    assert {results[name].verdict for name in ("handle", "device")} == {"not shown"}
    assert {results[name].verdict for name in ("write-base", "remount", "execute", "chroot")} == {"blocked"}


def test_where_no_engine_is_installed_nothing_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest_linux, "which", lambda _: None)
    found = run()
    assert not found.ok
    assert {one.name for one in found.not_tried} == {"unit", *prepare_linux.ENGINES}
    assert not [place for place in found.places if place.name.startswith(("bwrap", "nspawn"))]
    assert {one.verdict for one in of(found, "no engine").values()} == {"not run"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_selftest_that_is_killed_leaves_nothing(how: signal.Signals) -> None:
    before, table = processes(), mounts()
    words = [sys.executable, "-m", "layout", "selftest"]
    null = subprocess.DEVNULL
    with subprocess.Popen(words, stdout=null, stderr=null) as child:
        # A service, below an engine, below what starts that, in the sandbox, of a process that waits for it.
        assert eventually(lambda: child.poll() is not None or len(processes() - before) > 6)
        child.send_signal(how)
        assert child.wait(60) == (130 if how == signal.SIGINT else -how)
    assert eventually(lambda: processes() - before == set())
    assert mounts() == table


def test_the_attacks_need_nothing_but_pythons_own_library() -> None:
    """They run in a base that has nothing else."""
    for path in HERE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {one.name.partition(".")[0] for one in node.names} <= sys.stdlib_module_names
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").partition(".")[0] in sys.stdlib_module_names


def test_every_attack_that_is_listed_can_be_made() -> None:
    assert known.exploits().keys() == {one.id for one in (*ENGINE, *TRAPS)}


def test_what_becomes_the_attacker_in_a_jail_without_a_system_is_a_static_program(tmp_path: Path) -> None:
    path = tmp_path / "launcher"
    path.write_bytes(programs.launcher())
    path.chmod(0o755)
    assert osless_tree.static_program(str(path))
    done = subprocess.run([path, "/bin/sh", "-c", "echo $0 $A", "b"], env={"A": "c"}, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"b c\n")
    assert subprocess.run([path, "/nowhere"], check=False).returncode == 255


def test_an_attack_that_hangs_is_not_run_rather_than_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "SECONDS", 0.2)
    place = frame.Aim("/", "/", "/", os.getpid(), "x", "/", (sys.executable,))
    found = frame.attempt(lambda _: os.read(os.pipe()[0], 1).decode(), place)
    assert found["untried"] and found["said"] == "no answer in time"


def test_a_checkout_below_tmp_is_seen_in_the_sandbox(tmp_path: Path) -> None:
    """The sandbox has a /tmp of its own: what of layout lies in the host's is shown in it."""
    top = Path(__file__).resolve().parents[2]
    for name in ("layout", "profiles", "fstab.d"):
        shutil.copytree(top / name, tmp_path / name)
    text = f"""
import os
from layout.host.linux import sandbox
def seen():
    return repr(sorted(os.listdir({str(tmp_path)!r}))).encode()
print(sandbox.run(seen, 20, user_namespace=False).decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "['fstab.d', 'layout', 'profiles']", done.stderr
