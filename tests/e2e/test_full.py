"""An sshd in a full jail of a real Debian: the outside logs in, through a redirect, to its own account."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.house import Jails, processes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "actions"))
from net_yard import HOST, Outside, links, missing, outside, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(missing("ssh")), reason=f"needs {missing('ssh')}"),
]
PROFILE = Path(__file__).resolve().parents[2] / "profiles" / "full.toml"
ENGINES = {"nspawn": "systemd-nspawn", "bwrap": "bwrap"}


@pytest.fixture(name="cell", scope="module")
def _cell(tmp_path_factory: pytest.TempPathFactory, cli: Callable[..., Any]) -> Iterator[Jails]:
    """A full jail of a Debian base, with an account whose key is known here."""
    top = tmp_path_factory.mktemp("full").resolve()
    jails = Jails(top / "jails", cli)
    profile = top / "jails/etc/profiles/cell.toml"
    profile.parent.mkdir(parents=True)
    # What docs/designs.md says an administrator does.
    profile.write_text(PROFILE.read_text().replace("\napply = false", "\napply = true", 1))
    (top / "jails").chmod(0o700)
    done = jails.json("init", "cell", "--base", os.environ["LAYOUT_DEBIAN_BASE"])
    assert done["ok"]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", top / "key"], check=True)
    key = (top / "key.pub").read_text().strip()
    script = (
        "useradd -m -s /bin/sh ann && mkdir -m 700 /home/ann/.ssh && "
        f"echo '{key}' >/home/ann/.ssh/authorized_keys && chown -R ann: /home/ann"
    )
    jails.ok("manage", "cell", "--", "sh", "-c", script)
    yield jails
    jails.run("stop", "cell")
    jails.ok("umount")
    assert jails.mounts() == []
    jails.ok("destroy", "cell")


@pytest.fixture(name="client", scope="module")
def _client() -> Iterator[Outside]:
    with outside() as client:
        yield client


def ssh(client: Outside, cell: Jails, command: str) -> subprocess.CompletedProcess[str]:
    """Log in from outside."""
    options = ["-oBatchMode=yes", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]
    options += ["-oConnectTimeout=10", "-oLogLevel=ERROR", "-F", "none"]
    words = ["ssh", "-i", cell.root.parent / "key", "-p", "2222", *options, f"ann@{HOST}", command]
    return subprocess.run([*client.words, *map(str, words)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_account_of_the_jail_logs_in_through_the_redirect(
    cell: Jails, client: Outside, engine: str
) -> None:
    if shutil.which(ENGINES[engine]) is None:
        pytest.skip(f"no {ENGINES[engine]}")
    before = links(), tables()
    state = cell.json("start", "cell", "--engine", engine)["running"]["cell"]
    assert (state["engine"], state["grade"]) == (engine, "full")
    done = ssh(client, cell, "id -un; cat /etc/hostname; echo here >/tmp/me; ls /root")
    assert done.stdout == "ann\ncell\n"
    assert "Permission denied" in done.stderr, "root's is root's"
    assert "ann" not in Path("/etc/passwd").read_text()
    # Its setuid programs work, under an engine that has that: passwd(1) reads the jail's own shadow(5).
    assert ssh(client, cell, "passwd -S").stdout.startswith("ann L") is (engine == "nspawn")
    assert (
        cell.ok("exec", "cell", "--", "sh", "-c", "echo >>/usr/bin/own && ls -A /etc/ssh").count("_key") == 6
    )
    report = cell.json("verify", "cell")
    assert [one["code"] for one in report["jails"]["cell"]["findings"]] == ["S2-world"]
    assert report["host"]["findings"] == []
    cell.ok("stop", "cell")
    assert ssh(client, cell, "id").returncode == 255
    assert (links(), tables()) == before
    assert processes("sshd", "bwrap", "systemd-nspawn") == []


def test_hosts_made_of_one_base_have_keys_of_their_own(cell: Jails) -> None:
    """What told the base from others was taken out; the keys are those that the jail's first start made."""
    world = cell.root / "t/cell/etc"
    assert json.loads(cell.ok("--json", "status", "cell"))["jails"]["cell"]["running"] is None
    assert len((world / "machine-id").read_text()) == 33
    listen = [
        line for line in (world / "ssh/sshd_config").read_text().splitlines() if "ListenAddress" in line
    ]
    assert listen[0] == "ListenAddress 10.79.0.2"
