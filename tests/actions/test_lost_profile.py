"""A jail whose profile is gone, broken or of another kind is still seen, stopped, unmounted and destroyed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from busybox_yard import BUSYBOX, build, web
from osless_yard import NAME, Finger
from test_freebsd_running import DAEMON, Whole, _host, base, jailed  # noqa: F401
from yard import Yard, clear_mounts

pytestmark = pytest.mark.box

THIN = 'kind = "thin"\ndescription = "x"\n[linux.service]\ncommand = ["/bin/true"]\n'


@pytest.mark.skipif(not BUSYBOX.exists() or shutil.which("bwrap") is None, reason="needs busybox, bwrap")
def test_a_running_jail_whose_profile_became_another_kind(tmp_path: Path) -> None:
    yard_profiles = tmp_path / "jails/etc/profiles"
    yard_profiles.mkdir(parents=True)
    text = f'kind = "shared"\ndescription = "x"\n{web(8097)}'
    (yard_profiles / "a.toml").write_text(text, encoding="utf-8")
    yard = Yard(tmp_path, "--base", build(tmp_path / "busybox"), names=("a", "b"))
    try:
        yard.ok("mount", "a")
        yard.ok("start", "a")
        (yard_profiles / "a.toml").write_text(THIN, encoding="utf-8")
        for words in (("init", "a"), ("start", "a"), ("exec", "a", "--", "/bin/true")):
            refused = yard.run(*words)
            assert (refused.code, "kind thin" in refused.err) == (2, True), refused
            assert "layout stop, umount and destroy a" in refused.err
        said = yard.run("--json", "status")
        rows = json.loads(said.out)["jails"]
        assert said.code == 1, "not everything could be looked at"
        assert (rows["a"]["mounted"], rows["a"]["planned"]) == (3, 3)
        assert rows["a"]["running"]["engine"] == "bwrap"
        assert ("kind thin" in rows["a"]["problem"], rows["b"]["problem"]) == (True, "")
        assert "layout stop a" in yard.run("umount", "a").err
        stopped = yard.run("stop", "a")
        assert (stopped.code, "without its profile" in stopped.err) == (0, True), stopped
        assert "layout umount a" in yard.run("destroy", "a").err
        yard.ok("umount", "a")
        yard.ok("destroy", "a")
        assert yard.run("status").code == 0
    finally:
        yard.run("stop", "a")
        clear_mounts(tmp_path)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("damaged", [False, True], ids=["without", "damaged"])
def test_one_without_tables_is_seen_by_those_of_its_kind(tmp_path: Path, damaged: bool) -> None:
    jail = Finger(tmp_path)
    jail.profile()
    try:
        jail.ok("init", NAME)
        (jail.root / f"etc/profiles/{NAME}.toml").write_text("kind = 3\n", encoding="utf-8")
        table = jail.root / f"etc/fstab.d/{NAME}.fstab"
        table.unlink()
        if damaged:
            table.write_text("damaged\n", encoding="utf-8")
        said = jail.run("status")
        assert (said.code, "2 of 2" in said.out, "kind: found" in said.err) == (1, True, True), said
        assert "nothing to recover from" in jail.run("recover").err
        # What only the profile could know is not taken away unseen.
        assert f"j/{NAME}/home" in jail.fails("umount", NAME)
    finally:
        jail.clear()


def test_a_service_of_the_host_is_not_guessed(tmp_path: Path) -> None:
    state = tmp_path / "jails/.layout/jails"
    state.mkdir(parents=True)
    os.chmod(tmp_path / "jails", 0o700)
    record = {"name": "web", "profile": "lost", "preset": "hardened", "manage": "session"}
    record |= {"platform": "linux", "created": "2026-01-01T00:00:00Z", "kind": "service"}
    text = "".join(f'{key} = "{value}"\n' for key, value in record.items())
    (state / "web.toml").write_text(text, encoding="utf-8")
    yard = object.__new__(Yard)
    yard.root = tmp_path / "jails"
    said = yard.run("status")
    assert (said.code, "unknown" in said.out) == (1, True), said
    assert "no such profile" in yard.run("stop", "web").err
    assert "put it back" in yard.run("destroy", "web").err
    assert (state / "web.toml").read_text("utf-8") == text, "it is not half destroyed"


def test_on_freebsd_one_lost_profile_keeps_no_other_jail_from_stopping(host: Whole) -> None:
    host.profile("a", DAEMON % "")
    host.profile("b", DAEMON % "")
    host.does("init", "--no-mount", "--base", base(host), "a", "b")
    host.ok("service jail onestart a b")
    assert jailed(host) == ["a", "b"]
    host.ok("rm /usr/local/etc/layout/profiles/a.toml")
    assert host.told("status")["jails"]["a"]["running"]["jid"] > 0
    assert "layout stop b" in host.fails("destroy", "b")
    host.does("stop", "b")
    assert "layout stop a" in host.fails("destroy", "a")
    assert "without its profile" in host.layout("stop", "a").err
    assert jailed(host) == []
    host.does("umount", "a")
    host.does("destroy", "a")
    assert host("test -e /etc/jail.conf.d/a.conf").code != 0
