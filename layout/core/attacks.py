"""The attacks of `layout selftest`: what each tries, whether it must be blocked, how it is judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from layout.core.errors import printable

Verdict = Literal["blocked", "residue", "worked", "odd", "not shown", "not run"]
"""How an attempt ended.

`blocked`: refused in an expected way. `residue`: it works, is known to, and is named. `worked`: it must not,
and does. `odd`: refused in a way that nobody expected, so perhaps for another reason. `not shown`: refused,
but its control was refused as well, so that proves nothing. `not run`: not tried.
"""

BAD: frozenset[Verdict] = frozenset({"worked", "odd", "not shown", "not run"})
"""Verdicts of an attack that must be blocked with which the selftest fails: not run is not blocked."""


class Attack(msgspec.Struct, frozen=True):
    """One attack."""

    id: str
    threat: int
    """Number of the threat in docs/security.md."""
    text: str
    """What root of a jail does."""
    refusals: tuple[str, ...] = ()
    """Errors with which it may be refused; another one is odd."""
    residue: bool = False
    """It may work: a limit of the design that docs/security.md names."""
    control: Literal["bare", "plain"] = "bare"
    """Where it has to work: below a bare chroot(2) with all capabilities, or in a tree without any mount."""
    proof: bool = False
    """It has worked only when it brings back what only the host can read."""


_NO = ("EPERM", "EACCES")

ENGINE: tuple[Attack, ...] = (
    # First: what a jail can do before layout has seen to it, it can do here.
    Attack(
        "own-namespace",
        14,
        "makes user and mount namespaces of his own and remounts there",
        (*_NO, "ENOSPC", "EINVAL"),
    ),
    Attack(
        "write-base",
        11,
        "writes to the tree of its base: create, append, chmod, rename, unlink, utime",
        ("EROFS", *_NO),
        control="plain",
    ),
    Attack("write-s", 11, "writes to s: the same", ("EROFS", *_NO), control="plain"),
    Attack(
        "link",
        12,
        "makes hard links of files of its trees in t, to write through them",
        ("EXDEV",),
        control="plain",
    ),
    Attack("remount", 13, "remounts / and /s writable, then writes", _NO),
    Attack("handle", 15, "opens a file of s for writing by its handle, through the writable mount of t", _NO),
    Attack("device", 16, "makes a node of the host's first disk, or of /dev/zero, in t and opens it", _NO),
    Attack(
        "namespace-memory",
        14,
        "mounts memory in a namespace of his own and executes a program from it",
        (*_NO, "ENOSPC", "EINVAL"),
        control="plain",
    ),
    Attack("execute", 18, "executes a program that he wrote to t", _NO),
    Attack("map-execute", 18, "maps a file of t executable, as a library is", _NO),
    Attack("setuid", 17, "runs a setuid file of t as another user", _NO),
    Attack("new-fifo", 20, "makes a FIFO and a socket in the shared base", ("EROFS", *_NO), control="plain"),
    Attack("log", 18, "executes its log, or maps it executable, by descriptor 1", (*_NO, "ENOENT", "ENODEV")),
    Attack("chroot", 24, "escapes by a chroot(2) below his root", _NO, proof=True),
    Attack(
        "descriptor",
        33,
        "reads the host through a descriptor that was left open",
        ("EBADF", "ENOTDIR"),
        proof=True,
    ),
    Attack(
        "proc-root",
        34,
        "reads the host through /proc/PID/root and /proc/PID/cwd",
        ("EACCES", "EPERM", "ENOENT"),
        proof=True,
    ),
    Attack("namespace", 34, "joins the mount namespace of another process", (*_NO, "ENOENT"), proof=True),
    Attack("signal", 34, "signals a process of the host", ("ESRCH", "EPERM")),
    Attack("ptrace", 34, "traces a process of the host", ("ESRCH", "EPERM")),
    Attack(
        "kernel",
        34,
        "opens core_pattern, modprobe and sysrq-trigger of the kernel for writing",
        ("EROFS", "ENOENT", *_NO),
    ),
    Attack("device-mode", 34, "changes the mode of the host's /dev/null", ("EROFS", "ENOENT", *_NO)),
    Attack(
        "standard-input",
        33,
        "changes the mode or the group of the host's /dev/null by descriptor 0",
        ("EROFS", *_NO),
    ),
    Attack(
        "keys",
        34,
        "reads, adds or changes keys of whoever started the jail (keyrings(7))",
        ("ENOSYS", "ENOKEY", *_NO),
        control="plain",
    ),
    Attack(
        "core-limit",
        34,
        "raises its limit of core dumps, for which the host starts a program",
        _NO,
    ),
    Attack(
        "setuid-file", 17, "sets the setuid bit on a file of t, which gives nobody anything", residue=True
    ),
    Attack(
        "file-capability", 17, "gives a file of t a capability, which gives nobody anything", residue=True
    ),
    Attack("interpreter", 19, "lets an interpreter of the base run a file of t", residue=True),
    Attack("memfd", 19, "executes a program that lies in memory only (memfd_create(2))", _NO, residue=True),
    Attack("anonymous", 19, "maps anonymous memory writable and executable", residue=True),
    Attack("fifo", 20, "writes to a FIFO that the administrator left in the shared base", residue=True),
    Attack("socket", 20, "connects to a socket that the administrator left in the shared base", residue=True),
    Attack(
        "flock", 20, "locks a file of the shared base, which other jails can see (flock(2))", residue=True
    ),
    Attack("log-mode", 33, "changes the mode of its log, a file of the host, by descriptor 1", residue=True),
    Attack(
        "abstract-socket",
        34,
        "connects to an abstract socket of the host, where it shares the host's network (unix(7))",
        ("ECONNREFUSED", *_NO),
        residue=True,
    ),
    Attack("lease", 20, "takes a lease on a file of the shared base (fcntl(2))", residue=True),
    # Last: where they work, nothing else finds what it is aimed at.
    Attack("mount", 14, "mounts a file system of his own over /etc", _NO),
    Attack("umount", 13, "takes the mounts of /s and /t away", _NO),
)
"""By root of a jail that an engine keeps."""


def _without(*names: str) -> tuple[Attack, ...]:
    return tuple(attack for attack in ENGINE if attack.id not in names)


THIN: tuple[Attack, ...] = _without("write-s", "fifo", "socket")
"""By root of a thin jail: it has one tree, with the files of its program, and no base that others use."""

OSLESS: tuple[Attack, ...] = _without(
    "write-base", "setuid", "interpreter", "new-fifo", "fifo", "socket", "flock", "lease"
)
"""By the program of an OS-less jail: one tree that is no other jail's, no interpreter, no other user."""

