"""The same on a pretended FreeBSD host: every command against a hostile t, and sessions in it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.freebsd_host import FreeBSD
from tests.hostile.house import CASES, changed, fill, is_clean, make_victim, replace, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.personality.host import Done

pytestmark = pytest.mark.box
SECONDS = 120
PRINTED = {"render", "profile show", "profile schema", "completion", "fstab", "plan"}
TOUCHING = ("verify", "init", "mount", "manage", "umount", "destroy")


@pytest.fixture(name="host")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeBSD]:
    """Jails a and b, and a victim beside ROOT."""
    host = FreeBSD(tmp_path_factory.mktemp("hostile").resolve())
    host.does("init", "a", "b", "--base", host.small_base(), "--no-mount")
    make_victim(host.work / "victim")
    yield host
    host.close()


def outside(host: FreeBSD, *, gone: bool = False) -> dict[str, dict[str, tuple[object, ...]]]:
    places = ["victim", *(f"jails/{half}" for half in ("j/mroot", "skel", "s/a", "s/b", "t/b"))]
    return {
        name: tree(host.work / name, dated=name == "victim")
        for name in places
        if not (gone and name == "jails/s/a")
    }


def ran(host: FreeBSD, name: str, words: tuple[str, ...]) -> Done:
    spelled = [
        re.sub(r"^(ROOT|TOP)(?=/)", lambda m: str(host.root if m[0] == "ROOT" else host.work), w)
        for w in words
    ]
    begin = time.monotonic()
    done = host.layout(*spelled)
    assert time.monotonic() - begin < SECONDS, words
    assert done.code in {0, 1, 2}, (words, done)
    assert is_clean(done.err), (words, done)
    assert name in PRINTED or is_clean(done.out), (words, done)
    assert "Traceback" not in done.err + done.out, (words, done)
    assert "mistake in layout" not in done.err, (words, done)
    said = done.err + done.out
    if done.code and name != "audit":
        assert re.search(r"^(layout: |  error [AS]).*found .*, expected ", said, re.MULTILINE), (words, done)
    return done


def run_all(host: FreeBSD, names: tuple[str, ...], cases: int) -> dict[str, list[int]]:
    codes: dict[str, list[int]] = {}
    before = outside(host)
    for name in names:
        for words in CASES[name][: cases if name in TOUCHING else 1]:
            codes.setdefault(name, []).append(ran(host, name, words).code)
        after = outside(host, gone=name == "destroy")
        assert {place: found for place in after if (found := changed(before[place], after[place]))} == {}, (
            name
        )
    return codes


def test_every_command_against_a_t_full_of_everything(host: FreeBSD) -> None:
    fill(host.root / "t/a", host.work / "victim", nodes=False)
    codes = run_all(host, tuple(CASES), 2)
    print({name: code for name, code in codes.items() if any(code)})
    assert codes["destroy"] == [0]
    assert not (host.root / "t/a").exists()


def test_something_else_in_the_place_of_a_directory(host: FreeBSD) -> None:
    for place, kind in {"tmp": "fifo", "var/log": "link", "var/tmp": "link up"}.items():
        replace(host.root / "t/a", place, kind, host.work / "victim")
    assert run_all(host, TOUCHING, 2)["destroy"] == [0]


WORK = """
echo pwned >>/var/report
cat "$PKG_DBDIR/local.sqlite" || echo no database
(. "$PORT_DBDIR/demo/options"); echo $?
/var/lib/x; echo $?
ls -A /tmp
echo "$TMPDIR"
cat /var/log/secret || echo no link
"""


def test_a_session_believes_nothing_of_t_and_a_sealed_one_has_nothing_of_it(host: FreeBSD) -> None:
    """Databases, options, temporary files, links and programs of the jail; the control is what t has."""
    var, victim = host.root / "t/a/var", host.work / "victim"
    evil = "#!/bin/sh\necho pwned >/etc/pwned; echo pwned >/usr/pwned\n"
    for name in (
        "db/pkg/local.sqlite",
        "db/ports/demo/options",
        "lib/x",
        "tmp/x",
        "db/etcupdate/current",
        "../tmp/trap",
    ):
        (var / name).parent.mkdir(parents=True, exist_ok=True)
        (var / name).write_text(evil, encoding="utf-8")
        (var / name).chmod(0o755)
    (var / "report").symlink_to("/etc/master.passwd")
    (var / "log/secret").symlink_to(victim / "etc/passwd")
    before = outside(host)
    done = host.layout("manage", "a", "--", "sh", "-c", WORK)
    assert "no database" in done.out, done
    assert "pwned" not in done.out
    assert "trap" not in done.out
    assert {"126", "/tmp", "link"} <= set(done.out.split()), done
    sealed = host.layout(
        "manage", "a", "--sealed", "--", "sh", "-c", "for f in tmp lib db/pkg; do sh /var/$f/x; echo $?; done"
    )
    assert set(sealed.out.split()) <= {"2", "127"}, sealed
    after = outside(host)
    assert {place: found for place in after if (found := changed(before[place], after[place]))} == {}
    # What remains: a script that the administrator runs on purpose.
    host.layout("manage", "a", "--", "sh", "-c", "sh /var/lib/x")
    assert (host.root / "j/mroot/usr/pwned").exists()
