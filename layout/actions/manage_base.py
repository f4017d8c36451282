"""`layout manage --base`: a session in mroot and the skeletons, and what follows from what it changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from layout.actions import merging, mounting
from layout.actions.bases import opened_state, refresh
from layout.actions.context import Context
from layout.actions.manage import BASE_LOCK, Change, changes_between, prints, stdout_to_stderr
from layout.actions.merging import JailMerge
from layout.actions.probing import Probed, probe_named
from layout.actions.split import tidy
from layout.actions.telling import Progress
from layout.core.errors import LayoutError, UsageError
from layout.core.model import Platform
from layout.host import hostfiles, locks, records
from layout.host.beneath import Dir
from layout.host.beneath.walk import Print, snapshot

_POLICY = "j/mroot/usr/sbin/policy-rc.d"
_POLICY_TEXT = b"""#!/bin/sh
# For the time of a session of `layout manage --base`: no package starts a daemon.
exit 101
"""
_RESOLV = "skel/s/etc/resolv.conf"
_PROXIES = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy"}


@dataclass(slots=True)
class BaseManaged:
    """What came of a session in the base."""

    status: int
    changes: list[Change] = field(default_factory=list)
    """In mroot and the skeleton of s."""
    setuid: list[str] = field(default_factory=list)
    """Files that are setuid or setgid now and were not before: the base's record has them from now on."""
    merged: dict[str, JailMerge] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    """Jails that still have to be merged."""

    probed: Probed = field(default_factory=Probed)
    """What the probes found in the jails, once the base had changed."""

    @property
    def exit_code(self) -> int:
        """The command's own status, or 1 when a jail could not be merged or no longer holds."""
        return self.status or int(any(not one.ok for one in self.merged.values()) or not self.probed.ok)


def manage_base(
    context: Context, command: tuple[str, ...], tell: Progress, *, to_stderr: bool = False
) -> BaseManaged:
    """Run a session in which the base can be changed, then bring what it did to the skeletons to the jails.

    Nothing else may change ROOT meanwhile, and no jail may have a session of its own. When the command
    failed the jails stay as they are, until `layout base merge`. Raises LayoutError, UsageError.
    """
    mounting.require_platform(context.site)
    if context.site.platform is not Platform.LINUX:
        hint = "packages of a jail go to its own /usr/local: layout manage NAME -- pkg install ..."
        raise UsageError("manage --base", str(context.site.platform), "Linux", hint)
    from layout.actions import manage_linux

    with (
        context.locked(),
        context.open() as root,
        opened_state(context, root) as state,
        locks.held(state, BASE_LOCK, "to be the only session in the base"),
    ):
        names = records.jail_names(root)
        for name in names:
            locks.refuse_held(state, f"manage-{name}.lock", "no session in a jail of this base")
        _tidy(root)  # what a session that was killed left
        kept = merging.begin(root, state, names)
        before, before_t = prints(root, "skel/s"), _prints_of_t(root)
        with stdout_to_stderr() if to_stderr else contextlib.nullcontext(), _dressed(root):
            status = manage_linux.run_base(context.site, root, command, _proxies())
        _tidy(root)
        after, after_t = prints(root, "skel/s"), _prints_of_t(root)
        outcome = BaseManaged(status, list(changes_between(before, after)))
        outcome.setuid = refresh(root, state, before | before_t, after | after_t, tell)
        if not outcome.changes and _names(before_t) == _names(after_t):
            merging.forget(state, kept)
        elif status == 0:
            outcome.merged = merging.merge_jails(root, state, None, tell, names)
        outcome.pending = sorted(merging.pending(state))
    if outcome.changes or outcome.merged:
        outcome.probed = probe_named(context, names)
    return outcome


def merge_base(context: Context, names: list[str] | None, tell: Progress) -> BaseManaged:
    """Merge what is still to be merged, of these jails or of all. Raises LayoutError."""
    with context.locked(), context.open() as root, opened_state(context, root) as state:
        known = records.jail_names(root)
        for name in names or []:
            if name not in known:
                raise LayoutError(name, "no such jail", f"one of: {', '.join(known)}", f"layout init {name}")
        _tidy(root)
        merged = merging.merge_jails(root, state, names, tell, known)
        outcome = BaseManaged(0, merged=merged, pending=sorted(merging.pending(state)))
    outcome.probed = probe_named(context, merged)
    return outcome


def _names(prints: Mapping[str, Print]) -> set[str]:
    return set(prints)


def _prints_of_t(root: Dir) -> dict[str, Print]:
    with root.open("skel/t") as top:
        return {f"/t/{path}": print_ for path, print_ in snapshot(top)}


def _proxies() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key.lower() in _PROXIES}


def _tidy(root: Dir) -> None:
    """Take the session's own files out again, and secrets and left-overs that packages made."""
    with contextlib.suppress(FileNotFoundError, LayoutError):
        if root.read(_POLICY) == _POLICY_TEXT:
            root.unlink(_POLICY)
    with root.open("skel/s") as s, root.open("skel/t") as t:
        tidy(s, t)


@contextlib.contextmanager
def _dressed(root: Dir) -> Iterator[None]:
    """Let packages start no daemon, and names be resolved as on the host, for the time of a session."""
    with contextlib.suppress(FileNotFoundError, LayoutError), root.open("j/mroot/usr/sbin") as programs:
        if programs.lstat("policy-rc.d") is None:
            programs.write_whole("policy-rc.d", _POLICY_TEXT, 0o755)
    text = hostfiles.read_text("/etc/resolv.conf")
    if text is not None and root.lstat(_RESOLV) is None:
        with root.open("skel/s/etc") as etc:
            etc.write_whole("resolv.conf", text.encode("utf-8", "surrogateescape"), 0o644)
    yield
