"""Start and stop on Linux: an engine of the host keeps the jail, a record tells whom to look for."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from msgspec import structs

from layout.actions import (
    mounting,
    mounting_linux,
    network_linux,
    prepare_linux,
    running_unit,
    standing_linux,
)
from layout.actions.coming_up import until_ready
from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.actions.telling import Tell
from layout.core.compare import Live, is_view
from layout.core.errors import LayoutError, UsageError
from layout.core.model import JailPlan, Mount
from layout.core.running import ProcessId, Running, RunRecord
from layout.core.units import unit_name
from layout.host import locks, records
from layout.host.beneath import Dir
from layout.host.linux import addresses, enter, launch, logs, procs, readiness, standing, systemd, table
from layout.host.linux.engines import direct

_STEP = 0.02
"""Seconds between two looks at a service that is coming up."""
_SETTLE = 0.3
"""Seconds that a service without a ready check has to stay there."""
_KILL = 10.0
"""Seconds that the kernel gets to end what was killed."""
_LINGER = 5.0
"""Seconds that an engine gets to tidy up after the daemon."""
_LINES = 8


Made = Callable[[Dir, Dir], tuple[JailPlan, prepare_linux.Own]]
"""Makes the root of a jail that has none until it starts; its plan then has the mounts."""


def start(
    context: Context, plan: JailPlan, tell: Tell, engine: str | None = None, made: Made | None = None
) -> Running:
    """Start the service; see layout.actions.running.

    With `made`, all that is mounted is so in the engine's own mount namespace: the kernel takes it away with
    the last process in there, whatever ends that.
    """
    mounting.require_platform(context.site)
    name = plan.jail.name
    with _state(context, plan) as (root, state):
        record, found = standing_linux.standing(context, state, plan)
        if found is not None:
            return found
        if record is not None:
            _take_away(context, state, plan, record)
        if (engine or plan.jail.settings.service.engine) == "unit":
            return _start_unit(context, state, plan)
        own = None
        if made is not None:
            plan, own = made(root, state)
        spec = design_of(plan.jail.kind).decided(context, root, plan, engine, own)
        network = plan.jail.settings.network
        connection = network_linux.decide(context, plan)
        # What will have to be taken away again is written down before it is there.
        record = RunRecord(
            spec.engine,
            spec.grade,
            records.now(),
            mounted=made is None and not _is_mounted(plan),
            addresses=addresses.missing(network.interface, network.own_words),
            link=connection.link.name if connection.link is not None else "",
            table=connection.table,
            notes=spec.notes,
        )
        _write(state, name, record)
        try:
            if made is None:
                with context.locked():
                    mounting.mount(context.site, [plan])
            addresses.add(record.addresses)
            private = plan.tables.jail if made is not None else ()
            found = _launch(context, state, plan, spec, record, connection, private)
        except BaseException:
            _end(standing_linux.read(state, name) or record, plan, signal.SIGKILL)
            _take_away(context, state, plan, standing_linux.read(state, name) or record)
            raise
        return found


def _start_unit(context: Context, state: Dir, plan: JailPlan) -> Running:
    """Let systemd keep the jail."""
    name, settings = plan.jail.name, plan.jail.settings
    is_world = design_of(plan.jail.kind).is_world
    if settings.network.gateway or is_world:
        hint = f"layout render unit {name} is a unit that starts it so" if is_world else ""
        raise UsageError(name, "engine unit", "bwrap or nspawn for a world or a network of its own", hint)
    systemd.require_booted()
    prepare_linux.refuse_taken_ports(name, settings.service, settings.network)
    record = RunRecord(
        "unit",
        "weak",
        records.now(),
        mounted=not _is_mounted(plan),
        unit=unit_name(name),
    )
    _write(state, name, record)
    try:
        with context.locked():
            mounting.mount(context.site, [plan])
        running_unit.launch(context, plan)
        found = standing_linux.look(context, record, plan)
        if found is None:
            raise LayoutError(name, "a service that ended at once", "one that goes on")
    except BaseException:
        running_unit.end(record)
        _take_away(context, state, plan, record)
        raise
    return found


def stop(context: Context, plan: JailPlan, tell: Tell) -> bool:
    """End the service; see layout.actions.running."""
    mounting.require_platform(context.site)
    name = plan.jail.name
    with _state(context, plan) as (_, state):
        record, found = standing_linux.standing(context, state, plan)
        if record is None:
            return False
        ran = found is not None
        if not ran:
            tell(f"{name}: what was left of it is taken away")
        elif not _end(record, plan, signal.Signals[f"SIG{plan.jail.settings.service.stop_signal}"]):
            tell(f"{name}: killed, it did not stop within {plan.jail.settings.service.stop_timeout} s")
        _take_away(context, state, plan, record)
        return ran


def execute(context: Context, plan: JailPlan, argv: tuple[str, ...]) -> int:
    """Run a command in the running jail; see layout.actions.running."""
    lives, pid, _ = inside(context, plan)
    if not lives:
        name = plan.jail.name
        raise LayoutError(name, "not running", "a running jail", f"layout start {name}")
    return prepare_linux.execute(plan, pid, argv)


def inside(context: Context, plan: JailPlan) -> tuple[bool, int | None, bool]:
    """Say whether a jail runs, by which process it is entered, if any, and whether its processes are its own.

    A unit is among the host's.
    """
    with context.open() as root, root.open(".layout") as state:
        record, found = standing_linux.standing(context, state, plan)
    if record is None or found is None:
        return False, None, True
    if record.process is None:
        return True, found.pid, False
    return True, _first(record.engine, record.process.pid), True


def log_of(context: Context, plan: JailPlan) -> set[tuple[int, int]]:
    """Return device and inode of the log of a running jail, and of one that was moved away under it."""
    with context.open() as root, root.open(".layout") as state:
        record = standing_linux.read(state, plan.jail.name)
        current = state.lstat(f"log/{plan.jail.name}.log")
    found = {(current.st_dev, current.st_ino)} if current is not None else set()
    if record is not None and record.process is not None:
        found |= procs.output_of(record.process.pid)
    return found


def drift(context: Context, plan: JailPlan) -> list[tuple[str, str, str]]:
    """Compare the service's process with the profile; see layout.actions.running."""
    with context.open() as root, root.open(".layout") as state:
        record, found = standing_linux.standing(context, state, plan)
    if record is None or found is None:
        return []
    own = record.process
    daemon = found.pid if own is None else standing_linux.daemon(record.engine, own.pid)
    if daemon is None:
        return []
    service = plan.jail.settings.service
    account, told = None, []
    if service.user:
        try:
            with context.open() as root:
                place = design_of(plan.jail.kind).own(plan)
                account = prepare_linux.account(root, plan.jail.name, service, place.etc)
        except LayoutError as problem:
            told.append((problem.path, problem.found, problem.expected))
    return told + list(
        standing.drift(
            daemon,
            plan.tables.jail,
            service.capabilities,
            _sources(context, plan),
            account=account,
            setuid=design_of(plan.jail.kind).is_world,
            by_unit=bool(record.unit),
        )
    )


