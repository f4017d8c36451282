"""No call by path reaches below ROOT: every such call has a rule that finds it, and each rule a control.

tests/test_architecture.py says which modules may name files by path at all. Here: that its list of calls is
complete, that the one module below ROOT goes by descriptor alone, that calls which no careful argument makes
safe are nowhere, and that a module with a door of its own does not quietly gain more calls.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections import Counter

import pytest

from tests.test_architecture import (
    COMMANDS,
    MODULES,
    PATH_DOORS,
    PATHS,
    Module,
    named,
    other_doors_for_commands,
    other_doors_for_paths,
    uses,
    within,
)

BENEATH = "layout.host.beneath"

NEVER = (
    "shutil.rmtree",
    "shutil.copytree",
    "shutil.copy",
    "shutil.copy2",
    "shutil.copyfile",
    "shutil.copymode",
    "shutil.copystat",
    "shutil.move",
    "shutil.chown",
    "shutil.make_archive",
    "shutil.unpack_archive",
    "os.walk",
    "os.makedirs",
    "os.removedirs",
    "os.renames",
    "os.lchmod",
    "os.path.samefile",
    "tempfile.mkstemp",
    "tempfile.mkdtemp",
    "tempfile.NamedTemporaryFile",
    "tempfile.TemporaryDirectory",
    "glob.glob",
    "glob.iglob",
)
"""What walks, copies or removes by path, or looks first and acts later: in no module, whatever its door."""

NEVER_BUT = {
    ("layout.host.linux.cgroups", "os.walk"): "below /sys/fs/cgroup, which is the kernel's",
    (
        "layout.host.linux.dropins",
        "tempfile.TemporaryDirectory",
    ): "root's own, mode 0700, for systemd-analyze(1)",
}

AT_A_DESCRIPTOR = {
    (
        "layout.host.beneath.capability",
        "os.getxattr",
    ): "of a descriptor, or of one name in one through /proc/self/fd",
}
"""There is no getxattrat(2) before Linux 6.13."""

OF_ENTRIES = {
    ("layout.host.inside.tries", "is_symlink"): "of an entry of os.scandir(fd), which follows nothing"
}

BY_OBJECT = (
    "read_text",
    "write_text",
    "read_bytes",
    "write_bytes",
    "iterdir",
    "rglob",
    "hardlink_to",
    "symlink_to",
    "extractall",
    "is_symlink",
    "is_mount",
)
"""Methods of paths and archives: they reach files without naming a module."""

OPENERS = (
    "io.FileIO",
    "io.open_code",
    "codecs.open",
    "gzip.open",
    "gzip.GzipFile",
    "bz2.open",
    "bz2.BZ2File",
    "lzma.open",
    "lzma.LZMAFile",
    "fileinput.input",
    "linecache.getline",
    "sqlite3.connect",
    "dbm.open",
    "shelve.open",
    "logging.FileHandler",
    "runpy.run_path",
    "zipapp.create_archive",
    "filecmp.cmp",
    "filecmp.dircmp",
    "mailbox.mbox",
    "configparser.ConfigParser",
    "ctypes.cdll.LoadLibrary",
)
"""What else in the standard library opens a file by its path."""

_NO_FILE = """_exists _fspath copy_file_range confstr fchmod fdopen fpathconf fsdecode fsencode fspath
get_terminal_size major memfd_create minor putenv register_at_fork splice sysconf unsetenv"""
NO_FILE = frozenset(_NO_FILE.split())
"""Functions of os with a parameter that is called like one for a path, and is none."""
_ENTERS = "execl execle execlp execlpe execv execve execvp execvpe _execvpe"
ENTERS = frozenset(_ENTERS.split())
"""Become a program: in a session, whose root is the jail's by then, and nowhere else."""


