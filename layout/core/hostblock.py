"""The host's fstab: layout's lines in one marked block, and every other byte left as it was.

    # BEGIN layout (sha256 64-HEX-DIGITS)
    ...
    # END layout

The digest is that of the lines between, so that a change by hand is seen. "no newline before" after it
records that the file did not end in a newline when the block was appended: removal then takes that newline
away again.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NamedTuple

from layout.core import fstab
from layout.core.errors import LayoutError
from layout.core.model import Platform

# Found even when an editor spoilt what follows the name, or the line ends: the digest then says so.
_BEGIN = re.compile(r"# BEGIN layout(?: \(sha256 ([0-9a-f]{64})(, no newline before)?\))?(?:[ \t].*)?\r?")
_END = re.compile(r"# END layout[ \t]*\r?")
_HINT = "the lines of layout stand between one BEGIN and one END; remove or repair the markers by hand"


class _Block(NamedTuple):
    start: int
    """Index of the line BEGIN in the file."""
    end: int
    """Index of the line END."""
    digest: str
    """What BEGIN says; "" when that cannot be read."""
    no_newline: bool


def digest(lines: str) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of text whose odd bytes are surrogates (PEP 383)."""
    # Imported late: commands that only read mounts do without it.
    from hashlib import sha256

    return sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _find(lines: list[str], name: str) -> _Block | None:
    found: _Block | None = None
    begin: tuple[int, re.Match[str]] | None = None
    for index, line in enumerate(lines):
        where = f"{name}:{index + 1}"
        if match := _BEGIN.fullmatch(line):
            if begin is not None:
                raise LayoutError(where, "a second BEGIN layout before END layout", "END layout first", _HINT)
            if found is not None:
                raise LayoutError(where, "a second block of layout", "one block", _HINT)
            begin = index, match
        elif _END.fullmatch(line):
            if begin is None:
                raise LayoutError(where, "END layout without BEGIN layout", "BEGIN layout before it", _HINT)
            start, match = begin
            found = _Block(start, index, match[1] or "", match[2] is not None)
            begin = None
    if begin is not None:
        where = f"{name}:{begin[0] + 1}"
        raise LayoutError(where, "BEGIN layout without END layout", "END layout after it", _HINT)
    return found


def _join(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def block(text: str, name: str = "fstab") -> str | None:
    """Return the lines between the markers, each with its newline; None without a block.

    Raises LayoutError naming file and line for markers that do not make exactly one block.
    """
    lines = text.split("\n")
    found = _find(lines, name)
    return None if found is None else _join(lines[found.start + 1 : found.end])


def is_hand_edited(text: str, name: str = "fstab") -> bool:
    """Say whether the block is not as layout wrote it; False without a block. Raises as block does."""
    lines = text.split("\n")
    found = _find(lines, name)
    return found is not None and found.digest != digest(_join(lines[found.start + 1 : found.end]))


def _targets(line: str) -> set[str]:
    """Return the mount point on one line of any fstab, by the rules of either platform; empty if none."""
    fields = [field for field in re.split("[ \t\r]+", line) if field]
    if len(fields) < 3 or fields[0].startswith("#"):
        return set()
    found = set()
    for platform in Platform:
        try:
            path = fstab.decode(fields[1], platform)
        except ValueError:
            continue  # whether a foreign line is sound is not ours to judge
        if path.startswith("/"):
            found.add("/" + "/".join(part for part in path.split("/") if part not in ("", ".")))
    return found


def _check_foreign(foreign: list[tuple[int, str]], ours: str, name: str) -> None:
    wanted: set[str] = set()
    for line in ours.split("\n"):
        wanted |= _targets(line)
    for number, line in foreign:
        if both := wanted & _targets(line):
            path = min(both)
            found = f"another line for the mount point {path}"
            hint = "two lines for one mount point hide each other; remove that line, then install again"
            raise LayoutError(f"{name}:{number}", found, "none outside the block of layout", hint)


def check_targets(text: str, targets: Container[str], name: str = "fstab") -> None:
    """Make sure that no line outside the block has one of these mount points. Raises LayoutError."""
    lines = text.split("\n")
    found = _find(lines, name)
    for number, line in enumerate(lines):
        if found is not None and found.start <= number <= found.end:
            continue
        for path in _targets(line):
            if path in targets:
                hint = f"take that line out of {name}; layout fstab --install puts the whole table there"
                seen = f"a line that mounts something on {path}"
                raise LayoutError(f"{name}:{number + 1}", seen, "none for a mount point of a jail", hint)


def install(text: str, lines: str, name: str = "fstab") -> str:
    """Return `text` with `lines` in the marked block: in the place of the old block, else at the end.

    The other lines stay as they are, byte for byte. Without lines there is no block. A block that was edited
    by hand is replaced as well: ask is_hand_edited first. Raises LayoutError naming file and line as block
    does, and for a line outside the block with a mount point of one in `lines`.
    """
    if not lines:
        return remove(text, name)
    if not lines.endswith("\n"):
        lines += "\n"
    if _find(lines.split("\n"), "lines") is not None:
        raise LayoutError(name, "markers among the lines to install", "lines of fstab(5)")
    old = text.split("\n")
    found = _find(old, name)
    start, after = (found.start, found.end + 1) if found else (len(old), len(old))
    _check_foreign([(n, line) for n, line in enumerate(old, 1) if not start < n <= after], lines, name)
    # The last piece of a file that ends in a newline is empty; any other text there had none.
    no_newline = found.no_newline if found else old[-1] != ""
    note = ", no newline before" if no_newline else ""
    ours = f"# BEGIN layout (sha256 {digest(lines)}{note})\n{lines}# END layout"
    if found:
        return "\n".join([*old[:start], ours, *old[after:]])
    return text + ("\n" if no_newline else "") + ours + "\n"


def remove(text: str, name: str = "fstab") -> str:
    """Return `text` without the block: for any text, remove(install(text, lines)) == text.

    Text without a block is returned as it is. Raises LayoutError as block does.
    """
    old = text.split("\n")
    found = _find(old, name)
    if found is None:
        return text
    before, after = old[: found.start], old[found.end + 1 :]
    if found.no_newline and after in ([], [""]):
        return "\n".join(before)
    # Where lines were added below since, the newline that we put before the block ends a line of theirs.
    # Without any piece after END, an editor dropped our last newline, not theirs.
    return "\n".join(before + (after or [""]))
