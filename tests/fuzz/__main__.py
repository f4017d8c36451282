"""Fuzz for long: python -m tests.fuzz SECONDS [TARGET]...; make fuzz.

With atheris installed the inputs are led by the code that they reach; without, they are seeds with random
changes. Prints inputs, refusals and crashes of each target; a crash is kept in .fuzz/. Exit status 1 when
there was one.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.edits import applied, some

KEPT = Path(__file__).resolve().parents[2] / ".fuzz"
_COUNTS = struct.Struct("=qq")


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    try:
        import atheris
    except ImportError:
        atheris = None
        from tests.fuzz.targets import TARGETS
    else:
        with quiet(), atheris.instrument_imports(include=["layout"]):
            from tests.fuzz.targets import TARGETS
    names = sys.argv[2:] or list(TARGETS)
    inputs = crashes = 0
    for name in names:
        shared = mmap.mmap(-1, _COUNTS.size)
        pid = os.fork()
        if pid == 0:
            fuzz = guided if atheris else at_random
            os._exit(fuzz(name, seconds / len(names), shared))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        count, taken = _COUNTS.unpack(shared[:])
        inputs, crashes = inputs + count, crashes + bool(status)
        found = f"CRASH, exit status {status}" if status else "0 crashes"
        print(f"{name}: {count} inputs, {taken} taken, {found}", flush=True)
    how = "atheris" if atheris else "random changes"
    print(f"{len(names)} targets, {how}: {inputs} inputs, {crashes} crashes")
    return int(crashes > 0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let nobody hear what is said on stderr meanwhile."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def keep(name: str, data: bytes) -> None:
    """Keep an input that crashes."""
    traceback.print_exc()
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{name.replace(' ', '-').replace('/', '-')}.crash"
    path.write_bytes(data)
    print(f"{name}: kept in {path}", file=sys.stderr)


def at_random(name: str, seconds: float, shared: mmap.mmap) -> int:
    from tests.fuzz.targets import TARGETS, tried

    one = TARGETS[name]
    dice = random.Random(os.environ.get("SEED", time.time_ns()))
    end = time.monotonic() + seconds
    count = taken = 0
    while time.monotonic() < end:
        data = applied(dice.choice(one.seeds), some(dice, one.words))
        count += 1
        try:
            taken += tried(one, data)
        except Exception:
            keep(name, data)
            return 1
        shared[:] = _COUNTS.pack(count, taken)
    return 0


def guided(name: str, seconds: float, shared: mmap.mmap) -> int:
    import atheris

    from tests.fuzz.targets import TARGETS, tried

    one = TARGETS[name]
    corpus = KEPT / "corpus" / name.replace(" ", "-").replace("/", "-")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(one.seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    words = KEPT / "corpus" / f"{corpus.name}.dict"
    words.write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in one.words),
        encoding="ascii",
    )
    count = taken = 0

    def each(data: bytes) -> None:
        nonlocal count, taken
        count += 1
        try:
            taken += tried(one, data)
        except Exception:
            keep(name, data)
            os._exit(1)
        shared[:] = _COUNTS.pack(count, taken)

    def each_told(data: bytes) -> None:
        each(bytes(data))

    options = [f"-max_total_time={max(1, int(seconds))}", "-max_len=65536", f"-dict={words}", "-timeout=20"]
    with quiet():  # libFuzzer tells of every input that reaches something new
        atheris.Setup([sys.argv[0], *options, str(corpus)], each_told)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