def calls(module: Module) -> list[tuple[int, str, ast.Call]]:
    """Return line, full name and node of every call of an imported or builtin name."""
    of = {id(node.func): node for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    return [(node.lineno, full, of[id(node)]) for node, full in named(module) if id(node) in of]


def not_by_descriptor(module: Module) -> list[str]:
    """Find calls in the one module below ROOT that are neither at a descriptor nor of one; "/" is free."""
    if not within(module.name, BENEATH):
        return []
    found = []
    for line, full, node in calls(module):
        if not PATHS.fullmatch(full) or {"dir_fd", "src_dir_fd"} & {word.arg for word in node.keywords}:
            continue
        first = ast.unparse(node.args[0]) if node.args else ""
        if (module.name, full) in AT_A_DESCRIPTOR:
            continue
        if first.rpartition(".")[2] != "fd" and not (full == "os.open" and first == "'/'"):
            found.append(f"line {line}: {ast.unparse(node)}")
    return found


def links_followed_at_a_descriptor(module: Module) -> list[str]:
    """Find calls in the one module below ROOT that would follow a last component that is a link."""
    if not within(module.name, BENEATH):
        return []
    found = []
    for line, full, node in calls(module):
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if "dir_fd" not in words:
            continue
        follows = full in {"os.stat", "os.chown", "os.utime", "os.link", "os.access", "os.chmod"}
        if follows and words.get("follow_symlinks") != "False":
            found.append(f"line {line}: {ast.unparse(node)}")
        flags = ast.unparse(node.args[1]) if full == "os.open" and len(node.args) > 1 else ""
        safe = any(word in flags for word in ("O_NOFOLLOW", "O_EXCL", "O_TMPFILE")) or flags.isidentifier()
        if full == "os.open" and not safe:
            found.append(f"line {line}: {ast.unparse(node)}")
        elif flags.isidentifier() and not _constant_has(module, flags):
            found.append(f"line {line}: {flags} without O_NOFOLLOW")
    return found


def _constant_has(module: Module, name: str) -> bool:
    """Say whether a name for flags stands for some with O_NOFOLLOW, here or where it comes from."""
    for one in (module, *(m for m in MODULES if within(m.name, BENEATH))):
        for node in ast.walk(one.tree):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                match node.value:
                    case ast.IfExp(body=ast.Name(id=this), orelse=ast.Name(id=that)):
                        return _constant_has(module, this) and _constant_has(module, that)
                    case value:
                        return "O_NOFOLLOW" in ast.unparse(value)
    return False


def never_allowed(module: Module) -> list[str]:
    """Find what is in NEVER."""
    return [
        f"line {line}: {full}"
        for line, full, _ in uses(module)
        if full in NEVER and (module.name, full) not in NEVER_BUT
    ]


def other_openers(module: Module) -> list[str]:
    """Find what else opens a file by path; a library of this process itself (None) is none."""
    by_name = [
        f"line {line}: {full}" for line, full, called in uses(module) if full in OPENERS or full == "io.open"
    ]
    libraries = [
        f"line {line}: {ast.unparse(node)}"
        for line, full, node in calls(module)
        if full in {"ctypes.CDLL", "ctypes.PyDLL"}
        and ast.unparse(node.args[0] if node.args else node) != "None"
    ]
    return by_name + libraries


def by_object(module: Module) -> list[str]:
    """Find methods that reach a file through an object that knows its path."""
    named = {(line, full.rpartition(".")[2]) for line, full, _ in uses(module)}
    return [
        f"line {node.lineno}: .{node.attr}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in BY_OBJECT
        and (node.lineno, node.attr) not in named
        and (module.name, node.attr) not in OF_ENTRIES
    ]


RULES = (not_by_descriptor, links_followed_at_a_descriptor, never_allowed, other_openers, by_object)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module_reaches_files_that_way(rule) -> None:
    assert {module.name: found for module in MODULES if (found := rule(module))} == {}


def test_the_list_of_calls_has_every_function_of_os_that_takes_a_path() -> None:
    """So that a function which a later Python adds cannot slip through."""
    parameters = {"path", "src", "top", "filename", "name", "file", "device", "source", "old", "pathname"}
    missed = []
    for name in dir(os):
        function = getattr(os, name)
        if not callable(function) or inspect.isclass(function) or name in NO_FILE | ENTERS:
            continue
        try:
            takes = set(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            takes = parameters
        if takes & parameters and not any(p.fullmatch(f"os.{name}") for p in (PATHS, COMMANDS)):
            missed.append(name)
    assert [name for name in missed if name not in {"_walk", "_spawnvef"}] == []


def test_every_exception_is_one_still() -> None:
    used = {(module.name, full) for module in MODULES for _, full, _ in uses(module)}
    assert {*NEVER_BUT, *AT_A_DESCRIPTOR} <= used


def test_every_door_is_used() -> None:
    """A door that nothing goes through any more is closed."""
    through = Counter(
        door
        for module in MODULES
        for door in PATH_DOORS
        if within(module.name, door)
        for _, full, _ in uses(module)
        if PATHS.fullmatch(full)
    )
    assert {door for door in PATH_DOORS if not through[door]} == set()


# --- positive controls: one for each forbidden call -------------------------------------------------------


def source(full: str) -> str:
    """Return a module that calls this function with a path."""
    module, _, name = full.rpartition(".")
    return f"import {module.split('.')[0]}\n{module}.{name}('/jails/t/a/x')\n" if module else f"{name}('x')\n"


FORBIDDEN = (
    "open",
    "io.open",
    *(f"os.{name}" for name in (
        *("open", "walk", "fwalk", "listdir", "scandir", "stat", "lstat", "statvfs", "access", "readlink"),
        *("chown", "lchown", "chmod", "makedirs", "mkdir", "rmdir", "removedirs", "rename", "renames"),
        *("replace", "unlink", "remove", "link", "symlink", "mkfifo", "mknod", "truncate", "utime", "chroot"),
        *("chdir", "getxattr", "setxattr", "listxattr", "removexattr", "pathconf"),
        *("path.realpath", "path.exists", "path.lexists", "path.isfile", "path.isdir", "path.islink"),
        *("path.ismount", "path.samefile", "path.getsize", "path.getmtime"),
    )),
    *(name for name in NEVER if not name.startswith("os.")),
    "tarfile.open",
    "zipfile.ZipFile",
    "pathlib.Path",
)  # fmt: skip
"""Each call by path of the issue and of facts about hostile trees."""


@pytest.mark.parametrize("full", FORBIDDEN)
def test_a_call_by_path_is_found(full: str) -> None:
    assert other_doors_for_paths(Module("layout.actions.destroy", source(full))) != []
    if full in NEVER:
        assert never_allowed(Module("layout.host.linux.mounts", source(full))) != []


@pytest.mark.parametrize("full", OPENERS)
def test_another_way_to_open_a_file_is_found(full: str) -> None:
    assert other_openers(Module("layout.host.unpack.extract", source(full))) != []


@pytest.mark.parametrize("name", BY_OBJECT)
def test_a_method_that_reaches_a_file_is_found(name: str) -> None:
    assert by_object(Module("layout.actions.verify", f"def f(where):\n    return where.{name}('x')\n")) != []


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess\nsubprocess.run('rm -rf /jails/t', shell=True)",
        "import os\nos.system('rm -rf /jails/t')",
        "import os\nos.popen('ls')",
        "import asyncio\nasyncio.create_subprocess_shell('ls')",
        "import pty\npty.spawn('sh')",
        "run('true', shell=True)",
    ],
)
def test_a_shell_is_found(text: str) -> None:
    assert other_doors_for_commands(Module("layout.host.beneath.walk", text)) != []


