"""The attacks of the selftest on FreeBSD, and what the kernel's patch level says of known ones."""

from __future__ import annotations

from layout.core import attacks
from layout.core.attacks import Attack, Result, Verdict
from layout.core.release import open_advisories

_NO = ("EPERM", "EACCES")
_RO = ("EROFS", *_NO)

JAIL: tuple[Attack, ...] = (
    Attack("write-base", 11, "writes to mroot: create, append, chmod, rename, unlink", _RO, control="plain"),
    Attack("write-s", 11, "the same in s", _RO, control="plain"),
    Attack(
        "link", 12, "makes hard links of mroot and s in t (CVE-2013-5710)", ("EXDEV", *_RO), control="plain"
    ),
    Attack("mount", 14, "asks whether it may mount (nmount(2))", _NO),
    Attack("umount", 13, "asks whether it may unmount (unmount(2))", _NO),
    Attack("handle", 15, "asks whether it may open files by handle (fhopen(2))", _NO),
    Attack("device", 16, "makes a device node in t (mknod(2))", _NO, control="plain"),
    Attack("execute", 18, "executes a program that he wrote to t", _NO, control="plain"),
    Attack("map-execute", 18, "maps a file of t executable, as a library is", _NO, control="plain"),
    Attack("setuid", 17, "runs a setuid file of t as another user", _NO, control="plain"),
    Attack("new-fifo", 20, "makes a FIFO and a socket in the shared base", _RO, control="plain"),
    Attack("chroot", 24, "escapes by a chroot(2) below his root", _NO, proof=True),
    Attack("signal", 34, "signals a process of the host", ("ESRCH", "EPERM")),
    Attack("ptrace", 34, "traces a process of the host", ("ESRCH", "EPERM")),
    Attack("kernel", 34, "writes a sysctl, opens /dev/mem and /dev/io", ("ENOENT", *_NO)),
    Attack("jail", 23, "asks whether it may make jails (jail_set(2))", _NO),
    Attack("flags", 16, "changes file flags (chflags(2))", ("EPERM", "EOPNOTSUPP"), control="plain"),
    Attack("raw-socket", 16, "opens a raw socket", _NO),
    Attack(
        "setuid-file", 17, "sets the setuid bit on a file of t, which gives nobody anything", residue=True
    ),
    Attack("interpreter", 19, "lets an interpreter of the base run a file of t", residue=True),
    Attack(
        "memory",
        19,
        "executes a program that lies in memory only (shm_open(2), fexecve(2))",
        _NO,
        residue=True,
    ),
    Attack("anonymous", 19, "maps anonymous memory writable and executable", residue=True),
    Attack("fifo", 20, "writes to a FIFO that the administrator left in the shared base", residue=True),
    Attack("socket", 20, "connects to a socket that the administrator left in the shared base", residue=True),
    Attack(
        "flock", 20, "locks a file of the shared base, which other jails can see (flock(2))", residue=True
    ),
)
"""By root of a jail with the parameters of jail(8) that a profile makes."""

SESSION: tuple[Attack, ...] = tuple(
    attack
    for attack in JAIL
    if attack.id
    in {
        "mount",
        "umount",
        "handle",
        "device",
        "chroot",
        "signal",
        "ptrace",
        "kernel",
        "jail",
        "raw-socket",
    }
)
"""By a program that an administrator runs in a session: mroot and s are his to write, the host is not."""

TRAPS: tuple[Attack, ...] = tuple(attack for attack in attacks.TRAPS if attack.id != "answers")
"""Planted in t for the administrator in a session. There is no debconf(7)."""

_LEVEL = Attack("patch-level", 20, "uses a known way out of jails, which the kernel's patch level has closed")


def patch_level(kernel: str) -> Result:
    """Judge a kernel by its release, such as '15.0-RELEASE-p1'; what is no release cannot be judged."""
    lacking = open_advisories(kernel)
    if lacking is None:
        return _result("not run", f"{kernel}: no release with a patch level")
    if lacking:
        return _result("worked", f"{kernel} lacks {', '.join(one.name for one in lacking)}")
    return _result("blocked", kernel)


def _result(verdict: Verdict, found: str) -> Result:
    return Result(_LEVEL.id, verdict, found, _LEVEL.text, _LEVEL.threat, must_be_blocked=True)
