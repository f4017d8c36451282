"""What a jail of Linux is started with: engine, accounts, ports, and how far it can be kept apart here."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, NoReturn

from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.core import accounts, units
from layout.core.errors import LayoutError, UsageError, reason_of
from layout.core.model import Jail, JailPlan
from layout.core.service import Network, Service, Settings, address_of
from layout.host import run
from layout.host.beneath import Dir
from layout.host.linux import confined, enter, launch, ports, procs, session, stage, veth
from layout.host.linux.engines import Spec, bwrap, nspawn
from layout.host.site import in_user_namespace

ENGINES: dict[str, ModuleType] = {"bwrap": bwrap, "nspawn": nspawn}
"""In the order in which 'auto' takes them: with bwrap, nothing that can be written can be executed."""

ENGINES_OF_WORLDS = ("nspawn", "bwrap")
"""The order for a full jail: with bwrap, its setuid programs, such as su(1), have no effect."""

SETPRIV = "usr/bin/setpriv"
"""What changes the user of a service that does not do it itself, relative to the tree with its programs."""
_UNKNOWN: tuple[str | None, ...] = (None,)
_FIRST, _COUNT, _PLACES = 524288, 65536, 28663
"""Numbers that systemd sets aside for containers: from 524288 to 1879048191, 65536 for each."""
# What counts for the whole host is asked of the host's own user namespace.
_OF_THE_HOST = {
    "net_bind_service",
    "net_admin",
    "net_raw",
    "net_broadcast",
    "sys_time",
    "sys_nice",
    "ipc_lock",
}


@dataclass(frozen=True, slots=True)
class Own:
    """Where a jail's own files are, relative to ROOT."""

    name: str
    """The jail's, for messages."""
    etc: str
    programs: str
    """The tree with its programs."""
    is_world: bool = False
    """All of them are its own root's, setuid ones as well."""

    @classmethod
    def shared(cls, name: str) -> Own:
        """Return those of a jail with a shared root."""
        return cls(name, f"s/{name}/etc", "j/mroot")

    @classmethod
    def world(cls, name: str) -> Own:
        """Return those of a full jail, whose root can change them: for what that jail alone has."""
        return cls(name, f"t/{name}/etc", f"t/{name}", is_world=True)


@dataclass(frozen=True, slots=True)
class Decided:
    """Everything about a run, before anything is done for it."""

    engine: str
    program: str
    spec: Spec
    grade: Literal["full", "weak"]
    notes: tuple[str, ...]
    own_network: bool = False
    """It has a link of its own to the host, and is started in the network at its end."""

    @property
    def engine_environment(self) -> dict[str, str]:
        """Variables of the engine itself."""
        return {"PATH": run.PATH, "LC_ALL": "C", **ENGINES[self.engine].ENVIRONMENT}

    @property
    def tightened(self) -> tuple[str, ...]:
        """Mounts of the engine that are still to be made noexec."""
        found: tuple[str, ...] = ENGINES[self.engine].TIGHTENED
        return found

    @property
    def gated(self) -> bool:
        """The service waits until the engine's mounts and namespaces have been seen to."""
        return bool(ENGINES[self.engine].is_gated())

    @property
    def become(self) -> Callable[[], NoReturn] | None:
        """What becomes the engine; None: a program."""
        return None

    @property
    def held(self) -> list[int]:
        """Descriptors that `prepare` opens for `become`."""
        return []

    @property
    def filtered(self) -> bool:
        """A filter keeps the jail from keys, and from making user namespaces.

        Not an engine that makes one itself; nspawn refuses keys by a filter of its own.
        """
        return self.become is None and (not self.spec.shift or bool(ENGINES[self.engine].JOINS_NAMESPACE))

    @property
    def limited(self) -> bool:
        """The engine makes the user namespace itself: its limit is set once it is there."""
        return self.become is None and bool(self.spec.shift) and not ENGINES[self.engine].JOINS_NAMESPACE

    def joined(self, namespace: int) -> int:
        """Return the user namespace that the engine is started in, -1 for the host's."""
        return namespace if ENGINES[self.engine].JOINS_NAMESPACE else -1

    def arguments(self) -> tuple[str, ...]:
        """Return the engine's command line."""
        found: tuple[str, ...] = ENGINES[self.engine].arguments(self.program, self.spec)
        return found

    def prepare(self, namespace: int) -> None:
        """In the engine's own mount namespace: make what it is to find."""
        if self.own_network:
            veth.separate()
        stage.move_in(self.spec.mountpoint, namespace)
        ENGINES[self.engine].prepare(self.spec)


