"""The part of a script that populates the base: from its source to mroot and the skeletons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from layout.core import skeleton
from layout.core.model import Directory, Platform, Symlink
from layout.core.pkgbase import REPOSITORY
from layout.core.plan import MODES, SPLIT
from layout.core.shell import fed, indented, is_harmless, quote
from layout.core.work import Item, Source, Work

_STAGED = ".new-"


def split_functions() -> str:
    """Return the rules of skeleton.place_of as case statements."""

    def cases(pairs: Iterable[tuple[str, str]], variable: str) -> str:
        lines = "".join(f"        {a} | {a}/*) {variable}={b}${{1#{a}}} ;;\n" for a, b in pairs)
        return f"    case $1 in\n{lines}        *) {variable}=$1 ;;\n    esac\n"

    back = [(place, name) for name, place in SPLIT]
    places = " | ".join(place for _, place in SPLIT)
    return (
        "# place_of NAME: set $place to where a path of the base lies after the split\n"
        f"place_of() {{\n{cases(SPLIT, 'place')}}}\n\n"
        "# name_of PLACE: set $name to the path of the base that lies there\n"
        f"name_of() {{\n{cases(back, 'name')}}}\n\n"
        "# is_split PLACE: it is the top of what was taken out of the base\n"
        f"is_split() {{ case $1 in {places}) ;; *) return 1 ;; esac; }}\n"
    )


def populate(work: Work) -> str:
    """Return the part that makes mroot and the skeleton from the source."""
    source = work.source
    assert source is not None
    out = [f"check_digest {source.sha256}\n"] if source.sha256 else []
    out.append("begin_base\n")
    match source.kind:
        case "host":
            out += _items(source.items)
        case "directory":
            out.append("fill_from_directory\n")
        case "archive":
            out.append("fill_from_archive\n")
        case "installer":
            out += _installation(source)
        case _:
            assert_never(source.kind)
    fifo, device = ("fifo", "device") if source.kind == "archive" else ("FIFO", '"device node"')
    out.append(f"fifo={fifo} device={quote(device)}\n")
    out.append(f"measure_base {0 if source.kind == 'host' else 1} {source.kind}\n")
    out.append("check_base\n")
    if work.plan.site.platform is Platform.FREEBSD:
        out.append("check_userland\n")
    first, *others = (f"move_out {name} {place} {MODES[place]:04o}\n" for name, place in SPLIT)
    out += [f"# What is not shared goes to the skeletons.\n{first}", *others]
    out += _scrubs()
    out += _relocations()
    first, *others = (f"climb skel/{_STAGED}{place}\n" for _, place in SPLIT)
    out += [f"# Links that climb out of s or t keep leading where they led.\n{first}", *others]
    if work.plan.site.platform is Platform.FREEBSD:
        out.append("complete_var\n")
    out += _shape(work)
    out.append("complete_base\n")
    return (
        "if [ -e .layout/commit.toml ]; then commit_base; fi\n"
        f"if wanting_base {' '.join(source.trees)}; then\n{indented(out)}fi\n"
    )


def _installation(source: Source) -> Iterable[str]:
    if source.configuration:
        yield "mkdir -m 700 .layout/pkgbase\n"
        yield fed(f"cat >.layout/pkgbase/{REPOSITORY}.conf", source.configuration)
    if source.keys:
        yield f"bring_keys {quote(source.keys)}\n"
    for words in source.commands:
        yield f"{' '.join(word if is_harmless(word) else quote(word) for word in words)} </dev/null\n"
    yield "rm -rf .layout/pkgbase\n"


def _items(items: Sequence[Item]) -> Iterable[str]:
    """Directories, links and copies in one here-document as far as their names allow, texts one by one."""
    plain = [i for i in items if i.kind != "text" and is_harmless(i.path, i.content or "-")]
    lines = "".join(f"{i.kind} {i.mode:04o} {i.path} {i.content}".rstrip() + "\n" for i in plain)
    yield "# The host's own programs, and what they need.\n" + fed("lay", lines)
    for item in items:
        if item.kind == "text":
            yield fed(f"lay_text {item.mode:04o} {quote(item.path)}", item.content)
        elif item not in plain:
            yield f"lay_one {item.kind} {item.mode:04o} {quote(item.path)} {quote(item.content)}\n"


def _scrubs() -> Iterable[str]:
    comment = "# Secrets and identities: every jail would share them.\n"
    for pattern in skeleton.SECRETS:
        head, _, last = pattern.rpartition("/")
        place = skeleton.place_of(pattern).rpartition("/")[0]
        yield f"{comment}scrub {head} {place} {quote(last)}\n"
        comment = ""


def _relocations() -> Iterable[str]:
    comment = (
        "# The package database describes mroot: in t, a jail could poison what its administrator runs.\n"
    )
    for old, new in skeleton.RELOCATED:
        yield f"{comment}relocate {skeleton.place_of(old)} {new}\n"
        comment = ""
    yield 'if [ -n "$relocated" ]; then\n'
    for path, text in skeleton.CONFIGURED:
        yield "    " + fed(f"configure {skeleton.place_of(path)}", text)
    yield "fi\n"


def _shape(work: Work) -> Iterable[str]:
    comment = "# The links and mount points of mroot, exactly.\n"
    for entry in work.plan.mroot:
        name = entry.path.removeprefix("j/mroot/")
        match entry:
            case Symlink(target=target) if name == "sys" and work.plan.site.platform is Platform.LINUX:
                yield f"{comment}link_or_mount_point {quote(target)} 0755 sys\n"
            case Symlink(target=target):
                yield f"{comment}shared_link {quote(target)} {quote(name)}\n"
            case Directory(mode=mode) if name != entry.path:
                yield f"{comment}mount_point {mode:04o} {quote(name)}\n"
            case _:
                continue
        comment = ""
