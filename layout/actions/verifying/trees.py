"""Checks of what a walk of mroot, of an s or of a t has found."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator

from layout.actions.verifying.scene import JailScene, Scene, Walked, unseen
from layout.core import mtree
from layout.core.findings import Finding, error, warning
from layout.core.plan import LINKS
from layout.core.service import Settings
from layout.core.skeleton import half_of, resolve
from layout.host.beneath import Linked, Seen
from layout.host.beneath.directory import kind_of
from layout.host.beneath.hashed import sha256

_TWO_WAY = {stat.S_IFSOCK, stat.S_IFIFO}


def _trusted(scene: Scene | JailScene) -> tuple[Scene, Walked, bool]:
    """Return the tree that no jail can write to, and whether all jails see it: mroot, or the jail's s."""
    if isinstance(scene, Scene):
        return scene, scene.mroot, True
    return scene.scene, scene.s, False


def setuid(scene: Scene | JailScene) -> Iterator[Finding]:
    """S6: only setuid files that came with the base, with the content that they had."""
    host, tree, is_mroot = _trusted(scene)
    records = host.base.setuid if host.base is not None else ()
    allowed = {place: one for one in records if (place := _placed(one.path, is_mroot=is_mroot)) is not None}
    for below, found in _regular(tree):
        path = f"{tree.where}/{below}"
        known = allowed.get(below)
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        is_known = known is not None and (known.mode, known.uid, known.gid) == (
            mode,
            found.st_uid,
            found.st_gid,
        )
        if not is_known:
            seen = f"mode {mode}, user {found.st_uid}, group {found.st_gid}"
            expected = "only those that the base's record lists"
            yield error("S6-setuid", path, seen, expected, _cure("chmod ug-s", tree, below))
        else:
            yield from _content(scene, host, tree, below)


def _cure(words: str, tree: Walked, below: str) -> str:
    """Return what an administrator may paste: `words` of a command for an entry of this tree.

    The names in a t are the jail's, so they are quoted; and no path of the host's leads there, for a jail
    that runs swaps a directory for a link. A session in it follows none.
    """
    *_, half, name = tree.where.split("/")
    path = shlex.quote(f"{tree.where}/{below}")
    if half != "t":
        return f"{words} {path}"
    if below.startswith("var/"):
        return f"layout manage {name} -- {words} {shlex.quote(f'/{below}')}"
    return f"layout stop {name}, and then {words} {path}"


def _content(scene: Scene | JailScene, host: Scene, tree: Walked, below: str) -> Iterator[Finding]:
    """Compare a setuid file of the base with its manifest."""
    manifest, name = (host.manifest, below) if scene is host else (host.skeleton, f"s/{below}")
    rest = (manifest or {}).get(name, b"")
    wanted = rest.rpartition(b" sha256digest=")[2].decode() if b" sha256digest=" in rest else ""
    if not wanted:
        return  # nobody wrote it down: layout base verify says so
    host.checks += 1
    with host.root.open(tree.where[len(host.site.root) + 1 :]) as top:
        now = sha256(top, below)
    if now != wanted:
        path = f"{tree.where}/{below}"
        found = f"a setuid file with sha256={now}"
        hint = (
            "find out who changed it; layout base verify --update accepts it"
            if scene is host
            else (f"find out who changed it; {_cure('chmod ug-s', tree, below)}")
        )
        yield error("S6-setuid", path, found, f"sha256={wanted}, as it came with the base", hint)


def _placed(path: str, *, is_mroot: bool) -> str | None:
    """Return where a path of the base is, in mroot or in an s; None when it is in neither."""
    half, below = half_of(path)
    if is_mroot:
        return None if half else below
    return below if half == "s" else None


