"""jail.conf(5), read as strictly as facts 2.1 say jail(8) reads it; and name=value arguments."""

from __future__ import annotations

import os
import re
from collections import namedtuple

from jailparams import SIMPLE, kind, known

_ATOM = re.compile(r"[A-Za-z0-9_!%&()\-.:<>?@\[\]^`|~]+")
_ESCAPES = {"n": "\n", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "r": "\r", "v": "\v"}
_CODE = re.compile(r"\\([0-7]{1,3}|x[0-9A-Fa-f]{1,2}|\n|.)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z0-9_.]+)\}|([A-Za-z0-9_]+))")


class ConfError(Exception):
    """What jail(8) says and stops at."""


class Text:
    """A token: literal pieces and ("var", NAME) pieces."""

    def __init__(self, pieces: list[str | tuple[str, str]]) -> None:
        self.pieces = pieces

    @property
    def plain(self) -> str | None:
        if all(isinstance(piece, str) for piece in self.pieces):
            return "".join(str(piece) for piece in self.pieces)
        return None


# op is "bool", "=" or "+="; variable says that the name is one.
Statement = namedtuple("Statement", "name op values where variable")


class Token:
    """A piece of text, or an operator, which is its own kind."""

    def __init__(self, kind: str, line: int, text: Text, shown: str) -> None:
        self.kind, self.line, self.text, self.shown = kind, line, text, shown


def _decode(code: str) -> str:
    if code == "\n":
        return ""
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code[0] in "01234567":
        return chr(int(code, 8))
    return _ESCAPES.get(code, code)


def _pieces(raw: str, *, variables: bool, where: str) -> list[str | tuple[str, str]]:
    found: list[str | tuple[str, str]] = []
    at = 0
    while at < len(raw):
        if raw[at] == "\\":
            code = _CODE.match(raw, at)
            if not code:
                raise ConfError(f"{where}: lone backslash")
            found.append(_decode(code[1]))
            at = code.end()
        elif raw[at] == "$" and variables:
            variable = _VARIABLE.match(raw, at)
            if not variable:
                raise ConfError(f"{where}: syntax error near '$'")
            found.append(("var", variable[1] or variable[2]))
            at = variable.end()
        else:
            found.append(raw[at])
            at += 1
    return found


def _tokens(text: str, path: str) -> list[Token]:
    found: list[Token] = []
    at, line, joined = 0, 1, False

    def add(pieces: list[str | tuple[str, str]], raw: str) -> None:
        nonlocal joined
        if joined and found[-1].kind == "str":
            found[-1].text.pieces += pieces
            found[-1].shown += raw
        else:
            found.append(Token("str", line, Text(pieces), raw))
        joined = True

    while at < len(text):
        where = f"{path} line {line}"
        char = text[at]
        comment = re.compile(r"#[^\n]*|//[^\n]*|/\*.*?\*/", re.DOTALL).match(text, at)
        if char.isspace() or comment:
            end = comment.end() if comment else at + 1
            line += text.count("\n", at, end)
            at, joined = end, False
            continue
        if text.startswith("/*", at):
            raise ConfError(f"{where}: unterminated comment")
        if text.startswith("+=", at) or char in "{}=,;":
            operator = "+=" if char == "+" else char
            found.append(Token(operator, line, Text([]), operator))
            at, joined = at + len(operator), False
            continue
        if char in "\"'":
            quoted = re.compile(rf"{char}((?:[^{char}\\]|\\.)*){char}", re.DOTALL).match(text, at)
            if not quoted:
                raise ConfError(f"{where}: unterminated string")
            add(_pieces(quoted[1], variables=char == '"', where=where), quoted[0])
            line += quoted[0].count("\n")
            at = quoted.end()
            continue
        variable = _VARIABLE.match(text, at) if char == "$" else None
        atom = variable or _ATOM.match(text, at) or (_CODE.match(text, at) if char == "\\" else None)
        if atom:
            add(_pieces(atom[0], variables=True, where=where), atom[0])
            at = atom.end()
        elif char in "*+/":
            add([char], char)
            at += 1
        else:
            raise ConfError(f"{where}: syntax error near '{char}'")
    return found


