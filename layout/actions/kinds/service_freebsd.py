"""Kind service on FreeBSD: NAME_svcj in rc.conf(5), set in the only safe order, and read back.

rc.subr(8) looks for a service where NAME_svcj says: who changes it under a running service loses that, and
can neither stop it nor see it. So it is stopped, then changed, then started again if it ran.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layout.actions import running_freebsd
from layout.actions.coming_up import until_ready
from layout.actions.context import Context
from layout.actions.observe import Step
from layout.actions.telling import Tell
from layout.core.errors import LayoutError, UsageError
from layout.core.findings import Finding, error
from layout.core.kinds import service as words
from layout.core.model import Jail, JailPlan, Site
from layout.core.release import parse
from layout.core.running import Running
from layout.host import hostfiles
from layout.host import rc_services as services
from layout.host.beneath import open_root
from layout.host.freebsd import jails, rcconf, readiness, session
from layout.host.records import JailRecord
from layout.host.run import Done, run

_STEP = 0.1
"""Seconds between two looks at a service that is coming up."""
_SETTLE = 0.3
"""Seconds that a daemon without a ready check has to stay there."""


# --- before anything is changed -----------------------------------------------------------------------


def check(context: Context, plan: JailPlan) -> None:
    """Make sure that rc.subr(8) can put this service into a jail. Raises UsageError, LayoutError."""
    jail = plan.jail
    name = words.service_name(jail)
    confine = jail.settings.confine
    where = f"profile {jail.profile}: freebsd.confine.options"
    rc_subr = services.rc_subr()
    if not words.has_service_jails(rc_subr):
        hint = "FreeBSD 15.0 and later have them; take kind thin or osless here"
        raise LayoutError(services.RC_SUBR, "no service jails", "a release that has them", hint)
    release = parse(run("uname", "-r").stdout.strip())
    if release is not None:
        words.check_release(confine, release, where)
    for word in words.unknown_words(confine, rc_subr):
        hint = "rc.subr(8) would only warn of it, and start the service without"
        raise UsageError(where, repr(word), f"a word that {services.RC_SUBR} of this host knows", hint)
    wanted = {name for name in words.parameters(confine) if name.startswith("allow.")}
    for parameter in sorted(wanted - services.privileges()) if wanted else ():
        hint = "kldload vmm" if parameter == "allow.vmm" else "a newer kernel has it"
        raise LayoutError(f"sysctl security.jail.param.{parameter}", "nothing", "a kernel that has it", hint)
    _script(name)
    for path, variable in services.overridden(name, words.all_variables(name)):
        hint = "take the line out: layout writes rc.conf(5), and that file comes after it"
        raise LayoutError(path, variable, "no variable of the service's jail", hint)
    if services.number("security.jail.jailed"):
        most, now = (services.number(f"security.jail.children.{key}") for key in ("max", "cur"))
        if now >= most and jails.find(words.prison_name(name)) is None:
            hint = "on its host: jail -m name=THIS children.max=N, and in its jail.conf"
            found = f"{now} of {most} jails in this one"
            raise LayoutError("security.jail.children.max", found, "room for one more jail", hint)


def _script(name: str) -> str:
    """Return the text of a service's script. Raises LayoutError for one that no jail can hold."""
    found = services.script(name)
    if found is None:
        hint = "install it, or say its name in `service.rc_name` of the profile"
        raise LayoutError(f"/etc/rc.d/{name}", "nothing", "the script of a service", hint)
    path, text = found
    called = words.script_name(text)
    if called != name:
        hint = f"say `service.rc_name = {called!r}`" if called else "rc.subr(8) reads NAME_svcj by that name"
        raise LayoutError(path, f"a service called {called or 'nothing'}", f"name={name}", hint)
    why = words.why_not(name, text)
    if why:
        hint = "leave it outside; kind full or shared is for what needs more than a service"
        raise LayoutError(path, why, "a service that a jail can hold", hint)
    return text


# --- rc.conf(5) -------------------------------------------------------------------------------------


def _file(site: Site, jail: str) -> str:
    """Return the file that is written; "" for rc.conf(5) itself. A trial leaves the host's alone."""
    return f"{site.etc}/rc.conf.d/{jail}" if site.trial else ""


