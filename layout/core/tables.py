"""Mount tables: the templates of fstab.d, filled in for one jail, and the per-jail files made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NoReturn, assert_never

from msgspec import Struct, structs

from layout.core import fstab
from layout.core.errors import LayoutError, UsageError
from layout.core.hostblock import digest
from layout.core.model import Boot, Jail, Manage, Mount, Platform, Tables

_ROOT, _NAME = "${ROOT}", "${NAME}"
_WORDS = ("${nosuid}", "${noexec}", "${noauto}")
_HOMES = {"jail": f"{_ROOT}/j/{_NAME}", "manage": f"{_ROOT}/manage/{_NAME}"}
_SECTION = re.compile(r"#[ \t]*\[([^\[\]]*)\][ \t]*\r?")
_PLACEHOLDER = re.compile(r"\$\{[^}]*\}?")
# Mounting below a shared mount copies the new mount into every peer: into mroot and all other jails,
# writable.
_OWN_PROPAGATION = frozenset({"private", "rprivate", "unbindable", "runbindable"})

_Row = tuple[str, str, str, tuple[str, ...], int, int]


class Template(Struct, frozen=True):
    """A mount table before names are filled in; its mounts hold the placeholders, parents before children."""

    name: str
    platform: Platform
    jail: tuple[Mount, ...]
    manage: tuple[Mount, ...]
    _rows: tuple[tuple[tuple[_Row, ...], tuple[_Row, ...]], ...]
    """Both tables for each of the eight choices of option words, at the index that _choice gives."""


NO_MOUNTS = {
    platform: Template("", platform, (), (), tuple(((), ()) for _ in range(8))) for platform in Platform
}
"""For a design that mounts nothing."""


def _choice(suid: bool, exec_: bool, session: bool) -> int:
    return (not suid) | (not exec_) << 1 | session << 2


def _rows(mounts: Sequence[Mount], index: int) -> tuple[_Row, ...]:
    dropped = {word for bit, word in enumerate(_WORDS) if not index >> bit & 1}
    rows = []
    for m in mounts:
        options = tuple(w[2:-1] if w in _WORDS else w for w in m.options if w not in dropped)
        rows.append((m.source, m.target, m.fstype, options, m.freq, m.passno))
    return tuple(rows)


def _fill(rows: Iterable[_Row], root: str, name: str) -> tuple[Mount, ...]:
    # The name first: it holds no '$', while any ROOT may.
    return tuple(
        Mount(
            source.replace(_NAME, name).replace(_ROOT, root),
            target.replace(_NAME, name).replace(_ROOT, root),
            fstype,
            options,
            freq,
            passno,
        )
        for source, target, fstype, options, freq, passno in rows
    )


def _is_below(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent + "/")


def _check_placeholders(mount: Mount, section: str, where: str) -> None:
    in_paths, in_options = (_ROOT, _NAME), _WORDS if section == "manage" else _WORDS[:2]
    fields = (("spec", mount.source, in_paths), ("file", mount.target, in_paths), ("type", mount.fstype, ()))
    for key, text, known in fields:
        for found in _PLACEHOLDER.findall(text):
            if found not in known:
                expected = " or ".join(known) or "no placeholder"
                raise UsageError(
                    where, f"{found} in the field {key}", expected, "placeholders are case-sensitive"
                )
    for word in mount.options:
        found = _PLACEHOLDER.search(word)
        if found and word not in in_options:
            hint = "it is a whole option between commas; ${noauto} belongs to the section [manage]"
            raise UsageError(where, f"{word} in the field options", " or ".join(in_options), hint)


def _check_place(mount: Mount, section: str, earlier: Sequence[Mount], where: str) -> None:
    def refuse(found: str, expected: str, hint: str = "") -> NoReturn:
        raise UsageError(where, found, expected, hint)

    home = _HOMES[section]
    if not _is_below(mount.target, home):
        refuse(f"mount point {mount.target}", f"{home} or below it", f"this is the section [{section}]")
    for path in (mount.source, mount.target):
        if path != "/" and path.startswith(("/", "$")) and {"", ".", ".."} & set(path[1:].split("/")):
            refuse(f"path {path}", "a path without '//', '.', '..' and a '/' at its end")
    bind = "bind" in mount.options or "rbind" in mount.options
    if (bind or mount.fstype == "nullfs") and not mount.source.startswith(("/", f"{_ROOT}/")):
        refuse(f"source {mount.source}", f"a directory: {_ROOT}/... or /...")
    if bind and not _OWN_PROPAGATION & set(mount.options):
        hint = "where / is shared, each mount would be copied into mroot and all other jails, writable"
        refuse(f"options {','.join(mount.options)}", "private among the options of a bind mount", hint)
    for other in earlier:
        if other.target == mount.target:
            refuse(f"a second line for {mount.target}", "one line for each mount point")
        if _is_below(other.target, mount.target):
            refuse(
                f"{mount.target} after {other.target}",
                "parents first",
                "the later mount would hide the other",
            )


def load_template(text: str, name: str, platform: Platform) -> Template:
    """Return the template in `text`, the content of the file `name`.

    Raises UsageError naming file, line and field for lines that fstab(5) of the platform refuses with any
    choice of options, unknown placeholders and sections, mount points outside the jail's own, a parent after
    its child, a bind mount that propagates, and a table without both sections.
    """
    tables: dict[str, list[Mount]] = {}
    section = ""
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{name}:{number}"
        if found := _SECTION.fullmatch(line):
            section = found[1]
            if section not in _HOMES:
                raise UsageError(where, f"section [{section}]", "[jail] or [manage]")
            if section in tables:
                raise UsageError(where, f"a second section [{section}]", "one of each")
            tables[section] = []
            continue
        try:
            mount = fstab.parse_line(line, platform, name, number)
            if mount is None:
                continue
            if not section:
                raise UsageError(where, "a line before the first section", "the comment '# [jail]' above it")
            _check_placeholders(mount, section, where)
            _check_place(mount, section, tables[section], where)
            for index in range(8):
                # A sample tells whether the line can be written at all, whatever the profile says.
                sample = _fill(_rows([mount], index), "/jails", "a")[0]
                fstab.render_line(sample, platform)
        except UsageError:
            raise
        except LayoutError as error:
            raise UsageError(where, error.found, error.expected, error.hint) from None
        tables[section].append(mount)
    if "jail" not in tables or "manage" not in tables:
        missing = "jail" if "jail" not in tables else "manage"
        hint = "a section is empty rather than left out"
        raise UsageError(
            name, f"no section [{missing}]", f"the comment '# [{missing}]' on a line of its own", hint
        )
    if not tables["jail"]:
        raise UsageError(name, "no mount in the section [jail]", "at least the jail's root")
    jail, manage = tuple(tables["jail"]), tuple(tables["manage"])
    rows = tuple((_rows(jail, index), _rows(manage, index)) for index in range(8))
    return Template(name, platform, jail, manage, rows)


def expand(template: Template, root: str, jail: Jail) -> Tables:
    """Return both tables of one jail, in the template's order; `root` is ROOT without a '/' at its end.

    nosuid and noexec go when the profile opts out of them; noauto stays for manage = "session".
    """
    session = jail.manage is Manage.SESSION
    jail_rows, manage_rows = template._rows[_choice(jail.suid, jail.exec, session)]
    return Tables(_fill(jail_rows, root, jail.name), _fill(manage_rows, root, jail.name))


def host_lines(tables: Tables, manage: Manage, words: Sequence[str] = ()) -> tuple[Mount, ...]:
    """Return what the host's fstab holds for one jail: its mounts, then those of the writable view.

    In session mode the latter are noauto even where a site's template forgot it: they are never mounted at
    boot. `words` are options for what is mounted at boot.
    """
    if manage is Manage.BOOT:
        return _with(tables.jail + tables.manage, words)
    return _with(tables.jail, words) + _with(tables.manage, ("noauto",))


def _with(mounts: Iterable[Mount], words: Sequence[str]) -> tuple[Mount, ...]:
    return tuple(
        structs.replace(m, options=(*m.options, *(word for word in words if word not in m.options)))
        for m in mounts
    )


def boot_words(jail: Jail) -> tuple[str, ...]:
    """Return the options that a jail's lines in the host's fstab have besides those of its table.

    FreeBSD: late, for mountcritlocal comes before what ZFS holds, and failok, for one line that fails would
    end the boot (rc.d/mountlate).
    """
    if jail.platform is not Platform.FREEBSD:
        return ()
    match jail.boot:
        case Boot.JAIL:
            return ()
        case Boot.FSTAB:
            return ("late", "failok")
        case Boot.NONE:
            return ("noauto",)
        case _:
            assert_never(jail.boot)


_HEADER = re.compile(
    r"(?:#!/bin/sh\n)?# [a-z][a-z0-9_-]*: (?:mount table|(?:jail|pf)\.conf\(5\)|rc\.d script), "
    r"generated by layout;[^\n]*\n"
    r"# sha256 ([0-9a-f]{64})\n(.*)",
    re.DOTALL,
)


def render_table(jail: Jail, mounts: Iterable[Mount], platform: Platform) -> str:
    """Return the text of ETC/fstab.d/NAME.fstab: two comments and the lines. Raises as fstab.render."""
    lines = fstab.render(mounts, platform)
    return (
        f"# {jail.name}: mount table, generated by layout; edit the template or the profile, not this file\n"
        f"# sha256 {digest(lines)}\n"
        f"{lines}"
    )


def hand_edited(text: str) -> bool:
    """Say whether the lines of a generated file differ from its digest, or have no header."""
    found = _HEADER.fullmatch(text)
    return found is None or found[1] != digest(found[2])
