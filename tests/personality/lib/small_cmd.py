"""chroot(8), install(1), cap_mkdb(1), ldconfig(8): each as small as the fact sheet leaves it."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import sys

import chflags_cmd
import options as getopt
import state as kept


def _fail(program: str, *parts: object, status: int = 1) -> int:
    print(": ".join([program, *map(str, parts)]), file=sys.stderr)
    return status


def _options(program: str, usage: str, argv: list[str], letters: str) -> tuple[dict[str, str], list[str]]:
    try:
        given, rest = getopt.getopt(argv, letters)
    except getopt.GetoptError as error:
        print(f"{program}: illegal option -- {error.opt}\nusage: {usage}", file=sys.stderr)
        sys.exit(64 if program == "install" else 1)
    return dict(given), rest


def main_chroot(argv: list[str]) -> int:
    kept.guard()
    values, rest = _options("chroot", "chroot [-g group] [-u user] newroot [command]", argv, "g:u:")
    if not rest:
        return _fail("usage", "chroot [-g group] [-u user] newroot [command]")
    root, *command = rest
    try:
        uid = pwd.getpwnam(values["-u"]).pw_uid if "-u" in values else None
        gid = grp.getgrnam(values["-g"]).gr_gid if "-g" in values else None
        os.chdir(root)
        os.chroot(".")
        if gid is not None:
            os.setgroups([gid])
            os.setgid(gid)
        if uid is not None:
            os.setuid(uid)
        command = command or [os.environ.get("SHELL", "/bin/sh"), "-i"]
        os.execvp(command[0], command)
    except KeyError as error:
        return _fail("chroot", f"no such user or group: {error}")
    except OSError as error:
        return _fail("chroot", error.filename or command[0], error.strerror, status=127 if command else 1)


def main_install(argv: list[str]) -> int:
    kept.guard()
    usage = "install [-bCcMpSsUv] [-f flags] [-g group] [-m mode] [-o owner] file ... target"
    values, rest = _options("install", usage, argv, "bCcdf:g:Mm:o:pSsUv")
    mode = values.get("-m", "755")
    try:
        bits = int(mode, 8)
        uid = _id(values.get("-o"), lambda name: pwd.getpwnam(name).pw_uid)
        gid = _id(values.get("-g"), lambda name: grp.getgrnam(name).gr_gid)
    except (ValueError, KeyError) as error:
        return _fail("install", error, status=67)
    try:
        if "-d" in values:
            made = rest
            for path in rest:
                os.makedirs(path, exist_ok=True)
        elif len(rest) < 2 or (len(rest) > 2 and not os.path.isdir(rest[-1])):
            return _fail("usage", usage, status=64)
        else:
            made = []
            for source in rest[:-1]:
                target = rest[-1]
                target = os.path.join(target, os.path.basename(source)) if os.path.isdir(target) else target
                temporary = f"{target}.INS@{os.getpid()}"
                shutil.copyfile(source, temporary)
                if "-p" in values:
                    shutil.copystat(source, temporary)
                os.rename(temporary, target)
                made.append(target)
        for path in made:
            if uid != -1 or gid != -1:
                os.chown(path, uid, gid)
            os.chmod(path, bits)
    except OSError as error:
        return _fail("install", error.filename, error.strerror, status=71)
    return chflags_cmd.main([values["-f"], *made]) if "-f" in values else 0


def _id(text: str | None, lookup: object) -> int:
    if text is None:
        return -1
    return int(text) if text.isdigit() else lookup(text)  # type: ignore[operator]


def main_cap_mkdb(argv: list[str]) -> int:
    kept.guard()
    values, rest = _options("cap_mkdb", "cap_mkdb [-b | -l] [-v] [-f outfile] file ...", argv, "blf:v")
    if not rest:
        return _fail("usage", "cap_mkdb [-b | -l] [-v] [-f outfile] file ...")
    try:
        data = b""
        for path in rest:
            with open(path, "rb") as file:
                data += file.read()
        replace(f"{values.get('-f', rest[0])}.db", b"cap_mkdb of the personality\n" + data)
    except OSError as error:
        return _fail("cap_mkdb", error.filename, error.strerror)
    return 0


def replace(path: str, data: bytes, mode: int = 0o644) -> None:
    """Write beside the file and rename, as all these programs do: the directory must be writable."""
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    os.chmod(temporary, mode)
    os.rename(temporary, path)


def main_ldconfig(argv: list[str]) -> int:
    kept.guard()
    values, rest = _options("ldconfig", "ldconfig [-elf] [-mRrv] [-f hints] [dir | file ...]", argv, "mRrvf:")
    hints = values.get("-f", "/var/run/ld-elf.so.hints")
    old: list[str] = []
    if os.path.exists(hints):
        with open(hints, encoding="utf-8") as file:
            old = file.read().split("\n")[1].split(":")
    if "-r" in values:
        print(f"{hints}:\n\tsearch directories: {':'.join(old)}")
        return 0
    paths = [*old, *rest] if {"-m", "-R"} & set(values) else rest
    unique = [path for index, path in enumerate(paths) if path and path not in paths[:index]]
    missing = [path for path in rest if not path.startswith("/")]
    if missing:
        return _fail("ldconfig", missing[0], "not an absolute path")
    try:
        replace(hints, ("Ehnt\n" + ":".join(path for path in unique if os.path.isdir(path)) + "\n").encode())
    except OSError as error:
        return _fail("ldconfig", error.filename, error.strerror)
    return 0
