"""An attack counts as blocked only when it was refused as expected, and could have worked."""

from __future__ import annotations

import pytest

from layout.core.attacks import ENGINE, HOST, SESSION, TRAPS, Attack, Verdict, counts, judge, passed, strict

MUST = Attack("remount", 13, "remounts", ("EPERM",))
MAY = Attack("memfd", 19, "executes memory", ("EACCES",), residue=True)
PROOF = Attack("chroot", 24, "escapes", ("EPERM",), proof=True)
KEYS = Attack("keys", 34, "reads keys", ("ENOSYS", "EPERM"))
WORKED = {"worked": True, "errnos": [], "said": "done", "untried": False}
REFUSED = {"worked": False, "errnos": ["EPERM"], "said": "", "untried": False}
MISSING = REFUSED | {"errnos": ["ENOSYS"]}


@pytest.mark.parametrize(
    ("attack", "raw", "control", "verdict"),
    [
        pytest.param(MUST, REFUSED, WORKED, "blocked", id="refused, and the control works"),
        pytest.param(MUST, WORKED, WORKED, "worked", id="it works"),
        pytest.param(MUST, REFUSED, REFUSED, "not shown", id="the control is refused too"),
        pytest.param(MUST, REFUSED, None, "not shown", id="no control"),
        pytest.param(MUST, REFUSED | {"errnos": ["ENOSYS"]}, WORKED, "odd", id="another error"),
        pytest.param(
            MUST, REFUSED | {"errnos": ["EPERM", "EIO"]}, WORKED, "odd", id="one other error of two"
        ),
        pytest.param(KEYS, MISSING, MISSING, "blocked", id="the kernel has no such call"),
        pytest.param(KEYS, MISSING, REFUSED, "not shown", id="the control has the call, and is refused"),
        pytest.param(MUST, MISSING, MISSING, "odd", id="no such call, where there has to be one"),
        pytest.param(MUST, None, WORKED, "not run", id="no answer"),
        pytest.param(MUST, REFUSED | {"untried": True}, WORKED, "not run", id="it could not be tried"),
        pytest.param(MAY, WORKED, None, "residue", id="it works and may"),
        pytest.param(MAY, REFUSED, WORKED, "blocked", id="it may work and does not"),
        pytest.param(PROOF, WORKED | {"said": "token"}, None, "worked", id="it brings the proof"),
        pytest.param(PROOF, WORKED, WORKED | {"said": "token"}, "blocked", id="it brings something else"),
    ],
)
def test_an_attempt_is_judged_by_itself_and_its_control(
    attack: Attack, raw: dict[str, object] | None, control: dict[str, object] | None, verdict: Verdict
) -> None:
    found = judge(attack, raw, control, "token")
    assert found.verdict == verdict
    assert passed([found]) == (verdict in {"blocked", "residue"})


def test_what_an_attacker_says_is_escaped() -> None:
    assert judge(MUST, WORKED | {"said": "\x1b[2J\n"}, WORKED, "").found == "\\x1b[2J\\n"


def test_what_was_not_run_is_not_counted_as_tried() -> None:
    found = counts([judge(MUST, None, None, ""), judge(MUST, REFUSED, WORKED, "")])
    assert (found.tried, found.blocked, found.not_run) == (1, 1, 1)


def test_every_attack_has_a_name_of_its_own_and_says_how_it_may_be_refused() -> None:
    ids = [one.id for one in (*ENGINE, *HOST, *TRAPS)]
    assert len(ids) == len(set(ids))
    assert all(
        one.refusals for one in (*ENGINE, *HOST, *TRAPS) if not one.residue and one.id != "left-behind"
    )
    # A session shares the host's network, and what is in it.
    assert {one.id for one in SESSION if one.residue} == {"abstract-socket"}
    assert not any(strict(one).residue for one in TRAPS)
