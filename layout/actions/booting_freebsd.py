"""What of the host of FreeBSD has a part in starting a jail: jail.conf, rc.conf, jails that run already."""

from __future__ import annotations

from collections.abc import Sequence

from layout.core import fstab, hostblock, jailconf, packetfilter
from layout.core.errors import LayoutError
from layout.core.findings import Finding, error, warning
from layout.core.model import Boot, JailPlan, Platform, Site
from layout.core.plan import host_files
from layout.host import hostfiles
from layout.host.freebsd import jails, rcconf
from layout.host.site import running_platform

_CONF = "/etc/jail.conf"
_LEGACY = ("rootdir", "hostname", "conf", "program")
"""Of jail_NAME_...: with them rc.d/jail does not use the jail's file, or not as it is."""


def check(site: Site, plans: Sequence[JailPlan]) -> dict[str, str]:
    """Make sure that nobody else has a say in how these jails run; return what rc.conf(5) lacks.

    Raises LayoutError, before anything changes. On another platform than FreeBSD there is nothing to see.
    """
    plans = [plan for plan in plans if jailconf.has_file(plan)]
    if not _is_here(site) or not plans:
        return {}
    jails.require_release()
    running = {prison.name: prison for prison in jails.listed()}
    for plan in plans:
        jails.refuse_other(running.get(plan.jail.name), f"{site.root}/j/{plan.jail.name}")
    if site.trial:
        return {}
    return _check_host(site, _by_file(plans))


def refuse_running(site: Site, plans: Sequence[JailPlan]) -> None:
    """Make sure that no running jail gets other files. Raises LayoutError.

    jail(8) stops a jail by its file: with another one it would not unmount what it has mounted.
    """
    if not _is_here(site):
        return
    running = {prison.path: prison for prison in jails.listed()}
    for plan in plans:
        prison = running.get(f"{site.root}/j/{plan.jail.name}")
        if prison is None:
            continue
        for file in host_files(plan, site):
            text = hostfiles.read_text(file.path)
            if text is not None and text != file.text:
                found = f"a file that jail {plan.jail.name} (jid {prison.jid}) runs by"
                hint = f"layout stop {plan.jail.name}, then layout init again"
                raise LayoutError(file.path, found, "a stopped jail when it changes", hint)


def _by_file(plans: Sequence[JailPlan]) -> list[JailPlan]:
    """Return the jails that jail(8) starts by a file of their own."""
    return [plan for plan in plans if plan.tables.jail]


def _is_here(site: Site) -> bool:
    return site.platform is Platform.FREEBSD and running_platform() is Platform.FREEBSD


def _refuse_in_fstab(site: Site, plan: JailPlan) -> None:
    """Make sure that what jail(8) mounts is not mounted at boot by the host's fstab as well."""
    if plan.jail.boot is not Boot.JAIL:
        return
    path = site.host_fstab
    targets = {mount.target for mount in plan.tables.jail}
    for line in (hostblock.block(hostfiles.read_text(path) or "", path) or "").splitlines():
        mount = fstab.parse_line(line, Platform.FREEBSD, path)
        if mount is not None and mount.target in targets and "noauto" not in mount.options:
            raise LayoutError(
                path,
                f"a line for {mount.target}, which jail(8) is to mount",
                "the mounts of a jail in one place",
                "layout fstab --remove, and --install again with the names of the other jails",
            )


