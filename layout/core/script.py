"""A plan as a POSIX sh script that does by hand what init would do. Pure: the host comes as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import assert_never

from layout.core import shell_base, shell_freebsd, shell_mounts, shell_steps
from layout.core.errors import UsageError
from layout.core.model import BaseTree, Copy, Directory, Entry, File, Identity, Platform, Symlink, World
from layout.core.script_base import populate, split_functions
from layout.core.script_mounts import attach, in_mountinfo
from layout.core.shell import called, comment, fed, indented, library, quote
from layout.core.work import Part, Work, Written

_STAGED = ".new-"


def render(work: Work) -> str:
    """Return the script. Raises LayoutError for a mount that cannot be made on the platform."""
    head = _header(work)
    if not (work.mounts or any(part.steps or part.files or part.record for part in work.parts)):
        return f"{head}#\n# Nothing is missing: there is nothing to do.\n"
    body = _body(work)
    platform = work.plan.site.platform
    ended = shell_steps.ENDED.replace("    @end_mounts@\n", "    end_mounts\n" if work.mounts else "")
    if work.source is None:
        ended = ended.replace("        base) unstage ;;\n", "")
    if not any(isinstance(entry, Copy | BaseTree) for entry, _ in work.steps):
        ended = re.sub(r"    case .*esac\n", "", ended, flags=re.DOTALL)
    functions = _functions(platform, ended)
    chosen = "".join(f"\n{text}\n" for text in called(functions, body))
    return f"{head}{_PROLOGUE}{chosen}\n{_variables(work, chosen + body)}{body}"


def _functions(platform: Platform, ended: str) -> dict[str, str]:
    own = (
        (shell_steps.COPY_LINUX, shell_base.FROM_DIRECTORY_LINUX, shell_mounts.LINUX)
        if platform is Platform.LINUX
        else (
            shell_steps.COPY_FREEBSD,
            shell_base.FROM_DIRECTORY_FREEBSD,
            shell_mounts.FREEBSD,
            shell_freebsd.USERLAND,
        )
    )
    return library(
        shell_steps.COMMON,
        *own,
        split_functions(),
        shell_base.BASE,
        shell_base.FROM_HOST,
        shell_base.FROM_ARCHIVE,
        ended,
    )


_LOCK = "\n# Nobody else changes ROOT meanwhile.\ntake_lock\n"

_PROLOGUE = """\
# shellcheck disable=SC2016 # whatever names hold, they are meant as they are
set -eu
umask 022
LC_ALL=C
IFS=' \t
'
PATH=${PATH:+$PATH:}/sbin:/bin:/usr/sbin:/usr/bin
export LC_ALL PATH
unset CDPATH TAR_OPTIONS POSIXLY_CORRECT
"""


def _header(work: Work) -> str:
    plan = work.plan
    names = ", ".join(
        jail.jail.name
        if jail.jail.profile in {jail.jail.name, "default"}
        else f"{jail.jail.name} (profile {jail.jail.profile})"
        for jail in plan.jails
    )
    return (
        "#!/bin/sh\n"
        "# What `layout init` would do, for a host without Python: the output of `layout plan --script`.\n"
        + comment(f"Made by layout {work.version}.")
        + "#\n"
        + comment(f"ROOT      {plan.site.root}")
        + comment(f"jails     {names}")
        + comment(f"platform  {plan.site.platform}")
        + comment(f"base      {plan.base}")
        + "#\n"
        "# Run it as root. It makes what was missing when it was printed. What is there already, as\n"
        "# planned, is left alone; anything else in a place that it needs stops it. Trees are made under\n"
        "# names that begin with .new- and get their own when they are complete: after an interruption it\n"
        "# can be run again.\n"
    )


def _variables(work: Work, text: str) -> str:
    """Assign those variables that the script uses."""
    site, source = work.plan.site, work.source
    known = {
        "root": quote(site.root),
        "live": quote(in_mountinfo(site.root)),  # ROOT as /proc/self/mountinfo spells it
        "platform": str(site.platform),
        "source": quote(source.path if source is not None else ""),
        "source_toml": quote(source.toml if source is not None else ""),
        "sha256": source.sha256 if source is not None else "",
        "notes": quote("\n".join(f"    {note}," for note in source.notes) if source is not None else ""),
        "staging": "",
        "made": "0",
        "created": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
    }
    return "".join(
        f"{name}={value}\n" for name, value in known.items() if re.search(rf"\$\{{?{name}\b", text)
    )


# -- the body ---------------------------------------------------------------------------------------


def _body(work: Work) -> str:
    site = work.plan.site
    host_only = work.mounts or (work.source is not None and work.source.kind in {"host", "installer"})
    out = []
    if host_only:
        name = "FreeBSD" if site.platform is Platform.FREEBSD else "Linux"
        out.append(f'[ "$(uname -s)" = {name} ] || die \'this host\' "$(uname -s)" {name}\n')
    out.append('[ "$(id -u)" = 0 ] || die \'this script\' "user $(id -u)" root\ncheck_parents\n')
    for entry in [step for step, mode_only in work.steps if step.path == "." and not mode_only]:
        assert isinstance(entry, Directory)
        out.append(f"\n{comment(entry.reason)}make_root {entry.mode:04o}\n")
    out.append(
        'cd -P "$root"\n'
        "trap 'ended \"$?\"' EXIT\n"
        "trap 'exit 129' HUP\ntrap 'exit 130' INT\ntrap 'exit 143' TERM\n"
    )
    out += _parts(work)
    if work.mounts:
        out.append(attach(work))
    out.append("\necho 'layout: done'\n")
    return "".join(out)


def _parts(work: Work) -> Iterable[str]:
    # The lock lies in .layout: until that is there, only directories of ROOT are made.
    state = next((i for i, (entry, _) in enumerate(work.steps) if entry.path == ".layout"), -1)
    done = 0
    if state < 0:
        yield _LOCK
    for part in work.parts:
        for entry, mode_only in part.steps:
            if entry.path != "." or mode_only:
                yield _step(work, part, entry, mode_only=mode_only)
            if done == state:
                yield _LOCK
            done += 1
        yield from map(_written, part.files)
        if part.record is not None:
            yield _record(part.record)


def _step(work: Work, part: Part, entry: Entry, *, mode_only: bool) -> str:
    why = f"\n{comment(entry.reason)}"
    if mode_only and isinstance(entry, Directory):
        return f"{why}reset_mode {entry.mode:04o} {quote(entry.path)}\n"
    match entry:
        case BaseTree():
            first = next(step for step, _ in work.steps if isinstance(step, BaseTree))
            return why + populate(work) if entry is first else ""
        case Copy():
            return why + _copy(entry, part.entries)
        case Directory() | Symlink() | File() | Identity():
            return why + _small(entry, entry.path)
        case World():
            raise UsageError(entry.path, "a world of its own", "a shared root", "run layout init instead")
        case _:
            assert_never(entry)


def _small(entry: Directory | Symlink | File | Identity, path: str) -> str:
    match entry:
        case Directory(mode=mode):
            if (entry.owner, entry.group) == ("root", "root") and not entry.path.startswith("t/"):
                return f"make_directory {mode:04o} {quote(path)}\n"
            jail = entry.path.split("/")[1]
            return f"make_state {mode:04o} {quote(path)} {quote(entry.owner)} {quote(entry.group)} {jail}\n"
        case Symlink(target=target):
            return f"make_link {quote(target)} {quote(path)}\n"
        case File(text=text, mode=mode):
            return fed(f"make_file {mode:04o} {quote(path)}", text)
        case Identity():
            return f"make_identity {quote(path)}\n"
        case _:
            assert_never(entry)


def _copy(entry: Copy, every: Sequence[Entry]) -> str:
    """A tree is staged with all that belongs into it, then gets its name."""
    half, _, rest = entry.path.partition("/")
    staged = f"{half}/{_STAGED}{rest.replace('/', '.')}"
    out = []
    if half == "t" and "/" in rest:
        name = rest.partition("/")[0]
        out += [f"require_unmounted {quote(f'{place}/{name}')}\n" for place in ("j", "manage")]
    out.append(f"copy_tree {quote(entry.origin)} {quote(staged)}\n")
    prefix = entry.path + "/"
    for other in every:
        if other.path.startswith(prefix) and not isinstance(other, Copy | BaseTree | World):
            out.append(comment(other.reason) + _small(other, f"{staged}/{other.path[len(prefix) :]}"))
    out.append(f"give_name {quote(staged)} {quote(entry.path)}\n")
    return f"if wanting {quote(entry.path)}; then\n{indented(out)}fi\n"


def _written(written: Written) -> str:
    file = written.file
    command = f"write_whole {file.mode:04o} {quote(file.path)}"
    why = f"\n{comment(file.reason)}"
    if written.former is None:
        return why + fed(f"{command} 3</dev/null", file.text)
    former = ".layout/.former.000000000000"
    change = fed(f"{command} 3<{former}", file.text)
    return f"{why}{fed(f'cat >{former}', written.former)}{change}rm -f {former}\n"


def _record(written: Written) -> str:
    if written.former is not None:
        return _written(written)
    name = written.file.path.rpartition("/")[2].removesuffix(".toml")
    return f"\n{comment(written.file.reason)}{fed(f'write_record {name}', written.file.text)}"
