"""`layout render`: what FreeBSD runs jails by, printed anywhere and before there is a jail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layout.core import jailconf


def test_jails_of_every_shipped_profile_are_rendered(cli, tmp_path: Path) -> None:
    done = cli("--root", tmp_path / "root", "render", "jail.conf", "bind", "ldap", "heimdal", "x")
    assert done.code == 0, done
    assert [block.name for block in jailconf.jails(done.out)] == ["bind", "ldap", "heimdal", "x"]
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("boot", ["jail", "none"])
def test_the_lines_of_rc_conf_say_who_starts(cli, tmp_path: Path, boot: str) -> None:
    etc = tmp_path / "root" / "etc"
    etc.mkdir(parents=True)
    (etc / "layout.toml").write_text(f'boot = "{boot}"\n')
    done = cli("--json", "--root", tmp_path / "root", "render", "rc.conf", "bind", "x")
    expected = 'jail_enable="YES"\njail_list="bind x"\n' if boot == "jail" else ""
    assert json.loads(done.out) == {"text": expected}
