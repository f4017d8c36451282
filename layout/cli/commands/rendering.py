"""`layout render`: every artefact that layout generates, on stdout."""

from __future__ import annotations

import contextlib
from enum import StrEnum
from typing import Annotated, Literal, assert_never

import typer

from layout.actions.context import Choice
from layout.cli.app import ForPlatform, Globals, Names, WithManage, WithPreset, app, globals_of
from layout.cli.output import plural
from layout.core.errors import LayoutError, UsageError
from layout.core.model import JailPlan, Platform, Preset


class Artefact(StrEnum):
    """What can be rendered."""

    FSTAB = "fstab"
    JAIL_CONF = "jail.conf"
    RC_CONF = "rc.conf"
    RC_D = "rc.d"
    RC_D_VERIFY = "rc.d-verify"
    PERIODIC = "periodic"
    CONFIG = "layout.toml"
    UNIT = "unit"
    NSPAWN = "nspawn"
    DROPIN = "dropin"
    PF_CONF = "pf.conf"
    IPNAT = "ipnat"
    NFT = "nft"


@app.command()
def render(
    ctx: typer.Context,
    kind: Annotated[Artefact, typer.Argument(help="Which artefact.", show_default=False)],
    names: Names = None,
    platform: ForPlatform = None,
    preset: WithPreset = None,
    manage: WithManage = None,
) -> None:
    """Print a generated artefact."""
    found = globals_of(ctx)
    match kind:
        case Artefact.FSTAB:
            from layout.cli.commands.mounts import fstab

            fstab(ctx, names, platform, preset, manage)
        case Artefact.RC_D if not names:
            _host_script(found, names, "rc.d/layout")
        case Artefact.RC_D_VERIFY:
            _host_script(found, names, "rc.d/layout_verify")
        case Artefact.PERIODIC:
            _host_script(found, names, "periodic/security/450.layout")
        case Artefact.CONFIG:
            _host_script(found, names, "")
        case Artefact.JAIL_CONF | Artefact.RC_CONF:
            _jails(found, kind, names, preset)
        case Artefact.UNIT | Artefact.NSPAWN | Artefact.DROPIN | Artefact.RC_D:
            _one_jail(found, kind, names or [], platform)
        case Artefact.PF_CONF | Artefact.IPNAT | Artefact.NFT:
            _rules(found, kind, names, preset)
        case _:
            assert_never(kind)


def _print(found: Globals, text: str) -> None:
    if found.output.json:
        found.output.document({"text": text})
    else:
        found.output.raw(text)


def _one_jail(found: Globals, kind: Artefact, names: list[str], platform: Platform | None) -> None:
    """Print what one jail has for itself, as its design makes it."""
    from layout.actions.kinds import design_of

    context = found.context(platform)
    if len(names) != 1:
        raise UsageError(f"layout render {kind}", plural(len(names), "name"), "one jail: a file each")
    (plan,) = found.described(context, names, Choice(platform=platform))
    known = design_of(plan.jail.kind).artefacts(context, plan)
    if kind not in known:
        words = ", ".join(sorted(known)) or "none of its own"
        hint = "without a name it is the host's" if kind is Artefact.RC_D else ""
        if kind is Artefact.RC_D and plan.jail.platform is Platform.LINUX:
            with contextlib.suppress(LayoutError):  # a profile may be for one platform only
                (there,) = context.described(names, Choice(platform=Platform.FREEBSD))
                if kind in design_of(there.jail.kind).artefacts(context, there):
                    hint += "; --platform freebsd for a jail there"
        what = f"a jail of {plan.jail.platform}, kind {plan.jail.kind}"
        raise UsageError(f"layout render {kind}", what, f"one that has it; this one has {words}", hint)
    _print(found, known[kind]())


def _jails(
    found: Globals,
    kind: Literal[Artefact.JAIL_CONF, Artefact.RC_CONF],
    names: list[str] | None,
    preset: Preset | None,
) -> None:
    """Print how jails run on FreeBSD."""
    from layout.core import jailconf

    context = found.context(Platform.FREEBSD)
    plans = found.described(context, names, Choice(preset=preset))
    if any(plan.jail.platform is not Platform.FREEBSD for plan in plans):
        plans = context.described(names or [], Choice(platform=Platform.FREEBSD, preset=preset))
    if kind is Artefact.RC_CONF:
        text = jailconf.rc_conf(plans)
    else:
        for plan in plans if names else ():
            if not jailconf.has_file(plan):
                what = f"a jail of kind {plan.jail.kind}: {plan.jail.name}"
                hint = "rc.subr(8) or a script of rc.d makes it: layout render rc.conf, or rc.d"
                raise UsageError("layout render jail.conf", what, "one that jail(8) starts by a file", hint)
        text = "".join(jailconf.render(plan, context.site) for plan in plans if jailconf.has_file(plan))
    _print(found, text)


def _rules(
    found: Globals,
    kind: Literal[Artefact.PF_CONF, Artefact.IPNAT, Artefact.NFT],
    names: list[str] | None,
    preset: Preset | None,
) -> None:
    """Print the redirects and NAT of jails, whatever their kind."""
    from layout.core import nftables, packetfilter

    platform = Platform.LINUX if kind is Artefact.NFT else Platform.FREEBSD
    context = found.context(platform)
    plans = found.described(context, names, Choice(preset=preset))
    if any(plan.jail.platform is not platform for plan in plans):
        plans = context.described(names or [], Choice(platform=platform, preset=preset))
    text = ""
    for plan in plans:
        lacking = _no_rules(plan, kind)
        if lacking:
            if names:
                hint = f"its profile says what there is: layout profile show {plan.jail.profile}"
                raise UsageError(
                    f"layout render {kind}", f"{plan.jail.name}: {lacking}", "rules to make", hint
                )
            continue
        if kind is Artefact.NFT:
            text += nftables.render(plan.jail, nftables.link_name(context.site, plan.jail.name))
        elif kind is Artefact.PF_CONF:
            text += packetfilter.render_pf(plan, context.site)
        else:
            text += packetfilter.render_ipnat(plan)
    _print(found, text)


def _no_rules(plan: JailPlan, kind: Artefact) -> str:
    """Return why a jail has no rules, or "": an empty set would look as if it did something."""
    network = plan.jail.settings.network
    if kind is Artefact.NFT:
        # They are about the link of a network of its own: without one they would be about no interface.
        return "" if network.gateway else "the host's network, no network.gateway"
    return "" if network.nat or plan.jail.settings.redirect else "no redirect and no network.nat"


def _host_script(found: Globals, names: list[str] | None, template: str) -> None:
    """Print what is for the host as a whole: a script, or (without a template) the sample configuration."""
    from layout.actions import integration

    if names:
        raise UsageError(
            "layout render", f"the jail {names[0]}", "none: this one is the host's, not a jail's"
        )
    _print(
        found, integration.script(template, found.root, found.config) if template else integration.sample()
    )
