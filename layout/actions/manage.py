"""`layout manage`: a confined session in the writable view, and the list of what it changed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import assert_never

from layout.actions import mounting
from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.actions.kinds.design import SessionOptions
from layout.core.errors import UsageError, printable
from layout.core.model import JailPlan, Platform
from layout.core.plan import SPLIT
from layout.host import locks
from layout.host.beneath import Dir, snapshot
from layout.host.beneath.walk import Print
from layout.host.standard import fill_closed

_PLACES = {place[2:]: f"/{name}" for name, place in SPLIT if place.startswith("s/")}
"""Where in the jail the directories of s are seen through the links of mroot."""


PLAIN = SessionOptions()
"""A session without any option."""

BASE_LOCK = "manage-base.lock"
"""Held while `layout manage --base` runs."""


@dataclass(frozen=True, slots=True)
class Change:
    """One path of s or mroot that a session changed."""

    kind: str
    """'added', 'changed' or 'removed'."""
    path: str
    """As the jail sees it, through the links of mroot: /etc/rc.conf."""


@dataclass(slots=True)
class Managed:
    """What came of a session."""

    status: int
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What else the administrator should know, such as what a killed session had left."""
    compared: bool = True
    """False: nobody looked for changes, and that there are none in the list says nothing."""


def manage(
    context: Context,
    plan: JailPlan,
    command: tuple[str, ...],
    options: SessionOptions = PLAIN,
) -> Managed:
    """Run a session; return what came of it. Raises LayoutError, UsageError for a design that has none.

    With a shared root, s and mroot are compared before and after. A second session is told who has the first.
    """
    return design_of(plan.jail.kind).manage(context, plan, command, options)


def session(
    context: Context,
    plan: JailPlan,
    command: tuple[str, ...],
    options: SessionOptions,
) -> Managed:
    """Run a session in the writable view of a jail with a shared root; see `manage`. Raises LayoutError."""
    mounting.require_platform(context.site)
    refuse_chroot(context.site.platform, options)
    name = plan.jail.name
    with (
        context.open() as root,
        root.open(".layout") as state,
        locks.held(state, f"manage-{name}.lock", f"to be the only manage session of {name}"),
    ):
        locks.refuse_held(state, BASE_LOCK, "no session in the base, which this jail shares")
        before = prints(root, f"s/{name}")
        notes: list[str] = []
        with stdout_to_stderr() if options.to_stderr else contextlib.nullcontext():
            match context.site.platform:
                case Platform.LINUX:
                    from layout.actions import manage_linux

                    status = manage_linux.run(
                        context.site, root, plan, command, sealed=options.sealed, base_ro=options.base_ro
                    )
                case Platform.FREEBSD:
                    from layout.actions import manage_freebsd

                    status = manage_freebsd.run(
                        context.site,
                        root,
                        state,
                        plan,
                        command,
                        sealed=options.sealed,
                        base_ro=options.base_ro,
                        chroot=options.chroot,
                        notes=notes,
                    )
                case _:
                    assert_never(context.site.platform)
        after = prints(root, f"s/{name}")
    return Managed(status, list(changes_between(before, after)), notes)


def refuse_chroot(platform: Platform, options: SessionOptions) -> None:
    """Make sure that a plain chroot(8) is asked for only where there is one. Raises UsageError."""
    if options.chroot and platform is not Platform.FREEBSD:
        hint = "a session on Linux is always confined: leave it out"
        raise UsageError("--chroot", str(platform), "FreeBSD", hint)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Let descriptor 1 be descriptor 2 meanwhile."""
    fill_closed()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def prints(root: Dir, half: str) -> dict[str, Print]:
    """Return the prints of mroot and an s by the paths that an administrator uses for them."""
    found: dict[str, Print] = {}
    with root.open("j/mroot") as top:
        found.update((f"/{below}", print_) for below, print_ in snapshot(top))
    with root.open(half) as top:
        for below, print_ in snapshot(top):
            found[path_of_s(below)] = print_
    return found


def path_of_s(below: str) -> str:
    """Return how a path of an s is seen through the links of mroot: etc/rc.conf is /etc/rc.conf."""
    head, slash, rest = below.partition("/")
    return f"{_PLACES.get(head, f'/s/{head}')}{slash}{rest}"


def changes_between(before: dict[str, Print], after: dict[str, Print]) -> Iterator[Change]:
    """Yield what a session added, removed or changed, by path."""
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if old is None:
            yield Change("added", printable(path))
        elif new is None:
            yield Change("removed", printable(path))
        elif not (stat.S_ISDIR(old.mode) and old.same_but_times(new)):  # its entries tell what changed
            yield Change("changed", printable(path))
