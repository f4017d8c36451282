"""A session in the base, and how what it did to the skeletons reaches the jails: wholly, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from yard import Yard, yard_at

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box


@pytest.fixture(scope="module", name="whole")
def _whole(tmp_path_factory) -> Iterator[Yard]:
    with yard_at(tmp_path_factory.mktemp("base-session"), "--base", "host") as yard:
        for tree in ("skel/s", "s/a", "s/b"):
            (yard.root / tree / "etc/list").write_text("1\n2\n3\n4\n5\n")
        yard.ok("base", "verify", "--update")
        subprocess.run(["rm", "-r", yard.top / "as-made"], check=True)
        subprocess.run(["cp", "-a", yard.root, yard.top / "as-made"], check=True)
        yield yard


@pytest.fixture
def yard(whole: Yard) -> Yard:
    whole.renew()
    return whole


def session(yard: Yard, script: str, code: int = 0) -> dict[str, Any]:
    done = yard.run("--json", "manage", "--base", "--", "/bin/sh", "-c", script)
    assert done.code == code, done.err + done.out
    return json.loads(done.out)


def entry(yard: Yard, path: str) -> tuple[object, ...]:
    full = yard.root / path
    status = full.lstat()
    content = os.readlink(full) if full.is_symlink() else full.read_bytes() if full.is_file() else None
    return (status.st_mode, status.st_uid, status.st_gid, content)


ADD_USER = "echo 'tftp:x:102:103::/srv:/bin/false' >>/etc/passwd; echo 'tftp:x:103:' >>/etc/group; "


def test_what_is_done_in_the_base_reaches_every_jail(yard: Yard) -> None:
    done = session(
        yard,
        ADD_USER
        + "echo new >/usr/lib/new; mkdir -p /etc/alternatives /var/lib/tftp; chmod 750 /var/lib/tftp;"
        "ln -s /usr/bin/true /etc/alternatives/true; chmod 600 /etc/list; chown 102:103 /var/lib/tftp",
    )
    assert done["ok"] is True
    assert done["pending"] == []
    assert {"kind": "added", "path": "/usr/lib/new"} in done["changes"]
    for name in ("a", "b"):
        changes = {one["path"]: one["kind"] for one in done["jails"][name]["changes"]}
        assert changes["/etc/alternatives/true"] == "added"
        assert changes["/var/lib/tftp"] == "added"
        for path in ("etc/passwd", "etc/group", "etc/alternatives/true", "etc/list"):
            assert entry(yard, f"s/{name}/{path}") == entry(yard, f"skel/s/{path}")
        assert entry(yard, f"t/{name}/var/lib/tftp") == entry(yard, "skel/t/var/lib/tftp")
        assert (yard.root / f"s/{name}/etc/hostname").read_text() == f"{name}\n"
    assert (yard.root / "skel/t/var/lib/tftp").stat().st_uid == 102
    assert yard.run("base", "verify").code == 0  # the manifests followed
    assert [
        code for _, code, severity in yard.verify() if severity == "error" and code != "S1-unmounted"
    ] == []
    assert not list((yard.root / ".layout/merge").iterdir())


def test_no_jails_t_is_in_sight_and_daemons_and_names_are_seen_to(yard: Yard) -> None:
    (yard.root / "t/a/var/mark").write_text("a's")
    process = yard.process(
        *("manage", "--base", "--", "/bin/sh", "-c"),
        "ls /t/var; cat /usr/sbin/policy-rc.d; cat /etc/resolv.conf >/dev/null && echo resolved;"
        "touch /tmp/x /run/x /usr/x /etc/x /var/x && rm /usr/x /etc/x /var/x",
    )
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "mark" not in out
    assert "exit 101" in out
    assert ("resolved" in out) == Path("/etc/resolv.conf").exists()
    for gone in ("j/mroot/usr/sbin/policy-rc.d", "skel/s/etc/resolv.conf", "skel/t/tmp/x", "j/mroot/run/x"):
        assert not (yard.root / gone).exists()
    assert yard.run("base", "verify").code == 0
    assert yard.mounts() == []
    assert not list((yard.root / ".layout/merge").iterdir())  # nothing to merge


def test_what_a_jail_edited_is_kept(yard: Yard) -> None:
    with (yard.root / "s/a/etc/passwd").open("a") as file:
        file.write("me:x:1000:1000::/home:/bin/sh\n")
    (yard.root / "s/a/etc/list").write_text("one\n2\n3\n4\n5\n")
    session(
        yard,
        ADD_USER + "sed 's/5/five/' /etc/list >/etc/list.new; cat /etc/list.new >/etc/list; rm /etc/list.new",
    )
    users = (yard.root / "s/a/etc/passwd").read_text()
    assert "me:x:1000" in users
    assert "tftp:x:102" in users
    assert (yard.root / "s/a/etc/list").read_text() == "one\n2\n3\n4\nfive\n"
    assert (yard.root / "s/b/etc/list").read_text() == "1\n2\n3\n4\nfive\n"


def test_a_conflict_leaves_that_jail_alone_as_it_was_until_it_is_put_right(yard: Yard) -> None:
    with (yard.root / "s/a/etc/passwd").open("a") as file:
        file.write("uuidd:x:102:104::/run:/bin/false\n")
    before = entry(yard, "s/a/etc/passwd")
    done = session(yard, ADD_USER + "echo 6 >>/etc/list; mkdir /var/lib/new", code=1)
    assert [one["path"] for one in done["jails"]["a"]["conflicts"]] == ["/etc/passwd"]
    assert "102" in done["jails"]["a"]["conflicts"][0]["reason"]
    assert (done["jails"]["b"]["ok"], done["pending"]) == (True, ["a"])
    assert entry(yard, "s/a/etc/passwd") == before
    assert (yard.root / "s/a/etc/list").read_text() == "1\n2\n3\n4\n5\n"
    assert not (yard.root / "t/a/var/lib/new").exists()
    assert yard.run("base", "merge").code == 1
    # The base goes on meanwhile; a is still compared with what it was made from.
    session(yard, "echo 7 >>/etc/list", code=1)
    assert (yard.root / "s/b/etc/list").read_text().endswith("6\n7\n")
    users = (yard.root / "s/a/etc/passwd").read_text()
    (yard.root / "s/a/etc/passwd").write_text(users.replace("uuidd:x:102", "uuidd:x:150"))
    said = yard.run("base", "merge", "a")
    assert said.code == 0, said.err
    assert "a: merged   /etc/passwd" in said.err
    assert (yard.root / "s/a/etc/list").read_text().endswith("6\n7\n")
    assert (yard.root / "t/a/var/lib/new").is_dir()
    assert "nothing to merge" in yard.run("base", "merge").err
    assert not list((yard.root / ".layout/merge").iterdir())


def test_a_command_that_failed_changes_no_jail_until_told(yard: Yard) -> None:
    done = session(yard, "echo 6 >>/etc/list; exit 3", code=3)
    assert (done["jails"], done["pending"]) == ({}, ["a", "b"])
    assert (yard.root / "s/a/etc/list").read_text() == "1\n2\n3\n4\n5\n"
    report = json.loads(yard.run("--json", "base", "verify").out)
    waiting = [(f["code"], Path(f["path"]).name) for f in report["host"]["findings"]]
    assert (report["ok"], waiting) == (True, [("S9-pending", "a"), ("S9-pending", "b")])
    assert yard.run("base", "merge", "b").code == 0
    assert (yard.root / "s/b/etc/list").read_text().endswith("6\n")
    assert (yard.root / "s/a/etc/list").read_text() == "1\n2\n3\n4\n5\n"
    assert yard.run("base", "merge").code == 0
    assert (yard.root / "s/a/etc/list").read_text().endswith("6\n")


def test_a_t_that_leads_elsewhere_is_given_nothing_there(yard: Yard) -> None:
    outside = yard.elsewhere("outside")
    lib = yard.root / "t/a/var/lib"
    if lib.exists():
        lib.rename(yard.root / "t/a/var/lib.old")
    lib.symlink_to(outside)
    session(yard, "mkdir -p /var/lib/new/deep; echo x >/var/lib/new/file")
    assert list(outside.iterdir()) == []
    assert (yard.root / "t/b/var/lib/new/file").read_text() == "x\n"


def test_secrets_that_packages_make_stay_out_of_the_skeleton(yard: Yard) -> None:
    done = session(
        yard, "mkdir -p /etc/ssh; echo secret >/etc/ssh/ssh_host_rsa_key; echo x >/etc/ssh/sshd_config"
    )
    assert not (yard.root / "skel/s/etc/ssh/ssh_host_rsa_key").exists()
    assert "/etc/ssh/sshd_config" in {one["path"] for one in done["jails"]["a"]["changes"]}
    assert not (yard.root / "s/a/etc/ssh/ssh_host_rsa_key").exists()


def test_setuid_files_of_packages_are_told_and_recorded(yard: Yard) -> None:
    done = session(yard, "cp /bin/sh /usr/bin/setuid-sh; chmod 4755 /usr/bin/setuid-sh")
    assert done["setuid"] == ["/usr/bin/setuid-sh"]
    assert "S6-setuid" not in [code for _, code, _ in yard.verify()]


def test_what_was_tampered_with_before_is_still_found_after_a_session(yard: Yard) -> None:
    (yard.root / "j/mroot/usr/lib/tampered").write_text("x")
    session(yard, "echo new >/usr/lib/new")
    report = json.loads(yard.run("--json", "base", "verify").out)
    found = [(f["code"], Path(f["path"]).name) for f in report["host"]["findings"]]
    assert found == [("S9-extra", "tampered")]


def test_no_other_session_is_open_meanwhile(yard: Yard) -> None:
    process = yard.process(
        "manage", "--base", "--", "/bin/sh", "-c", "echo 6 >>/etc/list; echo ready; sleep 100"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for words in (["manage", "a", "--", "/bin/true"], ["manage", "--base"], ["init", "c"], ["base", "merge"]):
        done = yard.run(*words)
        assert (done.code, "lock held by process" in done.err) == (1, True), done.err
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while yard.run("base", "merge").code:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (yard.root / "j/mroot/usr/sbin/policy-rc.d").exists()
    assert (yard.root / "s/a/etc/list").read_text().endswith("6\n")
    process.stdout.close()
    if process.stderr is not None:
        process.stderr.close()


def test_a_jail_with_an_open_session_keeps_the_base_closed(yard: Yard) -> None:
    process = yard.process("manage", "a", "--", "/bin/sh", "-c", "echo ready; sleep 100")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert yard.run("manage", "--base", "--", "/bin/true").code == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_words_that_cannot_be_are_refused(yard: Yard) -> None:
    assert yard.run("manage").code == 2
    assert yard.run("manage", "--base", "--sealed", "--", "/bin/true").code == 2
    assert yard.run("base", "merge", "nobody").code == 1


KINDS = """
mkdir -p /etc/k; cd /etc/k
rm -rf dir-to-link; ln -s ../list dir-to-link
rm -f file-to-dir; mkdir file-to-dir; echo in >file-to-dir/in
rm -f link-to-file; echo file >link-to-file
rm -rf gone used/gone
echo more >>big
chmod 600 mode; chown 5:6 mode
ln -f hard one
echo odd >"new
line"
mkdir -m 2750 fresh; chown 7:8 fresh
"""


def _prepare(top: Path) -> None:
    """Make etc/k of a skeleton and of the jails made from it."""
    k = top / "etc/k"
    (k / "dir-to-link").mkdir(parents=True)
    (k / "dir-to-link/inside").write_text("x\n")
    (k / "file-to-dir").write_text("x\n")
    (k / "link-to-file").symlink_to("big")
    (k / "gone/deep").mkdir(parents=True)
    (k / "gone/deep/file").write_text("x\n")
    (k / "used").mkdir()
    (k / "used/gone").write_text("x\n")
    (k / "big").write_text("x" * 3_000_000 + "\n")
    (k / "mode").write_text("x\n")
    (k / "hard").write_text("linked\n")


def tree(yard: Yard, path: str) -> dict[str, tuple[object, ...]]:
    top = yard.root / path
    names = sorted(os.path.relpath(one, top) for one in top.rglob("*"))
    return {name: entry(yard, f"{path}/{name}") for name in names}


def test_every_kind_of_change_arrives(yard: Yard) -> None:
    for top in ("skel/s", "s/a", "s/b"):
        _prepare(yard.root / top)
    (yard.root / "s/b/etc/k/used/mine").write_text("mine\n")
    (yard.root / "s/b/etc/k/mode").write_text("mine\n")
    done = session(yard, KINDS)
    assert done["ok"] is True
    assert tree(yard, "s/a/etc/k") == tree(yard, "skel/s/etc/k")
    theirs = tree(yard, "s/b/etc/k")
    mode, uid, gid, content = theirs.pop("mode")
    assert (mode, uid, gid, content) == (0o100600, 5, 6, b"mine\n")
    assert theirs.pop("used/mine")[3] == b"mine\n"
    assert theirs == {name: one for name, one in tree(yard, "skel/s/etc/k").items() if name != "mode"}


def test_a_merge_that_was_interrupted_goes_on(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    from layout.host.beneath import Dir

    session(yard, "echo 6 >>/etc/list; echo x >/etc/one; echo x >/etc/two; exit 1", code=1)
    real = Dir.replace
    left = [2]

    def failing(self: Dir, name: str, to: Dir, new_name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, os.strerror(28))
        real(self, name, to, new_name)

    monkeypatch.setattr(Dir, "replace", failing)
    done = yard.run("base", "merge", "a")
    assert (done.code, "no space left" in done.err) == (1, True)
    assert not [name for name in os.listdir(yard.root / "s") if name.startswith(".new-")]
    monkeypatch.setattr(Dir, "replace", real)
    assert yard.run("base", "merge", "a").code == 0
    for name in ("list", "one", "two"):
        assert entry(yard, f"s/a/etc/{name}") == entry(yard, f"skel/s/etc/{name}")


def test_a_jail_that_was_destroyed_meanwhile_is_waited_for_no_longer(yard: Yard) -> None:
    session(yard, "echo 6 >>/etc/list; exit 1", code=1)
    yard.ok("destroy", "a")
    done = yard.run("base", "merge")
    assert (done.code, "a: " in done.err) == (0, False)
    assert not list((yard.root / ".layout/merge").iterdir())


def test_a_jail_made_after_the_session_has_nothing_to_merge(yard: Yard) -> None:
    session(yard, "echo 6 >>/etc/list; exit 1", code=1)
    yard.ok("init", "--no-mount", "c")
    assert (yard.root / "s/c/etc/list").read_text().endswith("6\n")
    done = json.loads(yard.run("--json", "base", "merge").out)
    assert sorted(done["jails"]) == ["a", "b"]
