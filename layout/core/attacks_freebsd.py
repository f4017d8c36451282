"""The attacks of the selftest on FreeBSD, and from which patch level on a kernel has no known way out."""

from __future__ import annotations

import re

from layout.core.attacks import Attack, Result

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

_FIXED = {(15, 1): 4, (15, 0): 14, (14, 5): 1, (14, 4): 10}
"""Patch level from which on SA-26:66.jail and all before it are fixed (security.freebsd.org)."""
_LEVEL = Attack(
    "patch-level", 20, "uses a known way out: descriptors passed between jails that share a nullfs (SA-26:66)"
)


def patch_level(kernel: str) -> Result:
    """Judge a kernel by its release, such as '15.0-RELEASE-p1'; what is no release cannot be judged."""
    found = re.fullmatch(r"([0-9]+)\.([0-9]+)-RELEASE(?:-p([0-9]+))?", kernel)
    if found is None:
        return _result("not run", f"{kernel}: no release with a patch level")
    release, level = (int(found[1]), int(found[2])), int(found[3] or 0)
    wanted = 0 if release > max(_FIXED) else _FIXED.get(release)
    if wanted is None:
        return _result("worked", f"{kernel}: a release without the fix")
    if level < wanted:
        return _result("worked", f"{kernel}: fixed in {release[0]}.{release[1]}-RELEASE-p{wanted}")
    return _result("blocked", kernel)


def _result(verdict: str, found: str) -> Result:
    return Result(_LEVEL.id, verdict, found, _LEVEL.text, _LEVEL.threat, must_be_blocked=True)  # type: ignore[arg-type]