def _lacking(site: Site, jail: Jail) -> tuple[dict[str, str], list[str]]:
    """Return which variables are to be set, and which to be taken out."""
    wanted = words.variables(jail)
    now = rcconf.values(words.all_variables(words.service_name(jail)), _file(site, jail.name))
    return (
        {key: value for key, value in wanted.items() if now.get(key) != value},
        [key for key in now if key not in wanted],
    )


def steps(context: Context, plan: JailPlan) -> list[Step]:
    """Return what `apply` would do now, in order."""
    jail = plan.jail
    name = words.service_name(jail)
    change, surplus = _lacking(context.site, jail)
    if not change and not surplus:
        return []
    where = _file(context.site, jail.name) or "/etc/rc.conf"
    again = _stands(context.site, name)
    said = {
        f"{name}_svcj": "rc.subr(8) makes the jail " + words.prison_name(name),
        f"{name}_svcj_options": f"for jail(8): {words.spelled(jail.settings.confine)}",
        f"{name}_svcj_ipaddrs": "the addresses that it may use",
    }
    found = [Step("stop", name, "before it changes, or rc.subr(8) loses it")] if again else []
    found += [Step("sysrc", where, f'{key}="{value}": {said[key]}') for key, value in change.items()]
    found += [Step("sysrc -x", where, f"{key}: no option of the profile") for key in surplus]
    found += [Step("start", name, "as it was, now in its jail")] if again else []
    return found


def apply(context: Context, plan: JailPlan) -> list[str]:
    """Set what is lacking while the service is stopped; return what was done.

    When it does not come up in its jail, everything is put back as it was. Raises LayoutError.
    """
    site, jail = context.site, plan.jail
    change, surplus = _lacking(site, jail)
    if not change and not surplus:
        return []
    name = words.service_name(jail)

    def set_all() -> None:
        rcconf.remove(surplus, _file(site, jail.name))
        rcconf.change(change, _file(site, jail.name))

    again = _changed(site, jail.name, name, set_all, lambda: _come_up(jail))
    where = _file(site, jail.name) or "rc.conf"
    done = [f"{where}: {key}={value}" for key, value in change.items()]
    done += [f"{where}: {key} taken out" for key in surplus]
    return [*done, f"{name}: stopped and started again"] if again else done


def _stands(site: Site, name: str) -> bool:
    """Say whether the service runs and has to be stopped; a trial touches no service."""
    return not site.trial and services.runs(name)


def _changed(
    site: Site, jail: str, name: str, change: Callable[[], None], come_up: Callable[[], None]
) -> bool:
    """Stop, change, start; say whether it was started again. Raises LayoutError, with all as before."""
    file = _file(site, jail)
    if file:
        hostfiles.make_directories(file.rpartition("/")[0]).close()
    before = rcconf.values(words.all_variables(name), file)
    again = _stands(site, name)
    if again:
        _end(name)
    try:
        change()
        if again:
            come_up()
    except BaseException as problem:
        if again:
            services.act(name, "stop")
        rcconf.remove([key for key in words.all_variables(name) if key not in before], file)
        rcconf.change(before, file)
        if again:
            services.act(name, "start")
            if not services.comes_up(name):
                hint = f"{_reason(problem)}; start it by hand: service {name} onestart"
                raise LayoutError(name, "a service that is down", "it to run as before", hint) from None
        raise
    return again


def _reason(problem: BaseException) -> str:
    return str(problem) or type(problem).__name__


def _end(name: str) -> None:
    prison = words.prison_name(name)

    def ended() -> bool:
        return not services.runs(name) and jails.find(prison) is None

    done = services.end(name, ended)
    if not ended():
        hint = f"nothing was changed; see service {name} onestop"
        raise LayoutError(name, f"a service that goes on{_said(done)}", "it to stop", hint)


