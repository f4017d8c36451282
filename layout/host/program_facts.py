"""What can be read of a program without running it: its file, its package, and how the host starts it.

A program that is looked at may be anything: it is opened, and never executed, nor is its loader.
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from layout.core.advise import Facts
from layout.core.errors import LayoutError, reason_of
from layout.core.model import Platform
from layout.host.elf import Elf, Script, dynamic_names, read_program
from layout.host.known_daemons import KNOWN, Known
from layout.host.ldso import Root
from layout.host.libraries import Closure, library_closure
from layout.host.run import run, which

_LARGEST = 256 << 20
"""Bytes of a file that are searched for strings."""
_PATH = re.compile(
    rb"(?<![\x21-\x7e])/(?:etc|var|run|usr/local/etc|usr/local/var|dev|bin|sbin|usr/s?bin|usr/libexec|usr/lib"
    rb"|usr/share|usr/local/share)"
    rb"/[A-Za-z0-9_./+@-]{1,200}(?![\x21-\x7e])"
)
_DEVICE = re.compile(
    r"/dev/(k?mem|pf|bpf\d*|kvm|net/tun|tun\d*|tap\d*|zfs|fuse|mapper/.*|sd[a-z]\d*|nvme\d.*|ada\d.*|md\d*|"
    r"input/.*|dri/.*|ipmi\d*|rtc\d*|cpu.*|pci|io|apm|devctl|snd/.*|video\d*|ttyS\d+|watchdog\d*)"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHARED_ETC = _words(
    "ssl pam.d security default init.d rc.d systemd logrotate.d cron.d ld.so.conf.d ld.so.conf "
    "profile.d apparmor.d ufw dbus-1 X11 skel alternatives network sysctl.d modprobe.d udev init xdg"
)
_SHARED_FILES = _words(
    "passwd group shadow gshadow hosts resolv.conf nsswitch.conf services protocols localtime "
    "timezone host.conf gai.conf ld.so.cache ld.so.preload login.defs hostname machine-id mtab fstab "
    "networks rpc master.passwd pwd.db spwd.db login.conf malloc.conf aliases"
)
_SHARED_VAR = _words(
    "/var/lib /var/cache /var/log /var/run /var/spool /var/tmp /var/lock /var/db /var/mail /var/empty"
)


@dataclass(frozen=True, slots=True)
class _Owned:
    """The package that a file is of."""

    name: str = ""
    files: tuple[str, ...] = ()
    siblings: frozenset[str] = frozenset()
    """Files of the packages that were built with it."""


@dataclass(slots=True)
class _Started:
    """How the host starts a program."""

    by: str = ""
    command: tuple[str, ...] = ()
    user: str = ""
    run: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    socket: str = ""
    """The unit that gives it its sockets."""


def facts_of(program: str, platform: Platform, root: str = "/") -> Facts:
    """Return what can be read of a program of the tree `root`. Raises LayoutError when there is none."""
    tree = Root(root)
    here = tree.resolve(program)
    if here is None or not stat.S_ISREG(tree.mode(here.path)):
        expected = "the absolute path of a program"
        raise LayoutError(program, "nothing by that name" if here is None else "no regular file", expected)
    mode = tree.mode(here.path)
    if not mode & 0o111:
        raise LayoutError(program, "a file that nobody may execute", "a program")
    file = read_program(tree.real(here.path))
    owned = _owner(tree, {program, here.path}, platform)
    closure, lacking = _closure(program, root)
    own = _own_files(here.path, closure, owned)
    paths = sorted({path for one in own for path in _strings(tree.real(one))})
    started = _started(tree, {program, here.path}, platform)
    known = KNOWN.get(os.path.basename(program), Known())
    people = _people(tree)
    user = _user(program, owned, started, known, people)
    config = _config(tree, paths, owned)
    form = "script" if isinstance(file, Script) else "static" if file.static else "dynamic"
    return Facts(
        path=program,
        platform=platform,
        form=form,
        interpreter=file.interpreter if isinstance(file, Script) else "",
        setuid=bool(mode & 0o6000),
        names=frozenset(name for one in own for name in _names(tree.real(one))),
        files=len(closure.files) if closure else 0,
        size=sum(one.size for one in closure.files) if closure else 0,
        lacking=lacking,
        package=owned.name,
        runs=_others(tree, paths, {program, here.path}),
        devices=tuple(path for path in paths if _DEVICE.fullmatch(path)),
        config=config,
        config_files=_config_files(tree, paths),
        config_writable=tuple(one for one in config if _may_write(tree, one, people.get(user))),
        state=_state(tree, paths, owned, started),
        run=_run(paths, started, platform),
        modules=_modules(here.path, closure, owned) if isinstance(file, Elf) else (),
        command=_arguments(program, started, known, user),
        user=user,
        ports=known.ports,
        unit=started.by,
        socket=started.socket,
    )


# --- the file ----------------------------------------------------------------------------------------------


def _closure(program: str, root: str) -> tuple[Closure | None, str]:
    try:
        return library_closure((program,), root), ""
    except LayoutError as problem:
        # 'found that it needs libx.so, which is nowhere' of the error, as a reason.
        found = problem.found.removeprefix("that ")
        return None, found if found != problem.found else f"{problem.path} is {found}"


def _own_files(program: str, closure: Closure | None, owned: _Owned) -> list[str]:
    """Return the program and the libraries that are built with it: what they say, it says."""
    libraries = [one.source for one in closure.files] if closure else []
    theirs = {*owned.files, *owned.siblings}
    spelled = {path for one in theirs for path in (one, f"/usr{one}")}
    # The C library has every call there is: what it could do says nothing of a program that came with it.
    return [program, *(one for one in libraries if one in spelled and one != program and not _libc(one))]


def _libc(path: str) -> bool:
    return re.match(r"(libc|libpthread|libutil|ld[-a-z0-9_]*)[.-]", os.path.basename(path)) is not None


def _names(path: str) -> Iterable[str]:
    try:
        return dynamic_names(path)
    except LayoutError:
        return ()


def _strings(path: str) -> Iterator[str]:
    """Yield the absolute paths that a file has in it."""
    try:
        with open(path, "rb") as file:
            size = min(os.fstat(file.fileno()).st_size, _LARGEST)
            if size:
                with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
                    for found in _PATH.finditer(data):
                        yield found[0].decode("ascii").rstrip("./") or "/"
    except OSError as error:
        raise LayoutError(path, reason_of(error), "to be able to read it") from None


def _others(tree: Root, paths: Iterable[str], own: set[str]) -> tuple[str, ...]:
    found = []
    for path in paths:
        here = tree.resolve(path) if re.match(r"/(usr/)?(s?bin|libexec|lib)/", path) else None
        if here is None or path in own or here.path in own:
            continue
        mode = tree.mode(here.path)
        if stat.S_ISREG(mode) and mode & 0o111 and ".so" not in os.path.basename(here.path):
            found.append(path)
    return tuple(found)


def _modules(program: str, closure: Closure | None, owned: _Owned) -> tuple[str, ...]:
    """Return patterns of the package's libraries that lie in directories of their own."""
    linked = {one.path for one in closure.files} if closure else set()
    standard = {os.path.dirname(one) for one in linked} | {os.path.dirname(program)}
    found = {
        os.path.dirname(path)
        for path in (*owned.files, *owned.siblings)
        if path.endswith(".so") and os.path.dirname(path) not in standard
    }
    plain = {one for one in found if not re.fullmatch(r"(/usr)?/lib(64|32)?(/[a-z0-9_]+-linux-gnu)?", one)}
    return tuple(f"{one}/*.so" for one in sorted(plain))