def _sources(context: Context, plan: JailPlan) -> dict[str, tuple[int, int]]:
    """Return device and inode of what the jail's mounts have to show, by target: of what is below ROOT."""
    above = f"{context.site.root}/"
    found = {}
    with context.open() as root:
        for mount in plan.tables.jail:
            if is_view(mount) and mount.source.startswith(above):
                status = root.lstat(mount.source[len(above) :])
                if status is not None:
                    found[mount.target] = status.st_dev, status.st_ino
    return found


def leftovers(context: Context, plan: JailPlan) -> bool:
    """Take away what a crash left of a service that does not run; say whether there was something."""
    with _state(context, plan) as (_, state):
        record, found = standing_linux.standing(context, state, plan)
        if record is None or found is not None:
            return False
        _take_away(context, state, plan, record, locked=True)
        return True


def _first(engine: str, pid: int) -> int | None:
    """Return the first process of the jail."""
    return pid if engine == direct.NAME else procs.first_of_jail(pid)


@contextlib.contextmanager
def _state(context: Context, plan: JailPlan) -> Iterator[tuple[Dir, Dir]]:
    """Open ROOT and its state, and be the only one that starts or stops this jail."""
    name = plan.jail.name
    what = f"to be the only run that starts or stops {name}"
    try:
        with (
            context.open() as root,
            root.open(".layout") as state,
            locks.held(state, f"run-{name}.lock", what),
        ):
            yield root, state
    finally:
        # Nothing of ours is open below ROOT any more: that would keep it busy.
        mounting.release_root(context.site)


def _write(state: Dir, name: str, record: RunRecord) -> None:
    if state.lstat("run") is None:
        state.make_dir("run", 0o700)
    records.write(state, f"run/{name}.toml", record)


def _is_mounted(plan: JailPlan) -> bool:
    return bool(Live(table.read()).at(plan.tables.jail[0].target))


def _launch(
    context: Context,
    state: Dir,
    plan: JailPlan,
    spec: prepare_linux.Decided,
    record: RunRecord,
    connection: network_linux.Connection,
    private: tuple[Mount, ...],
) -> Running:
    """Start the engine. `private` is mounted in its own mount namespace first."""
    name = plan.jail.name

    def prepare(namespace: int) -> None:
        if private:
            mounting_linux.attach_privately(context.site, private)
        spec.prepare(namespace)

    with (
        _closing(logs.open_log(state, name)) as log,
        prepare_linux.namespace(spec) as namespace,
        _gate(spec) as (waits, opens),
    ):
        begin = logs.size(log)
        wanted = launch.Launch(
            name,
            spec.arguments(),
            spec.engine_environment,
            lambda: prepare(namespace),
            log,
            spec.joined(namespace),
            (namespace,) if namespace >= 0 else (),
            spec.become,
            spec.held,
            waits,
            spec.filtered,
        )
        with launch.launch(wanted) as prepared:
            known = procs.identify(prepared.pid)
            if known is None:
                raise LayoutError(f"engine of {name}", "its process ended", "a process that starts it")
            # From here on, whoever comes after a crash of ours finds it.
            record = structs.replace(record, process=known)
            _write(state, name, record)
            network_linux.connect(plan, connection, known.pid)
            prepared.go()
        _wait_until_ready(context, state, plan, known, begin, spec, opens)
    found = standing_linux.look(context, record, plan)
    if found is None:
        raise _ended(context, state, name, begin)
    return found


