"""The audit tells each design as it is: one program, a world of its own, a closure, the host's own tree."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from busybox_yard import BUSYBOX, build
from osless_yard import NAME, Finger
from thin_yard import Daemon, thin_yard
from yard import Yard, clear_mounts, layout

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.box,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
]


def audit(root: Path, name: str, code: int = 0) -> dict[str, Any]:
    done = layout("--root", root, "--json", "audit", name)
    assert done.code == code, done.err + done.out
    text = layout("--root", root, "audit", name)
    assert (text.code, text.err) == (code, "")
    found: dict[str, Any] = json.loads(done.out)["jails"][name]
    return found


def powers(found: dict[str, Any]) -> dict[str, list[str]]:
    return {one["path"]: one["powers"] for one in found["writable"]}


def interpreters(found: dict[str, Any]) -> list[str]:
    return [path for one in found["residue"] if one["id"] == "interpreters" for path in one["paths"]]


def test_an_osless_jail_has_no_interpreter_to_name(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    jail = Finger(tmp_path.resolve())
    jail.profile()
    jail.ok("init", NAME)
    try:
        found = audit(jail.root, NAME)
        assert (found["kind"], interpreters(found)) == ("osless", [])
        assert not {"execute", "setuid", "devices"} & {
            word for words in powers(found).values() for word in words
        }
        assert audit(jail.root, NAME)["devices"] == []
        jail.ok("start", NAME)
        found = audit(jail.root, NAME)
        assert (found["state"], found["devices"], found["unseen"]) == ("running", [], [])
        assert any(one.startswith("listens on ") for one in found["network"])
    finally:
        jail.clear()


def test_a_thin_jail_is_told_from_its_closure_while_it_runs(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    yard = thin_yard(tmp_path / "yard", Daemon(tmp_path / "daemon", 8093))
    try:
        assert audit(yard.root, "a")["state"] == "unmounted"
        yard.ok("start", "a")
        found = audit(yard.root, "a")
        assert (found["kind"], found["state"], interpreters(found)) == ("thin", "running", [])
        assert powers(found)["/var/log/app"] == ["write"]
        assert "listens on 127.0.0.1 8093/tcp" in found["network"]
    finally:
        yard.run("stop", "a")
        clear_mounts(tmp_path)


@pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static")
def test_a_full_jail_is_writable_and_executable_and_that_is_said(tmp_path: Path) -> None:
    base = build(tmp_path / "busybox")
    profiles = tmp_path / "yard/jails/etc/profiles"
    profiles.mkdir(parents=True)
    text = '[linux.network]\nip4 = ["disable"]\nip6 = ["disable"]\n'
    (profiles / "cell.toml").write_text(f'kind = "full"\ndescription = "a test"\n{text}')
    yard = Yard(tmp_path / "yard", "--base", base, names=("cell",))
    try:
        yard.ok("mount", "cell")
        found = audit(yard.root, "cell")
        assert (found["kind"], found["state"]) == ("full", "mounted")
        assert {"write", "execute"} <= set(powers(found)["/"])
        assert "/bin/busybox" in interpreters(found)
        assert found["network"] == ["none but a loopback of its own"]
    finally:
        clear_mounts(tmp_path)


def test_a_service_of_the_host_has_the_hosts_tree_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles = tmp_path / "jails/etc/profiles"
    profiles.mkdir(parents=True)
    (profiles / "demo.toml").write_text('kind = "service"\ndescription = "a test"\n')
    from layout.actions.audit import audit_jail
    from layout.actions.context import Choice, Context
    from layout.cli.output import Output
    from layout.cli.proof import print_audit

    context = Context.find(str(tmp_path / "jails"), None)
    (tmp_path / "jails").chmod(0o700)
    plan = context.plan_jail(context.choose("demo", Choice()))
    found = audit_jail(context, plan)
    assert found.kind == "service"
    (said,) = (one.what for one in found.residue if one.id == "interpreters")
    assert said == "all of the host, whose tree is the jail's as well"
    assert (found.unseen, found.setuid) == ((), ())
    (only,) = found.writable
    assert (only.path, only.source) == ("/", "the host's own tree, as its user may")
    assert {"write", "execute"} <= set(only.powers)
    print_audit(Output(), "demo", found)
    text = capsys.readouterr().out
    for title in ("setuid files and file capabilities", "device nodes", "sockets and FIFOs"):
        assert f"  {title}: the host's\n" in text
    for title in ("writable", "capabilities", "confinement"):
        assert f"  {title}: none" not in text
