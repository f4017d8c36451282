"""ipnat(8): load, list and flush map and rdr rules (facts 6.3); nothing is translated by them."""

from __future__ import annotations

import _socket
import re
import sys

import options as getopt
import state as kept

USAGE = "usage: ipnat [-CFlnv] [-f filename]"
_ADDRESS = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_FORMS = (
    re.compile(
        rf"map (?P<if>[a-z][a-z0-9]*) (?P<a>{_ADDRESS})/32 -> (?P<b>{_ADDRESS})/32"
        r"(?: portmap (?:tcp|udp|tcp/udp) (?P<p>[0-9]+):(?P<q>[0-9]+))?"
    ),
    re.compile(
        rf"rdr (?P<if>[a-z][a-z0-9]*) (?P<a>{_ADDRESS})/32 port (?P<p>[0-9]+)"
        rf" -> (?P<b>{_ADDRESS}) port (?P<q>[0-9]+)(?: (?:tcp|udp|tcp/udp))?"
    ),
)


def warn(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def wrong(line: str, interfaces: list[str]) -> str:
    """Return why a line cannot be loaded; "" when it can."""
    found = next((match for form in _FORMS if (match := form.fullmatch(line))), None)
    if found is None:
        return "syntax error"
    for address in (found["a"], found["b"]):
        try:
            _socket.inet_aton(address)
        except OSError:
            return f"{address}: unknown host"
    for port in (found["p"], found["q"]):
        if port is not None and not 0 < int(port) < 65536:
            return f"{port}: port out of range"
    return "" if found["if"] in interfaces else f"{found['if']}: no such interface"


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "CFf:lnv")
    except getopt.GetoptError as error:
        print(f"ipnat: illegal option -- {error.opt}", file=sys.stderr)
        return warn(USAGE)
    values, flags = dict(given), {flag for flag, _ in given}
    if rest or not given:
        return warn(USAGE)
    rules = []
    if "-f" in values:
        try:
            with open(values["-f"], encoding="utf-8") as file:
                lines = file.read().splitlines()
        except OSError as error:
            return warn(f"{values['-f']}: open: {error.strerror}")
        for number, line in enumerate(lines, 1):
            rule = " ".join(line.partition("#")[0].split())
            if rule:
                if why := wrong(rule, kept.read()["interfaces"]):
                    return warn(f'{why} error at "{rule.split()[0]}", line {number}')
                rules.append(rule)
    with kept.locked() as state:
        loaded = state.setdefault("ipnat", [])
        if "-n" not in flags:
            if "-C" in flags:
                print(f"{len(loaded)} entries flushed from NAT list")
                loaded.clear()
            loaded += [rule for rule in rules if rule not in loaded]
        if "-l" in flags:
            print("List of active MAP/Redirect filters:")
            print("".join(f"{rule}\n" for rule in loaded), end="")
    return 0
