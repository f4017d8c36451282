"""jexec(8), ps(1), pkill(1), pgrep(1), killall(1): processes and the jails they are in (facts 2.8)."""

from __future__ import annotations

import _signal as signal
import os
import pwd
import sys

import execs
import options as getopt
import prison
import state as kept
from record import record


def _usage(text: str) -> int:
    print(f"usage: {text}", file=sys.stderr)
    return 1


# --- jexec ----


def main_jexec(argv: list[str]) -> int:
    kept.guard()
    text = "jexec [-l] [-u username | -U username] jail [command ...]"
    try:
        given, rest = getopt.getopt(argv, "lu:U:")
    except getopt.GetoptError as error:
        print(f"jexec: illegal option -- {error.opt}", file=sys.stderr)
        return _usage(text)
    values = dict(given)
    if not rest or ("-u" in values and "-U" in values):
        return _usage(text)
    with kept.locked() as state:
        jail = prison.find(state, rest[0])
    if not jail:
        print(f'jexec: jail "{rest[0]}" not found', file=sys.stderr)
        return 1
    clean = "-l" in values
    user = values.get("-u") or values.get("-U") or ""
    how = execs.How(jail, clean=clean, home=clean and bool(user))
    how.user, how.system_user = user, "-u" in values
    command = rest[1:]
    if not command:
        command = ["/bin/sh", "-i"] if clean else [os.environ.get("SHELL", "/bin/sh"), "-i"]
    if clean and not user:
        how.user, how.system_user = "root", True
    status = execs.run(command, how)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


# --- the process list ----


class Process(record("pid ppid jid uid state args comm")):
    """A process, and the jail it is in."""

    __slots__ = ()

    def shown(self, keyword: str) -> str:
        if keyword == "user":
            try:
                return pwd.getpwuid(self.uid).pw_name
            except KeyError:
                return str(self.uid)
        if keyword in ("args", "command"):
            return self.args
        if keyword in ("stat", "state"):
            return self.state + ("J" if self.jid else "")
        return str(getattr(self, keyword))


KEYWORDS = {"pid": "PID", "ppid": "PPID", "jid": "JID", "uid": "UID", "user": "USER", "args": "COMMAND",
            "command": "COMMAND", "comm": "COMMAND", "stat": "STAT", "state": "STAT"}  # fmt: skip


def _shown(words: list[str]) -> str:
    """The command line; of a program of the personality, as one that no interpreter runs."""
    if words[1:2] == ["-IS"] and words[0] == os.path.realpath(sys.executable) and len(words) > 2:
        words = [os.path.basename(words[2]), *words[3:]]
    return " ".join(words)


def listing() -> list[Process]:
    with kept.locked() as state:
        found = prison.jails(state)
    by_namespace = prison.jid_of(found)
    holders = {jail["init"] for jail in found}
    processes = []
    for pid in prison.pids():
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                head, _, tail = file.read().rpartition(")")
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
                args = _shown(file.read().rstrip("\0").split("\0"))
            namespaces = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "uts")]
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            continue
        comm = head.partition("(")[2]
        if pid in holders or comm == "jail-holder":
            continue
        fields = tail.split()
        jid = max(by_namespace.get(namespace, 0) for namespace in namespaces)
        processes.append(Process(pid, int(fields[1]), jid, uid, fields[0], args or f"[{comm}]", comm))
    inside = by_namespace.get(os.readlink("/proc/self/ns/uts"), 0)
    if inside:  # a jail sees itself alone, and has no jid for itself
        return [one._replace(jid=0) for one in processes if one.jid == inside]
    return _one_each(processes)


def _one_each(processes: list[Process]) -> list[Process]:
    """On FreeBSD jexec(8) becomes the command; here it waits for it, and stands for it under its number."""
    below = {one.ppid: one for one in processes}
    waiting = {one.pid for one in processes if os.path.basename(one.args.split(" ")[0]) == "jexec"}
    hidden = set()
    stand_ins = {}
    for one in processes:
        if one.pid not in waiting or one.ppid in waiting:
            continue
        last = one
        while last.pid in waiting and last.pid in below:
            last = below[last.pid]
            hidden.add(last.pid)
        if last.jid:
            stand_ins[one.pid] = last._replace(pid=one.pid, ppid=one.ppid)
    return [stand_ins.get(one.pid, one) for one in processes if one.pid not in hidden]


def _jids(text: str) -> set[int] | None:
    """-j JAIL[,JAIL]: names or jids."""
    wanted = set()
    with kept.locked() as state:
        for name in text.split(","):
            jail = prison.find(state, name)
            if not jail and name != "0":
                return None
            wanted.add(jail["jid"] if jail else 0)
    return wanted