HOST: tuple[Attack, ...] = (
    Attack("host-user", 17, "an ordinary user of the host runs the setuid file that the jail made", _NO),
)
"""By an ordinary user of the host, with what a jail left."""

HOST_OF_THIN: tuple[Attack, ...] = (
    Attack(
        "host-user",
        17,
        "an ordinary user of the host runs the setuid file that a thin jail made in a directory of the host",
        _NO,
        residue=True,
    ),
)
"""The same with a thin jail, which writes to a directory of the host: who reaches that, layout cannot say."""

SESSION: tuple[Attack, ...] = tuple(
    attack
    for attack in ENGINE
    if attack.id
    in {
        "umount",
        "mount",
        "own-namespace",
        "namespace-memory",
        "handle",
        "device",
        "chroot",
        "descriptor",
        "proc-root",
        "namespace",
        "signal",
        "ptrace",
        "kernel",
        "device-mode",
        "standard-input",
        "log",
        "keys",
        "core-limit",
        "abstract-socket",
    }
)
"""By a program that an administrator runs in a session: mroot and s are his to write, the host is not."""

_GONE = ("ENOENT", "EACCES", "EPERM")

TRAPS: tuple[Attack, ...] = (
    Attack("linker-hints", 25, "hints in t lead a program's loader to a library of t", _GONE),
    Attack("package-script", 26, "a package database in t has a script that runs when a package goes", _GONE),
    Attack("build-options", 27, "options in t that make(1) includes when the administrator builds", _GONE),
    Attack("answers", 27, "answers of debconf(7) in t, which the next package believes", _GONE),
    Attack("temporary", 28, "another content for a compiler's temporary file before it is read again", _GONE),
    Attack("merge-base", 29, "what a file was before the administrator edited it: the edit is undone", _GONE),
    Attack(
        "link-write",
        30,
        "a link in t through which the administrator's write goes to /etc",
        ("ELOOP", *_GONE),
    ),
    Attack("script-in-tmp", 24, "a script in /tmp and /var/tmp that the administrator runs", _GONE),
    Attack("terminal", 31, "types into the administrator's terminal (TIOCSTI)", ("EIO", *_GONE)),
    Attack("left-behind", 32, "a process that goes on after the session"),
    Attack("script", 24, "a script in /var that the administrator runs on purpose", _GONE, residue=True),
    Attack("fifo-log", 6, "a FIFO in the place of a log: reading it waits", _GONE, residue=True),
)
"""Planted in t by root of a jail, for the administrator in a session. With --sealed all must fail."""


