"""The design osless: one static program in a read-only tree, no shell, no setuid, started from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from layout.actions.kinds import osless_findings, osless_tree
from layout.actions.kinds.design import Design, SessionOptions
from layout.core.errors import UsageError
from layout.core.model import Platform
from layout.host.site import running_platform

if TYPE_CHECKING:
    from layout.actions.context import Context
    from layout.actions.manage import Managed
    from layout.actions.observe import Step
    from layout.actions.prepare_linux import Decided, Own
    from layout.core.findings import Finding
    from layout.core.model import JailPlan, Site
    from layout.host.beneath import Dir
    from layout.host.records import JailRecord


class Osless(Design):
    """What differs from the shared root."""

    shares_root = False
    by_hand = (
        "it is started by layout",
        "without layout it starts by what layout render jail.conf and rc.d print",
    )
    has_devices = False

    def check(self, context: Context, plan: JailPlan) -> None:
        """Make sure that there is a static program to install, and ZFS where the site wants it."""
        if plan.jail.platform is not running_platform():
            return
        with _opened(context) as root:
            osless_tree.check(plan, context.site, root)
        if plan.jail.platform is Platform.FREEBSD:
            from layout.actions.kinds import osless_freebsd

            osless_freebsd.stale(context, plan)

    def steps(self, context: Context, plan: JailPlan) -> list[Step]:
        """Return what of the tree and the host's script is missing."""
        if plan.jail.platform is not running_platform():
            return []
        with _opened(context) as root:
            found = osless_tree.steps(plan, context.site, root)
        if plan.jail.platform is Platform.FREEBSD:
            from layout.actions.kinds import osless_freebsd
            from layout.actions.observe import Step
            from layout.core.kinds import osless

            if osless_freebsd.stale(context, plan):
                path = osless.rc_path(context.site, plan.jail.name)
                found.append(Step("write", path, "starts, stops and reports its program"))
        return found

    def apply(self, context: Context, root: Dir, state: Dir, plan: JailPlan) -> list[str]:
        """Make datasets, content and script."""
        if plan.jail.platform is not running_platform():
            return []
        done = osless_tree.make(plan, context.site)
        if plan.jail.platform is Platform.FREEBSD:
            from layout.actions.kinds import osless_freebsd

            done += osless_freebsd.write(context, plan)
        return done

    def findings(self, context: Context, root: Dir, plan: JailPlan, *, quick: bool) -> Iterable[Finding]:
        """Return what is not one static program and nothing else."""
        yield from osless_findings.findings(context, root, plan, quick=quick)
        if plan.jail.platform is running_platform() is Platform.FREEBSD:
            from layout.actions.kinds import osless_freebsd

            yield from osless_freebsd.findings(context, plan)

    def check_forget(self, context: Context, record: JailRecord) -> None:
        """Make sure that its datasets are nothing but its own."""
        osless_tree.check_forget(context.site, record.name)

    def file_systems(self, context: Context, record: JailRecord) -> dict[str, str]:
        """Return its datasets."""
        found = osless_tree.both(context.site, record.name)
        return {dataset.mountpoint: dataset.name for dataset in found}

    def forget(self, context: Context, root: Dir, state: Dir, record: JailRecord) -> int:
        """Destroy its datasets; take its script away, and what a deploy left."""
        from layout.actions.kinds import osless_update

        count = osless_tree.forget(context.site, record.name) + osless_update.forget(state, record.name)
        osless_tree.forget_place(state, record.name)
        if record.platform is running_platform() is Platform.FREEBSD:
            from layout.actions.kinds import osless_freebsd

            count += osless_freebsd.forget(context.site, record.name)
        return count

    def prepare(self, site: Site, plan: JailPlan) -> None:
        """Mount its datasets."""
        if site.zfs:
            osless_tree.require_mounted(site, plan)

    def recover(self, context: Context, root: Dir, state: Dir, record: JailRecord) -> str:
        """Finish or undo a deploy."""
        from layout.actions.kinds import osless_update

        if not osless_update.is_interrupted(state, record.name):
            return ""
        return osless_update.recover(context, context.plan_jail(context.recorded(record)), state)

    def artefacts(self, context: Context, plan: JailPlan) -> dict[str, Callable[[], str]]:
        """Return its rc.d script, on Linux a unit."""
        if plan.jail.platform is not Platform.FREEBSD:
            from layout.actions import units_linux

            return {"unit": lambda: units_linux.start_unit(context, plan)}
        from layout.actions.kinds import osless_freebsd

        return {"rc.d": lambda: osless_freebsd.script(context, plan)}

    def manage(
        self, context: Context, plan: JailPlan, command: tuple[str, ...], options: SessionOptions
    ) -> Managed:
        """Refuse: there is no shell to run, and a deploy replaces one file."""
        del command, options
        name = plan.jail.name
        hint = f"layout update {name} FILE; for its configuration: layout update {name} FILE PATH"
        raise UsageError(f"manage {name}", "a jail without a shell (kind osless)", "a jail with one", hint)

    # -- the service --------------------------------------------------------------------------------

    def decided(
        self, context: Context, root: Dir, plan: JailPlan, engine: str | None, own: Own | None
    ) -> Decided:
        """By layout itself, without an engine."""
        from layout.actions.kinds import osless_linux

        return osless_linux.decide(plan, engine)

    def begun(self, context: Context, plan: JailPlan) -> None:
        """Start the program by its rc.d script."""
        from layout.actions.kinds import osless_freebsd

        osless_freebsd.start(context, plan)

    def ready(self, context: Context, plan: JailPlan) -> None:
        """Make sure that it is the user that it should be."""
        from layout.actions.kinds import osless_freebsd

        osless_freebsd.require_user(plan)

    def ending(self, context: Context, plan: JailPlan) -> None:
        """End it by its rc.d script."""
        from layout.actions.kinds import osless_freebsd

        osless_freebsd.stop(context, plan)

    def user(self, plan: JailPlan) -> str:
        """Return the host's name of the jail's only user."""
        from layout.actions.kinds import osless_freebsd

        return osless_freebsd.user_name(plan)

    def ids(self, plan: JailPlan) -> tuple[int, int]:
        """Return the numbers of the jail's only user."""
        osless = plan.jail.settings.osless
        return osless.uid, osless.gid

    def execute(self, context: Context, plan: JailPlan, argv: tuple[str, ...]) -> int:
        """Run the program once more, as its user: there is no other one, and no shell."""
        if not argv:
            name = plan.jail.name
            hint = f"layout exec {name} -- {plan.jail.settings.service.command[0]} ..."
            raise UsageError(f"exec {name}", "no command", "one: the jail has no shell", hint)
        return super().execute(context, plan, argv)

    def drift(self, context: Context, plan: JailPlan) -> list[tuple[str, str, str]]:
        """Return in what its process has more than it should: another user, capabilities, mounts."""
        if running_platform() is Platform.FREEBSD:
            from layout.actions.kinds import osless_freebsd

            return osless_freebsd.drift(plan)
        from layout.actions.kinds import osless_linux

        return [*super().drift(context, plan), *osless_linux.drift(context, plan)]


@contextlib.contextmanager
def _opened(context: Context) -> Iterator[Dir | None]:
    """Open ROOT; None where there is none yet."""
    from layout.host.beneath import open_root

    try:
        root = open_root(context.site.root)
    except FileNotFoundError:
        yield None
        return
    with root:
        yield root
