"""The text of scripts: quoting, here-documents, and the rules of the split written in sh."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layout.core import shell_base, shell_mounts, shell_steps, skeleton
from layout.core.model import Jail, Manage, Mount, Platform, Preset, Site, Tables
from layout.core.plan import SPLIT, plan
from layout.core.script import render
from layout.core.script_base import split_functions
from layout.core.shell import called, comment, fed, library, quote
from layout.core.tables import load_template
from layout.core.work import Item, Part, Source, Work

SHELL = shutil.which("dash") or "sh"
texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=40)


def sh(text: str) -> str:
    """Run a script and return what it prints."""
    done = subprocess.run([SHELL, "-s"], input=text.encode(), capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


@given(st.lists(texts, min_size=20, max_size=20))
@settings(max_examples=20, deadline=None)
def test_quoted_words_and_fed_texts_arrive_as_they_are(words: list[str]) -> None:
    script = "".join(f"printf '%s\\0' {quote(word)}\n" for word in words)
    assert sh(script) == "".join(f"{word}\0" for word in words)
    lines = [f"{word}\nEND\nEND_\n" for word in words]
    assert sh("".join(fed("cat", line) for line in lines)) == "".join(lines)
    assert sh("".join(fed("cat", word) for word in words)) == "".join(words)


@given(texts)
def test_a_comment_is_one_line(text: str) -> None:
    line = comment(text)
    assert line.startswith("# ")
    assert line.count("\n") == 1
    assert line.isprintable() or line[:-1].isprintable()


def test_functions_come_with_what_they_call_and_nothing_else() -> None:
    functions = library("# one: two\none() { two; }\n\ntwo() { echo; }\n\nthree() { one; }\n")
    assert [text.rpartition("() ")[0].split("\n")[-1] for text in called(functions, "one x\n")] == [
        "one",
        "two",
    ]
    assert called(functions, "# three\n") == []
    with pytest.raises(ValueError, match="no function"):
        library("echo\n")


RULES = library(
    shell_steps.COMMON, split_functions(), shell_base.BASE, shell_steps.COPY_LINUX, shell_mounts.LINUX
)
places = st.sampled_from([name for name, _ in SPLIT])
parts = st.sampled_from(["etc", "usr", "lib", "local", "var", "tmp", "root", "a b", "x'", "bin"])
targets = st.lists(st.one_of(st.just(".."), st.just(".."), parts, st.just(".")), min_size=1, max_size=6)


links_below = st.tuples(places, st.lists(parts, min_size=1, max_size=3), targets)


@given(st.lists(links_below, min_size=20, max_size=20))
@settings(max_examples=15, deadline=None)
def test_links_are_kept_by_the_same_rule(links: list[tuple[str, list[str], list[str]]]) -> None:
    # Instead of files, functions: what would be linked and changed is printed.
    fakes = (
        'readlink() { case $1 in *.new-?/*/*) printf "%s\\n" "$target_of" ;;'
        ' *) printf "%s\\n" "$made" ;; esac; }\n'
        'ln() { case $2 in --) made=$3; printf "helper %s %s\\0" "${4#skel/.new-}" "$3" ;;'
        ' *) printf "absolute %s\\0" "$2" ;; esac; }\n'
        "present() { return 1; }\nrm() { :; }\nchown() { :; }\nls() { echo; }\n"
    )
    names = {name for name in RULES if name not in {"present"}}
    body = "".join(
        f"target_of={quote('/'.join(target))}\nkeep_link {quote(f'skel/.new-{skeleton.place_of(path)}')}\n"
        "printf 'end\\0'\n"
        for name, below, target in links
        for path in ["/".join([name, *below])]
    )
    functions = "\n".join(text for text in called(RULES, "keep_link") if any(f"{n}()" in text for n in names))
    functions = functions.replace(RULES["present"], "")
    found = sh(f"set -u\n{functions}\n{fakes}{body}").split("end\0")[:-1]
    expected = []
    for name, below, target in links:
        path, text = "/".join([name, *below]), "/".join(target)
        match skeleton.helper_link(path, text):
            case None:
                expected.append("")
            case (helper, to):
                expected.append(f"helper {helper} {to}\0")
            case meant:
                expected.append(f"absolute {meant}\0")
    assert found == expected


SITE = Site("/it's a ROOT", "/etc/layout", Platform.LINUX, "/etc/fstab")
TEMPLATE = load_template(
    "# [jail]\n${ROOT}/j/mroot ${ROOT}/j/${NAME} none bind,ro,private 0 0\n# [manage]\n",
    "t.fstab.in",
    Platform.LINUX,
)
JAIL = Jail("web", "default", Preset.CLASSIC, Manage.SESSION, Platform.LINUX)


def work(*parts: Part, mounts: tuple[tuple[Mount, ...], ...] = (), source: Source | None = None) -> Work:
    whole = plan(SITE, "host", [JAIL], {(JAIL.kind, Preset.CLASSIC): TEMPLATE})
    return Work("1.2", whole, source, parts, mounts)


def test_nothing_missing_is_a_script_without_a_step() -> None:
    text = render(work(Part((), ())))
    assert text.startswith("#!/bin/sh\n")
    assert "# ROOT      /it's a ROOT\n" in text
    assert "Made by layout 1.2." in text
    assert all(line.startswith("#") for line in text.splitlines())


def test_each_step_has_its_reason_above_it() -> None:
    whole = work().plan
    steps = tuple((entry, False) for entry in whole.host)
    body = render(work(Part(whole.host, steps))).split("\nroot=")[1]
    for entry in whole.host[1:]:
        assert f"\n# {entry.reason}\nmake_directory {entry.mode:04o} '{entry.path}'\n" in body
    # The lock is there as soon as it can be.
    assert body.index("'.layout'") < body.index("take_lock") < body.index("'.layout/jails'")


def test_items_with_harmless_names_share_one_document() -> None:
    whole = work().plan
    items = (
        Item("dir", "etc", 0o755),
        Item("copy", "etc/a", 0o644, "/etc/a"),
        Item("copy", "etc/b c", 0o644, "/etc/it's"),
        Item("text", "etc/d", 0o600, "END\n"),
    )
    steps = tuple((entry, False) for entry in (*whole.host, whole.mroot[0]))
    part = Part((*whole.host, *whole.mroot), steps)
    body = render(work(part, source=Source("host", "host", '"host"', items=items))).split("\nroot=")[1]
    assert "lay <<'END'\ndir 0755 etc\ncopy 0644 etc/a /etc/a\nEND\n" in body
    assert "lay_one copy 0644 'etc/b c' '/etc/it'\\''s'\n" in body
    assert "lay_text 0600 'etc/d' <<'TEXT'\nEND\nTEXT\n" in body
    for pattern in skeleton.SECRETS:
        assert f"'{pattern.rpartition('/')[2]}'\n" in body


def test_a_tree_of_mounts_is_attached_as_a_whole() -> None:
    tables = Tables(
        (
            Mount("/it's a ROOT/j/mroot", "/it's a ROOT/j/web", "none", ("bind", "ro", "private")),
            Mount("/srv/data", "/it's a ROOT/j/web/t", "none", ("bind", "rw", "nodev", "private", "noauto")),
        ),
        (),
    )
    body = render(work(mounts=(tables.jail,))).split("\nroot=")[1]
    assert (
        "if unmounted 'j/web'; then\n"
        "    stage_bind 'j/mroot' '' 'ro'\n"
        "    stage_bind '/srv/data' '/t' 'rw,nodev'\n"
        "    attach 'j/web'\n"
        "fi\n"
        "proven 'j/web' ro\n"
        "proven 'j/web/t' rw nodev\n"
    ) in body
