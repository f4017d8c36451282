"""Kind service: a service of the host that keeps the host's tree, and loses the rest."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, assert_never

from layout.actions.kinds.design import Design, SessionOptions
from layout.actions.telling import Tell
from layout.core.errors import LayoutError, UsageError
from layout.core.kinds import service as words
from layout.core.model import Platform
from layout.host.site import running_platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from layout.actions.context import Context
    from layout.actions.manage import Managed
    from layout.actions.observe import Step
    from layout.core.findings import Finding
    from layout.core.model import JailPlan
    from layout.core.profile import Profile
    from layout.core.running import Running
    from layout.host.beneath import Dir
    from layout.host.records import JailRecord


class Service(Design):
    """rc.subr(8) of FreeBSD keeps it in a jail; on Linux systemd does, by a drop-in for its unit."""

    shares_root = False
    by_hand = (
        "layout render dropin {name} is all that is written",
        "its lines are settings for sysrc(8)",
    )
    is_of_host = True

    def check(self, context: Context, plan: JailPlan) -> None:
        """Make sure that this service can be confined here. Raises UsageError, LayoutError."""
        if plan.jail.platform is not running_platform():
            hint = "layout profile check says what its options are on either"
            found = f"a service of {plan.jail.platform}"
            raise UsageError(plan.jail.name, found, f"one of this host, {running_platform()}", hint)
        _of(plan.jail.platform).check(context, plan)

    def steps(self, context: Context, plan: JailPlan) -> list[Step]:
        """Return what `apply` would do now."""
        found: list[Step] = _of(plan.jail.platform).steps(context, plan)
        return found

    def apply(self, context: Context, root: Dir, state: Dir, plan: JailPlan) -> list[str]:
        """Stop the service if it runs, confine it, start it again; return what was done."""
        done: list[str] = _of(plan.jail.platform).apply(context, plan)
        return done

    def findings(self, context: Context, root: Dir, plan: JailPlan, *, quick: bool) -> Iterable[Finding]:
        """Return in what the service is not confined as planned."""
        if plan.jail.platform is not running_platform():
            return ()
        found: list[Finding] = _of(plan.jail.platform).findings(context, plan)
        return found

    def check_forget(self, context: Context, record: JailRecord) -> None:
        """Make sure that it is known which service is given back."""
        try:
            context.recorded(record)
        except LayoutError as problem:
            hint = f"put it back: only it says which service of the host {record.name} is"
            raise UsageError(problem.path, problem.found, problem.expected, hint) from None

    def forget(self, context: Context, root: Dir, state: Dir, record: JailRecord) -> int:
        """Give the service back to the host as it was, running if it ran; return how many settings went."""
        count: int = _of(record.platform).forget(context, record)
        return count

    def artefacts(self, context: Context, plan: JailPlan) -> dict[str, Callable[[], str]]:
        """Return what `layout render` can print for it."""
        found: dict[str, Callable[[], str]] = _of(plan.jail.platform).artefacts(context, plan)
        return found

    def remarks(self, plan: JailPlan) -> list[str]:
        """Say what its options mean, and what this design does not give."""
        return words.remarks(plan.jail.settings.confine, plan.jail.platform)

    def explained(self, profile: Profile) -> list[tuple[str, list[str]]]:
        """Say what its options mean on either platform."""
        found = []
        for platform, confine in (
            (Platform.FREEBSD, profile.freebsd.confine),
            (Platform.LINUX, profile.linux.confine),
        ):
            options = " ".join(confine.options) or "none"
            turned = f": {words.spelled(confine)}" if platform is Platform.FREEBSD else ""
            means = words.explained(confine) if platform is Platform.FREEBSD else []
            found.append((f"{platform}: options {options}{turned}", list(means)))
            found += [(f"{platform}: {remark}", []) for remark in words.remarks(confine, platform)]
        return found

    def rows(self, context: Context, plan: JailPlan) -> list[tuple[str, str]]:
        """Return what it is, in place of mounts."""
        found: list[tuple[str, str]] = _of(plan.jail.platform).rows(context, plan)
        return [*found, ("files", words.NOT_GIVEN)]

    # -- sessions -----------------------------------------------------------------------------------

    def manage(
        self, context: Context, plan: JailPlan, command: tuple[str, ...], options: SessionOptions
    ) -> Managed:
        """There is nothing to manage: its files are the host's own. Raises UsageError."""
        hint = "change its files on the host; its options in the profile, then layout init"
        raise UsageError(
            plan.jail.name, "kind service, whose files are the host's", "a tree of its own", hint
        )

    # -- the service --------------------------------------------------------------------------------

    def start(self, context: Context, plan: JailPlan, tell: Tell, engine: str | None) -> Running:
        """Start the service, confined, and wait until it is ready."""
        if engine not in {None, "auto"}:
            raise UsageError("--engine", str(engine), "none for kind service: rc or systemd keeps it")
        found: Running = _of(running_platform()).start(context, plan, tell)
        return found

    def stop(self, context: Context, plan: JailPlan, tell: Tell) -> bool:
        """End the service; say whether it ran."""
        ran: bool = _of(running_platform()).stop(context, plan, tell)
        return ran

    def restart(self, context: Context, plan: JailPlan, tell: Tell, engine: str | None) -> Running:
        """Stop the service, if it runs, and start it."""
        self.stop(context, plan, tell)
        return self.start(context, plan, tell, engine)

    def running(self, context: Context, plan: JailPlan) -> Running | None:
        """Return how the service stands, or None when it does not run confined."""
        found: Running | None = _of(running_platform()).running(context, plan)
        return found

    def execute(self, context: Context, plan: JailPlan, argv: tuple[str, ...]) -> int:
        """Run a command beside the service, with no more rights; return its exit status."""
        status: int = _of(running_platform()).execute(context, plan, argv)
        return status

    def prison(self, plan: JailPlan) -> str:
        """Return the name that rc.subr(8) gives to the jail of a service."""
        return words.prison_name(words.service_name(plan.jail))

    def drift(self, context: Context, plan: JailPlan) -> list[tuple[str, str, str]]:
        """Nothing here: `findings` compares the running service with its options."""
        return []

    def leftovers(self, context: Context, plan: JailPlan) -> bool:
        """Nothing: rc and systemd keep their own records."""
        return False


def _of(platform: Platform) -> ModuleType:
    """Return the module of a platform; only that one is loaded."""
    match platform:
        case Platform.FREEBSD:
            from layout.actions.kinds import service_freebsd

            return service_freebsd
        case Platform.LINUX:
            from layout.actions.kinds import service_linux

            return service_linux
        case _:
            assert_never(platform)
