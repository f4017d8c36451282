"""sockstat(1): who has which socket of TCP or UDP open, as far as /proc of the host tells (facts 6.3)."""

from __future__ import annotations

import os
import re
import sys

import options as getopt
import prison
import procs_cmd
import state as kept

USAGE = "usage: sockstat [-46lq] [-j jail] [-p ports] [-P protocols]"
_LISTENING = {"tcp": "0A", "udp": "07"}


def _address(text: str) -> str:
    """HEX:PORT of /proc/net as ADDRESS:PORT; every address is a *."""
    raw, _, port = text.partition(":")
    words = [bytes.fromhex(raw[at : at + 8])[::-1] for at in range(0, len(raw), 8)]
    packed = b"".join(words)
    number = str(int(port, 16)) if int(port, 16) else "*"
    if not any(packed):
        return f"*:{number}"
    if len(packed) == 4:
        return f"{'.'.join(map(str, packed))}:{number}"
    import _socket

    return f"{_socket.inet_ntop(_socket.AF_INET6, packed)}:{number}"


def _sockets(protocol: str, version: int) -> list[tuple[str, str, str, bool]]:
    """(inode, local, foreign, listening) of one table."""
    path = f"/proc/net/{protocol}{'6' if version == 6 else ''}"
    found = []
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            for line in file.read().splitlines()[1:]:
                fields = line.split()
                found.append(
                    (fields[9], _address(fields[1]), _address(fields[2]), fields[3] == _LISTENING[protocol])
                )
    return found


def _inodes(pid: int) -> dict[str, str]:
    """The descriptor of each socket of a process."""
    found = {}
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
            if target:
                found[target[1]] = fd
    except OSError:
        pass
    return found


def _stands_for(pid: int, listed: set[int], parents: dict[int, int]) -> list[int]:
    """A process and those below it that ps does not list: jexec stands for the command that it waits for."""
    found = [pid]
    for below, parent in parents.items():
        if parent == pid and below not in listed:
            found += _stands_for(below, listed, parents)
    return found


def _parents() -> dict[int, int]:
    found = {}
    for pid in prison.pids():
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                found[pid] = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found


def _ports(text: str) -> set[str]:
    found: set[str] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found |= set(map(str, range(int(first), int(last if dash else first) + 1)))
    return found


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "46j:lP:p:q")
        values, flags = dict(given), {flag for flag, _ in given}
        ports = _ports(values["-p"]) if "-p" in values else set()
    except (getopt.GetoptError, ValueError):
        rest = ["?"]
    if rest:
        print(USAGE, file=sys.stderr)
        return 1
    protocols = values.get("-P", "tcp,udp").split(",")
    if not set(protocols) <= set(_LISTENING):
        print(f"sockstat: unknown protocol: {values['-P']}", file=sys.stderr)
        return 1
    processes = procs_cmd.listing()
    if "-j" in values:
        wanted = procs_cmd._jids(values["-j"])
        if wanted is None:
            print(f"sockstat: jail not found: {values['-j']}", file=sys.stderr)
            return 1
        processes = [one for one in processes if one.jid in wanted]
    tables = [
        (f"{protocol}{version}", row)
        for protocol in protocols
        for version in (4, 6)
        if not flags & {"-4", "-6"} or f"-{version}" in flags
        for row in _sockets(protocol, version)
    ]
    if "-q" not in flags:
        print("USER     COMMAND    PID   FD PROTO  LOCAL ADDRESS         FOREIGN ADDRESS")
    parents, listed = _parents(), {one.pid for one in procs_cmd.listing()}
    for one in processes:
        own = {}
        for pid in _stands_for(one.pid, listed, parents):
            own |= _inodes(pid)
        for name, (inode, local, foreign, listening) in tables:
            if inode not in own or ("-l" in flags and not listening):
                continue
            if ports and not {local.rpartition(":")[2], foreign.rpartition(":")[2]} & ports:
                continue
            shown = f"{one.shown('user'):<8} {one.comm[:10]:<10} {one.pid:<5} {own[inode]:<2} {name:<6}"
            print(f"{shown} {local:<21} {foreign}")
    return 0
