"""What FreeBSD's programs print is read whichever way they print it, and what is no answer is no 'none'."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from layout.actions.running_freebsd import place
from layout.core.errors import LayoutError
from layout.core.service import Ready
from layout.host.beneath import open_root
from layout.host.freebsd import jails, rcconf, readiness
from layout.host.freebsd.jails import Prison
from layout.host.run import Done


class Programs:
    """What each command line answers; anything else fails as an unknown option does."""

    def __init__(self, answers: dict[str, tuple[int, str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, *words: str, ok: object = (0,), timeout: float | None = None) -> Done:
        del ok, timeout
        self.asked.append(" ".join(words))
        status, text = self.answers.get(self.asked[-1], (1, ""))
        return Done(status, text, "")


JSON = "jls --libxo=json jid name path"
ONE = '{"__version":"2","jail-information":{"jail":[{"jid":%s,"name":"a","path":"/j/a b"}]}}'


@pytest.mark.parametrize(
    "answers",
    [
        {JSON: (0, ONE % "7")},
        {JSON: (0, ONE % '"7"')},
        {"jls -q jid name path": (0, '7 a "/j/a b"\n')},
        {JSON: (0, "not json"), "jls -q jid name path": (0, "7 a '/j/a b'\n")},
    ],
    ids=["number", "text", "no libxo", "libxo ignored"],
)
def test_running_jails_are_read(monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, str]]) -> None:
    monkeypatch.setattr(jails, "run", Programs(answers))
    assert jails.listed() == [Prison(7, "a", "/j/a b")]
    assert jails.find("b") is None


@pytest.mark.parametrize(
    "answers",
    [
        {JSON: (0, '{"jail-information":{}}')},
        {JSON: (0, '{"jail-information":{"jail":[{"jid":7}]}}')},
        {JSON: (0, "{")},
        {"jls -q jid name path": (0, "7 a\n")},
    ],
)
def test_what_is_no_list_of_jails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, str]]
) -> None:
    monkeypatch.setattr(jails, "run", Programs(answers))
    with pytest.raises(LayoutError, match="jls"):
        jails.listed()


def test_a_parameter_that_a_release_does_not_know_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "jls --libxo=json -j a securelevel": (0, '{"jail-information":{"jail":[{"securelevel":2}]}}'),
        "jls --libxo=json -j a allow.mlock": (0, '{"jail-information":{"jail":[{"allow.mlock":true}]}}'),
    }
    monkeypatch.setattr(jails, "run", Programs(answers))
    found = jails.parameters("a", ["securelevel", "allow.routing", "allow.mlock"])
    assert found == {"securelevel": "2", "allow.mlock": "true"}


@pytest.mark.parametrize("release", ["13.2-RELEASE", "9.3-RELEASE", "odd"])
def test_an_older_release_is_refused(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(jails, "run", Programs({"uname -r": (0, f"{release}\n")}))
    with pytest.raises(LayoutError, match="14"):
        jails.require_release()


@pytest.mark.parametrize("release", ["14.3-RELEASE-p2", "15.0-RELEASE", "16.0-CURRENT"])
def test_a_newer_one_is_not(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(jails, "run", Programs({"uname -r": (0, f"{release}\n")}))
    jails.require_release()


def test_variables_of_rc_conf_are_read_at_once_and_the_unknown_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = Programs({"sysrc -q jail_list jail_x jail_enable": (1, "jail_list: a: b\njail_enable: \n")})
    monkeypatch.setattr(rcconf, "run", programs)
    found = rcconf.values(["jail_list", "jail_x", "jail_enable"])
    assert found == {"jail_list": "a: b", "jail_enable": ""}
    assert rcconf.values([]) == {}
    assert len(programs.asked) == 1


def test_a_variable_that_another_file_sets_again_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rcconf, "run", Programs({"sysrc a=YES": (0, ""), "sysrc -q a": (0, "a: NO\n")}))
    with pytest.raises(LayoutError, match="found 'NO', expected 'YES'"):
        rcconf.change({"a": "YES"})


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/var/run/x", "t/var/run/x"),
        ("/variable/x", "variable/x"),
        ("/usr/local/x", "s/usr-local/x"),
        ("/etc", "s/etc"),
        ("/dev/x", "dev/x"),
    ],
)
def test_a_path_of_a_jail_is_found_without_its_links(path: str, below: str) -> None:
    assert place(path) == below


def test_a_socket_answers_or_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    ready = Ready(socket="/tmp/x")
    with open_root(str(tmp_path.resolve())) as root, socket.socket(socket.AF_UNIX) as server:
        assert "no socket" in (readiness.problem(ready, "a", root, "t/x") or "")
        server.bind(str(tmp_path / "t" / "x"))
        assert "refused" in (readiness.problem(ready, "a", root, "t/x") or "")
        server.listen()
        here = Path.cwd()
        assert readiness.problem(ready, "a", root, "t/x") is None
        assert Path.cwd() == here
        (tmp_path / "t" / "link").symlink_to("x")
        assert "no socket" in (readiness.problem(ready, "a", root, "t/link") or "")
