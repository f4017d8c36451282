"""What the tools of an administrator of Linux look for, planted in t, and his own beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from layout.host import played, traps
from layout.host.attacks import files, frame, session
from layout.host.linux.targets import BASE, HOME, IN_S, ROOT

_SCRIPT = f"open('{IN_S}/pwned', 'w').write('x')\n"
_HONEST = "pass\n"
_SCRIPTS = (
    "var/lib/dpkg/info/demo.prerm",
    "var/db/ports/demo/options",
    "var/cache/debconf/config.dat",
)


def prepare() -> None:
    """Put what is the administrator's own into the base: it is what the session should find."""
    for path, text in (
        *((one, _HONEST) for one in _SCRIPTS),
        ("var/lib/dpkg/status", "Package: demo\n"),
        ("var/lib/ucf/file", "as it was delivered\n"),
        ("var/cache/ldconfig/aux-cache", ""),
        ("var/log/messages", "a line\n"),
        ("var/tmp/.keep", ""),
    ):
        traps.write(f"{BASE}/{path}", text)


@contextlib.contextmanager
def planted(name: str, aim: frame.Aim) -> Iterator[None]:
    """Plant everything in a jail's t."""
    t = f"{ROOT}/t/{name}"
    with contextlib.suppress(OSError):
        os.unlink(f"{t}/var/lib/dpkg")  # a link into mroot, for tools that know no other place
    texts = {**dict.fromkeys(_SCRIPTS, _SCRIPT), "var/lib/ucf/file": "as it was\n"}
    with traps.planted(t, aim, texts, _SCRIPT):
        _libraries(t + traps.libraries(aim))
        yield


def _libraries(target: str) -> None:
    """Copy the libraries of the base, all but libc and the loader, without which nothing would start."""
    for path in files.below(BASE):
        name = os.path.basename(path)
        needed = name.startswith(("libc.", "ld-", "ld.", "libpthread"))
        if ".so" in name and not needed and not path.startswith(BASE + HOME):
            files.copy(path, f"{target}/{name}", 0o755)


def on_terminal(work: Callable[[], object]) -> tuple[str, bool]:
    """Run `work` at a terminal; return what it printed, and whether the attacker typed there."""
    with played.at_terminal(work) as terminal:
        said = terminal.heard(frame.SECONDS + 3)
        return said, terminal.was_typed()


def control(aim: frame.Aim) -> dict[str, Any]:
    """The control: the same on the administrator's own terminal, with all capabilities."""
    _, typed = on_terminal(lambda: session.terminal(aim))
    return frame.outcome(worked=typed)
