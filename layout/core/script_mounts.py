"""The part of a script that mounts: whole trees on Linux, line by line on FreeBSD."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layout.core.errors import LayoutError
from layout.core.model import Mount, Platform
from layout.core.shell import comment, fed, indented, quote
from layout.core.work import Node, Work

_KERNEL_ESCAPES = str.maketrans({" ": r"\040", "\t": r"\011", "\n": r"\012", "\\": r"\134"})
_MEANT_FOR_FSTAB = frozenset({"noauto", "auto", "nofail", "late", "failok", "defaults"})
_OF_A_BIND = frozenset({"bind", "private"})
_PROVEN = ("nosuid", "nodev", "noexec", "nosymfollow")
_RULESET = re.compile(r"ruleset=([0-9]+)")


def in_mountinfo(path: str) -> str:
    """Return a path as the kernel writes it in /proc/self/mountinfo."""
    return path.translate(_KERNEL_ESCAPES)


def attach(work: Work) -> str:
    """Return the part that mounts what is planned and not there."""
    root = work.plan.site.root
    spell = _linux_tree if work.plan.site.platform is Platform.LINUX else _freebsd_tree
    why = (
        "# A mount is made where only root can reach it, gets its options there, then moves to its place:\n"
        "# nothing that is planned read-only is ever writable in a jail, not even for a moment.\n"
        if work.plan.site.platform is Platform.LINUX
        else "# Parents first: what is mounted later would hide what lies below it.\n"
    )
    trees = "".join(f"\n{spell(root, tree, work.devices)}" for tree in work.mounts)
    return f"\n{why}begin_mounts\n{trees}end_mounts\n"


def _below(root: str, path: str) -> str:
    return path.removeprefix(root + "/")


def _linux_tree(root: str, tree: Sequence[Mount], devices: Sequence[Node]) -> str:
    top = _below(root, tree[0].target)
    out = []
    for mount in tree:
        place = quote(mount.target.removeprefix(tree[0].target))
        options = [o for o in mount.options if o not in _MEANT_FOR_FSTAB | _OF_A_BIND and o[:2] != "x-"]
        if mount.fstype == "none" and "bind" in mount.options:
            source = quote(_below(root, mount.source))
            out.append(f"stage_bind {source} {place} {quote(','.join(options))}\n")
        elif mount.fstype == "tmpfs":
            lines = "".join(f"{n.kind} {n.name} {n.first} {n.second}".rstrip() + "\n" for n in devices)
            command = f"stage_devices {quote(mount.source)} {place} {quote(','.join(options))}"
            out.append(fed(command, lines))
        else:
            raise LayoutError(mount.target, f"type {mount.fstype}", "a bind mount or tmpfs")
    out.append(f"attach {quote(top)}\n")
    proofs = "".join(f"proven {quote(_below(root, m.target))} {' '.join(_linux_proof(m))}\n" for m in tree)
    return f"{comment(tree[0].target)}if unmounted {quote(top)}; then\n{indented(out)}fi\n{proofs}"


def _linux_proof(mount: Mount) -> list[str]:
    access = "ro" if "ro" in mount.options else "rw"
    return [access, *(word for word in _PROVEN if word in mount.options)]


def _freebsd_tree(root: str, tree: Sequence[Mount], _: Sequence[Node]) -> str:
    out = [comment(tree[0].target)]
    for mount in tree:
        options = ",".join(o for o in mount.options if o not in _MEANT_FOR_FSTAB)
        out += [f"require_ruleset {number}\n" for number in _RULESET.findall(options)]
        target = quote(_below(root, mount.target))
        out.append(f"attach {quote(mount.fstype)} {quote(options)} {quote(mount.source)} {target}\n")
    return "".join([*out, "attached\n"])