# --- directories -------------------------------------------------------------------------------------------


def _is_dir(tree: Root, path: str) -> bool:
    here = tree.resolve(path)
    return here is not None and here.path == path and stat.S_ISDIR(tree.mode(path))


def _config(tree: Root, paths: Iterable[str], owned: _Owned) -> tuple[str, ...]:
    found = set()
    for path in (*paths, *owned.files):
        for top in ("/etc/", "/usr/local/etc/"):
            name = path.removeprefix(top).partition("/")[0] if path.startswith(top) else ""
            if name and name not in _SHARED_ETC and not name.endswith(".d") and _is_dir(tree, top + name):
                found.add(top + name)
    return tuple(sorted(found))


def _config_files(tree: Root, paths: Iterable[str]) -> tuple[str, ...]:
    found = []
    for path in paths:
        directory, name = os.path.split(path)
        is_etc = directory in {"/etc", "/usr/local/etc"} and name not in _SHARED_FILES
        # What is executable there is a program, which is told of elsewhere.
        unwanted = 0 if is_etc else 0o111
        if is_etc or path.startswith(("/usr/share/", "/usr/local/share/")):
            here = tree.resolve(path)
            mode = tree.mode(here.path) if here is not None else 0
            if stat.S_ISREG(mode) and not mode & unwanted:
                found.append(path)
    return tuple(found)


