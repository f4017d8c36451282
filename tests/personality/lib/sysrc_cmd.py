"""sysrc(8): rc.conf variables, read by sh and written line by line (facts 3.2, 5)."""

from __future__ import annotations

import os
import sys

import options as getopt
import state as kept

USAGE = (
    "usage: sysrc [-cnqx] [-s name] [-f file] [-j jail | -R dir] name[[+|-]=value] ...\n"
    "       sysrc [-nq] [-f file] -a"
)
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def _files(values: dict[str, str], given: list[str]) -> list[str]:
    if given:
        return given
    files = ["/etc/rc.conf", "/etc/rc.conf.local"]
    if "-s" in values:
        name = values["-s"]
        files = [f"/etc/rc.conf.d/{name}", f"/usr/local/etc/rc.conf.d/{name}", *files]
    return files


def value_of(name: str, files: list[str], *, defaults: bool) -> str | None:
    """What sh makes of the files; None if unset."""
    script = (
        [". /etc/defaults/rc.conf >/dev/null 2>&1"]
        if defaults and os.path.exists("/etc/defaults/rc.conf")
        else []
    )
    script += [f'if [ -f "{path}" ]; then . "{path}"; fi' for path in files]
    script.append(f'if [ -n "${{{name}+x}}" ]; then printf "=%s" "${name}"; fi')
    said = _output(["/bin/sh", "-c", "\n".join(script)])
    return said[1:] if said.startswith("=") else None


def _output(argv: list[str]) -> str:
    """What a program prints; subprocess takes longer to import than it to run."""
    reader, writer = os.pipe()
    files = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_CLOSE, 2)]
    pid = os.posix_spawn(argv[0], argv, {}, file_actions=files)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def _quoted(value: str) -> str:
    import re

    return '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'


def write(name: str, value: str | None, files: list[str]) -> None:
    """Change the last assignment there is, or add a line to the first file; None removes them all."""
    import re

    assignment = re.compile(rf"^[ \t]*(?:export[ \t]+)?{name}=.*$", re.MULTILINE)
    for path in reversed(files) if value is not None else files:
        if not os.path.exists(path):
            continue
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        found = list(assignment.finditer(text))
        if not found:
            continue
        if value is None:
            text = re.sub(rf"^[ \t]*(?:export[ \t]+)?{name}=.*\n?", "", text, flags=re.MULTILINE)
        else:
            text = f"{text[: found[-1].start()]}{name}={_quoted(value)}{text[found[-1].end() :]}"
        _replace(path, text)
        if value is not None:
            return
    if value is not None:
        text = ""
        if os.path.exists(files[0]):
            with open(files[0], encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        if text and not text.endswith("\n"):
            text += "\n"
        os.makedirs(os.path.dirname(files[0]), exist_ok=True) if "rc.conf.d" in files[0] else None
        _replace(files[0], f"{text}{name}={_quoted(value)}\n")


def _replace(path: str, text: str) -> None:
    with open(
        path, "r+" if os.path.exists(path) else "x", encoding="utf-8", errors="surrogateescape"
    ) as file:
        file.write(text)
        file.truncate()


def _listed(old: str, operator: str, value: str) -> str:
    """k+=v and k-=v: blank separated, unless v starts with another separator."""
    separator = " "
    if value and not ((value[0].isascii() and value[0].isalnum()) or value[0] in "_/.-"):
        separator, value = value[0], value[1:]
    items = [item for item in old.split(separator) if item]
    for item in [item for item in value.split(separator) if item]:
        if operator == "+" and item not in items:
            items.append(item)
        if operator == "-":
            items = [one for one in items if one != item]
    return separator.join(items)


def _one(word: str, flags: set[str], files: list[str], *, given: bool) -> int:
    name, assigned, value = word.partition("=")
    new, operator = (value, name[-1:] if name[-1:] in "+-" else "") if assigned else (None, "")
    name = name.removesuffix(operator)
    if not (name.isascii() and name.isidentifier()):
        print(f"sysrc: {word}: not a valid variable name", file=sys.stderr)
        return 1
    old = value_of(name, files, defaults=not given)
    quiet = "-q" in flags
    if new is None:
        if old is None or ("-x" in flags and value_of(name, files, defaults=False) is None):
            if not quiet:
                print(f"sysrc: unknown variable '{name}'", file=sys.stderr)
            return 1
        if "-x" in flags:
            write(name, None, files)
        elif "-c" not in flags:
            print(old if "-n" in flags else f"{name}: {old}")
        return 0
    if "-x" in flags:
        print(USAGE, file=sys.stderr)
        return 1
    wanted = _listed(old or "", operator, new) if operator else new
    if "-c" in flags:
        return 0 if old == wanted else 1
    if value_of(name, files, defaults=False) != wanted:
        try:
            write(name, wanted, files)
        except OSError as error:
            print(f"sysrc: cannot create {error.filename}: {error.strerror}", file=sys.stderr)
            return 1
    if not quiet:
        print(wanted if "-n" in flags else f"{name}: {old or ''} -> {wanted}")
    return 0


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "acf:j:nqR:s:x")
    except getopt.GetoptError as error:
        print(f"sysrc: illegal option -- {error.opt}\n{USAGE}", file=sys.stderr)
        return 1
    values, flags = dict(given), {flag for flag, _ in given}
    own = [value for flag, value in given if flag == "-f"]
    if "-j" in values:
        os.execv("/usr/sbin/jexec", ["jexec", values["-j"], "/usr/sbin/sysrc", *_without(given, "-j"), *rest])
    if "-R" in values:
        root = values["-R"]
        if not os.path.isdir(root):
            print(f"sysrc: {root}: No such directory", file=sys.stderr)
            return 1
        __import__("re")  # in there is no library
        os.chroot(root)
        os.chdir("/")
        if not os.access("/bin/sh", os.X_OK):
            print(
                f"chroot: {root}/bin/sh: No such file or directory (sysrc -R needs a full root)",
                file=sys.stderr,
            )
            return 1
    files = _files(values, own)
    if "-a" in flags:
        if rest:
            print(USAGE, file=sys.stderr)
            return 1
        import re

        names = []
        for path in files:
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    names += re.findall(rf"^[ \t]*({_NAME})=", file.read(), re.MULTILINE)
        rest = sorted(set(names))
        flags.discard("-x")
    elif not rest:
        print(USAGE, file=sys.stderr)
        return 1
    return max((_one(word, flags, files, given=bool(own)) for word in rest), default=0)


def _without(given: list[tuple[str, str]], flag: str) -> list[str]:
    return [word for name, value in given if name != flag for word in ([name, value] if value else [name])]
