"""init --example: a configuration where there is none, once, and never over what the administrator has."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from yard import Yard, yard_at

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.box

PROFILE = """
kind = "shared"
description = "for tests"
[linux.example]
commands = [
    ["/bin/sh", "-c", "cat /etc/demo/one >/var/made && test -e /etc/demo/one"],
    ["/bin/sh", "-c", "test -e /etc/allowed || { echo not yet >&2; exit 3; }"],
    ["/bin/sh", "-c", "echo last >>/etc/runs"],
]
[[linux.example.files]]
path = "etc/demo/one"
text = "one\\n"
mode = "0640"
owner = "daemon"
group = "daemon"
[[linux.example.files]]
path = "usr/local/etc/two"
text = "two\\n"
[[linux.example.files]]
path = "etc/shells"
text = "of the example\\n"
"""


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with yard_at(tmp_path_factory.mktemp("example"), "--base", "host", names=("a",)) as yard:
        yield yard


@pytest.fixture(name="yard")
def _yard(whole: Yard) -> Yard:
    """One jail of the host's own programs, and profile demo of the site."""
    whole.renew()
    put(whole.root / "etc/profiles/demo.toml", PROFILE)
    for half in ("skel/s", "s/a"):
        put(whole.root / half / "etc/passwd", "root:x:0:0::/:/bin/sh\ndaemon:x:71:72::/:/bin/sh\n")
        put(whole.root / half / "etc/group", "root:x:0:\ndaemon:x:73:\n")
        put(whole.root / half / "etc/shells", "of the base\n")
    return whole


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def allow(yard: Yard) -> None:
    put(yard.root / "skel/s/etc/allowed", "")


INIT = ("init", "b", "--profile", "demo", "--no-mount", "--example")


def test_it_is_written_with_the_jails_own_numbers_and_run_once(yard: Yard) -> None:
    allow(yard)
    done = json.loads(yard.ok("--json", *INIT))
    assert [change for change in done["changes"] if change.startswith("s/b/")] == [
        "s/b/etc/demo/one",
        "s/b/usr-local/etc/two",
        "s/b/etc/shells",
    ]
    assert sum(change.startswith("b: /bin/sh -c ") for change in done["changes"]) == 3
    one = yard.root / "s/b/etc/demo/one"
    found = one.stat()
    assert (one.read_text(), found.st_uid, found.st_gid, found.st_mode & 0o7777) == ("one\n", 71, 73, 0o640)
    assert (yard.root / "s/b/usr-local/etc/two").read_text() == "two\n"
    assert (yard.root / "t/b/var/made").read_text() == "one\n"
    assert (yard.root / "s/b/etc/shells").read_text() == "of the example\n"  # the base's own, unchanged
    assert (yard.root / "skel/s/etc/shells").read_text() == "of the base\n"
    again = json.loads(yard.ok("--json", *INIT))
    assert again["changes"] == []
    assert (yard.root / "s/b/etc/runs").read_text() == "last\n"
    assert yard.mounts() == []


def test_what_the_administrator_has_stays(yard: Yard) -> None:
    """His edit of a file of the base, his own file, his link; the rest is written."""
    allow(yard)
    yard.ok("init", "b", "--profile", "demo", "--no-mount")
    put(yard.root / "s/b/etc/shells", "mine\n")
    (yard.root / "s/b/etc/demo").mkdir()
    (yard.root / "s/b/etc/demo/one").symlink_to("/etc/passwd")
    yard.ok(*INIT)
    assert (yard.root / "s/b/etc/shells").read_text() == "mine\n"
    assert os.readlink(yard.root / "s/b/etc/demo/one") == "/etc/passwd"
    assert (yard.root / "s/b/usr-local/etc/two").read_text() == "two\n"
    # A file that he removes afterwards does not come back: the example was done.
    (yard.root / "s/b/usr-local/etc/two").unlink()
    yard.ok(*INIT)
    assert not (yard.root / "s/b/usr-local/etc/two").exists()


def test_a_command_that_fails_is_named_with_its_words_and_the_next_run_goes_on_there(yard: Yard) -> None:
    done = yard.run(*INIT)
    assert done.code == 1
    assert "exit status 3: not yet" in done.err
    assert "b: /bin/sh -c" in done.err
    assert "hint:" in done.err
    assert not (yard.root / "s/b/etc/runs").exists()
    (yard.root / "t/b/var/made").unlink()
    put(yard.root / "s/b/etc/allowed", "")
    steps = json.loads(yard.ok("--json", *INIT, "--dry-run"))["steps"]
    assert [step["action"] for step in steps] == ["run", "run"]
    yard.ok(*INIT)
    assert not (yard.root / "t/b/var/made").exists()  # the first command was not run again
    assert (yard.root / "s/b/etc/runs").read_text() == "last\n"


def test_an_owner_that_the_jail_has_not_is_an_error_before_anything_is_written(yard: Yard) -> None:
    put(yard.root / "skel/s/etc/group", "root:x:0:\n")
    done = yard.run(*INIT)
    assert done.code == 1
    assert "no daemon in its /etc/group" in done.err
    assert not (yard.root / "s/b/etc/demo").exists()
    assert yard.run("verify", "b").code in {0, 1}


def test_a_jail_without_an_example_is_left_alone(yard: Yard) -> None:
    assert json.loads(yard.ok("--json", "init", "a", "--no-mount", "--example"))["changes"] == []


def test_the_session_cannot_be_led_astray_by_t(yard: Yard) -> None:
    """A link that the jail has put in the way of a file of the example is refused, not followed."""
    text = PROFILE.replace("usr/local/etc/two", "var/lib/demo/two")
    put(yard.root / "etc/profiles/demo.toml", text)
    allow(yard)
    yard.ok("init", "b", "--profile", "demo", "--no-mount")
    (yard.root / "t/b/var/lib").mkdir(exist_ok=True)
    (yard.root / "t/b/var/lib/demo").symlink_to(yard.top)
    done = yard.run(*INIT)
    assert done.code == 1
    assert "a symbolic link" in done.err
    assert not (yard.top / "two").exists()