def main_ps(argv: list[str]) -> int:
    kept.guard()
    if argv and not argv[0].startswith("-"):
        argv = [f"-{argv[0]}", *argv[1:]]
    try:
        given, rest = getopt.getopt(argv, "aJ:o:p:wx")
    except getopt.GetoptError as error:
        print(f"ps: illegal option -- {error.opt}", file=sys.stderr)
        return _usage("ps [-awx] [-J jail] [-o fmt] [-p pid]")
    if rest:
        return _usage("ps [-awx] [-J jail] [-o fmt] [-p pid]")
    values, flags = dict(given), {flag for flag, _ in given}
    columns: list[tuple[str, str]] = []
    for format_ in [value for flag, value in given if flag == "-o"] or ["pid,stat,command"]:
        keyword, equals, header = format_.partition("=")
        for name in keyword.split(","):
            if name not in KEYWORDS:
                print(f"ps: {name}: keyword not found", file=sys.stderr)
                return 1
            columns.append((name, header if equals else KEYWORDS[name]))
    processes = listing()
    release = int(kept.read()["release"].split(".")[0])
    if "-J" in values and not ("-a" in flags and release >= 15):
        wanted = _jids(values["-J"])
        if wanted is None:
            print(f"ps: Invalid jail name: {values['-J']}", file=sys.stderr)
            return 1
        processes = [one for one in processes if one.jid in wanted]
    if "-p" in values:
        processes = [one for one in processes if str(one.pid) in values["-p"].split(",")]
    if any(header for _, header in columns):
        print(" ".join(header for _, header in columns))
    for one in processes:
        print(" ".join(one.shown(name) for name, _ in columns))
    return 0 if processes else 1


# --- signals ----


def _signal(word: str) -> int | None:
    name = word.removeprefix("SIG").upper()
    if name.isdigit():
        return int(name)
    found = getattr(signal, f"SIG{name}", None)
    return int(found) if found else None


def _take_signal(argv: list[str]) -> tuple[int, list[str]]:
    for index, word in enumerate(argv):
        if (
            word.startswith("-")
            and len(word) > 1
            and (word[1].isdigit() or (word[1:].isupper() and len(word) > 2))
        ):
            number = _signal(word[1:])
            if number is not None:
                return number, argv[:index] + argv[index + 1 :]
    return signal.SIGTERM, argv


def _match(argv: list[str], program: str) -> tuple[list[Process], set[str]] | int:
    try:
        given, rest = getopt.getopt(argv, "fj:lqxn")
    except getopt.GetoptError as error:
        print(f"{program}: illegal option -- {error.opt}", file=sys.stderr)
        _usage(f"{program} [-signal] [-flnqx] [-j jail] pattern ...")
        return 2
    values, flags = dict(given), {flag for flag, _ in given}
    if not rest and "-j" not in values:
        _usage(f"{program} [-signal] [-flnqx] [-j jail] pattern ...")
        return 2
    processes = [one for one in listing() if one.pid not in (os.getpid(), 1)]
    if "-j" in values:
        wanted = _jids(values["-j"])
        if wanted is None:
            print(f"{program}: unknown jail: {values['-j']}", file=sys.stderr)
            return 2
        processes = [one for one in processes if one.jid in wanted]
    for pattern in rest[:1]:
        import re

        test = re.fullmatch if "-x" in flags else re.search
        processes = [one for one in processes if test(pattern, one.args if "-f" in flags else one.comm)]
    return processes, flags


def main_pgrep(argv: list[str]) -> int:
    kept.guard()
    found = _match(argv, "pgrep")
    if isinstance(found, int):
        return found
    for one in found[0]:
        print(f"{one.pid} {one.args if '-f' in found[1] else one.comm}" if "-l" in found[1] else one.pid)
    return 0 if found[0] else 1


def main_pkill(argv: list[str]) -> int:
    kept.guard()
    number, argv = _take_signal(argv)
    found = _match(argv, "pkill")
    if isinstance(found, int):
        return found
    for one in found[0]:
        os.kill(one.pid, number)
    return 0 if found[0] else 1


def main_killall(argv: list[str]) -> int:
    """killall [-SIGNAL] [-q] -j JAIL [NAME]; without NAME, all of the jail."""
    kept.guard()
    number, argv = _take_signal(argv)
    try:
        given, names = getopt.getopt(argv, "j:q")
    except getopt.GetoptError:
        return _usage("killall [-q] [-SIGNAL] -j jail [procname ...]")
    values = dict(given)
    if "-j" not in values:
        return _usage("killall [-q] [-SIGNAL] -j jail [procname ...]")
    wanted = _jids(values["-j"])
    if wanted is None:
        print(f"killall: unknown jail: {values['-j']}", file=sys.stderr)
        return 1
    found = [one for one in listing() if one.jid in wanted - {0} and (not names or one.comm in names)]
    for one in found:
        os.kill(one.pid, number)
    if not found and "-q" not in values:
        print("No matching processes were found", file=sys.stderr)
    return 0 if found else 1
