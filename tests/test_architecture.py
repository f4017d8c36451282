"""The shape of the code, held by reading it: imports run one way, and each kind of effect has one door.

Each rule is a function from a module's source to findings, and each has a positive control: a small bad
source in which it must find something.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "layout"
LONGEST = 500

# --- the rules, as data ----------------------------------------------------------------------------------

LAYERS = ("core", "host", "actions", "cli", "__main__")
"""A module may import its own layer and those before it."""

CORE_MAY_IMPORT = frozenset({"layout.core", "layout", "msgspec"})
"""Besides the standard library."""

SIBLINGS = {
    "layout.host.inside": ("layout.host.forked",),
    "layout.host.beneath": ("layout.host.linux.syscalls",),
    "layout.host.linux": (
        "layout.host.attacks",
        "layout.host.beneath",
        "layout.host.run",
        "layout.host.forked",
        "layout.host.inside",
        "layout.host.played",
        "layout.host.pty_relay",
        "layout.host.standard",
        "layout.host.traps",
    ),
    "layout.host.freebsd": (
        "layout.host.attacks",
        "layout.host.beneath",
        "layout.host.run",
        "layout.host.forked",
        "layout.host.inside",
        "layout.host.played",
        "layout.host.pty_relay",
        "layout.host.standard",
        "layout.host.traps",
    ),
}
"""What these packages may import of layout.host besides themselves."""

COMMAND_DOOR = "layout.host.run"

COMMANDS = re.compile(
    r"(sh|subprocess|_posixsubprocess|pty\.spawn|asyncio\.create_subprocess_\w+|os\.(system|popen|spawn\w+|posix_spawnp?))(\..*)?"
)
"""Every way to start a program, except fork and exec, which a session needs for itself."""

PATH_DOORS = {
    "layout.host.beneath": "the door below ROOT: by descriptor, one component at a time",
    "layout.host.unpack": "a confined child, in an empty directory of its own",
    "layout.host.linux": "mountinfo, /proc, mountpoints and devices of the host",
    "layout.host.freebsd": "mountpoints and devices of the host",
    "layout.host.inside": "a child confined to a jail's root, where paths are the jail's own",
    "layout.host.attacks": "what root of a jail would do, in the sandbox and the jails of selftest",
    "layout.host.played": "the output and the terminal of a command that selftest runs",
    "layout.host.traps": "what root of a jail would plant, in trees that selftest made",
    "layout.host.hostfiles": "ETC and the host's fstab: written whole, outside ROOT",
    "layout.host.shipped": "the package's own data files",
    "layout.host.privilege": "writes the id maps of a new user namespace below /proc/self",
    "layout.host.locks": "one lock file, opened by descriptor",
    "layout.host.site": "looks at ROOT and its parents, before there is a descriptor to go by",
    "layout.host.closure": "reads the host's own programs and libraries",
    "layout.host.thin_closure": "as closure",
    "layout.host.program_facts": "as closure",
    "layout.host.interpreter": "reads the running Python, writes a base of it in the sandbox of selftest",
    "layout.host.libraries": "as closure",
    "layout.host.ldso": "as closure",
    "layout.host.elf": "as closure",
    "layout.host.pty_relay": "opens the administrator's terminal once more",
    "layout.host.standard": "knows null and random by the numbers of those in /dev",
    "layout.host.run": "looks for programs in the system's directories",
}
"""The modules that may name files by path, each with its reason; those below them as well."""

PATHS = re.compile(
    r"open|io\.open|"
    r"os\.(open|walk|fwalk|listdir|scandir|stat|lstat|statvfs|access|readlink|chown|lchown|chmod|lchmod|chflags|lchflags|"
    r"makedirs|mkdir|rmdir|removedirs|rename|renames|replace|unlink|remove|link|symlink|mkfifo|mknod|truncate|utime|"
    r"chroot|chdir|pathconf|(get|set|list|remove)xattr|"
    r"path\.(realpath|exists|lexists|isfile|isdir|islink|ismount|samefile|getsize|getmtime|getatime|getctime))|"
    r"shutil\.(?!which$|get_terminal_size$)\w+|"
    r"tempfile\.\w+|glob\.\w+|tarfile\.\w+|zipfile\.\w+|"
    r"pathlib\.\w*Path(\.\w+)?"
)
"""Every way to reach a file by its path; os.fspath, os.path.join and what takes a descriptor are free."""

UNFINISHED = re.compile(
    r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error")) + r")\b"
)


# --- reading the code ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """One module of the package."""

    name: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)


def modules() -> list[Module]:
    """Return every module of layout."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        found.append(
            Module(
                ".".join(parts[:-1] if is_package else parts), path.read_text(encoding="utf-8"), is_package
            )
        )
    return found


