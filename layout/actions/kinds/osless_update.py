"""`layout update`: the routine deploy of an OS-less jail, and the way back when it does not come up."""

from __future__ import annotations

import contextlib
import os

import msgspec

from layout.actions import running
from layout.actions.context import Context
from layout.actions.kinds import osless_tree
from layout.actions.kinds.osless_tree import LIMIT, PROGRAM_MODE, Deploy
from layout.actions.telling import Tell
from layout.core.errors import LayoutError, UsageError, reason_of
from layout.core.kinds import osless
from layout.core.model import JailPlan, Kind
from layout.core.running import Running
from layout.host import hostfiles, locks, records, zfs
from layout.host.beneath import Dir

_EXECUTABLE = (b"\x7fELF", b"#!")
_INSTEAD = {
    Kind.SHARED: "layout manage {name}; for packages of all jails: layout manage --base",
    Kind.FULL: "its own root updates it; from outside: layout manage {name}",
    Kind.THIN: "its files are the host's: update them there, then layout restart {name}",
    Kind.SERVICE: "its files are the host's: update them there, then restart the service",
}
"""What to do with a jail of another kind."""


class Updated(msgspec.Struct, frozen=True):
    """What a deploy came to."""

    path: str
    """What was replaced, as the jail sees it."""
    changed: bool
    """False: it was that very file already."""
    running: Running | None
    """The jail, started again; None when it did not run before."""


def update(context: Context, plan: JailPlan, file: str, target: str, tell: Tell) -> Updated:
    """Replace the program of a jail, or `target`, a file of its configuration, by a file of the host's.

    The tree is writable only while the file is put there. A jail that runs is started again; when it does not
    come up, the file from before is back and started. Raises UsageError, LayoutError.
    """
    if plan.jail.kind is not Kind.OSLESS:
        hint = _INSTEAD[plan.jail.kind].format(name=plan.jail.name)
        raise UsageError(plan.jail.name, f"kind {plan.jail.kind}", "kind osless", hint)
    name = plan.jail.name
    path, mode = _target(plan, target)
    content = _content(file, is_program=path == osless.installed(plan.jail))
    # What is below a dataset that is not mounted is not what was there before; ROOT is opened after that.
    osless_tree.require_mounted(context.site, plan, zfs.show)
    with (
        context.open() as root,
        root.open(".layout") as state,
        locks.held(state, f"manage-{name}.lock", f"to be the only run that changes {name}"),
    ):
        _refuse_interrupted(state, name)
        shown = f"/{path.split('/', 2)[2]}"
        old = _old(root, path)
        before = running.running(context, plan)
        if old == content:
            return Updated(shown, changed=False, running=before)
        deploy = Deploy(path, mode, had=old is not None, ran=before is not None)
        _begin(state, name, deploy, old)
        try:
            with osless_tree.writable(plan, context.site):
                osless_tree.install(root, path, content, mode)
            after = running.restart(context, plan, tell) if deploy.ran else None
            records.write(state, f"update/{name}.toml", msgspec.structs.replace(deploy, proven=True))
        except BaseException as problem:
            _back(context, plan, root, state, deploy, tell)
            if isinstance(problem, LayoutError):
                raise _told(plan, shown, deploy, problem) from None
            raise
        _end(state, name)
        return Updated(shown, changed=True, running=after)


def _told(plan: JailPlan, shown: str, deploy: Deploy, problem: LayoutError) -> LayoutError:
    back = "the file from before is back" + (" and runs" if deploy.ran else "")
    return LayoutError(
        f"{plan.jail.name}: {shown}",
        f"a deploy that failed: {problem.path}: {problem.found}",
        problem.expected,
        f"{back}; {problem.hint}" if problem.hint else back,
    )