def decide(
    context: Context, root: Dir, plan: JailPlan, engine: str | None, own: Own | None = None
) -> Decided:
    """Decide how a jail is started. Raises LayoutError, UsageError: nothing has been done then."""
    jail, service = plan.jail, plan.jail.settings.service
    own = own or Own.shared(jail.name)
    check_service(jail)
    chosen, program = _engine(engine or service.engine, ENGINES_OF_WORLDS if own.is_world else tuple(ENGINES))
    refuse_taken_ports(jail.name, service, jail.settings.network)
    command, capabilities = as_user(root, own, service)
    shift, notes = user_namespace(context, plan, capabilities)
    network = jail.settings.network
    spec = Spec(
        name=jail.name,
        mountpoint=plan.tables.jail[0].target,
        command=command,
        environment=_environment(service),
        capabilities=capabilities,
        hostname=network.hostname or jail.name,
        network=not network.is_none,
        directories=directories(root, own.etc, service),
        shift=shift,
        setuid=own.is_world,
    )
    notes += ENGINES[chosen].NOTES
    grade: Literal["full", "weak"] = "weak" if notes else "full"
    return Decided(chosen, program, spec, grade, notes, bool(network.gateway))


def check_service(jail: Jail) -> None:
    """Make sure that a profile says what is started, and with what. Raises UsageError."""
    service = jail.settings.service
    if not service.command:
        hint = "set linux.service.command in a profile of your own: layout profile show default"
        raise UsageError(f"profile {jail.profile}", "no service.command", "the daemon of the jail", hint)


def _engine(wanted: str, order: tuple[str, ...]) -> tuple[str, str]:
    """Return the engine and its program. Raises LayoutError that names the package that has it."""
    for name in order:
        module = ENGINES[name]
        if wanted == name:
            return name, run.require(module.PROGRAM, module.PACKAGE)
        path = run.which(module.PROGRAM)
        if wanted == "auto" and path is not None:
            return name, path
    if wanted != "auto":
        raise UsageError("engine", repr(wanted), f"one of: auto, {', '.join(ENGINES)}, unit")
    packages = " or ".join(module.PACKAGE for module in ENGINES.values())
    programs = " or ".join(module.PROGRAM for module in ENGINES.values())
    raise LayoutError(programs, "no such program", "an engine that keeps the jail", f"install {packages}")


def _environment(service: Service) -> Mapping[str, str]:
    return {"PATH": confined.PATH, "LANG": "C.UTF-8", **service.variables}