def _regular(tree: Walked) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the setuid files of a tree."""
    for below, found in tree.seen.special if tree.seen is not None else ():
        if stat.S_ISREG(found.st_mode):
            yield below, found


def capabilities(scene: Scene | JailScene) -> Iterator[Finding]:
    """S6: only programs with file capabilities that came with the base."""
    host, tree, is_mroot = _trusted(scene)
    records = host.base.capable if host.base is not None else ()
    allowed = {_placed(one.path, is_mroot=is_mroot): one.value for one in records}
    for below, _, value in tree.seen.capable if tree.seen is not None else ():
        if allowed.get(below) != value.hex():
            path = f"{tree.where}/{below}"
            expected = "only those that the base's record lists"
            yield error("S6-capability", path, _permitted(value), expected, _cure("setcap -r", tree, below))


def _permitted(value: bytes) -> str:
    """Say which capabilities a file gives, by the bits of the system (capability.h)."""
    words = [int.from_bytes(value[at : at + 4], "little") for at in (4, 12) if len(value) >= at + 4]
    bits = sum(word << 32 * index for index, word in enumerate(words))
    return f"file capabilities 0x{bits:x}"


def two_way(scene: Scene | JailScene) -> Iterator[Finding]:
    """S6: no FIFO or socket, which read-only does not stop."""
    _, tree, is_mroot = _trusted(scene)
    for below, what in _special(tree, lambda kind: kind in _TWO_WAY):
        hint = "jails can talk to each other through it: remove it" if is_mroot else _cure("rm", tree, below)
        yield error("S6-special", f"{tree.where}/{below}", what, "none in a read-only tree", hint)


def devices(scene: Scene | JailScene) -> Iterator[Finding]:
    """S6: no device node."""
    return _devices("S6-device", _trusted(scene)[1])


def _devices(code: str, tree: Walked) -> Iterator[Finding]:
    for below, what in _special(tree, lambda kind: kind not in {*_TWO_WAY, stat.S_IFREG}):
        yield error(code, f"{tree.where}/{below}", what, "no device node", _cure("rm", tree, below))


def _special(tree: Walked, wanted: Callable[[int], bool]) -> Iterator[tuple[str, str]]:
    for below, found in tree.seen.special if tree.seen is not None else ():
        if wanted(stat.S_IFMT(found.st_mode)):
            yield below, f"a {kind_of(found.st_mode)}"


def loose(scene: Scene | JailScene) -> Iterator[Finding]:
    """S6: nothing that a group or anybody may write to, but what came so with the base."""
    host, tree, _ = _trusted(scene)
    if tree.seen is None:
        return
    mode, owner = tree.top
    if mode & 0o022 or owner:
        found = f"mode {stat.S_IMODE(mode):04o}, user {owner}"
        hint = f"chown root {tree.where}; chmod go-w {tree.where}"
        yield error("S6-loose", tree.where, found, "root's, and closed", hint)
    for below, status in tree.seen.loose:
        if status.st_mode & 0o002 or not _came_so(scene, host, below, status):
            path = f"{tree.where}/{below}"
            found = f"mode {stat.S_IMODE(status.st_mode):04o}, group {status.st_gid}"
            yield error(
                "S6-loose", path, found, "nothing that others may write to", _cure("chmod go-w", tree, below)
            )


def _came_so(scene: Scene | JailScene, host: Scene, below: str, status: os.stat_result) -> bool:
    """Say whether the base had this mode and these owners: usr/local of Debian is its group staff's."""
    manifest, name = (host.manifest, below) if scene is host else (host.skeleton, f"s/{below}")
    words = f" mode={status.st_mode & 0o7777:04o} uid={status.st_uid} gid={status.st_gid} "
    return words.encode() in (manifest or {}).get(name, b"") + b" "


def owners_of_mroot(scene: Scene) -> Iterator[Finding]:
    """S6: mroot is root's, but for what came otherwise with the base."""
    tree = scene.mroot
    for below, status in tree.seen.owned if tree.seen is not None else ():
        if not _came_so(scene, scene, below, status):
            path = f"{tree.where}/{below}"
            yield error(
                "S6-owner", path, f"user {status.st_uid}", "root's", _cure("chown -h root", tree, below)
            )


def owners_of_s(scene: JailScene) -> Iterator[Finding]:
    """S6: s is root's, but for what came otherwise with the base or is of a user that the profile names.

    Nobody can write there in the jail. In a session the others could, and so they are told once for each.
    """
    host, tree = scene.scene, scene.s
    if tree.seen is None or not tree.seen.owned or not scene.design.shares_root:
        return
    from layout.actions.make import ids_of  # with all that makes a base: rarely needed here

    numbers = ids_of(host.root, scene.name, "passwd")
    expected = {numbers[name] for name in _users(scene.jail.settings) if name in numbers}
    names = {number: name for name, number in numbers.items()}
    theirs: dict[int, list[str]] = {}
    for below, status in tree.seen.owned:
        if status.st_uid not in expected and not _came_so(scene, host, below, status):
            theirs.setdefault(status.st_uid, []).append(below)
    for uid, paths in theirs.items():
        first = min(paths)
        path = f"{tree.where}/{first}"
        who = f"user {uid} ({names[uid]})" if uid in names else f"user {uid}"
        more = f", and {len(paths) - 1} more" if len(paths) > 1 else ""
        hint = f"{_cure('chown -h root', tree, first)}, or name the user in the profile (service.user, state)"
        yield warning("S6-owner", path, f"{who}{more}", "root's, or of a user of the profile", hint)


def _users(settings: Settings) -> set[str]:
    service = settings.service
    state = (*settings.state, *service.run)
    return {service.user, *(one.owner for one in state), *(one.owner for one in settings.example.files)}


def drift(scene: Scene) -> Iterator[Finding]:
    """S9: mroot has the types, modes, owners, sizes and links of its manifest. Content is for --base."""
    tree, manifest = scene.mroot, scene.manifest
    if tree.seen is None or manifest is None:
        return
    every = tree.seen.every
    scene.checks += len(manifest)
    changed = [
        path
        for path, (status, target) in every.items()
        if path in manifest and not manifest[path].startswith(mtree.told(status, target))
    ]
    new = [path for path in every if path not in manifest]
    gone = [path for path in manifest if path != "." and path not in every]
    counts = [
        f"{len(paths)} {word}"
        for paths, word in ((changed, "changed"), (new, "new"), (gone, "gone"))
        if paths
    ]
    if counts:
        path = f"{tree.where}/{min([*changed, *new, *gone])}"
        hint = "layout base verify names all; with --update it accepts them"
        yield warning(
            "S9-drift", path, f"{', '.join(counts)}: this is the first", "mroot as its manifest says", hint
        )


