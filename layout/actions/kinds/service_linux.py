"""Kind service on Linux: a drop-in for a unit that systemd has already, checked offline before it is written.

Where systemd is not process 1, and in a trial, the drop-in is written only, and `init` says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from layout.actions.coming_up import until_ready
from layout.actions.context import Context
from layout.actions.observe import Step
from layout.actions.telling import Tell
from layout.core.errors import LayoutError
from layout.core.findings import Finding, error
from layout.core.kinds import dropin
from layout.core.model import Jail, JailPlan, Site
from layout.core.running import Running
from layout.host import hostfiles
from layout.host.linux import dropins, procs, readiness, systemd
from layout.host.records import JailRecord
from layout.host.run import run

_STEP = 0.1
"""Seconds between two questions to systemd."""
_SETTLE = 0.5
"""Seconds that a service without a ready check has to stay there."""


def check(context: Context, plan: JailPlan) -> None:
    """Make sure that there is such a unit, and that systemd can do what the words say.

    Raises UsageError, LayoutError.
    """
    jail = plan.jail
    where = f"profile {jail.profile}: linux.confine.options"
    dropin.check(jail.settings.confine, where)
    dropin.check_unit(dropin.unit_name(jail))
    path = _path(context.site, dropin.unit_name(jail))
    there = hostfiles.read_text(path)
    if there is not None and not dropin.is_ours(there):
        hint = "give it another name: layout's own is layout.conf"
        raise LayoutError(path, "a drop-in that layout has not written", "none, or layout's", hint)
    found = _analysis(context.site, jail)
    if found is not None and found.faults:
        hint = "another release of systemd? please report it"
        raise LayoutError(path, f"what systemd does not take: {found.faults[0]}", "a sound drop-in", hint)


def _directory(site: Site) -> str:
    return f"{site.etc}/systemd" if site.trial else dropins.SYSTEM


def _path(site: Site, unit: str) -> str:
    """Return where the drop-in is; a trial leaves /etc/systemd alone."""
    return f"{_directory(site)}/{unit}.d/{dropin.NAME}"


def _unit(site: Site, jail: Jail) -> dropins.Unit:
    name = dropin.unit_name(jail)
    found = dropins.find(name, _path(site, name), _directory(site))
    if found is None:
        hint = "install the service, or say `service.unit` in the profile"
        raise LayoutError(f"/usr/lib/systemd/system/{name}", "nothing", "a unit of this host", hint)
    return found


def _text(site: Site, jail: Jail) -> str:
    unit = _unit(site, jail)
    return dropin.render(jail, dropin.parse([unit.text, *unit.dropins]))


def _analysis(site: Site, jail: Jail) -> dropins.Analysis | None:
    unit = _unit(site, jail)
    return dropins.analyze(dropin.unit_name(jail), unit, _text(site, jail))


def _exposure(site: Site, jail: Jail) -> str:
    found = _analysis(site, jail)
    if found is None or found.before is None or found.after is None:
        return "unknown: there is no systemd-analyze"
    return f"{found.after:.1f} of 10, {found.before:.1f} without it (systemd-analyze security)"


def _is_live(site: Site) -> bool:
    return not site.trial and systemd.is_booted()


def steps(context: Context, plan: JailPlan) -> list[Step]:
    """Return what `apply` would do now."""
    site, jail = context.site, plan.jail
    name = dropin.unit_name(jail)
    path = _path(site, name)
    if hostfiles.read_text(path) == _text(site, jail):
        return []
    found = [Step("write", path, f"a drop-in; exposure {_exposure(site, jail)}")]
    if _is_live(site):
        found.append(Step("reload", "systemd", "so that it reads the drop-in"))
        if systemd.main_process(name) is not None:
            found.append(Step("restart", name, "so that it loses what the drop-in takes"))
    return found


def apply(context: Context, plan: JailPlan) -> list[str]:
    """Write the drop-in; restart the service, if it runs and systemd is here; return what was done.

    When it does not come up with it, the drop-in is what it was before. Raises LayoutError.
    """
    site, jail = context.site, plan.jail
    name = dropin.unit_name(jail)
    path = _path(site, name)
    text, before = _text(site, jail), hostfiles.read_text(path)
    if before == text:
        return []
    hostfiles.write_text(path, text, 0o644)
    if not _is_live(site):
        why = "this is a trial" if site.trial else "systemd is not process 1"
        return [f"{path}: written only, for {why}"]
    ran = systemd.main_process(name) is not None
    try:
        systemd.reload()
        if ran:
            systemd.restart(name)
            _wait_until_ready(jail, name)
    except BaseException:
        if before is None:
            _take_away(path)
        else:
            hostfiles.write_text(path, before, 0o644)
        systemd.reload()
        if ran:
            systemd.restart(name)
        raise
    return [path, f"{name}: restarted"] if ran else [path]


def _take_away(path: str) -> bool:
    gone = hostfiles.remove(path)
    dropins.remove_directory(path.rpartition("/")[0])
    return gone


def _wait_until_ready(jail: Jail, unit: str) -> None:
    """Wait until the service works. Raises LayoutError with its last words."""
    ready = jail.settings.service.ready

    def look(left: float) -> str | None:
        pid = systemd.main_process(unit)
        if pid is None:
            words = " | ".join(systemd.last_words(unit))
            said = f"; its last words: {words}" if words else ""
            hint = f"journalctl -u {unit}; an option that it needs may be lacking"
            raise LayoutError(unit, f"a service that ended at once{said}", "one that goes on", hint)
        return readiness.problem(
            ready, pid, lambda argv: run(*argv, ok=range(256), timeout=ready.timeout).status
        )

    why = until_ready(ready, look, _STEP, _SETTLE)
    if why:
        hint = f"journalctl -u {unit}"
        raise LayoutError(unit, f"not ready after {ready.timeout} s: {why}", "its ready check to pass", hint)


# --- looking ------------------------------------------------------------------------------------------


def findings(context: Context, plan: JailPlan) -> list[Finding]:
    """Return in what the service is not confined as planned."""
    site, jail = context.site, plan.jail
    name = dropin.unit_name(jail)
    path = _path(site, name)
    try:
        wanted = _text(site, jail)
    except LayoutError as problem:
        return [error("S5-unit", problem.path, problem.found, problem.expected, problem.hint)]
    text = hostfiles.read_text(path)
    found = []
    if text != wanted:
        seen = "nothing" if text is None else "another drop-in than the profile makes"
        found.append(error("S12-dropin", path, seen, "the drop-in of this service", "layout init NAME"))
    if not _is_live(site):
        return found
    if path not in systemd.dropins_of(name):
        hint = "systemctl daemon-reload, then layout restart NAME"
        found.append(error("S3-dropin", path, "a drop-in that systemd has not read", "one in use", hint))
    pid = systemd.main_process(name)
    if pid is None:
        return found
    if dropins.is_older(pid, path):
        seen = f"process {pid}, started before the drop-in was written"
        found.append(error("S3-dropin", name, seen, "it to be started since", "layout restart NAME"))
    for more in dropins.has_more(pid, dropin.taken(jail.settings.confine)):
        hint = "layout restart NAME; another drop-in may come after: systemctl cat"
        found.append(error("S2-dropin", f"process {pid}", more, "what the drop-in leaves it", hint))
    return found


def rows(context: Context, plan: JailPlan) -> list[tuple[str, str]]:
    """Return what a picture tells of it."""
    jail, site = plan.jail, context.site
    name = dropin.unit_name(jail)
    return [
        (name, f"a unit of the host, confined by {_path(site, name)}"),
        ("options", " ".join(jail.settings.confine.options) or "none"),
        ("exposure", _exposure(site, jail)),
    ]


def artefacts(context: Context, plan: JailPlan) -> dict[str, Callable[[], str]]:
    """Return what `layout render` can print for it."""
    return {"dropin": lambda: _text(context.site, plan.jail)}


# --- start and stop ---------------------------------------------------------------------------------------


def _require_live(site: Site, name: str) -> None:
    if site.trial:
        hint = "without --root; or copy the drop-in to /etc/systemd/system"
        raise LayoutError(
            _path(site, name), "a trial, which systemd does not read", "ROOT of this host", hint
        )
    systemd.require_booted()


def start(context: Context, plan: JailPlan, tell: Tell) -> Running:
    """Start the unit with its drop-in, and wait until it is ready. Raises LayoutError."""
    site, jail = context.site, plan.jail
    name = dropin.unit_name(jail)
    _require_live(site, name)
    check(context, plan)
    found = running(context, plan)
    if found is not None:
        return found
    if hostfiles.read_text(_path(site, name)) != _text(site, jail):
        hint = f"layout init {jail.name}"
        raise LayoutError(_path(site, name), "no drop-in of the profile", "the one that it makes", hint)
    systemd.reload()
    systemd.start(name)
    _wait_until_ready(jail, name)
    after = running(context, plan)
    if after is None:
        raise LayoutError(name, "a service that ended at once", "one that goes on", f"journalctl -u {name}")
    return after


def stop(context: Context, plan: JailPlan, tell: Tell) -> bool:
    """Stop the unit. Raises LayoutError."""
    name = dropin.unit_name(plan.jail)
    if not _is_live(context.site) or systemd.main_process(name) is None:
        return False
    systemd.stop(name)
    if systemd.main_process(name) is not None:
        raise LayoutError(name, "a unit that goes on", "it to stop", f"systemctl status {name}")
    return True


def running(context: Context, plan: JailPlan) -> Running | None:
    """Return how the unit stands, as systemd says, or None when it does not run."""
    from layout.core.kinds import service

    name = dropin.unit_name(plan.jail)
    pid = systemd.main_process(name) if _is_live(context.site) else None
    known = procs.identify(pid) if pid is not None else None
    if known is None:
        return None
    return Running(
        "systemd",
        "full",
        pid=known.pid,
        since=procs.since(known),
        uptime=procs.uptime(known),
        log=f"journalctl -u {name}",
        notes=tuple(service.remarks(plan.jail.settings.confine, plan.jail.platform)),
    )


def execute(context: Context, plan: JailPlan, argv: Sequence[str]) -> int:
    """Run a command with what the drop-in leaves the service; return its exit status. Raises LayoutError."""
    site, jail = context.site, plan.jail
    if running(context, plan) is None:
        raise LayoutError(jail.name, "not running", "a running service", f"layout start {jail.name}")
    unit = _unit(site, jail)
    own = dropin.parse([unit.text, *unit.dropins])
    given = dropin.settings(_text(site, jail))
    given += [f"{key}={own[key][-1]}" for key in ("User", "Group") if key in own]
    words = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect")
    properties = [word for line in given for word in ("--property", line)]
    done = run(*words, *properties, "--", *(argv or ("/bin/sh", "-i")), ok=range(256))
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.status


def forget(context: Context, record: JailRecord) -> int:
    """Take the drop-in away; restart the service without it, if it runs; return how many files went."""
    site = context.site
    name = context.profile(record.profile).linux.service.unit or f"{record.name}.service"
    path = _path(site, name)
    text = hostfiles.read_text(path)
    if text is None or not dropin.is_ours(text):
        return 0
    _take_away(path)
    if _is_live(site):
        systemd.reload()
        if systemd.main_process(name) is not None:
            systemd.restart(name)
    return 1
