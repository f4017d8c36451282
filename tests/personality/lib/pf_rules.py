"""pf.conf(5), as far as facts 6.3 go: anchors, classic rdr and nat, filter rules by their first word."""

from __future__ import annotations

import _socket
import re

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_ANCHOR = r'"?(?P<anchor>[A-Za-z0-9_./*-]+)"?'
_INTERFACE = r"(?P<if>[a-z][a-z0-9]*)"
_PLACE = r"(?:any|\(?[A-Za-z0-9_.:/]+\)?)"
_PORT = r"(?P<port{0}>[0-9]+)"

# One line each; what prints it, with the groups of the match, is beside it. `pass` of rdr is kept.
_FORMS = [
    (
        "attach",
        re.compile(rf"(?P<kind>nat-anchor|rdr-anchor|anchor) {_ANCHOR}(?: all)?"),
        '{kind} "{anchor}" all',
    ),
    ("load", re.compile(rf'load anchor {_ANCHOR} from "(?P<file>/[^"]+)"'), ""),
    (
        "option",
        re.compile(r"set (?:skip on [a-z0-9]+|block-policy (?:drop|return)|state-policy [a-z-]+)"),
        "",
    ),
    (
        "rdr",
        re.compile(
            rf"rdr(?P<pass> pass)? on {_INTERFACE} (?P<af>inet6?) proto (?P<proto>tcp|udp)"
            rf" from (?P<from>{_PLACE}) to (?P<to>{_PLACE}) port =? ?{_PORT.format(1)}"
            rf" -> (?P<host>[0-9a-fA-F.:]+) port =? ?{_PORT.format(2)}"
        ),
        "rdr{pass} on {if} {af} proto {proto} from {from} to {to} port = {port1} -> {host} port {port2}",
    ),
    (
        "nat",
        re.compile(
            rf"nat(?P<pass> pass)? on {_INTERFACE} (?P<af>inet6?) from (?P<from>{_PLACE}) to (?P<to>{_PLACE})"
            r" -> (?P<host>\([a-z0-9]+\)|[0-9a-fA-F.:]+)"
        ),
        "nat{pass} on {if} {af} from {from} to {to} -> {host}",
    ),
    (
        "filter",
        re.compile(r"(?:pass|block)(?: [A-Za-z0-9_.:/=()<>!-]+)*(?: (?:flags [A-Z]+/[A-Z]+|keep state))*"),
        None,
    ),
]
_ORDER = {"option": 0, "nat": 1, "rdr": 1, "filter": 2}


class Bad(Exception):
    """A line that pfctl(8) would not load; (number, what)."""


class Rule:
    """One line: of the translation ("nat") or of the filter ("rules"), and how pfctl prints it."""

    def __init__(self, kind: str, text: str, anchor: str = "", file: str = "") -> None:
        self.kind, self.text, self.anchor, self.file = kind, text, anchor, file

    @property
    def translates(self) -> bool:
        return self.kind in ("nat", "rdr") or self.text.startswith(("nat-anchor", "rdr-anchor"))


def parse(text: str, interfaces: dict[str, list[str]], *, main: bool) -> list[Rule]:
    """The rules of a file. Raises Bad with the first line that is none, or stands in the wrong place."""
    macros: dict[str, str] = {}
    rules: list[Rule] = []
    reached = 0
    for number, line in _lines(text):
        macro = re.fullmatch(rf'({_NAME})\s*=\s*"?([^"]*)"?', line)
        if macro:
            macros[macro[1]] = macro[2]
            continue
        expanded = re.sub(rf"\$({_NAME})", lambda found, at=number: _macro(macros, found[1], at), line)
        rule = _rule(" ".join(expanded.split()), interfaces, number)
        if rule.kind in ("load", "option") and not main:
            raise Bad(number, "syntax error")
        place = 1 if rule.translates else _ORDER.get(rule.kind, 2)
        if rule.kind != "load":
            if place < reached:
                raise Bad(
                    number,
                    "Rules must be in order: options, normalization, queueing, translation, filtering",
                )
            reached = place
        rules.append(rule)
    return rules


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines with their numbers, without comments; a backslash joins two."""
    found: list[tuple[int, str]] = []
    pending, since = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.partition("#")[0].strip()
        since = since or number
        if bare.endswith("\\"):
            pending += bare[:-1] + " "
            continue
        if pending + bare:
            found.append((since, pending + bare))
        pending, since = "", 0
    return found


def _macro(macros: dict[str, str], name: str, number: int) -> str:
    if name not in macros:
        raise Bad(number, f"macro '{name}' not defined")
    return macros[name]


def _rule(line: str, interfaces: dict[str, list[str]], number: int) -> Rule:
    for kind, form, printed in _FORMS:
        found = form.fullmatch(line)
        if not found:
            continue
        parts = {name: value or "" for name, value in found.groupdict().items()}
        for name in ("port1", "port2"):
            if name in parts and not 0 < int(parts[name]) < 65536:
                raise Bad(number, f"illegal port value {parts[name]}")
        for name in ("from", "to", "host"):
            _address(parts.get(name, "any"), parts.get("af", ""), interfaces, number)
        text = line if printed is None else printed.format(**parts)
        return Rule(kind, text, parts.get("anchor", ""), parts.get("file", ""))
    raise Bad(number, "syntax error")


def _address(text: str, family: str, interfaces: dict[str, list[str]], number: int) -> None:
    """'any', an interface, or an address of the family."""
    bare = text.strip("()").partition("/")[0]
    if text == "any" or bare in interfaces:
        return
    try:
        _socket.inet_pton(_socket.AF_INET6 if family == "inet6" else _socket.AF_INET, bare)
    except OSError:
        raise Bad(number, f"could not parse host specification: {text}") from None