def _check_host(site: Site, plans: Sequence[JailPlan]) -> dict[str, str]:
    for plan in plans:
        _refuse_in_fstab(site, plan)
    current = rcconf.values(jailconf.variables(plans))
    conf = current.get("jail_conf") or _CONF
    text = hostfiles.read_text(conf)
    theirs = [] if text is None else jailconf.jails(text, conf)
    for plan in plans:
        name = plan.jail.name
        for block in theirs:
            if block.name == name:
                raise LayoutError(
                    f"{conf}:{block.line}",
                    f"a jail {name}",
                    "none of this name: layout writes a file of its own",
                    "move it aside, or choose another name",
                )
        # rc.d/jail looks for this file first.
        single = f"/etc/jail.{name}.conf"
        if hostfiles.read_text(single) is not None:
            raise LayoutError(single, "a file", "none", "rc.d/jail would use it: move it aside")
    legacy = rcconf.values(
        f"jail_{plan.jail.name.replace('-', '_')}_{key}" for plan in plans for key in _LEGACY
    )
    for key, value in legacy.items():
        hint = f"rc.d/jail would not use the jail's own file: sysrc -x {key}"
        raise LayoutError(f"rc.conf: {key}", repr(value), "no such variable", hint)
    wanted = jailconf.assignments(plans, current)
    names = [block.name for block in theirs if block.name != "*"]
    if names and not current.get("jail_list") and "jail_list" in wanted:
        raise LayoutError(
            conf,
            f"jails that start because jail_list is empty: {' '.join(names)}",
            "jail_list with their names, for it will have others",
            f'sysrc jail_list="{" ".join(names)}", then run this again',
        )
    return wanted


def apply(wanted: dict[str, str]) -> list[str]:
    """Set what rc.conf(5) lacks; return it as words. Raises LayoutError."""
    if wanted:
        rcconf.change(wanted)
    return [f"rc.conf: {name}={value}" for name, value in wanted.items()]


def forget(site: Site, name: str) -> int:
    """Take a jail out of the host; return the number of files removed. Raises LayoutError."""
    if site.platform is not Platform.FREEBSD:
        return 0
    count = hostfiles.remove(jailconf.path(site, name)) + hostfiles.remove(packetfilter.path(site, name))
    if site.trial:
        return count + hostfiles.remove(jailconf.console_log(site, name))
    if _is_here(site):
        listed = rcconf.values(["jail_list"]).get("jail_list", "").split()
        if name in listed:
            rcconf.change({"jail_list": " ".join(word for word in listed if word != name)})
    return count


def findings(site: Site, plan: JailPlan) -> list[Finding]:
    """Return in what a running jail is not as planned."""
    if not _is_here(site) or not _by_file([plan]):
        return []
    name = plan.jail.name
    top = f"{site.root}/j/{name}"
    found = []
    if any(prison.path == top for prison in jails.listed()):
        hint = f"layout restart {name}"
        found = [
            error("S2-jail", top, f"a running jail whose {key} is {is_}", wanted, hint)
            for key, is_, wanted in drift(site, plan)
        ]
    return found


KEPT = ("host.hostname", "enforce_statfs", "devfs_ruleset", "children.max", "securelevel")
"""Parameters of a running jail that are compared with its plan, besides what it is allowed."""


def drift(site: Site, plan: JailPlan) -> list[tuple[str, str, str]]:
    """Return each parameter in which a running jail differs from its plan, as it is, and as planned."""
    wanted = {
        name: value if isinstance(value, str) else str(value).lower()
        for name, value in jailconf.parameters(plan, site)
        if name in KEPT or name.startswith("allow.")
    }
    # What a jail has on its own when its file does not say.
    wanted |= {f"allow.{name}": "false" for name in jailconf.DEFAULT_OFF if f"allow.{name}" not in wanted}
    now = jails.parameters(plan.jail.name, list(wanted))
    return [(name, now[name], value) for name, value in wanted.items() if now.get(name, value) != value]


def host_findings(site: Site, plans: Sequence[JailPlan]) -> list[Finding]:
    """Return what of the host's rc.conf(5) keeps jails from starting at boot as planned."""
    plans = [plan for plan in plans if jailconf.has_file(plan)]
    if site.trial or not _is_here(site) or not plans:
        return []
    plans = _by_file(plans)
    lacking = jailconf.assignments(plans, rcconf.values(jailconf.variables(plans)))
    hint = "layout init NAME, or sysrc"
    return [
        warning(
            "S12-rc-conf", "/etc/rc.conf", f"not {key}={value}", "what `boot` of the jails asks for", hint
        )
        for key, value in lacking.items()
    ]