BAD = [
    (not_by_descriptor, "import os\nos.open('x', os.O_NOFOLLOW)"),
    (not_by_descriptor, "import os\nos.stat(path)"),
    (not_by_descriptor, "import os\nos.listdir(here.path)"),
    (not_by_descriptor, "import os\nos.open('/jails', 0)"),
    (not_by_descriptor, "import os\nos.unlink(top.show(name))"),
    (not_by_descriptor, "from os import rename as r\nr(a, b)"),
    (links_followed_at_a_descriptor, "import os\nos.stat('x', dir_fd=fd)"),
    (links_followed_at_a_descriptor, "import os\nos.chown('x', 0, 0, dir_fd=fd, follow_symlinks=True)"),
    (links_followed_at_a_descriptor, "import os\nos.utime('x', dir_fd=fd)"),
    (links_followed_at_a_descriptor, "import os\nos.open('x', os.O_RDONLY, dir_fd=fd)"),
    (links_followed_at_a_descriptor, "import os\n_MODE = os.O_RDONLY\nos.open('x', _MODE, dir_fd=fd)"),
    (other_openers, "import ctypes\nctypes.CDLL('/jails/t/a/evil.so')"),
]
GOOD = [
    (not_by_descriptor, "import os\nos.open('x', 0, dir_fd=here.fd), os.listdir(here.fd), os.open('/', 0)"),
    (links_followed_at_a_descriptor, "import os\n_R = os.O_NOFOLLOW\nos.open('x', _R, dir_fd=fd)"),
    (links_followed_at_a_descriptor, "import os\nos.stat('x', dir_fd=fd, follow_symlinks=False)"),
    (other_openers, "import ctypes\nctypes.CDLL(None)"),
    (by_object, "from layout.host import hostfiles\nhostfiles.read_text('/etc/fstab')"),
]


@pytest.mark.parametrize(("rule", "text"), BAD)
def test_a_bad_source_is_found(rule, text: str) -> None:
    assert rule(Module(f"{BENEATH}.walk", text)) != []


@pytest.mark.parametrize(("rule", "text"), GOOD)
def test_a_good_source_is_not(rule, text: str) -> None:
    assert rule(Module(f"{BENEATH}.walk", text)) == []