def _may_write(tree: Root, path: str, person: tuple[int, frozenset[int]] | None) -> bool:
    try:
        found = os.lstat(tree.real(path))
    except OSError:
        return False
    uid, groups = person or (-1, frozenset())
    owns = found.st_uid == uid != 0 and found.st_mode & 0o200
    return bool(owns or (found.st_gid in groups and found.st_mode & 0o020) or found.st_mode & 0o002)


def _state(tree: Root, paths: Iterable[str], owned: _Owned, started: _Started) -> tuple[str, ...]:
    found: list[str] = []
    for path in sorted({*paths, *owned.files, *started.state}):
        here = path
        while here.count("/") > 2 and not _is_dir(tree, here):
            here = os.path.dirname(here)
        is_own = here.startswith("/var/") and here.count("/") > 2 and here not in _SHARED_VAR
        known = any(here == one or here.startswith(f"{one}/") for one in found)
        if is_own and not known and not here.startswith("/var/run/") and _is_dir(tree, here):
            found.append(here)
    return tuple(found)


def _run(paths: Iterable[str], started: _Started, platform: Platform) -> tuple[str, ...]:
    if platform is not Platform.LINUX:
        return ()
    found = set(started.run)
    for path in paths:
        inside = re.match(r"/(?:var/)?run/([A-Za-z0-9_.-]+)/", path)
        if inside:
            found.add(inside[1])
    return tuple(sorted(found - {"systemd", "dbus", "lock", "user", "udev"}))


# --- the host ----------------------------------------------------------------------------------------------


