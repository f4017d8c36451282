"""Commands of the mount tables: mount, umount, and what is rendered from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, assert_never

import typer

from layout.actions.context import Choice, Context
from layout.cli.app import ForPlatform, Names, WithManage, WithPreset, app, globals_of, need_root
from layout.cli.output import plural
from layout.core.errors import UsageError
from layout.core.model import JailPlan, Platform, Preset


@app.command()
def mount(
    ctx: typer.Context,
    names: Names = None,
    manage: Annotated[bool, typer.Option("--manage", help="The writable halves too.")] = False,
) -> None:
    """Mount jails by their tables, all of a jail's mounts or none."""
    from layout.actions import mounting

    _mounts(ctx, names, "mounted", lambda c, plans: mounting.mount(c.site, plans, manage=manage))


@app.command()
def umount(
    ctx: typer.Context,
    names: Names = None,
    manage: Annotated[bool, typer.Option("--manage", help="Only the writable halves.")] = False,
) -> None:
    """Unmount jails, deepest mount first; never lazily, never by force."""
    from layout.actions import mounting, running

    def work(context: Context, plans: Sequence[JailPlan]) -> list[str]:
        # A jail in a namespace of its own does not keep the host's mounts busy: it would lose them unseen.
        for plan in () if manage else plans:
            running.require_stopped(context, plan, "a stopped jail, before its mounts go")
        return mounting.umount(context.site, plans, manage_only=manage)

    _mounts(ctx, names, "unmounted", work)
    mounting.release_root(globals_of(ctx).context().site)


def _mounts(
    ctx: typer.Context, names: list[str] | None, word: str, work: Callable[[Context, Any], list[str]]
) -> None:
    found = globals_of(ctx)
    need_root(found, userns=False)
    context = found.context()
    plans = context.jails(names or [])
    with context.locked():
        done = work(context, plans)
    if found.output.json:
        found.output.document({"ok": True, word: done})
        return
    for target in done:
        found.output.detail(f"{word} {target}")
    found.output.result(f"{plural(len(done), 'mount')} {word}, {plural(len(plans), 'jail')}")


@app.command()
def fstab(
    ctx: typer.Context,
    names: Names = None,
    platform: ForPlatform = None,
    preset: WithPreset = None,
    manage: WithManage = None,
    install: Annotated[bool, typer.Option("--install", help="Put the table into the host's fstab.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take it out again.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even when the block was edited by hand.")] = False,
    file: Annotated[str | None, typer.Option("--file", help="This file instead of the host's fstab.")] = None,
) -> None:
    """Print the mount table, or keep it in the host's fstab."""
    from layout.actions import hostfstab

    found = globals_of(ctx)
    context = found.context(platform)
    if install and remove:
        raise UsageError("layout fstab", "--install and --remove", "one of them")
    if remove:
        changed = hostfstab.remove(file or context.site.host_fstab, force=force)
    else:
        plans = context.described(names or [], Choice(None, platform, preset, manage))
        text = hostfstab.table(plans)
        if not install:
            if found.output.json:
                found.output.document({"fstab": text})
            else:
                found.output.raw(text)
            return
        hostfstab.refuse_mounted_by_jail(file or context.site.host_fstab, plans)
        changed = hostfstab.install(file or context.site.host_fstab, text, force=force)
    if found.output.json:
        found.output.document({"ok": True, "changed": changed, "file": file or context.site.host_fstab})
    else:
        found.output.result(
            f"{file or context.site.host_fstab}: {'changed' if changed else 'as it should be'}"
        )


class Kind(StrEnum):
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


@app.command()
def render(
    ctx: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="Which artefact.", show_default=False)],
    names: Names = None,
    platform: ForPlatform = None,
    preset: WithPreset = None,
    manage: WithManage = None,
) -> None:
    """Print a generated artefact."""
    match kind:
        case Kind.FSTAB:
            fstab(ctx, names, platform, preset, manage)
        case Kind.RC_D:
            _script(ctx, names, "rc.d/layout")
        case Kind.RC_D_VERIFY:
            _script(ctx, names, "rc.d/layout_verify")
        case Kind.PERIODIC:
            _script(ctx, names, "periodic/security/450.layout")
        case Kind.CONFIG:
            _script(ctx, names, "")
        case Kind.JAIL_CONF | Kind.RC_CONF:
            _jails(ctx, kind, names, preset)
        case Kind.UNIT | Kind.NSPAWN:
            _units(ctx, kind, names)
        case _:
            assert_never(kind)


def _units(ctx: typer.Context, kind: Literal[Kind.UNIT, Kind.NSPAWN], names: list[str] | None) -> None:
    """Print how a jail runs on hosts that boot with systemd; one jail, one file."""
    from layout.actions import units_linux

    found = globals_of(ctx)
    context = found.context()
    plans = context.jails(names or [])
    if len(plans) != 1 or plans[0].jail.platform is not Platform.LINUX:
        raise UsageError(
            f"layout render {kind}", plural(len(plans), "jail"), "one jail of Linux: a file each"
        )
    text = (units_linux.unit if kind is Kind.UNIT else units_linux.nspawn)(context, plans[0])
    if found.output.json:
        found.output.document({"text": text})
    else:
        found.output.raw(text)


def _jails(
    ctx: typer.Context,
    kind: Literal[Kind.JAIL_CONF, Kind.RC_CONF],
    names: list[str] | None,
    preset: Preset | None,
) -> None:
    """Print how jails run on FreeBSD."""
    from layout.core import jailconf

    found = globals_of(ctx)
    context = found.context(Platform.FREEBSD)
    plans = context.described(names or [], Choice(preset=preset))
    if any(plan.jail.platform is not Platform.FREEBSD for plan in plans):
        plans = context.described(names or [], Choice(platform=Platform.FREEBSD, preset=preset))
    if kind is Kind.RC_CONF:
        text = jailconf.rc_conf(plans)
    else:
        text = "".join(jailconf.render(plan, context.site) for plan in plans)
    if found.output.json:
        found.output.document({"text": text})
    else:
        found.output.raw(text)


def _script(ctx: typer.Context, names: list[str] | None, template: str) -> None:
    """Print what is for the host as a whole: a script, or (without a template) the sample configuration."""
    from layout.actions import integration

    found = globals_of(ctx)
    if names:
        raise UsageError(
            "layout render", f"the jail {names[0]}", "none: this one is the host's, not a jail's"
        )
    text = integration.script(template, found.root, found.config) if template else integration.sample()
    if found.output.json:
        found.output.document({"text": text})
    else:
        found.output.raw(text)
