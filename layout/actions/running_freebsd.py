"""Jails that run on FreeBSD: jail(8) starts and stops them by their own file, jls(8) says how they stand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from layout.actions import booting_freebsd, mounting, mounting_freebsd
from layout.actions.coming_up import until_ready
from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.actions.telling import Tell
from layout.core import jailconf
from layout.core.compare import Live
from layout.core.errors import LayoutError, UsageError
from layout.core.model import Boot, JailPlan, Manage, Mount
from layout.core.plan import LINKS, host_files
from layout.core.running import Running
from layout.host import hostfiles, locks, table
from layout.host.freebsd import devfs, holders, jails, readiness, session
from layout.host.freebsd.jails import Prison

_STEP = 0.1
"""Seconds between two looks at a service that is coming up."""
_SETTLE = 0.3
"""Seconds that a daemon without a ready check has to stay there."""
_LINES = 8
"""Of a log that an error shows."""


def start(context: Context, plan: JailPlan, tell: Tell) -> Running:
    """Start a jail, after those it depends on, and wait until its service is ready.

    One that runs already is left alone. Raises LayoutError; the jail does not run then.
    """
    return _start(context, plan, tell, ())


def _start(context: Context, plan: JailPlan, tell: Tell, chain: tuple[str, ...]) -> Running:
    name = plan.jail.name
    mounting.require_platform(context.site)
    booting_freebsd.check(context.site, [plan])
    found = running(context, plan)
    if found is not None:
        return found
    _check(context, plan)
    _start_dependencies(context, plan, tell, (*chain, name))
    with alone(context, name):
        tables = _by_jail(plan)
        log = jailconf.console_log(context.site, name)
        begin = hostfiles.size(log)
        with context.locked():
            mounting.prepare(context.site, [plan])
            if tables:
                # jail(8) mounts them itself, and a second nullfs on the first fails.
                live = Live(table.read())
                left = mounting_freebsd.leftovers(context.site, plan, live)
                mounting_freebsd.unmount_tree(context.site, (*tables, *left), live)
            else:
                mounting.mount(context.site, [plan])
        try:
            done = jails.started(context.site, name)
            prison = own(context, plan)
            if prison is None:
                words = said(done.stdout, done.stderr, tail(log, begin))
                hint = f"layout verify {name}; what its commands print is in {log}"
                raise LayoutError(name, f"a jail that did not start{words}", "it to run", hint)
            try:
                _read_back(plan)
                design_of(plan.jail.kind).begun(context, plan)
                wait_until_ready(context, plan, log, begin)
                design_of(plan.jail.kind).ready(context, plan)
                found = _standing(context, plan, prison)
            except BaseException:
                design_of(plan.jail.kind).ending(context, plan)
                jails.stopped(context.site, name)
                raise
        except BaseException:
            if tables and jails.find(name) is None:
                with context.locked():
                    mounting.mount(context.site, [plan])
            raise
        return found


def _check(context: Context, plan: JailPlan) -> None:
    """Make sure that the files are those of the plan, and devices will be hidden. Raises LayoutError."""
    name = plan.jail.name
    for file in host_files(plan, context.site):
        if hostfiles.read_text(file.path) != file.text:
            found = "another file than the profile makes"
            raise LayoutError(file.path, found, file.reason, f"layout init {name} writes it")
    if design_of(plan.jail.kind).has_devices:
        devfs.require(plan.jail.settings.jail.devfs_ruleset, f"{_root(context, plan)}/dev")


def _start_dependencies(context: Context, plan: JailPlan, tell: Tell, chain: tuple[str, ...]) -> None:
    for other in plan.jail.settings.jail.depend:
        if other in chain:
            loop = " -> ".join((*chain, other))
            raise UsageError(plan.jail.name, f"a loop of dependencies: {loop}", "none", "change jail.depend")
        if jails.find(other) is not None:
            continue
        ours = [one for one in context.standing([]) if one.jail.name == other]
        if not ours:
            hint = f"start {other}, or change jail.depend of profile {plan.jail.profile}"
            raise LayoutError(plan.jail.name, f"no jail {other}, which it depends on", "it to run", hint)
        if other in context.problems:
            raise context.problems[other]
        _start(context, ours[0], tell, chain)
        tell(f"{other}: started for {plan.jail.name}")


def stop(context: Context, plan: JailPlan, tell: Tell) -> bool:
    """Stop a jail by its own file, so that it ends in good order and lets go of its mounts.

    Its mounts are there again afterwards, as before `start`: what is stopped can be verified and managed as
    well. Says whether it ran. Raises LayoutError.
    """
    name = plan.jail.name
    mounting.require_platform(context.site)
    with alone(context, name):
        if own(context, plan) is None:
            return False
        _refuse_dependents(context, plan)
        design_of(plan.jail.kind).ending(context, plan)
        done = jails.stopped(context.site, name)
        if jails.find(name) is not None:
            words = said(done.stdout, done.stderr, "")
            hint = "exec.stop has to exit with 0; see jail(8)"
            raise LayoutError(name, f"a jail that goes on{words}", "it to stop", hint)
        _refuse_leftovers(context, plan)
        with context.locked():
            mounting.mount(context.site, [plan])
        return True


def _refuse_dependents(context: Context, plan: JailPlan) -> None:
    # What a broken profile says of others is not known, and keeps nobody from stopping his own.
    for other in context.standing([]):
        if plan.jail.name in other.jail.settings.jail.depend and jails.find(other.jail.name) is not None:
            raise LayoutError(
                plan.jail.name,
                f"jail {other.jail.name}, which runs and depends on it",
                "nothing that depends on it",
                f"layout stop {other.jail.name}",
            )


def _refuse_leftovers(context: Context, plan: JailPlan) -> None:
    """Make sure that jail(8) could unmount everything. Raises LayoutError that names who holds it."""
    live = Live(table.read())
    targets = [mount.target for mount in reversed(_by_jail(plan))]
    for target in (f"{_root(context, plan)}/dev", *targets):
        if live.at(target):
            who = holders.describe(holders.of(target)) or "somebody: see fstat -f"
            hint = f"the jail has stopped; end that, then layout umount {plan.jail.name}"
            raise LayoutError(target, f"a mount in use by {who}", "it to go with the jail", hint)


def restart(context: Context, plan: JailPlan, tell: Tell) -> Running:
    """Stop a jail, if it runs, and start it. Raises LayoutError."""
    stop(context, plan, tell)
    return start(context, plan, tell)


def running(context: Context, plan: JailPlan) -> Running | None:
    """Return how the jail stands as jls(8) says, or None when it does not run.

    Raises LayoutError for a jail of this name whose root is another's.
    """
    prison = own(context, plan)
    return None if prison is None else _standing(context, plan, prison)


def execute(context: Context, plan: JailPlan, argv: Sequence[str]) -> int:
    """Run a command in the running jail as its root; return its exit status.

    On a terminal of its own, for the jail could type on one that it shares with the host. Raises LayoutError,
    UsageError for a descriptor 0, 1 or 2 that a jail must not have.
    """
    name = plan.jail.name
    if own(context, plan) is None:
        raise LayoutError(name, "not running", "a running jail", f"layout start {name}")
    root = _root(context, plan)
    user = design_of(plan.jail.kind).user(plan)
    # Who is not root cannot do anything to the host's devices, and a jail with one program has none.
    dev = "/dev" if user else ""
    inside = session.Session(name, root, tuple(argv), jail=name, user=user, dev=dev)
    with session.held_signals():
        return session.run_session(inside)


# --- looking ------------------------------------------------------------------------------------------------


def _root(context: Context, plan: JailPlan) -> str:
    return f"{context.site.root}/j/{plan.jail.name}"


@contextlib.contextmanager
def alone(context: Context, name: str) -> Iterator[None]:
    """Be the only run that starts or stops a jail. Raises LayoutError that names who else does."""
    what = f"to be the only run that starts or stops {name}"
    with (
        context.open() as root,
        root.open(".layout") as state,
        locks.held(state, f"run-{name}.lock", what),
    ):
        yield


def own(context: Context, plan: JailPlan) -> Prison | None:
    """Return the running jail of this name. Raises LayoutError when it is another's."""
    prison = jails.find(plan.jail.name)
    jails.refuse_other(prison, _root(context, plan))
    return prison