def _come_up(jail: Jail) -> None:
    """Start the service; make sure that it is in its jail, as its options say. Raises LayoutError."""
    name = words.service_name(jail)
    log = _log(name)
    begin = hostfiles.size(log)
    done = services.act(name, "start")
    if jails.find(words.prison_name(name)) is None:
        last = running_freebsd.tail(log, begin)
        hint = f"what it printed is in {log}; what it may lack: {' '.join(words.WORDS)}"
        found = f"a service that did not start{_said(done)}{f': {last}' if last else ''}"
        raise LayoutError(name, found, "it to run in its jail", hint)
    for key, is_, wanted in _differing(jail):
        raise LayoutError(words.prison_name(name), f"{key} is {is_}", wanted, "see rc.subr(8) of this host")
    _wait_until_ready(jail, name)


def _wait_until_ready(jail: Jail, name: str) -> None:
    ready = jail.settings.service.ready
    prison = words.prison_name(name)
    hint = f"what it printed is in {_log(name)}"
    with open_root("/") as root:

        def look(left: float) -> str | None:
            if jails.find(prison) is None:
                raise LayoutError(name, "a service that ended at once", "one that goes on", hint)
            return readiness.problem(ready, prison, root, ready.socket.lstrip("/"))

        why = until_ready(ready, look, _STEP, _SETTLE)
    if why:
        raise LayoutError(name, f"not ready after {ready.timeout} s: {why}", "its ready check to pass", hint)


def _log(name: str) -> str:
    """Return the file of the host where rc.subr(8) has the output of a service go."""
    return f"/var/log/svcj_{name}_console.log"


def _said(done: Done) -> str:
    text = " | ".join((done.stdout + done.stderr).strip().splitlines())
    return f": {text}" if text else ""


# --- looking ----------------------------------------------------------------------------------------


def _differing(jail: Jail) -> list[tuple[str, str, str]]:
    wanted = words.expected(jail.settings.confine)
    # One name that the kernel does not know would have jls(8) fail for all of them.
    known = services.privileges()
    names = [name for name in wanted if not name.startswith("allow.") or name in known]
    now = jails.parameters(words.prison_name(words.service_name(jail)), names)
    return words.differing(wanted.items(), now)


def findings(context: Context, plan: JailPlan) -> list[Finding]:
    """Return in what the service is not in a jail as planned."""
    jail, site = plan.jail, context.site
    name = words.service_name(jail)
    prison = words.prison_name(name)
    found = []
    try:
        text = _script(name)
    except LayoutError as problem:
        return [error("S5-rc-d", problem.path, problem.found, problem.expected, problem.hint)]
    if not words.has_service_jails(services.rc_subr()):
        found.append(error("S5-rc-d", services.RC_SUBR, "no service jails", "a release that has them"))
    change, surplus = _lacking(site, jail)
    where = _file(site, jail.name) or "/etc/rc.conf"
    hint = "layout init NAME, which stops the service before, and starts it after"
    for key, value in change.items():
        found.append(error("S12-svcj", where, f"not {key}={value!r}", "what the profile makes", hint))
    found += [error("S12-svcj", where, key, "no such variable", hint) for key in surplus]
    for path, variable in services.overridden(name, words.all_variables(name)):
        hint = "take the line out: it wins over rc.conf(5)"
        found.append(error("S12-svcj", path, variable, "no variable of the service's jail", hint))
    if site.trial:
        return found
    running = jails.find(prison)
    if running is not None:
        found += [
            error("S2-svcj", prison, f"{key} is {is_}", wanted, "layout restart NAME")
            for key, is_, wanted in _differing(jail)
        ]
    pid = services.main_process(name, text)
    inside = services.jail_of(pid) if pid is not None else None
    if inside is not None and inside != (running.jid if running is not None else -1):
        hint = f"it was not restarted since: end process {pid} with kill, then layout start NAME"
        seen = f"process {pid} in {f'jail {inside}' if inside else 'no jail'}"
        found.append(error("S3-svcj", name, seen, f"it to run in {prison}", hint))
    return found


def rows(context: Context, plan: JailPlan) -> list[tuple[str, str]]:
    """Return what a picture tells of it."""
    jail = plan.jail
    name = words.service_name(jail)
    options = words.variables(jail)[f"{name}_svcj_options"].strip() or "none"
    return [
        (name, f"a service of the host, in the jail {words.prison_name(name)}"),
        ("options", options),
        ("parameters", f"path=/ host=inherit {words.spelled(jail.settings.confine)}"),
    ]