def _people(tree: Root) -> dict[str, tuple[int, frozenset[int]]]:
    """Return uid and groups by name."""
    groups: dict[str, set[int]] = {}
    for line in tree.text("/etc/group").splitlines():
        fields = line.split(":")
        if len(fields) > 3 and fields[2].isdigit():
            for member in fields[3].split(","):
                groups.setdefault(member, set()).add(int(fields[2]))
    found = {}
    for line in tree.text("/etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) > 3 and fields[2].isdigit() and fields[3].isdigit():
            found[fields[0]] = (int(fields[2]), frozenset({int(fields[3]), *groups.get(fields[0], ())}))
    return found


def _user(
    program: str,
    owned: _Owned,
    started: _Started,
    known: Known,
    people: dict[str, tuple[int, frozenset[int]]],
) -> str:
    words = [*started.command, *known.arguments]
    given = [after for word, after in itertools.pairwise(words) if word in {"-u", "-U", "--user"}]
    base = os.path.basename(program)
    likely = (base, base.removesuffix("d"), owned.name, f"_{base}", f"_{base.removesuffix('d')}")
    for name in (started.user, *given, *known.users, *likely):
        if name in people and people[name][0] != 0:
            return name
    return ""


def _arguments(program: str, started: _Started, known: Known, user: str) -> tuple[str, ...]:
    if started.command and not known.arguments:
        return (program, *started.command[1:])
    words = [user if word == "%USER" else word for word in known.arguments]
    return (program, *words) if user or "%USER" not in known.arguments else (program,)


def _owner(tree: Root, paths: set[str], platform: Platform) -> _Owned:
    if platform is Platform.LINUX:
        return _owner_dpkg(tree, paths)
    if which("pkg") is None or tree.real("/") != "/":
        return _Owned()
    done = run("pkg", "which", "-q", min(paths), ok=range(256))
    name = done.stdout.strip() if done.status == 0 else ""
    files = run("pkg", "info", "-ql", name, ok=range(256)).stdout.split("\n") if name else []
    return _Owned(name.rpartition("-")[0] or name, tuple(one for one in files if one.startswith("/")))


def _owner_dpkg(tree: Root, paths: set[str]) -> _Owned:
    info = "/var/lib/dpkg/info"
    # Where /bin is a link to usr/bin, dpkg knows the file by either name.
    spelled = paths | {one.removeprefix("/usr") for one in paths if one.startswith("/usr/")}
    lists = [name for name in tree.names(info) if name.endswith(".list")]
    for name in lists:
        files = tree.text(f"{info}/{name}").splitlines()
        if not spelled.isdisjoint(files):
            package = name[:-5].partition(":")[0]
            together = _built_together(tree.text("/var/lib/dpkg/status"), package)
            siblings = {
                path
                for other in lists
                if other[:-5].partition(":")[0] in together
                for path in tree.text(f"{info}/{other}").splitlines()
            }
            return _Owned(package, tuple(files), frozenset(siblings))
    return _Owned()


def _built_together(status: str, package: str) -> set[str]:
    """Return the packages of the same source, by dpkg's status file."""
    sources: dict[str, str] = {}
    for block in status.split("\n\n"):
        fields: dict[str, str] = dict(re.findall(r"^(Package|Source): (\S+)", block, re.MULTILINE))
        if "Package" in fields:
            sources[fields["Package"]] = fields.get("Source", fields["Package"])
    wanted = sources.get(package, package)
    return {name for name, source in sources.items() if source == wanted} - {package}


def _started(tree: Root, paths: set[str], platform: Platform) -> _Started:
    if platform is Platform.LINUX:
        for directory in ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"):
            for name in tree.names(directory):
                text = tree.text(f"{directory}/{name}") if name.endswith(".service") else ""
                if any(path in text for path in paths):
                    found = _unit(tree, name, text, paths)
                    if found is not None:
                        socket = f"{name.removesuffix('.service')}.socket"
                        # One that the unit does not ask for is another way to start it, as ssh.socket.
                        needs = rf"^(?:Requires|BindsTo|Sockets)=(?:.*\s)?{re.escape(socket)}(?:\s|$)"
                        found.socket = socket if re.search(needs, text, re.MULTILINE) else ""
                        return found
        return _Started()
    for directory in ("/usr/local/etc/rc.d", "/etc/rc.d"):
        for name in tree.names(directory):
            text = tree.text(f"{directory}/{name}")
            if re.search(rf'command="?({"|".join(map(re.escape, paths))})"?$', text, re.MULTILINE):
                user = re.search(r"\$\{\w+_user:?=\"?(\w+)", text)
                return _Started(f"{directory}/{name}", user=user[1] if user else "")
    return _Started()


def _unit(tree: Root, name: str, text: str, paths: set[str]) -> _Started | None:
    values: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith(("#", ";")):
            values.setdefault(key.strip(), []).append(value.strip())
    places = (("StateDirectory", "lib"), ("CacheDirectory", "cache"), ("LogsDirectory", "log"))
    for line in values.get("ExecStart", []):
        words = _split(line.lstrip("-@:+!"))
        if words and words[0] in paths:
            variables = dict(_assigned(tree, values))
            expanded = [word for one in words for word in _expanded(one, variables)]
            directories = [
                (top, one) for key, top in places for value in values.get(key, []) for one in value.split()
            ]
            return _Started(
                name,
                tuple(expanded),
                (values.get("User") or [""])[-1],
                [
                    one.partition("/")[0]
                    for value in values.get("RuntimeDirectory", [])
                    for one in value.split()
                ],
                [f"/var/{top}/{one}" for top, one in directories],
            )
    return None


def _assigned(tree: Root, values: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    for value in values.get("Environment", []):
        for word in _split(value):
            if "=" in word:
                yield word.split("=", 1)[0], word.split("=", 1)[1]
    for path in values.get("EnvironmentFile", []):
        for line in tree.text(path.lstrip("-")).splitlines():
            key, equals, value = line.strip().partition("=")
            if equals and not key.startswith("#"):
                yield key, " ".join(_split(value))


def _expanded(word: str, variables: dict[str, str]) -> list[str]:
    found = re.fullmatch(r"\$\{?(\w+)\}?", word)
    if found:
        return variables.get(found[1], "").split()
    return [] if "%" in word or "$" in word else [word]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
