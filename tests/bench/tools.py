"""Rounds, processes, namespaces and compilers: what every row is measured with."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PYTHON = sys.executable
LAYOUT = str(Path(sys.executable).with_name("layout"))
_SOURCES = Path(__file__).parent


class Skip(Exception):
    """A row cannot be measured here; the text says why."""


def rounds(count: int, **contestants: Callable[[], Any]) -> dict[str, list[Any]]:
    """Run each contestant once to warm up, then `count` rounds of all of them, shuffled anew each time."""
    for run in contestants.values():
        run()
    samples: dict[str, list[Any]] = {name: [] for name in contestants}
    order = list(contestants)
    dice = random.Random(count)
    for _ in range(count):
        dice.shuffle(order)
        for name in order:
            samples[name].append(contestants[name]())
    return samples


def need(tool: str) -> str:
    """Return the path of a program. Raises Skip."""
    path = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        raise Skip(f"no {tool} here")
    return path


_built: dict[str, str] = {}


def compile_all(work: Path) -> None:
    """Compile the floors that are written in C. Raises Skip."""
    compiler = need("cc")
    for source in sorted(_SOURCES.glob("*.c")):
        program = work / source.stem
        done = subprocess.run(
            [compiler, "-O2", "-Wall", "-o", program, source], capture_output=True, text=True
        )
        if done.returncode:
            raise Skip(f"{source.name} does not compile: {done.stderr.strip()[:200]}")
        _built[source.stem] = str(program)


def compiled(name: str) -> str:
    """Return the path of a floor in C. Raises Skip."""
    if name not in _built:
        raise Skip("no C compiler")
    return _built[name]


def spawn(argv: Sequence[str], *, quiet: bool = True) -> float:
    """Run a whole process and return how long it took. Raises RuntimeError when it fails."""
    actions = []
    with open("/tmp/layout-bench/output", "w+b") as output:
        if quiet:
            actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)]
        start = time.perf_counter()
        pid = os.posix_spawn(argv[0], list(argv), os.environ, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        elapsed = time.perf_counter() - start
        if status:
            output.seek(0)
            said = output.read().decode(errors="replace")[-800:]
            raise RuntimeError(
                f"{' '.join(argv)[:200]} ended with {os.waitstatus_to_exitcode(status)}: {said}"
            )
    return elapsed


def report_of(argv: Sequence[str]) -> Any:
    """Run a program that prints one JSON document, and return that."""
    return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def isolated(work: Callable[[], Any]) -> Any:
    """Run `work` in a child with a private mount namespace of its own; return what it returns, through JSON.

    The kernel takes down what was mounted after the child is gone and counted as ready.
    """
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            from layout.host.linux import syscalls

            os.close(receive)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            with os.fdopen(send, "w") as pipe:
                json.dump(work(), pipe)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(send)
    with os.fdopen(receive) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError("a measurement in a mount namespace of its own failed")
    return json.loads(text)


def mounts_below(path: str) -> int:
    """Return how many mounts lie below a path now."""
    text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return sum(line.split(" ", 5)[4].startswith(path + "/") for line in text.splitlines())


@contextlib.contextmanager
def volume(work: Path, kind: str, size: str) -> Any:
    """Mount a fresh file system of this kind on a loop device over an image in memory. Raises Skip."""
    import fcntl

    options = {
        "ext4": ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
        "xfs": ["-q", "-m", "reflink=1"],
        "btrfs": ["-q"],
    }
    image, point = work / f"{kind}.image", work / f"volume-{kind}"
    maker = need(f"mkfs.{kind}")
    subprocess.run([need("truncate"), "-s", size, image], check=True)
    done = subprocess.run([maker, *options[kind], image], capture_output=True, text=True)
    if done.returncode:
        image.unlink()
        raise Skip(f"mkfs.{kind} failed: {done.stderr.strip()[:120]}")
    point.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mknod("/dev/loop-control", 0o20600, os.makedev(10, 237))
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Skip(f"no loop device: {error.strerror}") from None
    number = fcntl.ioctl(control, 0x4C82)  # LOOP_CTL_GET_FREE
    os.close(control)
    with contextlib.suppress(FileExistsError):
        os.mknod(f"/dev/loop{number}", 0o60600, os.makedev(7, number))
    # mount -o loop has the kernel let go of the device by itself, with the last mount of it.
    done = subprocess.run(["mount", "-o", "loop", image, point], capture_output=True, text=True)
    if done.returncode:
        image.unlink()
        raise Skip(f"{kind} on a loop device cannot be mounted: {done.stderr.strip()[:120]}")
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)
        image.unlink()
