"""How an OS-less jail is started on Linux: by layout itself, as one user with one capability at most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

from layout.actions import prepare_linux, standing_linux
from layout.actions.context import Context
from layout.core.errors import UsageError
from layout.core.model import JailPlan
from layout.host.linux import namespaces_filter, procs, stage, veth
from layout.host.linux.engines import Spec, direct


@dataclass(frozen=True, slots=True, kw_only=True)
class OslessRun(prepare_linux.Decided):
    """A run without an engine."""

    jail: direct.Direct

    @property
    def engine_environment(self) -> dict[str, str]:
        """Return none: there is no engine."""
        return {}

    @property
    def tightened(self) -> tuple[str, ...]:
        """Return none: nothing is mounted but the jail's own mounts."""
        return ()

    @property
    def gated(self) -> bool:
        """Nothing is left to be done when the program starts."""
        return False

    @property
    def become(self) -> Callable[[], NoReturn]:
        """What the process becomes: the program."""
        return self.jail.become

    @property
    def held(self) -> list[int]:
        """Descriptors that `prepare` opens."""
        return self.jail.held

    def joined(self, namespace: int) -> int:
        """Return -1: it is a user of the host who is none inside either."""
        del namespace
        return -1

    def arguments(self) -> tuple[str, ...]:
        """Return the program's."""
        return self.jail.command

    def prepare(self, namespace: int) -> None:
        """In the process's own mount namespace: show the jail's mounts, and nothing else."""
        self.jail.open()
        if self.own_network:
            veth.separate()
        stage.move_in(self.spec.mountpoint, namespace)


def drift(context: Context, plan: JailPlan) -> list[tuple[str, str, str]]:
    """Return where the running process is another user than planned."""
    found = standing_linux.running(context, plan)
    if found is None or found.pid is None:
        return []
    settings = plan.jail.settings.osless
    status = procs.status(found.pid)
    return [
        (f"process {found.pid}", f"{key} {' '.join(set(status[key].split()))}", f"{key} {wanted}")
        for key, wanted in (("Uid", settings.uid), ("Gid", settings.gid))
        if key in status and set(status[key].split()) != {str(wanted)}
    ]


def decide(plan: JailPlan, engine: str | None) -> OslessRun:
    """Decide how the jail is started. Raises LayoutError, UsageError."""
    jail, service, osless = plan.jail, plan.jail.settings.service, plan.jail.settings.osless
    prepare_linux.check_service(jail)
    if engine not in {None, "auto", direct.NAME}:
        raise UsageError("--engine", str(engine), f"'auto': layout itself starts a jail of kind {jail.kind}")
    prepare_linux.refuse_taken_ports(jail.name, service, jail.settings.network)
    network = jail.settings.network
    hostname = network.hostname or jail.name
    spec = Spec(
        name=jail.name,
        mountpoint=plan.tables.jail[0].target,
        command=service.command,
        environment=service.variables,
        capabilities=service.capabilities,
        hostname=hostname,
        network=not network.is_none,
        directories=(),
        shift=0,
    )
    run = direct.Direct(
        name=jail.name,
        command=service.command,
        environment=service.variables,
        uid=osless.uid,
        gid=osless.gid,
        capabilities=service.capabilities,
        hostname=hostname,
        network=not network.is_none,
        program=osless.program if osless.self_jailing else "",
    )
    notes: tuple[str, ...] = ()
    if not namespaces_filter.is_known():
        notes = ("it can make a user namespace, and mount there: no filter for this machine",)
    grade: Literal["full", "weak"] = "weak" if notes else "full"
    return OslessRun(direct.NAME, "", spec, grade, notes, bool(network.gateway), jail=run)
