"""Services of the host, as service(8) and their scripts in rc.d know them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from layout.core.errors import LayoutError
from layout.host import hostfiles
from layout.host.freebsd import rcconf
from layout.host.run import Done, run

RC_SUBR = "/etc/rc.subr"

_COMES_UP_S = 5
_STEP_S = 0.1


def script(name: str) -> tuple[str, str] | None:
    """Return path and text of the script that service(8) takes for a name, None when there is none."""
    for directory in ("/etc/rc.d", "/usr/local/etc/rc.d"):
        text = hostfiles.read_text(f"{directory}/{name}")
        if text is not None:
            return f"{directory}/{name}", text
    # Elsewhere only where rc.conf(5) says so; sysrc(8) is slow to start.
    for directory in rcconf.values(["local_startup"]).get("local_startup", "").split():
        text = hostfiles.read_text(f"{directory}/{name}")
        if text is not None:
            return f"{directory}/{name}", text
    return None


def overridden(name: str, variables: Sequence[str]) -> list[tuple[str, str]]:
    """Return file and variable where rc.conf.d(5) of a service sets one of these: it wins over rc.conf(5).

    sysrc(8) does not look there unless asked to.
    """
    found = []
    for path in (f"/etc/rc.conf.d/{name}", f"/usr/local/etc/rc.conf.d/{name}"):
        for file in hostfiles.files_of(path):
            text = hostfiles.read_text(file) or ""
            names = re.findall(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=", text, re.MULTILINE)
            found += [(file, one) for one in variables if one in names]
    return found


def rc_subr() -> str:
    """Return the text of rc.subr(8). Raises LayoutError."""
    text = hostfiles.read_text(RC_SUBR)
    if text is None:
        raise LayoutError(RC_SUBR, "nothing", "rc.subr(8) of this host")
    return text


def act(name: str, verb: str) -> Done:
    """Let service(8) do something, whatever rc.conf(5) enables. What came of it is to be read back."""
    return run("service", name, f"one{verb}", ok=range(256), service=True)


def runs(name: str) -> bool:
    """Say whether a service runs, where rc.subr(8) looks for it now: in its jail, if it is to have one.

    Raises LayoutError when its script cannot say.
    """
    done = act(name, "status")
    if done.status != 0 and "unknown directive" in done.stderr:
        hint = "a service without pidfile and command in its script cannot be told from a stopped one"
        raise LayoutError(
            f"service {name} status", "no such directive", "its script to know how it stands", hint
        )
    return done.status == 0


def comes_up(name: str) -> bool:
    """Say whether a service that was just started runs, looking for a few seconds before it is said not to.

    daemon(8) writes the pidfile before it becomes the program that rc.subr(8) looks for.
    Raises LayoutError when its script cannot say.
    """
    deadline = time.monotonic() + _COMES_UP_S
    while not runs(name):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_STEP_S)
    return True


def end(name: str, ended: Callable[[], bool]) -> Done:
    """Stop a service, more than once if need be for a few seconds; `ended` looks whether it has.

    rc.subr(8) finds nothing to stop while daemon(8) has not become the program yet.
    Raises LayoutError when its script cannot say how it stands.
    """
    deadline = time.monotonic() + _COMES_UP_S
    while True:
        done = act(name, "stop")
        if ended() or time.monotonic() >= deadline:
            return done
        time.sleep(_STEP_S)


def main_process(name: str, text: str) -> int | None:
    """Return the process of the pidfile that a script names, None when it names none or nothing runs."""
    found = re.search(r"^[ \t]*(?:: *\$\{)?pidfile:?=[\"']?([^\"'\s]+)", text, re.MULTILINE)
    path = found[1].replace("${name}", name).replace("$name", name).rstrip("}") if found else ""
    if not path.startswith("/") or "$" in path:
        return None
    word = ((hostfiles.read_text(path) or "").split() or [""])[0]
    return int(word) if word.isdigit() and jail_of(int(word)) is not None else None


def jail_of(pid: int) -> int | None:
    """Return the ID of the jail that a process is in, 0 for the host; None when there is no such process."""
    word = run("ps", "-o", "jid=", "-p", str(pid), ok=range(256)).stdout.strip()
    return int(word) if word.isdigit() else None


def number(oid: str) -> int:
    """Return a number that sysctl(8) knows. Raises LayoutError."""
    word = run("sysctl", "-n", oid).stdout.strip()
    if not word.isdigit():
        raise LayoutError(f"sysctl {oid}", repr(word), "a number")
    return int(word)


def privileges() -> set[str]:
    """Return the parameters allow.* of jail(8) that this kernel has; allow.vmm needs vmm(4) loaded."""
    top = "security.jail.param."
    return {line.removeprefix(top) for line in run("sysctl", "-N", f"{top}allow").stdout.split()}
