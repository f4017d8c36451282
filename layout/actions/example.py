"""`layout init --example`: a minimal working configuration for jails whose profile has one."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
from collections.abc import Iterator, Sequence

from msgspec import structs

from layout.actions.context import Context
from layout.actions.make import ids_of
from layout.actions.manage import manage
from layout.actions.observe import Step
from layout.actions.split import make_parents
from layout.actions.telling import Progress
from layout.core.errors import LayoutError, printable
from layout.core.model import JailPlan, Platform
from layout.core.service import Example, ExampleFile
from layout.core.skeleton import half_of
from layout.host import records
from layout.host.beneath import Dir
from layout.host.records import JailRecord
from layout.host.standard import captured

DONE = "done"
"""What the record of a jail says when its example is complete."""
_SAID = 600
"""Characters of a command's last words that an error shows."""


def pending(context: Context, plans: Sequence[JailPlan]) -> list[Step]:
    """Return what `prepare` would do; files that are there already are found out only then."""
    steps = []
    with contextlib.ExitStack() as stack:
        known: dict[str, JailRecord] = {}
        with contextlib.suppress(FileNotFoundError, LayoutError):
            root = stack.enter_context(context.open())
            state = stack.enter_context(root.open(".layout"))
            known = {record.name: record for record in records.jails(state)}
        for plan in plans:
            name, example = plan.jail.name, plan.jail.settings.example
            record = known.get(name)
            done = _commands_done(record.example) if record is not None else None
            if done is None:
                steps += [
                    Step("example", f"{context.site.root}/{_place(name, file)}", _reason(plan))
                    for file in example.files
                ]
            steps += [Step("run", shlex.join(words), f"in {name}") for words in _left(example, done)]
    return steps


def prepare(context: Context, plans: Sequence[JailPlan], tell: Progress) -> list[str]:
    """Write the files of the examples, run their commands in the sessions of `layout manage`.

    A file of the administrator stays as it is. What was done is recorded: a run that failed goes on with
    the command that failed, and a complete example is never done again. Returns what was done; raises
    LayoutError.
    """
    done: list[str] = []
    for plan in plans:
        name = plan.jail.name
        example = plan.jail.settings.example
        if not example.files and not example.commands:
            tell(f"{name}: profile {plan.jail.profile} has no example", 0, 0)
            continue
        with _recorded(context, name) as (root, state, record):
            count = _commands_done(record.example)
            if count is None:
                tell(f"{name}: writing the example", 0, 0)
                done += _write_files(root, plan)
                count = 0
                _record(state, record, example, count)
        for words in _left(example, count):
            tell(f"{name}: {shlex.join(words)}", 0, 0)
            _run(context, plan, words)
            count += 1
            with _recorded(context, name) as (_, state, record):
                _record(state, record, example, count)
            done.append(f"{name}: {shlex.join(words)}")
    return done


def _commands_done(text: str) -> int | None:
    """Return how many commands of an example a record says are done; None when not even its files are."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() else 1 << 16


def _left(example: Example, count: int | None) -> Sequence[tuple[str, ...]]:
    return example.commands[count or 0 :]


@contextlib.contextmanager
def _recorded(context: Context, name: str) -> Iterator[tuple[Dir, Dir, JailRecord]]:
    """Be the only run that changes ROOT, with the record of a jail as it is now."""
    with context.locked(), context.open() as root, root.open(".layout") as state:
        record = records.jail(state, name)
        if record is None or record.state != "ready":
            raise LayoutError(name, "no such jail any more", "the jail that init has made")
        yield root, state, record


def _record(state: Dir, record: JailRecord, example: Example, count: int) -> None:
    text = DONE if count >= len(example.commands) else str(count)
    records.write(state, f"jails/{record.name}.toml", structs.replace(record, example=text))


def _place(name: str, file: ExampleFile) -> str:
    half, below = half_of(file.path)
    return f"{half}/{name}/{below}"


def _reason(plan: JailPlan) -> str:
    return f"example of profile {plan.jail.profile}"


def _write_files(root: Dir, plan: JailPlan) -> list[str]:
    """Write what is to be written; every owner is known before the first file is touched."""
    name = plan.jail.name
    files = plan.jail.settings.example.files
    owners = [_owner(root, plan, file) for file in files]
    written = []
    for file, (uid, gid) in zip(files, owners, strict=True):
        path = _place(name, file)
        if not _is_free(root, path, half_of(file.path)):
            continue
        make_parents(root, path)
        try:
            root.write_whole(path, file.text.encode(), int(file.mode, 8), owner=(uid, gid))
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EINVAL}:
                raise
            # A user namespace maps only its own root.
            root.write_whole(path, file.text.encode(), int(file.mode, 8))
        written.append(path)
    return written


def _is_free(root: Dir, path: str, place: tuple[str, str]) -> bool:
    """Say whether nothing is there but, at most, what came with the base, unchanged."""
    found = root.lstat(path)
    if found is None:
        return True
    if not stat.S_ISREG(found.st_mode):
        return False
    half, below = place
    try:
        return root.read(path) == root.read(f"skel/{half}/{below}")
    except (FileNotFoundError, LayoutError):
        return False


def _owner(root: Dir, plan: JailPlan, file: ExampleFile) -> tuple[int, int]:
    """Return the numbers of a file's owner and group in the jail. Raises LayoutError when it has no such."""
    name = plan.jail.name
    numbers = []
    for database, word in (("passwd", file.owner), ("group", file.group or "root")):
        known = ids_of(root, name, database)
        if word not in known and word != "root":  # group root is wheel on FreeBSD
            raise LayoutError(
                f"{name}: /{file.path}",
                f"no {word} in its /etc/{database}",
                f"the owner that profile {plan.jail.profile} names",
                _install(plan),
            )
        numbers.append(known.get(word, 0))
    return numbers[0], numbers[1]


def _install(plan: JailPlan) -> str:
    packages = " ".join(plan.jail.settings.packages)
    if plan.jail.platform is Platform.FREEBSD:
        return f"layout manage {plan.jail.name} -- pkg install {packages}"
    return f"it comes with {packages}, which the base must have"


def _run(context: Context, plan: JailPlan, words: tuple[str, ...]) -> None:
    """Run a command as `layout manage` does. Raises LayoutError with its last words when it fails."""
    name = plan.jail.name
    with context.open() as root, root.open(".layout") as state:
        log = state.scratch()
    try:
        with captured(log):
            status = manage(context, plan, words).status
        if status == 0:
            return
        os.lseek(log, max(0, os.fstat(log).st_size - _SAID), os.SEEK_SET)
        said = " ".join(os.read(log, _SAID).decode("utf-8", "replace").split())
    finally:
        os.close(log)
    missing = f"{_install(plan)}; " if status == 127 else ""
    raise LayoutError(
        f"{name}: {shlex.join(words)}",
        f"exit status {status}: {printable(said)}",
        "exit status 0",
        f"{missing}mend it in `layout manage {name}`, then run the same init --example: it goes on here",
    )