@contextlib.contextmanager
def _gate(spec: prepare_linux.Decided) -> Iterator[tuple[int, int]]:
    """Yield the ends of the pipe at which a service waits to be let in; -1 where it does not wait.

    It ends when it is not told: so it does when this process is killed.
    """
    if not spec.gated:
        yield -1, -1
        return
    waits, opens = os.pipe2(os.O_CLOEXEC)
    try:
        yield waits, opens
    finally:
        os.close(waits)
        os.close(opens)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _wait_until_ready(
    context: Context,
    state: Dir,
    plan: JailPlan,
    engine: ProcessId,
    begin: int,
    spec: prepare_linux.Decided,
    gate: int,
) -> None:
    """Let the service in by its gate, if it has one, and wait until it works.

    Raises LayoutError with the last lines of its log when it does not.
    """
    name = plan.jail.name
    ready = plan.jail.settings.service.ready
    tight = False
    at_gate: tuple[int, int] | None = None

    def look(left: float) -> str | None:
        nonlocal tight, at_gate
        if not procs.lives(engine):
            raise _ended(context, state, name, begin)
        pid = standing_linux.daemon(spec.engine, engine.pid)
        if pid is not None and not tight:
            enter.forbid_programs(engine.pid, spec.tightened)
            if spec.limited:
                enter.forbid_namespaces(engine.pid)
            tight = True
            if gate >= 0:
                at_gate = procs.program(pid)
                os.write(gate, b"1")
        if pid is None or (at_gate is not None and procs.program(pid) == at_gate):
            return "it has not been executed yet"
        first = _first(spec.engine, engine.pid)
        return readiness.problem(ready, pid, lambda argv: prepare_linux.run_inside(plan, first, argv, left))

    why = until_ready(ready, look, _STEP, _SETTLE)
    if why:
        last = _last_words(state, name, begin)
        found = f"a service that is not ready after {ready.timeout} s: {why}{last}"
        hint = f"stopped again; its log is {context.site.root}/.layout/log/{name}.log"
        raise LayoutError(name, found, "its ready check to pass", hint)


def _ended(context: Context, state: Dir, name: str, begin: int) -> LayoutError:
    last = _last_words(state, name, begin) or ", without a word in its log"
    hint = f"its log is {context.site.root}/.layout/log/{name}.log"
    return LayoutError(name, f"a service that ended at once{last}", "a service that goes on", hint)


def _last_words(state: Dir, name: str, begin: int) -> str:
    lines = logs.tail(state, name, _LINES, begin)
    return f"; its last words: {' | '.join(lines)}" if lines else ""


def _end(record: RunRecord, plan: JailPlan, number: signal.Signals) -> bool:
    """End what the engine keeps, and with the engine's process everything; False when it had to be killed."""
    if record.unit:
        running_unit.end(record)
        return True
    known = record.process
    if known is None:
        return True
    service = plan.jail.settings.service
    in_good_order = False
    daemon = standing_linux.daemon(record.engine, known.pid) if number != signal.SIGKILL else None
    target = procs.identify(daemon) if daemon is not None else None
    if target == known and not procs.catches(known.pid, number):
        # As process 1 of its namespace it would not get it, and what it would do then is to end at once.
        procs.send(known, signal.SIGKILL)
        return procs.wait(known, _KILL)
    # To the daemon itself: an engine that is told to end kills it.
    if target is not None and procs.send(target, number):
        in_good_order = procs.wait(target, service.stop_timeout) and procs.wait(known, _LINGER)
    if not in_good_order:
        procs.send(known, signal.SIGKILL)
    if not procs.wait(known, _KILL):
        raise LayoutError(
            plan.jail.name,
            f"process {known.pid}, which does not end",
            "an engine that ends when it is killed",
            "it waits for the kernel, perhaps for a disk: see /proc/PID/stack",
        )
    return in_good_order


def _take_away(
    context: Context, state: Dir, plan: JailPlan, record: RunRecord, *, locked: bool = False
) -> None:
    """Unmount what `start` mounted, and forget the run. Raises LayoutError that names who holds a mount."""
    if record.process is not None and procs.lives(record.process):
        raise UsageError(plan.jail.name, "still running", "a service that has ended")
    if record.unit:
        systemd.remove(record.unit)
    if record.engine in prepare_linux.ENGINES and record.process is not None:
        prepare_linux.ENGINES[record.engine].tidy(plan.jail.name, plan.tables.jail[0].target)
    addresses.remove(record.addresses)
    network_linux.take_away(record)
    if record.mounted:
        with contextlib.nullcontext() if locked else context.locked():
            mounting.umount(context.site, [plan])
    with contextlib.suppress(FileNotFoundError):
        state.unlink(f"run/{plan.jail.name}.toml")
