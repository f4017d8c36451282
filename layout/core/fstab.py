"""fstab(5): one line to a Mount and back, by the exact rules of FreeBSD's libc and of Linux's libmount.

Paths are str as os.fsdecode gives them: a byte that is not UTF-8 is a surrogate (PEP 383), and any byte but
NUL may occur. Options stay in the order written: the rightmost of a pair such as ro,rw wins everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NoReturn

from layout.core.errors import LayoutError
from layout.core.model import Mount, Platform

ACCESS_WORDS = frozenset({"rw", "rq", "ro", "sw", "xx"})
"""FreeBSD: the first of these in the options is the type of access; a line without one is a syntax error."""

FREEBSD_LINE_BYTES = 1023
"""FreeBSD: getfsent(3) reads into 1024 bytes, newline and NUL included; it would cut a longer line in two."""

_AT_MOST = f"at most {FREEBSD_LINE_BYTES}, newline included"

_FREEBSD_ONLY = """
    late failok nocover emptydir noclusterr noclusterw suiddir multilabel nfsv4acls automounted autoro
    untrusted linrdlnk mountprog ruleset rq xx
"""
FREEBSD_WORDS = frozenset(_FREEBSD_ONLY.split())
"""Option words (before any '=') that mean nothing on Linux."""

_LINUX_ONLY = """
    bind rbind move private rprivate shared rshared slave rslave unbindable runbindable nodev dev nofail
    relatime norelatime strictatime nostrictatime lazytime nolazytime nodiratime diratime user nouser users
    owner group defaults _netdev loop offset sizelimit comment helper uhelper nr_inodes nr_blocks
"""
LINUX_WORDS = frozenset(_LINUX_ONLY.split())
"""Option words (before any '=') that FreeBSD's mount(8) refuses; every x-* and X-* word is one as well."""

FREEBSD_TYPES = frozenset(
    {"nullfs", "unionfs", "devfs", "fdescfs", "procfs", "linprocfs", "linsysfs", "ext2fs", "mfs"}
)
"""File system types that Linux does not have."""

LINUX_TYPES = frozenset(
    {
        "none",
        "auto",
        "proc",
        "sysfs",
        "devtmpfs",
        "devpts",
        "cgroup2",
        "overlay",
        "ext4",
        "xfs",
        "btrfs",
        "vfat",
    }
)
"""File system types that FreeBSD does not have under this name."""

# '#' as well: jail(8) takes it for the start of a comment wherever it stands (mount.fstab in jail(8)).
_ESCAPES = str.maketrans({" ": r"\040", "\t": r"\011", "\n": r"\012", "\\": r"\134", "#": r"\043"})
_SPECIAL = re.compile(r"[ \t\n\\#]")
_BLANK = re.compile(r"[ \t\n]")

# What libmount decodes: exactly three octal digits. Any other backslash stands for itself.
_OCTAL = re.compile(r"\\([0-7]{3})")

# What strunvis(3) decodes. The last, empty, alternative is a malformed escape.
_VIS = re.compile(
    r"\\(?:(?P<octal>[0-7]{1,3})|x(?P<hex>[0-9A-Fa-f]{1,2})|M-(?P<meta>[\0-\x7f])|M\^(?P<metactrl>[\0-\x7f])"
    r"|\^(?P<ctrl>[\0-\x7f])|(?P<letter>[\\nrbavtfsE])|(?P<hidden>\$)|)"
)
_VIS_LETTERS = {"\\": "\\", "n": "\n", "r": "\r", "b": "\b", "a": "\a", "v": "\v", "t": "\t", "f": "\f"}
_VIS_LETTERS |= {"s": " ", "E": "\x1b"}

# Linux: a comma inside double quotes does not end an option (context="a,b").
_QUOTED_WORDS = re.compile(r'(?:[^,"]|"[^"]*(?:"|$))+')

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NAMELESS_TARGETS = frozenset({"none", "swap"})
_FIELDS = "SPEC FILE TYPE OPTIONS [FREQ [PASSNO]], separated by blanks or tabs"


def encode(path: str) -> str:
    r"""Return a path with \040 \011 \012 \134 \043 for what cannot stand in a field, on either platform."""
    return path.translate(_ESCAPES) if _SPECIAL.search(path) else path


def _byte(value: int) -> str:
    # Bytes over 0x7f are PEP 383 surrogates first and joined to characters once the field is complete.
    return chr(value) if value < 0x80 else chr(0xDC00 + value)


