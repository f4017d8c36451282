"""Thin jails on FreeBSD: one script of sh keeps a jail and takes its root away, with layout and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from layout.actions import mounting, running_freebsd
from layout.actions.context import Context
from layout.actions.telling import Tell
from layout.core import jailconf, thin_script
from layout.core.compare import Live
from layout.core.errors import LayoutError, UsageError
from layout.core.findings import Finding, error
from layout.core.kinds.thin import STORE
from layout.core.model import JailPlan, Site
from layout.core.running import Running
from layout.core.thin import ThinRoot
from layout.core.thin_script import Places
from layout.host import hostfiles, shipped, table
from layout.host.beneath import Dir
from layout.host.freebsd import devfs, jails
from layout.host.run import run

_SLOW = 60
"""Seconds that the script gets besides the service's own time."""
_COMPARED = ("enforce_statfs", "devfs_ruleset", "securelevel")


def places(site: Site, name: str) -> Places:
    """Return where the script keeps its files; for a trial, below ROOT."""
    log = jailconf.console_log(site, name)
    if site.trial:
        return Places(f"{site.root}/{STORE}/{name}.pid", log)
    return Places(f"/var/run/{thin_script.rc_name(name)}.pid", log)


def script_tree(name: str) -> str:
    """Return the name, below ROOT/.layout/thin, of the root that the script without layout makes."""
    return f"rc-{name}"


def is_by_script(site: Site, name: str) -> bool:
    """Say whether the root of a jail is the one that the script without layout has made."""
    found = Live(table.read()).at(f"{site.root}/j/{name}")
    return bool(found) and found[-1].source == f"{site.root}/{STORE}/{script_tree(name)}"


def leftovers(context: Context, plan: JailPlan) -> bool:
    """Take away what is left of a jail whose keeper was killed; say whether there was something."""
    site, name = context.site, plan.jail.name
    if running_freebsd.own(context, plan) is not None or not Live(table.read()).below(
        f"{site.root}/j/{name}"
    ):
        return False
    stop(context, plan, lambda _: None)
    return True


def rc_script(context: Context, plan: JailPlan, root: ThinRoot) -> str:
    """Return the script that runs a jail without layout: it makes `root` itself. Raises LayoutError."""
    where = places(context.site, plan.jail.name)
    tree = plan.tables.jail[0].source
    return thin_script.script(shipped.share("rc.d/thin.in"), plan, tree, root, where)


def start(context: Context, plan: JailPlan, tell: Tell, provide: Callable[[Dir], JailPlan]) -> Running:
    """Start a jail in a root that `provide` makes, and wait until it is ready. Raises LayoutError."""
    site, name = context.site, plan.jail.name
    mounting.require_platform(site)
    jails.require_release()
    found = running(context, plan)
    if found is not None:
        return found
    devfs.require(plan.jail.settings.jail.devfs_ruleset, f"{site.root}/j/{name}/dev")
    with running_freebsd.alone(context, name), context.open() as top, top.open(".layout") as state:
        _require_sources(plan)
        plan = provide(state)
        script = _write(site, state, plan)
        log = places(site, name).log
        begin = hostfiles.size(log)
        limit = plan.jail.settings.service.stop_timeout + _SLOW
        done = run("sh", script, "onestart", ok=range(256), timeout=limit, service=True)
        try:
            if done.status or running(context, plan) is None:
                said = running_freebsd.said(done.stderr, running_freebsd.tail(log, begin))
                hint = f"what it printed is in {log}"
                raise LayoutError(name, f"a jail that did not start{said}", "it to run", hint)
            running_freebsd.wait_until_ready(context, plan, log, begin)
            found = running(context, plan)
            if found is None:
                said = running_freebsd.said(running_freebsd.tail(log, begin))
                raise LayoutError(name, f"a service that ended at once{said}", "one that goes on")
        except BaseException:
            run("sh", script, "onestop", ok=range(256), timeout=limit)
            raise
        return found


def _require_sources(plan: JailPlan) -> None:
    from layout.host.beneath import open_root

    for one in plan.jail.settings.mounts:
        try:
            open_root(one.source).close()
        except FileNotFoundError:
            raise LayoutError(one.source, "no such directory", "what the jail is to see") from None


def _write(site: Site, state: Dir, plan: JailPlan) -> str:
    name = plan.jail.name
    text = thin_script.script(
        shipped.share("rc.d/thin.in"), plan, plan.tables.jail[0].source, None, places(site, name)
    )
    state.write_whole(f"thin/{name}.sh", text.encode("utf-8", "surrogateescape"), 0o700)
    return f"{site.root}/{STORE}/{name}.sh"


def stop(context: Context, plan: JailPlan, tell: Tell) -> bool:
    """Stop a jail, and see that nothing of its root is left. Raises LayoutError."""
    site, name = context.site, plan.jail.name
    mounting.require_platform(site)
    with running_freebsd.alone(context, name), context.open() as top, top.open(".layout") as state:
        ran = running_freebsd.own(context, plan) is not None
        if not ran:
            if not Live(table.read()).below(f"{site.root}/j/{name}"):
                return False
            tell(f"{name}: what was left of it is taken away")
        if state.lstat("thin") is None:
            state.make_dir("thin", 0o700)
        script = _write(site, state, plan)
        limit = plan.jail.settings.service.stop_timeout + _SLOW
        done = run("sh", script, "onestop", ok=range(256), timeout=limit)
        for line in done.stderr.splitlines():
            tell(f"{name}: {line.rpartition('WARNING: ')[2]}")
        if jails.find(name) is not None:
            said = running_freebsd.said(done.stdout, done.stderr)
            raise LayoutError(name, f"a jail that goes on{said}", "it to stop", "see killall(1) and jail(8)")
        left = Live(table.read()).below(f"{site.root}/j/{name}")
        if left:
            hint = f"end what uses it (fstat -f), then layout stop {name} again"
            raise LayoutError(left[-1], "a mount in use", "it to go with the jail", hint)
        return ran


def running(context: Context, plan: JailPlan) -> Running | None:
    """Return how the jail stands as jls(8) says. Raises LayoutError for another's jail of this name."""
    prison = running_freebsd.own(context, plan)
    if prison is None:
        return None
    return running_freebsd.standing("jail", prison, places(context.site, prison.name).log)


def findings(plan: JailPlan) -> Iterator[Finding]:
    """Return in what a running jail has other parameters than its profile says."""
    wanted = dict(
        word.split("=", 1) for word in thin_script.parameters(plan.jail) if word.startswith(_COMPARED)
    )
    now = jails.parameters(plan.jail.name, list(wanted))
    hint = f"layout restart {plan.jail.name}"
    for key, value in wanted.items():
        if now.get(key, value) != value:
            found = f"a running jail whose {key} is {now[key]}"
            yield error("S2-jail", plan.jail.name, found, value, hint)


def refuse_engine(engine: str | None) -> None:
    """Make sure that nobody asks for an engine of Linux. Raises UsageError."""
    if engine not in {None, "auto"}:
        raise UsageError("--engine", str(engine), "Linux: on FreeBSD it is always jail(8)")