def _by_jail(plan: JailPlan) -> tuple[Mount, ...]:
    """Return what jail(8) mounts and unmounts with this jail, parents first."""
    if plan.jail.boot is not Boot.JAIL:
        return ()
    always = plan.tables.manage if plan.jail.manage is Manage.BOOT else ()
    return (*always, *plan.tables.jail)


def _read_back(plan: JailPlan) -> None:
    """Make sure that the running jail has the mounts of its plan. Raises LayoutError."""
    live = Live(table.read())
    for mount in plan.tables.jail:
        if not live.at(mount.target):
            hint = f"layout restart {plan.jail.name}; layout verify {plan.jail.name} says more"
            raise LayoutError(mount.target, "nothing mounted", f"a mount of {mount.source}", hint)


def _standing(context: Context, plan: JailPlan, prison: Prison) -> Running:
    notes = [
        f"{key} is {is_}, planned is {wanted}: layout restart {prison.name}"
        for key, is_, wanted in booting_freebsd.drift(context.site, plan)
    ]
    return standing("jail", prison, jailconf.console_log(context.site, prison.name), notes)


def standing(engine: str, prison: Prison, log: str, notes: Sequence[str] = ()) -> Running:
    """Return how a jail of jail(8) stands by its oldest process; `engine` is who keeps it."""
    pids = jails.processes(prison.name)
    age = jails.age(pids[0]) if pids else None
    return Running(
        engine,
        "full",
        pid=pids[0] if pids else None,
        jid=prison.jid,
        since=None if age is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age)),
        uptime=age,
        log=log,
        notes=(*notes, *(() if pids else ("nothing runs in it",))),
    )