def _target(plan: JailPlan, target: str) -> tuple[str, int]:
    """Return the path below ROOT and the mode of what is to be replaced. Raises UsageError."""
    name = plan.jail.name
    settings = plan.jail.settings.osless
    program = osless.installed(plan.jail)
    known = {f"s/{name}/{one.path}": int(one.mode, 8) for one in settings.files}
    if program:
        known[program] = PROGRAM_MODE
    path = f"s/{name}/{target.lstrip('/')}" if target else program
    if path not in known:
        words = ", ".join(one.split("/", 2)[2] for one in known) or "none"
        found = "no file of its own" if target else "a jail without a program in it (osless.self_jailing)"
        hint = "" if target else f"replace {settings.program} itself, then layout restart {name}"
        raise UsageError(f"{name}: {target or 'its program'}", found, f"one of: {words}", hint)
    return path, known[path]


def _content(file: str, *, is_program: bool) -> bytes:
    """Return what is to be put there. Raises LayoutError for what must not be."""
    if is_program:
        return osless_tree.static_program(file)
    try:
        fd = hostfiles.open_regular(file)
    except OSError as error:
        raise UsageError(file, reason_of(error), "a file of the host") from None
    with os.fdopen(fd, "rb") as opened:
        content = opened.read(LIMIT + 1)
    if len(content) > LIMIT or content.startswith(_EXECUTABLE):
        raise LayoutError(file, "a program, or more than one file should be", "a file of configuration")
    return content


def _old(root: Dir, path: str) -> bytes | None:
    """Return what is there now; None for nothing. Raises LayoutError when it is no regular file."""
    try:
        return root.read(path, LIMIT)
    except FileNotFoundError:
        return None


# --- the journal -------------------------------------------------------------------------------------------


def is_interrupted(state: Dir, name: str) -> bool:
    """Say whether a deploy did not come to its end."""
    return state.lstat(f"update/{name}.toml") is not None


def _refuse_interrupted(state: Dir, name: str) -> None:
    if is_interrupted(state, name):
        path = state.show(f"update/{name}.toml")
        raise LayoutError(path, "a deploy that did not come to its end", "none", "layout recover")


def _begin(state: Dir, name: str, deploy: Deploy, old: bytes | None) -> None:
    """Keep what was there before, then write down what is to be done: a crash from here on can be undone."""
    with contextlib.suppress(FileExistsError):
        state.make_dir("update", 0o700)
    if old is not None:
        state.write_whole(f"update/{name}.old", old, 0o600)
    records.write(state, f"update/{name}.toml", deploy)


def _end(state: Dir, name: str) -> None:
    for kind in ("toml", "old"):
        with contextlib.suppress(FileNotFoundError):
            state.unlink(f"update/{name}.{kind}")


def _restore(context: Context, plan: JailPlan, root: Dir, state: Dir, deploy: Deploy) -> None:
    with osless_tree.writable(plan, context.site):
        if deploy.had:
            old = state.read(f"update/{plan.jail.name}.old", LIMIT)
            osless_tree.install(root, deploy.path, old, deploy.mode)
        else:
            with contextlib.suppress(FileNotFoundError):
                root.unlink(deploy.path)
    _end(state, plan.jail.name)


def _back(context: Context, plan: JailPlan, root: Dir, state: Dir, deploy: Deploy, tell: Tell) -> None:
    """Put back what was there before, and start it if it ran. Raises LayoutError when not even that works."""
    _restore(context, plan, root, state, deploy)
    if deploy.ran:
        running.restart(context, plan, tell)


def recover(context: Context, plan: JailPlan, state: Dir) -> str:
    """Finish or undo a deploy that was interrupted; return what was done, "" for nothing. Raises LayoutError.

    It starts nothing: what runs is told to be looked at.
    """
    name = plan.jail.name
    deploy = records.read(state, f"update/{name}.toml", Deploy)
    if deploy is None:
        return ""
    if deploy.proven:
        _end(state, name)
        return f"{name}: a deploy finished, the new file had come up"
    osless_tree.require_mounted(context.site, plan, zfs.show)
    with context.open() as shown:
        _restore(context, plan, shown, state, deploy)
    more = f"; it ran: layout restart {name}" if deploy.ran else ""
    return f"{name}: a deploy undone, the file from before is back{more}"


def forget(state: Dir, name: str) -> int:
    """Take away what a deploy has left; return the number of files."""
    there = [kind for kind in ("toml", "old") if state.lstat(f"update/{name}.{kind}") is not None]
    _end(state, name)
    return len(there)
