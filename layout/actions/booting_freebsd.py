"""What of the host of FreeBSD has a part in starting a jail: jail.conf, rc.conf, jails that run already."""

from __future__ import annotations

from collections.abc import Sequence

from layout.core import jailconf
from layout.core.errors import LayoutError
from layout.core.findings import Finding, warning
from layout.core.model import Boot, JailPlan, Platform, Site
from layout.host import hostfiles
from layout.host.freebsd import jails, rcconf
from layout.host.site import running_platform

_CONF = "/etc/jail.conf"
_VARIABLES = ("jail_enable", "jail_list", "jail_reverse_stop", "jail_conf")
_LEGACY = ("rootdir", "hostname", "conf", "program")
"""Of jail_NAME_...: with them rc.d/jail does not use the jail's file, or not as it is."""


def check(site: Site, plans: Sequence[JailPlan]) -> dict[str, str]:
    """Make sure that nobody else has a say in how these jails run; return what rc.conf(5) lacks.

    Raises LayoutError, before anything changes. On another platform than FreeBSD there is nothing to see.
    """
    if not _is_here(site):
        return {}
    jails.require_release()
    running = {prison.name: prison for prison in jails.listed()}
    for plan in plans:
        name = plan.jail.name
        root = f"{site.root}/j/{name}"
        other = running.get(name)
        if other is not None and other.path != root:
            raise LayoutError(
                root,
                f"a running jail {name} (jid {other.jid}) with the root {other.path}",
                "no jail of this name, or this one",
                "stop it, or choose another name",
            )
    if site.trial:
        return {}
    return _check_host(plans)


def _is_here(site: Site) -> bool:
    return site.platform is Platform.FREEBSD and running_platform() is Platform.FREEBSD


def _check_host(plans: Sequence[JailPlan]) -> dict[str, str]:
    current = rcconf.values(_VARIABLES)
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
        variable = name.replace("-", "_")
        legacy = rcconf.values(f"jail_{variable}_{key}" for key in _LEGACY)
        if legacy:
            key, value = next(iter(legacy.items()))
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
    count = hostfiles.remove(jailconf.path(site, name))
    if site.trial:
        return count + hostfiles.remove(jailconf.console_log(site, name))
    if _is_here(site):
        listed = rcconf.values(["jail_list"]).get("jail_list", "").split()
        if name in listed:
            rcconf.change({"jail_list": " ".join(word for word in listed if word != name)})
    return count


def findings(site: Site, plan: JailPlan) -> list[Finding]:
    """Return what keeps a jail from starting at boot as planned, or makes it start though it should not."""
    if site.trial or not _is_here(site):
        return []
    name = plan.jail.name
    lacking = jailconf.assignments([plan], rcconf.values(_VARIABLES))
    hint = f"layout init {name}; or sysrc"
    return [
        warning("S12-rc-conf", "/etc/rc.conf", f"not {key}={value}", _expected(plan), hint)
        for key, value in lacking.items()
    ]


def _expected(plan: JailPlan) -> str:
    if plan.jail.boot is Boot.NONE:
        return f"{plan.jail.name} not in jail_list: boot = 'none'"
    return f"{plan.jail.name} to start at boot"