MODULES = modules()
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def within(name: str, package: str) -> bool:
    """Say whether `name` is `package` or below it."""
    return name == package or name.startswith(package + ".")


def imports(module: Module) -> Iterator[tuple[int, str, str]]:
    """Yield line, local name and full dotted name of everything imported, wherever in the module."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    # "import a.b" binds a; "import a.b as c" binds c to a.b.
                    bound = alias.asname or alias.name.partition(".")[0]
                    yield node.lineno, bound if alias.asname else alias.name, alias.name
            case ast.ImportFrom():
                source = node.module or ""
                if node.level:
                    package = module.name.split(".")
                    package = package[: len(package) - node.level + module.is_package]
                    source = ".".join([*package, *filter(None, [node.module])])
                for alias in node.names:
                    yield node.lineno, alias.asname or alias.name, f"{source}.{alias.name}"
            case _:
                pass


def named(module: Module) -> Iterator[tuple[ast.expr, str]]:
    """Yield node and full dotted name for every use of an imported or builtin name."""
    known = {
        local.partition(".")[0]: local.partition(".")[0]
        for _, local, full in imports(module)
        if local == full
    }
    known |= {local: full for _, local, full in imports(module) if local != full}
    known.setdefault("open", "open")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name):
            parts: list[str] = []
            at: ast.expr = node
            while isinstance(at, ast.Attribute):
                parts.append(at.attr)
                at = at.value
            if isinstance(at, ast.Name) and at.id in known:
                yield node, ".".join([known[at.id], *reversed(parts)])


def uses(module: Module) -> Iterator[tuple[int, str, bool]]:
    """Yield line, full dotted name and "is called" for every use of an imported or builtin name."""
    called = {id(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    for node, full in named(module):
        yield node.lineno, full, id(node) in called


# --- the rules, as functions -----------------------------------------------------------------------------


def layer(name: str) -> int:
    """Return the place of a module in LAYERS; the package itself, which has the version, is below all."""
    parts = name.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 and parts[1] in LAYERS else -1


def upward_imports(module: Module) -> list[str]:
    """Find imports of a higher layer."""
    return [
        f"line {line}: {full}"
        for line, _, full in imports(module)
        if within(full, "layout") and layer(full) > layer(module.name)
    ]


def strangers_in_core(module: Module) -> list[str]:
    """Find imports of core that are neither core, standard library nor msgspec."""
    if not within(module.name, "layout.core"):
        return []
    return [
        f"line {line}: {full}"
        for line, _, full in imports(module)
        if full.partition(".")[0] not in sys.stdlib_module_names
        and not any(within(full, name) for name in CORE_MAY_IMPORT - {"layout"})
        and full not in {"layout", "layout.__version__"}
    ]


def sibling_imports(module: Module) -> list[str]:
    """Find imports between packages of layout.host that SIBLINGS does not allow."""
    for package, allowed in SIBLINGS.items():
        if within(module.name, package):
            return [
                f"line {line}: {full}"
                for line, _, full in imports(module)
                if within(full, "layout.host") and not any(within(full, name) for name in (package, *allowed))
            ]
    return []


def other_doors_for_commands(module: Module) -> list[str]:
    """Find ways to start a program, other than sh at its door."""
    at_door = module.name == COMMAND_DOOR
    named = [(line, full) for line, _, full in imports(module)] + [
        (line, full) for line, full, _ in uses(module)
    ]
    found = [
        f"line {line}: {full}"
        for line, full in named
        if COMMANDS.fullmatch(full) and not (at_door and within(full, "sh"))
    ]
    shells = [
        f"line {node.value.lineno}: shell=..."
        for node in ast.walk(module.tree)
        if isinstance(node, ast.keyword) and node.arg == "shell"
    ]
    return found + shells


def other_doors_for_paths(module: Module) -> list[str]:
    """Find uses of files by path outside PATH_DOORS. Path as the type of an annotation is free."""
    if any(within(module.name, door) for door in PATH_DOORS):
        return []
    return [
        f"line {line}: {full}"
        for line, full, called in uses(module)
        if PATHS.fullmatch(full) and (called or not full.startswith("pathlib."))
    ]


def kinds_asked_elsewhere(module: Module) -> list[str]:
    """Find commands that ask for one kind of jail: that is a fact, or a method, of its Design."""
    if not any(within(module.name, layer) for layer in ("layout.actions", "layout.cli")):
        return []
    if within(module.name, "layout.actions.kinds"):
        return []
    return [
        f"line {line}: {full}" for line, full, _ in uses(module) if full.startswith("layout.core.model.Kind.")
    ]


def open_matches(module: Module) -> list[str]:
    """Find match statements whose last case does not take everything that is left."""

    def takes_all(case: ast.match_case) -> bool:
        return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None

    return [
        f"line {node.lineno}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Match) and not takes_all(node.cases[-1])
    ]


def overlong(module: Module) -> list[str]:
    """Find a module of more than LONGEST lines."""
    lines = len(module.text.splitlines())
    return [f"{lines} lines"] if lines > LONGEST else []


def without_docstring(module: Module) -> list[str]:
    """Find a module that does not say what it is responsible for."""
    return [] if (ast.get_docstring(module.tree) or "").strip() else ["no docstring"]


RULES = [
    upward_imports,
    strangers_in_core,
    sibling_imports,
    other_doors_for_commands,
    other_doors_for_paths,
    kinds_asked_elsewhere,
    open_matches,
    overlong,
    without_docstring,
]


# --- the code keeps them ---------------------------------------------------------------------------------


def test_there_is_code_to_read() -> None:
    assert {"layout", "layout.core.model"} <= {module.name for module in MODULES}


@each_module
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module_has(rule, module: Module) -> None:
    assert rule(module) == []


def test_every_module_belongs_to_a_layer() -> None:
    homeless = [module.name for module in MODULES if module.name != "layout" and layer(module.name) < 0]
    assert homeless == []


def test_no_two_modules_share_a_docstring() -> None:
    counts = Counter(ast.get_docstring(module.tree) for module in MODULES)
    assert [text for text, count in counts.items() if count > 1] == []


def described() -> dict[str, list[str]]:
    """Return what the table of docs/architecture.md names, by layer: a module, `a*`, or a package `a/`."""
    found: dict[str, list[str]] = {}
    text = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    for new, cell in re.findall(r"(?m)^\| (?:\*\*(\w+)\*\*[^|]*)?\| ([^|]+) \|", text):
        if new:
            names = found[new] = []
        if found:
            names += re.findall(r"`([^`]+)`", cell)
    return found


def test_the_page_has_every_module() -> None:
    layers = described()
    assert layers.keys() == set(LAYERS) - {"__main__"}
    missing = []
    for module in MODULES:
        _, *parts = module.name.split(".")
        if len(parts) > 1 and not module.is_package:
            name = "/".join(parts[1:])
            patterns = [f"{one}*" if one.endswith("/") else one for one in layers[parts[0]]]
            if not any(fnmatchcase(name, one) for one in patterns):
                missing.append(module.name)
    assert missing == []


def test_the_page_has_no_module_that_is_gone() -> None:
    for layer_, names in described().items():
        known = [
            "/".join(module.name.split(".")[2:]) + "/" * module.is_package
            for module in MODULES
            if within(module.name, f"layout.{layer_}")
        ]
        assert [name for name in names if not any(fnmatchcase(one, name) for one in known)] == []


def test_every_path_door_has_its_reason() -> None:
    assert all(PATH_DOORS.values())


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for folder in (PACKAGE, REPOSITORY / "tests")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (path.suffix in {".py", ".sh", ".c", ".toml", ".in"} or path.name == "box")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert found == []


# --- positive controls: each rule finds what it is for -----------------------------------------------------

BAD = [
    (upward_imports, "layout.core.plan", "from layout.host import run"),
    (upward_imports, "layout.core.plan", "def f():\n    import layout.actions.init"),
    (upward_imports, "layout.host.run", "from ..actions import init"),
    (upward_imports, "layout.actions.init", "from layout import cli"),
    (upward_imports, "layout.cli.app", "from layout.__main__ import main"),
    (upward_imports, "layout", "from layout.core import model"),
    (strangers_in_core, "layout.core.plan", "import typer"),
    (strangers_in_core, "layout.core.plan", "from rich.table import Table"),
    (sibling_imports, "layout.host.beneath.walk", "from layout.host.linux import mounts"),
    (sibling_imports, "layout.host.beneath.walk", "from layout.host import run"),
    (sibling_imports, "layout.host.linux.mounts", "from layout.host.freebsd import jail"),
    (sibling_imports, "layout.host.freebsd.jail", "from ..linux.syscalls import openat2"),
    (other_doors_for_commands, "layout.actions.init", "import sh"),
    (other_doors_for_commands, "layout.actions.init", "from sh import mount"),
    (other_doors_for_commands, COMMAND_DOOR, "import subprocess"),
    (other_doors_for_commands, COMMAND_DOOR, "import os\nos.system('true')"),
    (other_doors_for_commands, "layout.host.locks", "import os as o\nrun = o.popen"),
    (other_doors_for_commands, "layout.host.locks", "from os import spawnvp"),
    (other_doors_for_commands, "layout.host.locks", "f('true', shell=True)"),
    (other_doors_for_paths, "layout.core.plan", "open('/etc/passwd')"),
    (other_doors_for_paths, "layout.actions.init", "import os\nos.makedirs('/jails')"),
    (other_doors_for_paths, "layout.actions.init", "from os import unlink as gone\ngone('x')"),
    (other_doors_for_paths, "layout.actions.init", "import os\nfor_each(names, os.unlink)"),
    (other_doors_for_paths, "layout.actions.init", "import os.path\nos.path.realpath('x')"),
    (other_doors_for_paths, "layout.actions.init", "from os import path\npath.realpath('x')"),
    (other_doors_for_paths, "layout.cli.app", "from pathlib import Path\nPath('x').unlink()"),
    (other_doors_for_paths, "layout.cli.app", "import pathlib\npathlib.Path.home()"),
    (other_doors_for_paths, "layout.cli.app", "from shutil import rmtree\nrmtree('x')"),
    (other_doors_for_paths, "layout.host.beneathish", "import os\nos.walk('x')"),
    (kinds_asked_elsewhere, "layout.actions.init", "from layout.core.model import Kind\nKind.FULL"),
    (kinds_asked_elsewhere, "layout.cli.app", "from layout.core import model\nx is model.Kind.THIN"),
    (open_matches, "layout.core.plan", "match x:\n    case int():\n        pass"),
    (open_matches, "layout.core.plan", "match x:\n    case _ if y:\n        pass"),
    (overlong, "layout.core.plan", "x = 1\n" * (LONGEST + 1)),
    (without_docstring, "layout.core.plan", "x = 1"),
    (without_docstring, "layout.core.plan", '"""  """'),
]

GOOD = [
    (upward_imports, "layout.__main__", "from layout.cli.app import main"),
    (upward_imports, "layout.core.plan", "from layout import __version__"),
    (
        strangers_in_core,
        "layout.core.plan",
        "import re\nfrom msgspec import Struct\nfrom layout.core.model import Mount",
    ),
    (sibling_imports, "layout.host.beneath.walk", "from layout.host.linux import syscalls\nfrom . import fd"),
    (
        sibling_imports,
        "layout.host.linux.mounts",
        "from layout.host.run import run\nfrom layout.host.linux import a",
    ),
    (other_doors_for_commands, COMMAND_DOOR, "import sh\nsh.Command('mount')"),
    (other_doors_for_commands, "layout.host.locks", "import shlex\nimport shutil\nshlex.quote('x')"),
    (other_doors_for_paths, "layout.host.beneath.walk", "import os\nos.open('x', 0)"),
    (
        other_doors_for_paths,
        "layout.cli.app",
        "import os\nos.fspath(x), os.getuid(), os.path.join(x), fd.open(y)",
    ),
    (other_doors_for_paths, "layout.cli.app", "from pathlib import Path\ndef f(where: Path) -> None: ..."),
    (
        kinds_asked_elsewhere,
        "layout.actions.kinds.thin",
        "from layout.core.model import Kind\nKind.THIN",
    ),
    (kinds_asked_elsewhere, "layout.actions.init", "from layout.core.model import Kind\nx: Kind = y.kind"),
    (
        open_matches,
        "layout.core.plan",
        "match x:\n    case int():\n        pass\n    case _:\n        assert_never(x)",
    ),
    (overlong, "layout.core.plan", "x = 1\n" * LONGEST),
]


@pytest.mark.parametrize(("rule", "name", "text"), BAD)
def test_a_bad_source_is_found(rule, name: str, text: str) -> None:
    assert rule(Module(name, text)) != []


@pytest.mark.parametrize(("rule", "name", "text"), GOOD)
def test_a_good_source_is_not(rule, name: str, text: str) -> None:
    assert rule(Module(name, text)) == []


def test_the_mark_of_unfinished_work_is_found() -> None:
    assert UNFINISHED.search("# TO" + "DO: later")
    assert UNFINISHED.search("raise NotImplemented" + "Error")
    assert not UNFINISHED.search("mktemp -d /tmp/x." + "X" * 6)
