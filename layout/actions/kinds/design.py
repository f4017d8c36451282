"""What commands ask of a design: the shared root's answers, of which the others change what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec

from layout.actions.telling import Tell
from layout.core.errors import UsageError
from layout.core.model import Platform
from layout.host.site import running_platform

if TYPE_CHECKING:
    from layout.actions.context import Context
    from layout.actions.manage import Managed
    from layout.actions.observe import Step
    from layout.actions.prepare_linux import Decided, Own
    from layout.core.findings import Finding
    from layout.core.model import JailPlan, Mount, Site
    from layout.core.profile import Profile
    from layout.core.running import Running
    from layout.host.beneath import Dir
    from layout.host.records import JailRecord


class SessionOptions(msgspec.Struct, frozen=True):
    """What an administrator wants of a session."""

    sealed: bool = False
    """Without the jail's t, and a fresh one from the skeleton in its place."""
    base_ro: bool = False
    """With mroot read-only."""
    chroot: bool = False
    """FreeBSD's plain chroot(8), which confines nothing."""
    to_stderr: bool = False
    """What the command writes to its stdout comes out on stderr."""


class Design:
    """The shared root."""

    shares_root = True
    """Its jails see one mroot, which none of them can change."""
    by_hand = ("", "")
    """For a kind that `plan --script` does not build: what else there is, on Linux and on FreeBSD."""
    is_world = False
    """Its root can change all that it sees, setuid programs as well: that is by design."""
    is_of_host = False
    """It is a part of the host that only its profile names; nobody walks through its tree, the host's."""
    is_made_at_start = False
    """Its root is there only while it runs."""
    has_devices = True
    """It has a /dev."""
    unrecorded = False
    """On FreeBSD, what a crash leaves of its service is known to the system, and to no record of layout."""

    # -- trees ------------------------------------------------------------------------------------

    def check(self, context: Context, plan: JailPlan) -> None:
        """Make sure that this jail can be made here, before anything is. Raises UsageError, LayoutError."""

    def steps(self, context: Context, plan: JailPlan) -> list[Step]:
        """Return what `apply` would do now."""
        return []

    def apply(self, context: Context, root: Dir, state: Dir, plan: JailPlan) -> list[str]:
        """Do what is no entry, file or mount, after those entries and files are made; return what was done.

        Idempotent: a second run has nothing to do. The caller holds the lock of ROOT. Raises LayoutError.
        """
        return []

    def findings(self, context: Context, root: Dir, plan: JailPlan, *, quick: bool) -> Iterable[Finding]:
        """Return what is not as this design promises, besides mounts, entries and trees."""
        return ()

    def check_forget(self, context: Context, record: JailRecord) -> None:
        """Make sure that `forget` will go through, before anything is removed. Raises LayoutError."""

    def file_systems(self, context: Context, record: JailRecord) -> dict[str, str]:
        """Return the file systems that are the jail itself, mount point to name: `forget` removes them."""
        return {}

    def forget(self, context: Context, root: Dir, state: Dir, record: JailRecord) -> int:
        """Take away what `apply` did, before the trees go; return how many things were removed.

        The caller holds the locks, and nothing is mounted or runs. Raises LayoutError.
        """
        return 0

    def artefacts(self, context: Context, plan: JailPlan) -> dict[str, Callable[[], str]]:
        """Return what `layout render` can print for this one jail, by name: makers of its text."""
        if plan.jail.platform is not Platform.LINUX:
            return {}
        from layout.actions import units_linux

        return {
            "unit": lambda: units_linux.unit(context, plan),
            "nspawn": lambda: units_linux.nspawn(context, plan),
        }

    def mounts_of_running(self, context: Context, plan: JailPlan) -> tuple[Mount, ...]:
        """Return what the host sees mounted only while the jail runs. Raises LayoutError."""
        from layout.actions import mounting

        return mounting.of_running(context.site, plan)

    def shown(self, context: Context, plan: JailPlan) -> JailPlan:
        """Return the plan as a picture has it."""
        return plan

    def remarks(self, plan: JailPlan) -> list[str]:
        """Say what an administrator should know before and after it is made."""
        return []

    def explained(self, profile: Profile) -> list[tuple[str, list[str]]]:
        """Say what the words of a profile mean, where that is not plain: by platform, a line of it each."""
        return []

    def rows(self, context: Context, plan: JailPlan) -> list[tuple[str, str]]:
        """Return what a picture tells besides mounts: names and what they are, the jail's own first."""
        return []

    def prepare(self, site: Site, plan: JailPlan) -> None:
        """Mount the file systems that the jail itself is made of, where it has any. Raises LayoutError."""

    def recover(self, context: Context, root: Dir, state: Dir, record: JailRecord) -> str:
        """Finish or undo work of its own that was interrupted; say what was done, "" for nothing.

        The caller holds the lock of ROOT. Raises LayoutError.
        """
        return ""

    # -- sessions -----------------------------------------------------------------------------------

    def manage(
        self, context: Context, plan: JailPlan, command: tuple[str, ...], options: SessionOptions
    ) -> Managed:
        """Run an administrator's session; see layout.actions.manage.manage."""
        from layout.actions import manage

        return manage.session(context, plan, command, options)

    # -- the service; see layout.actions.running ----------------------------------------------------

    def start(self, context: Context, plan: JailPlan, tell: Tell, engine: str | None) -> Running:
        """Start the service and wait until it is ready."""
        if running_platform() is Platform.LINUX:
            from layout.actions import running_linux

            return running_linux.start(context, plan, tell, engine)
        if engine not in {None, "auto"}:
            raise UsageError("--engine", str(engine), "Linux: on FreeBSD it is always jail(8)")
        from layout.actions import running_freebsd

        return running_freebsd.start(context, plan, tell)

    def decided(
        self, context: Context, root: Dir, plan: JailPlan, engine: str | None, own: Own | None
    ) -> Decided:
        """Linux: decide how it is started, before anything is done. Raises LayoutError, UsageError."""
        from layout.actions import prepare_linux

        return prepare_linux.decide(context, root, plan, engine, own)

    def begun(self, context: Context, plan: JailPlan) -> None:
        """FreeBSD: start what jail(8) does not start itself, in a jail that it has. Raises LayoutError."""

    def ready(self, context: Context, plan: JailPlan) -> None:
        """FreeBSD: look at a service that says it is ready. Raises LayoutError; it is stopped then."""

    def ending(self, context: Context, plan: JailPlan) -> None:
        """FreeBSD: end what `begun` has started, before jail(8) ends the rest."""

    def stop(self, context: Context, plan: JailPlan, tell: Tell) -> bool:
        """End the service; say whether there was one."""
        found: bool = _here().stop(context, plan, tell)
        return found

    def restart(self, context: Context, plan: JailPlan, tell: Tell, engine: str | None) -> Running:
        """Stop the service, if it runs, and start it."""
        if running_platform() is Platform.LINUX:
            self.stop(context, plan, tell)
            return self.start(context, plan, tell, engine)
        from layout.actions import running_freebsd

        return running_freebsd.restart(context, plan, tell)

    def running(self, context: Context, plan: JailPlan) -> Running | None:
        """Return how the jail stands."""
        if running_platform() is Platform.LINUX:
            from layout.actions import standing_linux

            return standing_linux.running(context, plan)
        from layout.actions import running_freebsd

        return running_freebsd.running(context, plan)

    def execute(self, context: Context, plan: JailPlan, argv: tuple[str, ...]) -> int:
        """Run a command in the running jail; return its exit status."""
        found: int = _here().execute(context, plan, argv)
        return found

    def user(self, plan: JailPlan) -> str:
        """FreeBSD: return the host's name of the user that a command in the jail is run as; "" is its root.

        Raises LayoutError.
        """
        return ""

    def ids(self, plan: JailPlan) -> tuple[int, int] | None:
        """Linux: return user and group that a command in the jail is run as; None is its root."""
        return None

    def own(self, plan: JailPlan) -> Own:
        """Linux: return where the accounts and programs of a jail are, of a thin one while it runs."""
        from layout.actions.prepare_linux import Own

        return Own.shared(plan.jail.name)

    def prison(self, plan: JailPlan) -> str:
        """FreeBSD: return the name by which jail(8) knows it. Raises UsageError."""
        return plan.jail.name

    def drift(self, context: Context, plan: JailPlan) -> list[tuple[str, str, str]]:
        """Return in what a running service has more than it should."""
        if running_platform() is not Platform.LINUX:  # jail(8) is asked by layout.actions.booting_freebsd
            return []
        from layout.actions import running_linux

        return running_linux.drift(context, plan)

    def leftovers(self, context: Context, plan: JailPlan) -> bool:
        """Take away what a crash left of a service; say whether there was something."""
        if running_platform() is not Platform.LINUX:  # jail(8) keeps no records of ours
            return False
        from layout.actions import running_linux

        return running_linux.leftovers(context, plan)


def _here() -> ModuleType:
    """Return the module of this platform; only that one is loaded."""
    if running_platform() is Platform.LINUX:
        from layout.actions import running_linux

        return running_linux
    from layout.actions import running_freebsd

    return running_freebsd
