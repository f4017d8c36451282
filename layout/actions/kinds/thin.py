"""Thin jails: start makes the root from its program, stop leaves nothing of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from msgspec import structs

from layout.actions.kinds.design import Design, SessionOptions
from layout.actions.telling import Tell
from layout.core import compare, kinds
from layout.core.errors import LayoutError, UsageError
from layout.core.findings import Finding, error, warning
from layout.core.kinds import thin
from layout.core.model import Platform
from layout.core.plan import SPLIT
from layout.core.thin import ThinRecord, ThinRoot
from layout.host import thin_cache
from layout.host.beneath import open_root
from layout.host.run import run
from layout.host.site import running_platform
from layout.host.thin_closure import Wanted, thin_root

if TYPE_CHECKING:
    from layout.actions.context import Context
    from layout.actions.manage import Managed
    from layout.actions.prepare_linux import Own
    from layout.core.model import JailPlan, Mount
    from layout.core.running import Running
    from layout.host.beneath import Dir
    from layout.host.records import JailRecord

_NONE = "none"
"""In the place of the digest of a root that was never made."""


def root_of(context: Context, plan: JailPlan) -> ThinRoot:
    """Return the root that a jail would have if it were started now. Raises LayoutError, UsageError."""
    jail, settings = plan.jail, plan.jail.settings
    if not settings.service.command:
        hint = f"set {jail.platform}.service.command in its profile; layout advise PROGRAM proposes one"
        raise UsageError(f"profile {jail.profile}", "no service.command", "the program of the jail", hint)
    origin, etc = _origin(context, settings.thin.root)
    needed = thin.programs(settings)
    if settings.service.user and jail.platform is Platform.LINUX:
        from layout.actions.prepare_linux import SETPRIV

        needed = (*needed, f"/{SETPRIV}")
    targets = tuple(one.target for one in settings.mounts)
    users = thin.users(settings)
    return thin_root(Wanted(jail.name, origin, etc, jail.platform, needed, users, settings.thin, targets))


def _origin(context: Context, root: str) -> tuple[str, str]:
    """Return the tree that the files come from, and the directory with its accounts."""
    if root == "host":
        return "/", "/etc"
    if root == "mroot":
        place = dict(SPLIT)["etc"]
        return f"{context.site.root}/j/mroot", f"{context.site.root}/skel/{place}"
    ours = context.site.root
    if compare.is_below(root, ours) or compare.is_below(ours, root):
        hint = "the shared base is root = 'mroot'"
        raise UsageError("thin.root", root, f"a directory apart from {ours}, where jails write", hint)
    try:
        with open_root(root) as top:
            found = os.fstat(top.fd)
    except FileNotFoundError:
        raise LayoutError(root, "no such directory", "the tree that the files come from") from None
    if found.st_uid != 0 or found.st_mode & 0o022:
        hint = "chown root, chmod go-w: what lies there is executed in a jail"
        raise LayoutError(root, "a directory that others can change", "one that is root's alone", hint)
    return root, f"{root}/etc"


def _finish(path: str) -> None:
    """FreeBSD: make the databases of accounts, without which no user of the root has a name."""
    if running_platform() is Platform.FREEBSD:
        run("pwd_mkdb", "-d", f"{path}/etc", f"{path}/etc/master.passwd")


def living(context: Context, plan: JailPlan, record: ThinRecord | None) -> JailPlan:
    """Return the plan with what is mounted while the jail runs."""
    return _with_root(context, plan, record.digest if record is not None else _NONE)


def _with_root(context: Context, plan: JailPlan, name: str) -> JailPlan:
    mounts = kinds.host_mounts(plan.jail, context.site.root)
    return structs.replace(plan, tables=thin.tables(plan.jail, context.site.root, name, mounts))


def provide(context: Context, state: Dir, plan: JailPlan) -> JailPlan:
    """Make the root of a jail, unless it is kept; return the plan with its mounts. Raises LayoutError."""
    root = root_of(context, plan)
    with context.locked():
        record, made = thin_cache.provide(state, plan.jail.name, root, _finish)
        if made:
            thin_cache.collect(state)
    return living(context, plan, record)


class Thin(Design):
    """A root that is there only while the jail runs."""

    shares_root = False
    by_hand = (
        "its root is there only while layout runs it",
        "layout render rc.d {name} is a script that makes and runs it",
    )
    is_made_at_start = True
    unrecorded = True  # its mounts

    def check(self, context: Context, plan: JailPlan) -> None:
        """Make sure that a root can be made. With a shared base that is not there yet, `start` will see."""
        top = context.site.root
        for one in plan.jail.settings.mounts:
            if compare.is_below(one.source, top) or compare.is_below(top, one.source):
                hint = f"change mounts of profile {plan.jail.profile}"
                raise UsageError(plan.jail.name, f"a mount of {one.source}", f"nothing of {top}", hint)
        if plan.jail.platform is running_platform() and plan.jail.settings.thin.root != "mroot":
            root_of(context, plan)

    def apply(self, context: Context, root: Dir, state: Dir, plan: JailPlan) -> list[str]:
        """Hash what its root will be made of: then `start` takes no longer than copying does."""
        if plan.jail.platform is running_platform():
            with contextlib.suppress(LayoutError):  # start says what is missing
                thin_cache.learn(state, root_of(context, plan))
        return []

    def findings(self, context: Context, root: Dir, plan: JailPlan, *, quick: bool) -> Iterator[Finding]:
        """Compare a running jail with its closure; a stopped one has left nothing."""
        name = plan.jail.name
        with root.open(".layout") as state:
            record = thin_cache.recorded(state, name)
            running = self.running(context, plan)
            if running is None:
                yield from _left(context, root, plan)
                return
            if self._by_script(context, plan):
                if not quick:
                    yield from _content_of_script(context, state, plan)
                return
            if record is None:
                hint = f"layout restart {name}"
                yield error("T2-root", name, "no record of its root", "the record of layout start", hint)
                return
            if running_platform() is Platform.LINUX:
                yield from _shown(living(context, plan, record), running)
            else:
                from layout.actions.kinds import thin_freebsd

                yield from thin_freebsd.findings(plan)
            if not quick:
                yield from _content(state, record, name)
            yield from _stale(context, plan, record)

    def forget(self, context: Context, root: Dir, state: Dir, record: JailRecord) -> int:
        """Forget the root of a jail, and remove it if no other has the same."""
        before = thin_cache.recorded(state, record.name)
        thin_cache.forget(state, record.name)
        return len(thin_cache.collect(state)) + (before is not None)

    def artefacts(self, context: Context, plan: JailPlan) -> dict[str, Callable[[], str]]:
        """Return what starts it at boot: on FreeBSD a script that needs no layout, on Linux a unit."""
        if plan.jail.platform is not Platform.FREEBSD:
            from layout.actions import units_linux

            return {"unit": lambda: units_linux.start_unit(context, plan)}
        from layout.actions.kinds import thin_freebsd

        live = _with_root(context, plan, thin_freebsd.script_tree(plan.jail.name))
        return {"rc.d": lambda: thin_freebsd.rc_script(context, live, root_of(context, plan))}

    def manage(
        self, context: Context, plan: JailPlan, command: tuple[str, ...], options: SessionOptions
    ) -> Managed:
        """Refuse: there is nothing to manage."""
        places = ", ".join(one.source for one in plan.jail.settings.mounts) or "the profile"
        raise UsageError(
            plan.jail.name,
            "a thin jail, made anew at each start from files of the host",
            "a jail with a root of its own",
            f"its configuration is the host's: change {places}, then layout restart {plan.jail.name}",
        )

    def mounts_of_running(self, context: Context, plan: JailPlan) -> tuple[Mount, ...]:
        """Return all that it has on FreeBSD; on Linux the host sees none of it."""
        if running_platform() is Platform.LINUX or self.running(context, plan) is None:
            return ()
        return self._living(context, plan).tables.jail

    def shown(self, context: Context, plan: JailPlan) -> JailPlan:
        """Return the plan as a picture has it: with what is mounted while the jail runs."""
        return self._living(context, plan)

    def start(self, context: Context, plan: JailPlan, tell: Tell, engine: str | None) -> Running:
        """Make the root, mount it where only the service sees it, and start that."""
        if running_platform() is Platform.FREEBSD:
            from layout.actions.kinds import thin_freebsd

            thin_freebsd.refuse_engine(engine)
            live = self._living(context, plan)
            return thin_freebsd.start(context, live, tell, lambda state: provide(context, state, plan))
        from layout.actions import running_linux

        if (engine or plan.jail.settings.service.engine) not in {"auto", "bwrap"}:
            raise UsageError("--engine", str(engine), "bwrap, for a thin jail")

        def made(root: Dir, state: Dir) -> tuple[JailPlan, Own]:
            live = provide(context, state, plan)
            return live, self.own(live)

        return running_linux.start(context, self._living(context, plan), tell, "bwrap", made)

    def stop(self, context: Context, plan: JailPlan, tell: Tell) -> bool:
        """End the service, and with it the last that saw its root."""
        live = self._living(context, plan)
        if running_platform() is Platform.FREEBSD:
            from layout.actions.kinds import thin_freebsd

            return thin_freebsd.stop(context, live, tell)
        return super().stop(context, live, tell)

    def restart(self, context: Context, plan: JailPlan, tell: Tell, engine: str | None) -> Running:
        """Stop the service, if it runs, and start it from what the program is now."""
        self.stop(context, plan, tell)
        return self.start(context, plan, tell, engine)

    def running(self, context: Context, plan: JailPlan) -> Running | None:
        """Return how the jail stands."""
        if running_platform() is Platform.FREEBSD:
            from layout.actions.kinds import thin_freebsd

            return thin_freebsd.running(context, plan)
        return super().running(context, plan)

    def execute(self, context: Context, plan: JailPlan, argv: tuple[str, ...]) -> int:
        """Run a program of the root in the jail; it has no others."""
        return super().execute(context, self._living(context, plan), argv)

    def own(self, plan: JailPlan) -> Own:
        """Return those of the root that it runs in, by the plan with that."""
        from layout.actions.prepare_linux import Own

        source, target = plan.tables.jail[0].source, plan.tables.jail[0].target
        store = source.removeprefix(f"{target.removesuffix(f'/j/{plan.jail.name}')}/")
        return Own(plan.jail.name, f"{store}/etc", store)

    def drift(self, context: Context, plan: JailPlan) -> list[tuple[str, str, str]]:
        """Return in what a running service has more than it should."""
        return super().drift(context, self._living(context, plan))

    def leftovers(self, context: Context, plan: JailPlan) -> bool:
        """Take away what a crash left of a service."""
        live = self._living(context, plan)
        if running_platform() is Platform.FREEBSD:
            from layout.actions.kinds import thin_freebsd

            return thin_freebsd.leftovers(context, live)
        return super().leftovers(context, live)

    def _by_script(self, context: Context, plan: JailPlan) -> bool:
        """Say whether the root is one that the script of `layout render rc.d` has made."""
        if running_platform() is not Platform.FREEBSD:
            return False
        from layout.actions.kinds import thin_freebsd

        return thin_freebsd.is_by_script(context.site, plan.jail.name)

    def _living(self, context: Context, plan: JailPlan) -> JailPlan:
        if self._by_script(context, plan):
            from layout.actions.kinds import thin_freebsd

            return _with_root(context, plan, thin_freebsd.script_tree(plan.jail.name))
        try:
            with context.open() as root, root.open(".layout") as state:
                return living(context, plan, thin_cache.recorded(state, plan.jail.name))
        except FileNotFoundError:
            return living(context, plan, None)


def _left(context: Context, root: Dir, plan: JailPlan) -> Iterator[Finding]:
    """Yield what a jail that does not run has left of its root."""
    name = plan.jail.name
    with root.open(f"j/{name}") as place:
        left = place.names()
    if left:
        path = f"{context.site.root}/j/{name}"
        hint = f"layout stop {name}; what is no mount there is not layout's: move it aside"
        yield error("T1-left", path, f"{len(left)} entries: {', '.join(left[:5])}", "nothing", hint)


def _shown(plan: JailPlan, running: Running) -> Iterator[Finding]:
    """Yield where a running jail has another root, or can write more, than its profile says."""
    from layout.host.linux import roots

    table = plan.tables.jail
    hint = f"layout restart {plan.jail.name}"
    if running.pid is None:
        return
    own = roots.identity(table[0].source)
    seen = roots.identity(f"/proc/{running.pid}/root")
    if seen is not None and seen != own:
        found = f"another root in process {running.pid}"
        yield error("T2-root", table[0].target, found, f"the root {table[0].source}", hint)
    top = len(table[0].target)
    writable = {one.target[top:] for one in table if "rw" in one.options}
    for target, options in roots.mounts(running.pid):
        if "ro" in options:
            continue
        where = f"{target} in process {running.pid}"
        if target not in writable and not roots.is_private(target):
            yield error("T5-writable", where, "a mount that can be written", "none but the profile's", hint)
        elif "noexec" not in options:
            yield error("T5-exec", where, "a writable mount with programs", "noexec", hint)


def _content(state: Dir, record: ThinRecord, name: str) -> Iterator[Finding]:
    try:
        for path, found, expected in thin_cache.differences(state, record.digest):
            hint = f"somebody has changed it: find out who, then layout stop {name} and start it again"
            yield error("T3-content", path, found, expected, hint)
    except FileNotFoundError:
        path = state.show(f"{thin_cache.PLACE}/{record.digest}")
        yield error("T3-content", path, "nothing", "the root of a running jail", f"layout restart {name}")


def _content_of_script(context: Context, state: Dir, plan: JailPlan) -> Iterator[Finding]:
    from layout.actions.kinds import thin_freebsd

    own = thin_freebsd.script_tree(plan.jail.name)
    for path, found, expected in thin_cache.differences(
        state, thin_cache.digest_of(root_of(context, plan)), own
    ):
        hint = "a file of it has changed since it was started, or somebody changed the root: restart it"
        yield error("T3-content", path, found, expected, hint)


def _stale(context: Context, plan: JailPlan, record: ThinRecord) -> Iterator[Finding]:
    """Yield that a file of the closure has changed since the jail was started."""
    try:
        now = root_of(context, plan)
        # A new time, mode or link alone makes no other program of it.
        changed = now.key() != record.key and thin_cache.digest_of(now) != record.digest
    except LayoutError as problem:
        hint = "it runs on, but cannot be started again"
        yield warning("T4-stale", problem.path, problem.found, problem.expected, problem.hint or hint)
        return
    if changed:
        hint = f"layout restart {plan.jail.name}"
        found = "programs or libraries that have changed since it was started"
        yield warning("T4-stale", plan.jail.name, found, "those that it runs with", hint)