def wait_until_ready(context: Context, plan: JailPlan, log: str, begin: int) -> None:
    """Wait until the service works. Raises LayoutError with the last lines of its log when it does not."""
    name = plan.jail.name
    service = plan.jail.settings.service
    ready = service.ready
    socket = place(ready.socket) if plan.tables.manage else ready.socket.strip("/")
    with context.open() as top, top.open(f"j/{name}") as root:

        def look(left: float) -> str | None:
            if service.command and not jails.processes(name):
                hint = f"what it printed is in {log}"
                found = f"a service that ended at once{said(tail(log, begin))}"
                raise LayoutError(name, found, "one that goes on", hint)
            return readiness.problem(ready, name, root, socket)

        why = until_ready(ready, look, _STEP, _SETTLE)
    if why:
        found = f"a service that is not ready after {ready.timeout} s: {why}{said(tail(log, begin))}"
        hint = f"stopped again; what it printed is in {log}"
        raise LayoutError(name, found, "its ready check to pass", hint)


def place(path: str) -> str:
    """Return where a path of a jail is below its root: the links of mroot, resolved."""
    inside = path.strip("/")
    for link, target in LINKS:
        if inside == link or inside.startswith(f"{link}/"):
            return target.removeprefix("../") + inside[len(link) :]
    return inside


def tail(log: str, begin: int) -> str:
    """Return the last words of a log, without what was there before `begin`."""
    lines = hostfiles.since(log, begin).splitlines()
    return " | ".join(lines[-_LINES:])


def said(*texts: str) -> str:
    """Return what was said as the end of a sentence; nothing when nothing was."""
    words = " | ".join(" ".join(text.split()) for text in texts if text.strip())
    return f": {words}" if words else ""
