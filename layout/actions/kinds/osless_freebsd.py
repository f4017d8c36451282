"""The program of an OS-less jail on FreeBSD: started and stopped from outside, by its own rc.d script."""

from __future__ import annotations

import contextlib

from layout.actions.context import Context
from layout.core import jailconf
from layout.core.errors import LayoutError
from layout.core.findings import Finding, error
from layout.core.kinds import osless
from layout.core.model import JailPlan, Site
from layout.core.tables import hand_edited
from layout.host import hostfiles, shipped
from layout.host.freebsd import jails, rcconf
from layout.host.run import Done, run

_TEMPLATE = "rc.d/osless.in"
_MODE = 0o755
_SHOWN = 800
"""Characters of the last words of a program."""
_LINGER = 10
"""Seconds beside the daemon's own, for rc.subr(8) to see that it has ended."""


def script(context: Context, plan: JailPlan) -> str:
    """Return the rc.d script of a jail."""
    log = jailconf.console_log(context.site, plan.jail.name)
    return osless.script(shipped.share(_TEMPLATE), plan, context.site, log)


def stale(context: Context, plan: JailPlan) -> bool:
    """Say whether the script is to be written. Raises LayoutError for one that is another's, or edited."""
    path = osless.rc_path(context.site, plan.jail.name)
    text = hostfiles.read_text(path)
    if text is not None and hand_edited(text):
        hint = "nothing was changed; move it aside, then run init again"
        raise LayoutError(path, "a script that layout did not write as it is", "layout's own, or none", hint)
    return text != script(context, plan)


def write(context: Context, plan: JailPlan) -> list[str]:
    """Write the script, if it is not there as it should be; return its path. Raises LayoutError."""
    if not stale(context, plan):
        return []
    path = osless.rc_path(context.site, plan.jail.name)
    hostfiles.write_text(path, script(context, plan), _MODE)
    hostfiles.make_directories(osless.pid_path(context.site, plan.jail.name).rpartition("/")[0]).close()
    return [path]


def findings(context: Context, plan: JailPlan) -> list[Finding]:
    """Return a finding when the script is not as planned."""
    path = osless.rc_path(context.site, plan.jail.name)
    text = hostfiles.read_text(path)
    if text == script(context, plan):
        return []
    found = "nothing" if text is None else "one edited by hand" if hand_edited(text) else "an older one"
    return [error("O7-rc", path, found, "what starts its program", "move it aside, then layout init NAME")]


def forget(site: Site, name: str) -> int:
    """Take the script away, and what rc.conf(5) says of it; return the number of files removed."""
    count = hostfiles.remove(osless.rc_path(site, name)) + hostfiles.remove(osless.pid_path(site, name))
    variable = f"{osless.rc_name(name)}_enable"
    if not site.trial and variable in rcconf.values([variable]):
        run("sysrc", "-x", variable)
    return count


def start(context: Context, plan: JailPlan) -> None:
    """Start the program in its running jail. Raises LayoutError with what the script said."""
    log = jailconf.console_log(context.site, plan.jail.name)
    begin = hostfiles.size(log)
    done = _call(context, plan, "onestart")
    if done.status != 0:
        last = hostfiles.since(log, begin)[-_SHOWN:]
        said = " ".join(f"{done.stderr or done.stdout} {last}".split())
        hint = f"what it printed is in {log}"
        raise LayoutError(plan.jail.name, f"a program that did not start: {said}", "it to start", hint)


def stop(context: Context, plan: JailPlan) -> None:
    """End the program, if it runs; jail(8) ends what does not heed that."""
    with contextlib.suppress(LayoutError):
        _call(context, plan, "onestop")
    if plan.jail.settings.osless.self_jailing:
        # One that has not entered the jail is not found there by rc.subr(8).
        pid = (hostfiles.read_text(osless.pid_path(context.site, plan.jail.name)) or "").strip()
        if pid.isdigit() and _is_program(pid, plan):
            run("kill", "-TERM", pid, ok=range(256))


def _is_program(pid: str, plan: JailPlan) -> bool:
    """Say whether a process is the jail's program: a file that outlived it may name anybody's."""
    name = run("ps", "-o", "comm=", "-p", pid, ok=range(256)).stdout.strip()
    # The kernel keeps the beginning of it (MAXCOMLEN).
    return bool(name) and plan.jail.settings.service.command[0].rpartition("/")[2].startswith(name)


def status(context: Context, plan: JailPlan) -> str:
    """Return what the script says of it."""
    return _call(context, plan, "onestatus").stdout.strip()


def _call(context: Context, plan: JailPlan, method: str) -> Done:
    path = osless.rc_path(context.site, plan.jail.name)
    limit = plan.jail.settings.service.stop_timeout + _LINGER
    return run("/bin/sh", path, method, ok=range(256), timeout=limit, service=True)


def user_name(plan: JailPlan) -> str:
    """Return the host's name of the user that the profile gives by number. Raises LayoutError."""
    settings = plan.jail.settings.osless
    name = run("id", "-un", str(settings.uid), ok=range(256)).stdout.strip()
    group = run("id", "-g", name, ok=range(256)).stdout.strip() if name else ""
    if group != str(settings.gid):
        found = f"no user {settings.uid} with group {settings.gid}"
        raise LayoutError("passwd(5) of the host", found, f"who {plan.jail.name} runs as", "see pw(8)")
    return name


def require_user(plan: JailPlan) -> None:
    """Make sure that the program runs as the user of the profile. Raises LayoutError."""
    for where, found, expected in drift(plan):
        hint = "let it drop root itself by its arguments, or leave osless.drops_root out"
        raise LayoutError(where, found, expected, hint)


def drift(plan: JailPlan) -> list[tuple[str, str, str]]:
    """Return each process of the jail that runs as another user than planned."""
    wanted = plan.jail.settings.osless.uid
    found = []
    for pid in jails.processes(plan.jail.name):
        uid = run("ps", "-o", "uid=", "-p", str(pid), ok=range(256)).stdout.strip()
        if uid and uid != str(wanted):
            found.append((f"process {pid} of {plan.jail.name}", f"user {uid}", f"user {wanted}"))
    return found
