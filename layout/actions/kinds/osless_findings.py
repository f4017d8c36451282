"""What verify proves of an OS-less jail besides its mounts: one static program, and nothing else in it."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator

from layout.actions.context import Context
from layout.actions.kinds import osless_tree
from layout.actions.observe import Is, observe
from layout.core.compare import Live, is_below
from layout.core.errors import LayoutError
from layout.core.findings import Finding, error, note
from layout.core.kinds import osless
from layout.core.model import JailPlan
from layout.host import table, zfs
from layout.host.beneath import Dir
from layout.host.site import running_platform

_INIT = "layout init NAME"
_UPDATE = "layout update NAME FILE"
_HEAD = 4


def findings(context: Context, root: Dir, plan: JailPlan, *, quick: bool) -> Iterator[Finding]:
    """Return everything. Raises OSError, LayoutError for what cannot be looked at."""
    here = plan.jail.platform is running_platform()
    if here:
        yield from datasets(context, plan)
        yield from writable(context, plan)
    yield from program(root, plan)
    yield from content(root, plan)
    yield from interrupted(root, plan)
    if not quick:
        yield from strangers(context, root, plan)


def datasets(context: Context, plan: JailPlan) -> Iterator[Finding]:
    """O5: each dataset has its properties, is mounted, and its mount has the flags."""
    for dataset in osless.datasets(plan.jail, context.site):
        for path, found, expected in zfs.problems(dataset):
            yield error("O5-dataset", path, found, expected, "layout init NAME sets what can be set again")


def program(root: Dir, plan: JailPlan) -> Iterator[Finding]:
    """O1: the program is there, is root's, and needs no loader and no library."""
    path = osless.installed(plan.jail)
    if not path:
        path = plan.jail.settings.osless.program
        try:
            osless_tree.static_program(path)
            osless_tree.require_roots(path)
        except LayoutError as problem:
            yield error("O1-static", problem.path, problem.found, problem.expected, problem.hint)
        return
    shown = root.show(path)
    try:
        fd = root.open_file(path)
    except FileNotFoundError:
        yield error("O1-static", shown, "nothing", "the only program of the jail", _INIT)
        return
    except LayoutError as problem:
        yield error("O1-static", problem.path, problem.found, "the only program of the jail", _UPDATE)
        return
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        content = file.read(osless_tree.LIMIT + 1)
    if found.st_uid or found.st_mode & 0o022 or not found.st_mode & 0o001:
        seen = f"mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}"
        yield error("O1-static", shown, seen, "root's, closed, and executable for all", _UPDATE)
    try:
        osless_tree.require_static(content, shown)
    except LayoutError as problem:
        yield error("O1-static", problem.path, problem.found, problem.expected, _UPDATE)


def content(root: Dir, plan: JailPlan) -> Iterator[Finding]:
    """O4: what its profile puts there is there: directories, mount points, configuration."""
    for one in observe(root, osless.content(plan.jail)):
        if one.state is not Is.PRESENT:
            found = one.found or "nothing"
            expected = one.expected or one.entry.reason
            yield error("O4-content", root.show(one.entry.path), found, expected, _INIT)


def strangers(context: Context, root: Dir, plan: JailPlan) -> Iterator[Finding]:
    """O2, O3: nothing else can be executed or loaded, no shell, no library; and nothing is setuid."""
    only = osless.installed(plan.jail)
    before = osless_tree.abandoned(root, plan.jail)
    try:
        top = root.open(f"s/{plan.jail.name}")
    except FileNotFoundError:
        return  # reported as missing already
    dataset = osless_tree.half(plan.jail, context.site, "s")

    def by_hand(command: str) -> str:
        return command if dataset is None else zfs.opened_by_hand(dataset, command)

    with top:
        for path, found, head in _files(top, ""):
            where = root.show(f"s/{plan.jail.name}/{path}")
            if found.st_mode & 0o6000:
                seen = f"mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}"
                yield error(
                    "O3-setuid",
                    where,
                    seen,
                    "no setuid or setgid file",
                    by_hand(f"chmod ug-s {shlex.quote(where)}"),
                )
            if stat.S_ISLNK(found.st_mode) or f"s/{plan.jail.name}/{path}" == only:
                continue
            what = _kind(path, found.st_mode, head)
            if what:
                is_old = f"s/{plan.jail.name}/{path}" == before
                hint = f"layout init {plan.jail.name}" if is_old else by_hand(f"rm {shlex.quote(where)}")
                yield error("O2-program", where, what, "one static program and nothing else", hint)


def _kind(path: str, mode: int, head: bytes) -> str:
    if path.rpartition("/")[2] in osless.SHELLS and (mode & 0o111 or head):
        return "a shell"
    if head == b"\x7fELF":
        return "a library or program"
    if head.startswith(b"#!"):
        return "a script"
    return "an executable file" if mode & 0o111 else ""


def _files(here: Dir, path: str) -> Iterator[tuple[str, os.stat_result, bytes]]:
    """Yield path, status and first bytes of everything but directories. Raises OSError, LayoutError."""
    for name in here.names():
        below = f"{path}/{name}".lstrip("/")
        found = here.lstat(name)
        if found is None:
            continue
        if stat.S_ISDIR(found.st_mode):
            with here.open(name) as inner:
                yield from _files(inner, below)
            continue
        head = b""
        if stat.S_ISREG(found.st_mode):
            fd = here.open_file(name)
            try:
                head = os.pread(fd, _HEAD, 0)
            finally:
                os.close(fd)
        yield below, found, head if head == b"\x7fELF" or head[:2] == b"#!" else b""


def writable(context: Context, plan: JailPlan) -> Iterator[Finding]:
    """O6: a jail whose profile gives it no log can write nowhere, and this says so."""
    settings = plan.jail.settings.osless
    top = f"{context.site.root}/j/{plan.jail.name}"
    live = Live(table.read(context.site.root))
    mounts = [(target, live.at(target)[-1]) for target in live.below(top) if is_below(target, top)]
    can_write = [target for target, mount in mounts if "ro" not in mount.options]
    can_execute = [target for target, mount in mounts if "noexec" not in mount.options]
    wanted = any(mount.writable for mount in plan.jail.settings.mounts)
    if not settings.log and not wanted:
        for target in can_write:
            yield error(
                "O6-writable", target, "a mount that can be written to", "none", "layout restart NAME"
            )
        if mounts and not can_write:
            yield note("O6-nothing-writable", top, "nothing in it can be written to", "as its profile says")
    if settings.self_jailing:
        for target in can_execute:
            yield error("O6-executable", target, "a mount without noexec", "noexec", "layout init NAME")
        if mounts and not can_execute:
            yield note("O6-nothing-executable", top, "nothing in it can be executed", "as its profile says")


def interrupted(root: Dir, plan: JailPlan) -> Iterator[Finding]:
    """O8: no deploy was interrupted."""
    path = f".layout/update/{plan.jail.name}.toml"
    if root.lstat(path) is not None:
        found = "a deploy that did not come to its end"
        yield error("O8-update", root.show(path), found, "none", "layout recover")