def _read(root: Dir, path: str) -> str:
    try:
        return root.read(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def as_user(root: Dir, own: Own, service: Service) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return command and capabilities; a service that does not drop root itself has setpriv(1) for it."""
    if not service.user:
        return service.command, service.capabilities
    found = account(root, own.name, service, own.etc)
    if root.lstat(f"{own.programs}/{SETPRIV}") is None:
        hint = "put the package util-linux into the base, or let the daemon drop root itself"
        raise LayoutError(
            f"{root.path}/{own.programs}/{SETPRIV}", "no such program", "what changes the user", hint
        )
    kept = ",".join(["-all", *(f"+{one}" for one in service.capabilities)])
    groups = f"--groups={','.join(map(str, found.groups))}" if found.groups else "--clear-groups"
    words = (f"/{SETPRIV}", f"--reuid={found.uid}", f"--regid={found.gid}", groups)
    more = (f"--inh-caps={kept}", f"--ambient-caps={kept}", "--")
    return (*words, *more, *service.command), service.all_capabilities


def account(root: Dir, name: str, service: Service, etc: str = "") -> accounts.Account:
    """Return the numbers of service.user, by the jail's own files. Raises LayoutError."""
    etc = etc or Own.shared(name).etc
    passwd, group = (_read(root, f"{etc}/{file}") for file in ("passwd", "group"))
    found = accounts.account(service.user, passwd, group)
    if found is None:
        hint = f"layout manage {name} -- adduser --system {service.user}"
        raise LayoutError(f"{name}: /etc/passwd", f"no user {service.user}", "the user of its service", hint)
    return found


def directories(root: Dir, etc: str, service: Service) -> tuple[units.RunDirectory, ...]:
    """Return what service.run asks for, with the numbers of the accounts in `etc`, relative to ROOT."""
    if not service.run:
        return ()
    users = accounts.ids(_read(root, f"{etc}/passwd"))
    groups = accounts.ids(_read(root, f"{etc}/group"))
    return tuple(
        units.RunDirectory(
            one.path.partition("/")[2],
            int(one.mode, 8),
            users.get(one.owner, 0),
            groups.get(one.group or one.owner, 0),
        )
        for one in service.run
    )


def refuse_taken_ports(name: str, service: Service, network: Network) -> None:
    """Make sure that nobody listens where the service will. Raises LayoutError that says who."""
    if network.gateway or network.is_none:
        return
    known = network.own_addresses
    wanted = {tuple(port.split("/")) for port in service.ports}
    pairs = [(int(port), kind, address) for port, kind in wanted for address in known or _UNKNOWN]
    if service.ready.tcp:
        address, port = address_of(service.ready.tcp)
        pairs.append((port, "tcp", address))
        if not known:
            pairs += [(int(port), kind, address) for port, kind in wanted]
    for number, kind, where in pairs:
        found = ports.in_the_way(kind, number, where)
        if found is not None:
            raise LayoutError(
                f"{name}: port {number}/{kind}",
                f"{ports.holder(found.inode)} listening on {found.address}",
                "a port that nobody has",
                "stop it, or give the service another address",
            )


def user_namespace(
    context: Context, plan: JailPlan, capabilities: tuple[str, ...]
) -> tuple[int, tuple[str, ...]]:
    """Return the first number of the jail's user namespace, 0 for none, with the reasons for having none."""
    digest = hashlib.sha256(f"{context.site.root}\0{plan.jail.name}".encode()).digest()
    first = free_range(int.from_bytes(digest[:8]), procs.mapped_ranges())
    if in_user_namespace():
        why = "this host is in a user namespace itself"
    else:
        why = _needs_host(plan.jail.settings, capabilities) or _cannot_map(plan, first)
    if why:
        return 0, (f"uid 0 of the jail is uid 0 of the host, without its capabilities ({why})",)
    return first, ()


def free_range(wanted: int, taken: Collection[tuple[int, int]]) -> int:
    """Return the first number of a range of users: that of place `wanted`, or of the next that nobody has.

    `taken` are first number and count of what others have. Two jails with the same numbers would be one user
    to whoever asks for the peer of a socket, and to the kernel's limits. When all are taken, it is `wanted`.
    """
    for step in range(_PLACES):
        first = _FIRST + _COUNT * ((wanted + step) % _PLACES)
        if all(first + _COUNT <= other or other + count <= first for other, count in taken):
            return first
    return _FIRST + _COUNT * (wanted % _PLACES)


def _needs_host(settings: Settings, capabilities: tuple[str, ...]) -> str:
    """Say for what a service has to be root of the host's own user namespace, "" for nothing."""
    if settings.network.is_none:
        return ""
    # In a network of its own every port is for whoever runs there.
    low = 0 if settings.network.gateway else ports.first_unprivileged()
    numbers = [int(port.partition("/")[0]) for port in settings.service.ports]
    outer = _OF_THE_HOST & set(capabilities)
    if outer == {"net_bind_service"} and (settings.network.gateway or (numbers and min(numbers) >= low)):
        return ""
    if outer or (numbers and min(numbers) < low):
        return f"the host's network asks its own root for {', '.join(sorted(outer)) or 'net_bind_service'}"
    return ""


def _cannot_map(plan: JailPlan, first: int) -> str:
    """Say why owners cannot be mapped to the numbers from `first` on, "" when they can: it is tried."""
    try:
        fd = launch.user_namespace(first, _COUNT)
    except OSError as error:
        return f"a user namespace: {reason_of(error)}"
    try:
        for tree in plan.tables.jail:
            if tree.fstype == "none":
                stage.can_map(tree.source, fd)
    except OSError as error:
        return f"the file system of {tree.source} cannot map owners: {reason_of(error)}"
    finally:
        os.close(fd)
    return ""


@contextlib.contextmanager
def namespace(decided: Decided) -> Iterator[int]:
    """Make the user namespace of a run; -1 for none. Raises OSError."""
    if not decided.spec.shift:
        yield -1
        return
    fd = launch.user_namespace(decided.spec.shift, _COUNT)
    try:
        yield fd
    finally:
        os.close(fd)


def execute(plan: JailPlan, inside: int | None, argv: tuple[str, ...]) -> int:
    """Run a command in the jail that a process is in; return its exit status. Raises LayoutError."""
    service = plan.jail.settings.service
    user = design_of(plan.jail.kind).ids(plan)
    keep = () if user else tuple(name.upper() for name in service.all_capabilities)
    with enter.entry(plan.jail.name, inside, argv, keep, service.variables, user) as entry:
        return session.run(entry)


def run_inside(plan: JailPlan, inside: int | None, argv: tuple[str, ...], seconds: float) -> int:
    """Run a command as `execute`, its output to nowhere, for so many seconds at most."""
    with enter.in_silence(seconds):
        return execute(plan, inside, argv)
