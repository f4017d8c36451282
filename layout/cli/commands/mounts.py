"""Commands of the mount tables: mount, umount, fstab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from layout.actions.context import Choice, Context
from layout.cli.app import ForPlatform, Names, WithManage, WithPreset, app, globals_of, need_root
from layout.cli.output import plural
from layout.core.errors import UsageError
from layout.core.model import JailPlan


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
    """Unmount jails, deepest mount first. Never lazily, never by force."""
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
    plans = context.jails(names or []) if word == "mounted" else context.standing(names or [])
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
    if not (install or remove) and (force or file is not None):
        found_words = "--file" if file is not None else "--force"
        hint = "without these two the table is printed: layout fstab >FILE"
        raise UsageError("layout fstab", f"{found_words} alone", "--install or --remove with it", hint)
    if remove:
        changed = hostfstab.remove(file or context.site.host_fstab, force=force)
    else:
        plans = found.described(context, names, Choice(None, platform, preset, manage))
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
