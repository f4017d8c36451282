"""`layout advise`: look at a program, propose a design, and write a profile that has been checked."""

from __future__ import annotations

import shlex

import msgspec

from layout.core.advise import Advice, Reason, advise
from layout.core.errors import UsageError
from layout.core.model import Kind
from layout.core.profile import Profile, check, decode
from layout.host.program_facts import facts_of
from layout.host.site import running_platform


class Proposal(msgspec.Struct, frozen=True):
    """What is proposed for a program."""

    program: str
    kind: Kind
    reasons: tuple[Reason, ...]
    """One for each design."""
    notes: tuple[str, ...]
    profile: str
    """The text of a profile that `layout profile check` accepts."""


def propose(program: str) -> Proposal:
    """Look at a program of this host, without executing it. Raises UsageError, LayoutError."""
    if not program.startswith("/"):
        hint = f'layout advise "$(command -v {shlex.quote(program)})"'
        raise UsageError(program, "no absolute path", "the absolute path of a program", hint)
    advice = advise(facts_of(program, running_platform()))
    return Proposal(program, advice.kind, advice.reasons, advice.notes, text_of(program, advice))


def text_of(program: str, advice: Advice) -> str:
    """Return the profile as a file, with the reasons as comments."""
    import tomli_w

    text = tomli_w.dumps(advice.profile)
    check(decode(advice.profile, Profile, "layout advise"), "layout advise")
    why = next(reason.why for reason in advice.reasons if reason.kind is advice.kind)
    head = [f"Proposed by layout advise {program}: kind {advice.kind}, for", f"{why}."]
    head += [f"To look at: {note}{'' if note.endswith('?') else '.'}" for note in advice.notes]
    comments = "".join(f"# {_plain(line)}\n" for line in head)
    return f"{comments}{text}"


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