class Config:
    """The statements of a file and of what it includes."""

    def __init__(self) -> None:
        self.order: list[tuple[str, Statement]] = []  # ("*" or jail, statement)
        self.jails: list[str] = []

    def load(self, path: str, text: str, depth: int = 0) -> None:
        if depth > 32:
            raise ConfError(f"{path}: maximum include depth exceeded")
        stream, scope, at = _tokens(text, path), "", 0
        while at < len(stream):
            token = stream[at]
            where = f"{path} line {token.line}"
            if token.kind == "}" and scope:
                scope, at = "", at + 1
                continue
            if token.kind != "str":
                raise ConfError(f"{where}: syntax error near '{token.shown}'")
            follow = stream[at + 1].kind if at + 1 < len(stream) else "end of file"
            name = token.text.plain
            if follow == "{":
                if scope or name is None:
                    raise ConfError(f"{where}: syntax error near '{{'")
                self._open(name, where)
                scope, at = name, at + 2
            elif name == ".include" and follow == "str":
                at = self._include(stream, at, where, depth, inside=bool(scope))
            else:
                statement, at = _statement(stream, at, path)
                self.order.append((scope or "*", statement))
        if scope:
            raise ConfError(f"{path}: syntax error near end of file: '}}' is missing")

    def _open(self, name: str, where: str) -> None:
        if name == "*":
            return
        if name in self.jails:
            raise ConfError(f"{where}: jail {name} is defined twice")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
            raise ConfError(f"{where}: {name}: no jail name that the fact sheet vouches for")
        self.jails.append(name)

    def _include(self, stream: list[Token], at: int, where: str, depth: int, *, inside: bool) -> int:
        pattern = stream[at + 1].text.plain
        if inside or pattern is None or not pattern.startswith("/"):
            raise ConfError(f"{where}: .include takes one literal absolute path, outside braces")
        if at + 2 >= len(stream) or stream[at + 2].kind != ";":
            raise ConfError(f"{where}: syntax error after .include: ';' is missing")
        import glob

        for path in sorted(glob.glob(pattern)):
            self.load(path, read(path), depth + 1)
        return at + 3

    def parameters(self, jail: str) -> dict[str, list[str]]:
        """Everything that applies to the jail, in order, with its variables expanded."""
        merged: dict[str, list[tuple[Text, str]]] = {}
        variables: dict[str, list[Text]] = {}
        for scope, statement in self.order:
            if scope not in ("*", jail):
                continue
            if statement.variable:
                if known(statement.name):
                    raise ConfError(f"{statement.where}: variable {statement.name} has a parameter's name")
                variables[statement.name] = statement.values
                continue
            name, values = _meaning(statement)
            if name in ("name", "jid"):
                raise ConfError(f"{statement.where}: {name} cannot be redefined")
            old = merged.get(name, []) if statement.op == "+=" else []
            merged[name] = old + [(value, statement.where) for value in values]
            if name in SIMPLE and len(merged[name]) > 1:
                raise ConfError(f"{statement.where}: {name}: only one value is allowed")
        expanded: dict[str, list[str]] = {"name": [jail]}

        def expand(text: Text, where: str, seen: tuple[str, ...]) -> str:
            return "".join(
                piece if isinstance(piece, str) else variable(piece[1], where, seen) for piece in text.pieces
            )

        def variable(name: str, where: str, seen: tuple[str, ...]) -> str:
            if name == "name":
                return jail
            if name in seen:
                raise ConfError(f"{where}: variable loop: {name}")
            source = variables.get(name) or [value for value, _ in merged.get(name, [])]
            if not source:
                raise ConfError(f'{jail}: variable "{name}" not defined')
            if len(source) > 1:
                raise ConfError(f'{jail}: variable "{name}" has several values and is part of a string')
            return expand(source[0], where, (*seen, name))

        for name, pairs in merged.items():
            expanded[name] = [expand(value, where, (name,)) for value, where in pairs]
        return expanded


def _statement(stream: list[Token], at: int, path: str) -> tuple[Statement, int]:
    token = stream[at]
    where = f"{path} line {token.line}"
    pieces = token.text.pieces
    variable = len(pieces) == 1 and isinstance(pieces[0], tuple) and not token.shown.startswith('"')
    name = pieces[0][1] if variable else token.text.plain
    if name is None or name == "*":
        raise ConfError(f"{where}: syntax error near '{token.shown}'")
    at += 1
    values: list[Text] = []
    op = "bool"
    if at < len(stream) and stream[at].kind in ("=", "+="):
        op = stream[at].kind
        while True:
            at += 1
            if at >= len(stream) or stream[at].kind != "str":
                shown = stream[at].shown if at < len(stream) else "end of file"
                raise ConfError(f"{where}: syntax error near '{shown}'")
            values.append(stream[at].text)
            at += 1
            if at >= len(stream) or stream[at].kind != ",":
                break
    if at >= len(stream) or stream[at].kind != ";":
        shown = stream[at].shown if at < len(stream) else "end of file"
        raise ConfError(f"{where}: syntax error near '{shown}': ';' expected")
    if variable and op != "=":
        raise ConfError(f"{where}: a variable takes '='")
    return Statement(str(name), op, values, where, variable), at + 1


def _meaning(statement: Statement) -> tuple[str, list[Text]]:
    """The parameter behind `p;` and `nop;`."""
    if statement.op != "bool":
        return statement.name, statement.values
    head, dot, last = statement.name.rpartition(".")
    positive = f"{head}{dot}{last[2:]}"
    if last.startswith("no") and not known(statement.name) and kind(positive) == "bool":
        return positive, [Text(["false"])]
    return statement.name, [Text(["true"])] if kind(statement.name) in ("bool", "unknown") else []


def read(path: str) -> str:
    if path == "-":
        import sys

        return sys.stdin.read()
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def load(path: str) -> Config:
    config = Config()
    config.load(os.path.basename(path) if path == "-" else path, read(path))
    return config


def from_arguments(words: list[str]) -> dict[str, list[str]]:
    """name=value on the command line; `command=` takes the rest."""
    found: dict[str, list[str]] = {}
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "command" and equals:
            found["command"] = [value, *words[index + 1 :]]
            break
        if not equals:
            statement = Statement(name, "bool", [], "command line", False)
            name, values = _meaning(statement)
            found[name] = [value.plain or "" for value in values]
        elif name.endswith("+"):
            found.setdefault(name[:-1], []).append(value)
        elif kind(name) == "list" and name in found:
            found[name].append(value)
        elif kind(name) == "list" and name in ("ip4.addr", "ip6.addr", "vnet.interface", "depend"):
            found[name] = value.split(",")
        else:
            found[name] = [value]
    return found
