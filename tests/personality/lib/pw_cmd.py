"""pw(8) and pwd_mkdb(8): the account files, always replaced by rename in their own directory (facts 5)."""

from __future__ import annotations

import os
import re
import sys

import options as getopt
import state as kept
from small_cmd import replace

USAGE = (
    "usage: pw [-R rootdir] [-V etcdir] user|group add|del|show|mod [name] [-n name] [-u uid] [-g gid] ..."
)


def _fail(program: str, text: object, status: int = 1) -> int:
    print(f"{program}: {text}", file=sys.stderr)
    return status


def _rows(path: str) -> list[list[str]]:
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n").split(":") for line in file if line.strip() and not line.startswith("#")]


def _text(rows: list[list[str]]) -> bytes:
    return "".join(":".join(row) + "\n" for row in rows).encode()


def mkdb(directory: str, rows: list[list[str]]) -> None:
    for row in rows:
        if len(row) != 10 or not re.fullmatch(r"[a-z_][a-zA-Z0-9_.-]*\$?", row[0]):
            raise ValueError(f"corrupted entry: {':'.join(row)}")
    plain = [[row[0], "*", *row[2:4], *row[7:]] for row in rows]
    replace(f"{directory}/pwd.db", b"pwd_mkdb of the personality\n" + _text(plain))
    replace(f"{directory}/spwd.db", b"pwd_mkdb of the personality\n" + _text(rows), 0o600)
    replace(f"{directory}/passwd", _text(plain))


def main_pwd_mkdb(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "Cd:ps:u:")
    except getopt.GetoptError as error:
        return _fail("pwd_mkdb", f"illegal option -- {error.opt}")
    values = dict(given)
    if len(rest) != 1:
        return _fail("usage", "pwd_mkdb [-Cp] [-d directory] [-s cachesize] [-u username] file")
    directory = values.get("-d", "/etc")
    try:
        rows = _rows(rest[0])
        if "-C" in values:
            return 0 if all(len(row) == 10 for row in rows) else _fail("pwd_mkdb", "corrupted entry")
        if os.stat(rest[0]).st_dev != os.stat(directory).st_dev:
            return _fail("pwd_mkdb", f"{rest[0]}: Cross-device link")
        old = open(f"{directory}/passwd", "rb").read() if os.path.exists(f"{directory}/passwd") else None  # noqa: SIM115
        mkdb(directory, rows)
        if "-p" not in values:  # only -p makes the version-7 file
            os.unlink(f"{directory}/passwd")
            if old is not None:
                replace(f"{directory}/passwd", old)
        if os.path.realpath(rest[0]) != os.path.realpath(f"{directory}/master.passwd"):
            os.rename(rest[0], f"{directory}/master.passwd")
    except ValueError as error:
        return _fail("pwd_mkdb", error)
    except OSError as error:
        return _fail("pwd_mkdb", f"{error.filename}: {error.strerror}")
    return 0


def main(argv: list[str]) -> int:
    kept.guard()
    directory = "/etc"
    while len(argv) >= 2 and argv[0] in ("-R", "-V"):
        if argv[0] == "-R":
            try:
                os.chroot(argv[1])
                os.chdir("/")
            except OSError as error:
                return _fail("pw", f"{argv[1]}: {error.strerror}", 71)
        else:
            directory = argv[1]
        argv = argv[2:]
    word = re.match(r"(user|group)(add|del|show|mod)$", "".join(argv[:1]))
    if word:
        kind, action = word.groups()
        argv = argv[1:]
    elif len(argv) >= 2 and argv[0] in ("user", "group") and argv[1] in ("add", "del", "show", "mod"):
        kind, action, *argv = argv
    else:
        print(USAGE, file=sys.stderr)
        return 64
    name = ""
    if argv and not argv[0].startswith("-"):
        name, *argv = argv
    try:
        given, rest = getopt.getopt(argv, "n:u:g:c:d:s:G:M:amh:q")
    except getopt.GetoptError as error:
        return _fail("pw", f"unknown switch -- {error.opt}", 64)
    values = dict(given)
    name = values.get("-n", name)
    if rest or (not name and "-a" not in values):
        print(USAGE, file=sys.stderr)
        return 64
    try:
        return (_user if kind == "user" else _group)(directory, action, name, values)
    except OSError as error:
        return _fail("pw", f"{error.filename}: {error.strerror}", 71)
    except ValueError as error:
        return _fail("pw", error, 65)


def _free(rows: list[list[str]], column: int) -> str:
    taken = {row[column] for row in rows}
    return next(str(number) for number in range(1001, 32000) if str(number) not in taken)


def _user(directory: str, action: str, name: str, values: dict[str, str]) -> int:
    path = f"{directory}/master.passwd"
    rows = _rows(path)
    row = next((row for row in rows if row[0] == name), None)
    if action == "show":
        for shown in rows if "-a" in values else [row]:
            if shown is None:
                return _fail("pw", f"no such user `{name}'", 67)
            print(":".join(shown))
        return 0
    if (row is None) is not (action == "add"):
        return _fail(
            "pw", f"user '{name}' already exists" if row else f"no such user `{name}'", 65 if row else 67
        )
    groups = _rows(f"{directory}/group")
    gid = values.get("-g", row[3] if row else "")
    if gid and not gid.isdigit():
        found = next((group[2] for group in groups if group[0] == gid), None)
        if found is None:
            return _fail("pw", f"group `{gid}' does not exist", 67)
        gid = found
    if action == "del":
        rows.remove(row or [])
    elif action == "mod" and row:
        row[2], row[3] = values.get("-u", row[2]), gid
        row[7], row[8], row[9] = values.get("-c", row[7]), values.get("-d", row[8]), values.get("-s", row[9])
    else:
        uid = values.get("-u") or _free(rows, 2)
        if not gid:
            gid = uid
            replace(f"{directory}/group", _text([*groups, [name, "*", gid, ""]]))
        home, shell = values.get("-d", f"/home/{name}"), values.get("-s", "/bin/sh")
        rows.append([name, "*", uid, gid, "", "0", "0", values.get("-c", "User &"), home, shell])
    mkdb(directory, rows)
    replace(path, _text(rows), 0o600)
    return 0


def _group(directory: str, action: str, name: str, values: dict[str, str]) -> int:
    path = f"{directory}/group"
    rows = _rows(path)
    row = next((row for row in rows if row[0] == name), None)
    if action == "show":
        for shown in rows if "-a" in values else [row]:
            if shown is None:
                return _fail("pw", f"unknown group `{name}'", 67)
            print(":".join(shown))
        return 0
    if (row is None) is not (action == "add"):
        return _fail("pw", f"group name `{name}' already exists" if row else f"unknown group `{name}'", 65)
    if action == "del":
        rows.remove(row or [])
    elif action == "mod" and row:
        row[2], row[3] = values.get("-g", row[2]), values.get("-M", row[3])
    else:
        rows.append([name, "*", values.get("-g") or _free(rows, 2), values.get("-M", "")])
    replace(path, _text(rows))
    return 0