def into_t(scene: Scene) -> Iterator[Finding]:
    """S5: no link of mroot leads into t, but for the planned ones and what came with the base."""
    tree = scene.mroot
    planned = {name for name, _ in LINKS}
    for below, target in tree.seen.links if tree.seen is not None else ():
        meant = resolve("" if target.startswith("/") else below.rpartition("/")[0], target)
        if below in planned or meant.partition("/")[0] not in {"t", "var", "tmp"}:
            continue
        path = f"{tree.where}/{below}"
        found, expected = f"a symbolic link to {target}", "no other way from mroot into t"
        rest = (scene.manifest or {}).get(below, b"")
        if rest.endswith(b" link=" + mtree.encode_name(os.fsencode(target))):
            hint = "it came with the base: know what follows it, for a jail decides what is there"
            yield warning("S5-into-t", path, found, expected, hint)
        else:
            yield error("S5-into-t", path, found, expected, _cure("rm", tree, below))


def setuid_in_t(scene: JailScene) -> Iterator[Finding]:
    """S7: no setuid file in t."""
    if scene.design.is_world:  # a system has some, and its root makes more: its own finding says so
        return
    for below, found in _regular(scene.t):
        path = f"{scene.t.where}/{below}"
        seen = f"mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}, group {found.st_gid}"
        yield error("S7-setuid", path, seen, "no setuid or setgid file", _cure("chmod ug-s", scene.t, below))


def capabilities_in_t(scene: JailScene) -> Iterator[Finding]:
    """S7: no file with capabilities in t."""
    if scene.design.is_world:
        return
    for below, _, value in scene.t.seen.capable if scene.t.seen is not None else ():
        path = f"{scene.t.where}/{below}"
        yield error(
            "S7-capability",
            path,
            _permitted(value),
            "no file capabilities",
            _cure("setcap -r", scene.t, below),
        )


def devices_in_t(scene: JailScene) -> Iterator[Finding]:
    """S7: no device node in t. FIFOs and sockets are a daemon's business."""
    return _devices("S7-device", scene.t)


def linked(scene: JailScene) -> Iterator[Finding]:
    """S3: no file of t has a name outside of it too, by which the jail would change what is not its own."""
    tree = scene.t
    if tree.seen is None or tree.seen.unseen or not (outside := _outside(tree.seen)):
        return  # what was not looked at may hold the other names: that is reported
    # A jail at work links and removes meanwhile: what is so twice is so.
    again = scene.scene.walked(f"t/{scene.name}", trusted=False)
    still = _outside(again.seen) if again.seen is not None else {}
    for inode in sorted(outside.keys() & still.keys(), key=lambda one: still[one].path):
        one = still[inode]
        path = f"{tree.where}/{one.path}"
        where = _name_outside(scene, inode)
        more = one.names - one.seen
        found = f"a file that is {where} as well" if where else f"a file with {more} more names outside of t"
        hint = f"find its names with find -xdev -inum {inode[1]}, and let t have a copy"
        yield error("S3-linked", path, found, "a file that is in t alone", hint)


def _outside(seen: Seen) -> dict[tuple[int, int], Linked]:
    return {inode: one for inode, one in seen.linked.items() if one.names > one.seen}


def _name_outside(scene: JailScene, inode: tuple[int, int]) -> str:
    for tree in (scene.s, scene.scene.mroot):
        if tree.seen is not None and inode in tree.seen.linked:
            return f"{tree.where}/{tree.seen.linked[inode].path}"
    return ""


def _unseen(tree: Walked) -> Iterator[Finding]:
    if tree.problem is not None:
        yield unseen(tree.where, tree.problem)
    for path, reason in tree.seen.unseen if tree.seen is not None else ():
        yield error("S8-unseen", f"{tree.where}/{path}", reason, "to look at all of it")


def _covered(scene: JailScene, tree: Walked) -> Iterator[Finding]:
    """Yield what a mount hides: a walk takes what is mounted on a file for the file itself."""
    told = {path for path, _ in tree.seen.unseen} if tree.seen is not None else set()
    for target in scene.scene.live.below(tree.where):
        if target != tree.where and target[len(tree.where) + 1 :] not in told:
            hint = f"umount {shlex.quote(target)}"
            yield error("S8-unseen", target, "a mount point", "to look at what is below", hint)


def whole(scene: Scene | JailScene) -> Iterator[Finding]:
    """S8: mroot, or the jail's s, could be looked at to the last entry."""
    yield from _unseen(_trusted(scene)[1])
    if isinstance(scene, JailScene):
        yield from _covered(scene, scene.s)


def whole_t(scene: JailScene) -> Iterator[Finding]:
    """S8: t could be looked at to the last entry: neither too deep nor too many."""
    yield from _unseen(scene.t)
    yield from _covered(scene, scene.t)