def _unvis(match: re.Match[str]) -> str:
    char = match[match.lastgroup] if match.lastgroup else ""
    match match.lastgroup:
        case "octal":
            return _byte(int(char, 8) & 0xFF)
        case "hex":
            return _byte(int(char, 16))
        case "meta":
            return _byte(ord(char) | 0x80)
        case "metactrl":
            return _byte(0xFF if char == "?" else 0x80 | ord(char) & 0x1F)
        case "ctrl":
            return _byte(0x7F if char == "?" else ord(char) & 0x1F)
        case "letter":
            return _VIS_LETTERS[char]
        case "hidden":
            return ""
        case _:
            raise ValueError(match.string[match.start() : match.start() + 4])


def decode(field: str, platform: Platform) -> str:
    r"""Return the path that a field of fstab stands for.

    FreeBSD decodes with strunvis(3), Linux (libmount) three octal digits only. Raises ValueError with the few
    characters at fault for a malformed escape (FreeBSD) or one that yields NUL, which no path holds.
    """
    if "\\" not in field:
        return field
    if platform is Platform.FREEBSD:
        text = _VIS.sub(_unvis, field)
    else:
        text = _OCTAL.sub(lambda match: _byte(int(match[1], 8) & 0xFF), field)
    if "\0" in text:
        raise ValueError(r"\000")
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("a character that is no byte of a file name") from None


def access_word(options: Iterable[str]) -> str | None:
    """Return the word that decides access on FreeBSD: the first of rw, rq, ro, sw, xx; None without one."""
    return next((word for word in options if word in ACCESS_WORDS), None)


def _fields(line: str) -> list[str]:
    # Not str.split(): it would also split at form feeds, no-break spaces and other bytes of a path.
    return [field for field in line.replace("\t", " ").split(" ") if field]


def _words(options: str, platform: Platform) -> tuple[str, ...]:
    if platform is Platform.LINUX and '"' in options:
        return tuple(_QUOTED_WORDS.findall(options))
    return tuple(word for word in options.split(",") if word)


def _number(field: str, platform: Platform) -> int | None:
    if platform is Platform.FREEBSD:
        found = _INTEGER.match(field)  # atoi(3): what follows the digits is not looked at
        return int(found[0]) if found else 0
    return int(field) if _INTEGER.fullmatch(field) else None


def parse_line(line: str, platform: Platform, name: str = "fstab", number: int = 1) -> Mount | None:
    """Return the mount on one line of `name`, without its newline; None for a blank line or a comment.

    A FreeBSD line whose access word is xx is None too: getfsent(3) passes over it. A Linux line without
    options has "defaults". Words are not judged: a foreign line only has to be legal. Raises LayoutError that
    names file and line where getfsent(3) or libmount would refuse it, and for FreeBSD's antique colon form.
    """

    def refuse(found: str, expected: str, hint: str = "") -> NoReturn:
        raise LayoutError(f"{name}:{number}", found, expected, hint)

    freebsd = platform is Platform.FREEBSD
    if freebsd:
        # Before the look for comments: the rest of a comment that is too long would be read as a line.
        size = len(line.encode("utf-8", "surrogatepass")) + 1
        if size > FREEBSD_LINE_BYTES:
            refuse(f"a line of {size} bytes", _AT_MOST, "use shorter paths")
    elif line.endswith("\r"):
        line = line[:-1]
    fields = _fields(line)
    if not fields or fields[0].startswith("#"):
        return None
    if "\0" in line:
        refuse("a NUL byte", "text", "the file is damaged; restore it")
    if len(fields) == 1 and freebsd:
        # getfsent(3) reads such a line as SPEC:FILE:ACCESS:FREQ:PASSNO; nobody writes that on purpose.
        refuse("a line without a blank", _FIELDS, "the antique form with colons is not supported")
    if len(fields) < (4 if freebsd else 3):
        refuse(f"{len(fields)} field(s)", _FIELDS, r"write a blank inside a path as \040")
    spec, file, fstype = fields[:3]
    raw = fields[3] if len(fields) > 3 else "defaults"
    try:
        spec, file = decode(spec, platform), decode(file, platform)
        if not freebsd:
            fstype, raw = decode(fstype, platform), decode(raw, platform)
    except ValueError as error:
        hint = r"\134 is the backslash itself"
        refuse(f"a malformed escape at {error}", r"a backslash and three octal digits", hint)
    options = _words(raw, platform)
    access = access_word(options)
    if freebsd and access is None:
        refuse(f"options {raw!r}", "one of rw ro rq sw xx among them", "write for example rw," + raw)
    if freebsd and access == "xx":
        return None
    numbers = [_number(field, platform) for field in fields[4:6]]
    if None in numbers:
        refuse(f"{' '.join(fields[4:6])!r} after the options", "the numbers FREQ and PASSNO", "write 0 0")
    freq, passno = [*(n or 0 for n in numbers), 0, 0][:2]
    return Mount(spec, file, fstype, options or ("defaults",), freq, passno)