def artefacts(context: Context, plan: JailPlan) -> dict[str, Callable[[], str]]:
    """Return what `layout render` can print for it: of rc.conf(5) there is `render rc.conf`."""
    return {}


# --- start and stop -----------------------------------------------------------------------------------


def start(context: Context, plan: JailPlan, tell: Tell) -> Running:
    """Start the service in its jail. Raises LayoutError; it does not run then."""
    jail = plan.jail
    name = words.service_name(jail)
    _refuse_trial(context.site, jail.name)
    check(context, plan)
    found = running(context, plan)
    if found is not None:
        return found
    change, surplus = _lacking(context.site, jail)
    if change or surplus:
        hint = f"layout init {jail.name}"
        lacking = " ".join([*change, *surplus])
        raise LayoutError("/etc/rc.conf", f"other values of {lacking}", "what the profile makes", hint)
    pid = services.main_process(name, _script(name))
    if pid is not None:
        hint = "it was started before NAME_svcj was set: end it with kill".replace("NAME", name)
        raise LayoutError(name, f"process {pid}, which runs outside its jail", "nothing that runs", hint)
    try:
        _come_up(jail)
    except BaseException:
        services.act(name, "stop")
        raise
    after = running(context, plan)
    if after is None:
        raise LayoutError(name, "a service that ended at once", "one that goes on", f"see {_log(name)}")
    return after


def stop(context: Context, plan: JailPlan, tell: Tell) -> bool:
    """Stop the service with its jail, by service(8): jail(8) alone would kill it. Raises LayoutError."""
    name = words.service_name(plan.jail)
    if context.site.trial or jails.find(words.prison_name(name)) is None:
        return False
    done = services.end(name, lambda: jails.find(words.prison_name(name)) is None)
    if jails.find(words.prison_name(name)) is not None:
        hint = f"see service {name} onestop"
        raise LayoutError(name, f"a service that goes on{_said(done)}", "it to stop", hint)
    return True


def running(context: Context, plan: JailPlan) -> Running | None:
    """Return how the service stands by its jail, or None when there is none."""
    name = words.service_name(plan.jail)
    prison = None if context.site.trial else jails.find(words.prison_name(name))
    if prison is None:
        return None
    remarks = words.remarks(plan.jail.settings.confine, plan.jail.platform)
    return running_freebsd.standing("svcj", prison, _log(name), remarks)


def execute(context: Context, plan: JailPlan, argv: Sequence[str]) -> int:
    """Run a command in the jail of the service as its root; return its exit status. Raises LayoutError."""
    name = words.service_name(plan.jail)
    prison = words.prison_name(name)
    if context.site.trial or jails.find(prison) is None:
        raise LayoutError(plan.jail.name, "not running", "a running jail", f"layout start {plan.jail.name}")
    with session.held_signals():
        return session.run_session(session.Session(plan.jail.name, "/", tuple(argv), jail=prison))


def _refuse_trial(site: Site, name: str) -> None:
    if site.trial:
        hint = "without --root; or copy the lines of that file into rc.conf(5)"
        raise LayoutError(_file(site, name), "a trial, which rc(8) does not read", "ROOT of this host", hint)


def forget(context: Context, record: JailRecord) -> int:
    """Take the variables out while the service is stopped, then start it as it was; return how many went."""
    site = context.site
    file = _file(site, record.name)
    if file:
        return hostfiles.remove(file)
    profile = context.profile(record.profile)
    name = profile.freebsd.service.rc_name or record.name
    gone: list[str] = []

    def unset() -> None:
        gone.extend(rcconf.remove(words.all_variables(name)))

    def outside() -> None:
        services.act(name, "start")
        if not services.comes_up(name):
            raise LayoutError(name, "a service that does not start", "it to run outside its jail")

    if services.script(name) is None:
        unset()
    elif rcconf.values(words.all_variables(name)):
        _changed(site, record.name, name, unset, outside)
    return len(gone)
