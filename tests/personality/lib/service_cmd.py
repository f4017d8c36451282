"""service(8): find a script of rc.d and run it in a clean environment."""

from __future__ import annotations

import os
import sys

import options as getopt
import state as kept
from sysrc_cmd import value_of

PATH = "/sbin:/bin:/usr/sbin:/usr/bin"


def local_directories() -> list[str]:
    text = value_of("local_startup", ["/etc/rc.conf", "/etc/rc.conf.local"], defaults=True)
    return (text or "/usr/local/etc/rc.d").split()


def is_script(path: str) -> bool:
    """What rc takes for a script (facts 3.2)."""
    if (
        path.endswith((".sample", ".pkgsave", "~"))
        or not os.access(path, os.X_OK)
        or not os.path.isfile(path)
    ):
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        return "\n# PROVIDE:" in f"\n{file.read()}"


def environment() -> dict[str, str]:
    return {"HOME": "/", "PATH": PATH}


def main(argv: list[str]) -> int:
    kept.guard()
    usage = "usage: service [-j jail] [-E var=value] <rc.d script> start|stop|restart|status|..."
    try:
        given, rest = getopt.getopt(argv, "E:j:v")
    except getopt.GetoptError:
        given, rest = [], []
    if len(rest) < 2:
        print(usage, file=sys.stderr)
        return 1
    values = dict(given)
    more = [value for flag, value in given if flag == "-E"]
    names = [value.partition("=")[0] for value in more if "=" in value]
    if len(names) < len(more) or not all(name.isascii() and name.isidentifier() for name in names):
        print(usage, file=sys.stderr)
        return 1
    if "-j" in values:
        words = [word for value in more for word in ("-E", value)]
        os.execv("/usr/sbin/jexec", ["jexec", "-l", values["-j"], "/usr/sbin/service", *words, *rest])
    name, *arguments = rest
    if "/" in name:
        print(usage, file=sys.stderr)
        return 1
    for directory in ["/etc/rc.d", *local_directories()]:
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            if "-v" in values:
                print(f"{name} is located in {directory}")
            os.chdir("/")
            sys.stdout.flush()
            os.execve(path, [path, *arguments], environment() | dict(one.split("=", 1) for one in more))
    print(
        f"{name} does not exist in /etc/rc.d or the local startup\n"
        f"directories ({' '.join(local_directories())}), or is not executable",
        file=sys.stderr,
    )
    return 1