def parse(text: str, platform: Platform, name: str = "fstab") -> tuple[Mount, ...]:
    """Return the mounts of a whole file, in its order, which is the order mount(8) works in.

    `name` is for errors only. Raises LayoutError naming file and line for the first that parse_line refuses.
    """
    # Only a newline ends a line; str.splitlines would also cut at \x0b, \x85 and others that names may hold.
    lines = enumerate(text.split("\n"), 1)
    return tuple(mount for number, line in lines if (mount := parse_line(line, platform, name, number)))


# The same few combinations stand in thousands of lines.
@lru_cache(maxsize=256)
def _type_and_options(fstype: str, options: tuple[str, ...], platform: Platform) -> str:
    """Return both fields as text; refuse what the platform's mount(8) does not know or misunderstands.

    Raises LayoutError without a path.
    """
    freebsd = platform is Platform.FREEBSD
    words, types = (LINUX_WORDS, LINUX_TYPES) if freebsd else (FREEBSD_WORDS, FREEBSD_TYPES)
    here, other = ("FreeBSD", "Linux") if freebsd else ("Linux", "FreeBSD")
    text = ",".join(options)
    if _words(text, platform) != options:
        raise LayoutError("", f"options {text!r}", "words that are not empty and hold no comma")
    if fstype in types:
        raise LayoutError("", f"type {fstype!r}", f"a type of {here}", f"it is one of {other} only")
    for word in options:
        key = word.partition("=")[0]
        if key in words or (freebsd and key.startswith(("x-", "X-"))):
            raise LayoutError("", f"option {word!r}", f"options of {here}", f"it is a word of {other} only")
    if not freebsd:
        return f"{encode(fstype)} {encode(text)}"
    if access_word(options) in (None, "xx"):
        raise LayoutError(
            "", f"options {text!r}", "ro or rw among them", "getfsent(3) skips a line without it"
        )
    if _BLANK.search(fstype + text):
        raise LayoutError(
            "", "a blank in the type or the options", "none: FreeBSD decodes spec and file only"
        )
    return f"{fstype} {text}"


def render_line(mount: Mount, platform: Platform) -> str:
    r"""Return one line of fstab(5) without its newline, fields separated by one blank.

    Raises LayoutError naming the mount point for what the line cannot say: an empty field, NUL, a mount point
    that is not absolute, words or types of the other platform; on FreeBSD also options without access
    word, a blank in type or options (only spec and file are decoded there), a line over FREEBSD_LINE_BYTES.
    """

    def refuse(found: str, expected: str, hint: str = "") -> NoReturn:
        raise LayoutError(mount.target or "fstab", found, expected, hint)

    if not (mount.source and mount.target and mount.fstype and mount.options):
        refuse("an empty field", "source, mount point, type and options", "options are at least rw or ro")
    if not mount.target.startswith("/") and mount.target not in _NAMELESS_TARGETS:
        refuse("a relative mount point", "an absolute path")
    if mount.freq < 0 or mount.passno < 0:
        refuse("a negative freq or passno", "0 or more")
    try:
        how = _type_and_options(mount.fstype, mount.options, platform)
    except LayoutError as error:
        raise LayoutError(mount.target, error.found, error.expected, error.hint) from None
    line = f"{encode(mount.source)} {encode(mount.target)} {how} {mount.freq} {mount.passno}"
    try:
        size = len(line.encode("utf-8", "surrogateescape")) + 1
    except UnicodeEncodeError:
        refuse("a character that is no byte of a file name", "a path as os.fsdecode gives it")
    if "\0" in line:
        refuse("a NUL byte", "a path")
    if platform is Platform.FREEBSD and size > FREEBSD_LINE_BYTES:
        hint = "choose a shorter ROOT; getfsent(3) would cut the line in two"
        refuse(f"a line of {size} bytes", _AT_MOST, hint)
    return line


def render(mounts: Iterable[Mount], platform: Platform) -> str:
    """Return the lines of `mounts` in their order, each ended by a newline. Raises as render_line does."""
    return "".join(f"{render_line(mount, platform)}\n" for mount in mounts)