def strict(attack: Attack) -> Attack:
    """Return the same attack where it has no right to work."""
    return msgspec.structs.replace(attack, residue=False)


class Result(msgspec.Struct, frozen=True):
    """What came of one attack in one place."""

    id: str
    verdict: Verdict
    found: str
    text: str
    threat: int
    must_be_blocked: bool


def judge(
    attack: Attack, raw: Mapping[str, Any] | None, control: Mapping[str, Any] | None, token: str
) -> Result:
    """Judge what an attempt and its control came to.

    `raw` is what the attempt said: `worked`, `errnos`, `said`, `untried`. `token` is what only the host can
    read. An attack that may work needs no control when it does.
    """
    verdict, found = _judged(attack, raw, control, token)
    return Result(attack.id, verdict, printable(found), attack.text, attack.threat, not attack.residue)


def _judged(
    attack: Attack, raw: Mapping[str, Any] | None, control: Mapping[str, Any] | None, token: str
) -> tuple[Verdict, str]:
    if raw is None:
        return "not run", "no answer"
    if raw.get("untried"):
        return "not run", str(raw.get("said", ""))
    said = str(raw.get("said", ""))
    if worked(attack, raw, token):
        return (
            "residue" if attack.residue else "worked"
        ), said if not attack.proof else "read what only the host can read"
    errnos = [str(one) for one in raw.get("errnos", ())]
    if (control or {}).get("errnos") == ["ENOSYS"] and errnos and {*errnos} <= {*attack.refusals}:
        # With all capabilities, too: nothing that is started here has such a call.
        return "blocked", f"{', '.join(errnos)}: this kernel has no such call"
    found = ", ".join(errnos) or said or "without success"
    strange = [one for one in errnos if one not in attack.refusals]
    if strange and not attack.residue:
        return "odd", f"{', '.join(strange)}: {said}" if said else ", ".join(strange)
    if control is None or not worked(attack, control, token):
        why = (
            str((control or {}).get("said", ""))
            or ", ".join((control or {}).get("errnos", ()))
            or "no answer"
        )
        return "not shown", f"{found}; the control did not work either: {why}"
    return "blocked", found


def as_seen(raw: Mapping[str, Any], worked: bool, otherwise: str) -> dict[str, Any]:
    """Return an attempt with what the host sees of it in the place of what the attacker believes.

    `otherwise` is what became of one that seemed to work.
    """
    if raw["untried"]:
        return dict(raw)
    said = otherwise if raw["worked"] and not worked else raw["said"]
    return {**raw, "worked": worked, "said": said}


def worked(attack: Attack, raw: Mapping[str, Any], token: str) -> bool:
    """Say whether an attempt got what it wanted."""
    return bool(raw.get("worked")) and (not attack.proof or raw.get("said") == token)


class Place(msgspec.Struct, frozen=True):
    """All attacks in one place: a jail of an engine, a session, the host."""

    name: str
    note: str
    results: tuple[Result, ...]


class NotTried(msgspec.Struct, frozen=True):
    """What is not attacked here, and why: nobody knows of it that it holds."""

    name: str
    because: str


class Counts(msgspec.Struct, frozen=True):
    """How many of each verdict."""

    tried: int
    blocked: int
    residue: int
    worked: int
    odd: int
    not_shown: int
    not_run: int


def counts(results: Iterable[Result]) -> Counts:
    """Count them."""
    verdicts = [one.verdict for one in results]
    return Counts(
        sum(verdict != "not run" for verdict in verdicts),
        verdicts.count("blocked"),
        verdicts.count("residue"),
        verdicts.count("worked"),
        verdicts.count("odd"),
        verdicts.count("not shown"),
        verdicts.count("not run"),
    )


def passed(results: Iterable[Result]) -> bool:
    """Say whether all that must be blocked is."""
    return all(one.verdict not in BAD for one in results if one.must_be_blocked)
