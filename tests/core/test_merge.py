"""The three-way merge: what the base changed reaches a jail, and what the jail changed is never lost."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout.core.merge import Change, Merge, Side, merge, seeds
from layout.core.merge_text import Clash, merge_lines, merge_text
from layout.core.mtree import ManifestEntry

Text = dict[str, str | tuple[str, str] | None]
"""Files by path with their text, directories with None, links with ("link", target)."""


def tree(texts: Text) -> dict[str, ManifestEntry]:
    found = {".": ManifestEntry(".", "dir", 0o755, 0, 0)}
    for path, text in texts.items():
        parts = path.split("/")
        for index in range(1, len(parts)):
            parent = "/".join(parts[:index])
            found.setdefault(parent, ManifestEntry(parent, "dir", 0o755, 0, 0))
        if text is None:
            found[path] = ManifestEntry(path, "dir", 0o755, 0, 0)
        elif isinstance(text, tuple):
            found[path] = ManifestEntry(path, "link", 0o777, 0, 0, target=text[1])
        else:
            data = text.encode()
            digest = hashlib.sha256(data).hexdigest()
            found[path] = ManifestEntry(path, "file", 0o644, 0, 0, len(data), digest)
    return found


def merged(old: Text, new: Text, ours: Text) -> Merge:
    def read(side: Side, path: str) -> bytes:
        text = {"old": old, "new": new, "ours": ours}[side][path]
        assert isinstance(text, str)
        return text.encode()

    return merge(tree(old), tree(new), tree(ours), read)


def applied(new: Text, ours: Text, changes: tuple[Change, ...]) -> Text:
    """Return what a jail is after these changes."""
    after = dict(ours)
    for change in changes:
        if change.entry is None:
            after.pop(change.path, None)
        elif change.source == "data":
            after[change.path] = change.data.decode()
        elif change.entry.kind == "link":
            after[change.path] = ("link", change.entry.target)
        elif change.source == "new" and change.kind != "mode":
            after[change.path] = new.get(change.path)
    return after


def kinds(done: Merge) -> list[tuple[str, str]]:
    return [(change.kind, change.path) for change in done.changes]


def test_what_the_jail_did_not_touch_becomes_as_in_the_base() -> None:
    old: Text = {"etc/a": "1\n", "etc/gone": "x\n", "etc/l": ("link", "a"), "etc/d": None, "etc/d/f": "1\n"}
    new: Text = {"etc/a": "2\n", "etc/l": ("link", "b"), "etc/new/deep/f": "n\n"}
    done = merged(old, new, old)
    assert done.conflicts == ()
    assert kinds(done) == [
        ("updated", "etc/a"),
        ("removed", "etc/d"),
        ("removed", "etc/d/f"),
        ("removed", "etc/gone"),
        ("updated", "etc/l"),
        ("added", "etc/new"),
        ("added", "etc/new/deep"),
        ("added", "etc/new/deep/f"),
    ]


def test_what_the_jail_changed_or_removed_stays() -> None:
    old: Text = {"etc/a": "1\n", "etc/b": "1\n", "etc/c": "1\n"}
    new: Text = {"etc/a": "1\n", "etc/b": "2\n", "etc/c": "1\n"}
    ours: Text = {"etc/a": "mine\n", "etc/mine": "x\n", "etc/c": "1\n"}
    assert merged(old, new, ours) == Merge((), ())


def test_a_directory_in_use_stays() -> None:
    done = merged({"etc/d/f": "1\n"}, {"etc": None}, {"etc/d/f": "1\n", "etc/d/mine": "x\n"})
    assert kinds(done) == [("removed", "etc/d/f")]


def test_lines_that_are_far_apart_are_merged() -> None:
    old = "".join(f"{n}\n" for n in range(9))
    done = merged(
        {"etc/conf": old},
        {"etc/conf": old.replace("7\n", "seven\n")},
        {"etc/conf": old.replace("1\n", "one\n")},
    )
    assert kinds(done) == [("merged", "etc/conf")]
    assert done.changes[0].data.decode() == old.replace("7\n", "seven\n").replace("1\n", "one\n")


@pytest.mark.parametrize(
    ("old", "new", "ours", "reason"),
    [
        ({"etc/f": "1\n"}, {"etc/f": "2\n"}, {"etc/f": "3\n"}, "near line 1"),
        ({"etc/f": "1\n"}, {"etc": None}, {"etc/f": "3\n"}, "removed from the base"),
        ({"etc": None}, {"etc/f": "2\n"}, {"etc/f": "3\n"}, "both sides"),
        ({"etc/f": "1\n"}, {"etc/f": "\0a"}, {"etc/f": "\0b"}, "not a text"),
        ({"etc/f": "1\n"}, {"etc/f": ("link", "x")}, {"etc/f": "2\n"}, "a symbolic link in the base"),
        ({"etc/f": ("link", "a")}, {"etc/f": ("link", "b")}, {"etc/f": ("link", "c")}, "a link to c"),
        ({"etc": None}, {"etc/d/f": "2\n"}, {"etc": None, "etc/d": "file\n"}, "directory"),
        ({"etc/d": None}, {"etc/d": "file\n"}, {"etc/d/mine": "1\n"}, "in use"),
    ],
)
def test_what_cannot_be_merged_is_a_conflict(old: Text, new: Text, ours: Text, reason: str) -> None:
    done = merged(old, new, ours)
    assert reason in " ".join(conflict.reason for conflict in done.conflicts)


def test_modes_and_owners_are_merged_apart_from_the_text() -> None:
    def one(text: str, mode: int, uid: int) -> dict[str, ManifestEntry]:
        entry = tree({"etc/f": text})["etc/f"]
        return {"etc/f": ManifestEntry("etc/f", "file", mode, uid, 0, entry.size, entry.digest)}

    old, new, ours = one("1\n", 0o644, 0), one("1\n", 0o640, 0), one("2\n", 0o644, 5)
    (change,) = merge(old, new, {**ours, "etc": tree({"etc": None})["etc"]}, lambda *_: b"").changes
    assert change.entry is not None
    assert (change.kind, change.source) == ("mode", "ours")
    assert (change.entry.mode, change.entry.uid, change.entry.digest) == (0o640, 5, ours["etc/f"].digest)


def test_what_programs_make_from_other_files_stays_the_jails() -> None:
    old, new, ours = {"etc/ld.so.cache": "1"}, {"etc/ld.so.cache": "2"}, {"etc/ld.so.cache": "3"}
    assert merged(dict(old), dict(new), dict(ours)) == Merge((), ())


# -- passwd(5) and its kin ------------------------------------------------------------------------------


OLD = b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n"


def test_users_are_merged_by_name() -> None:
    new = OLD + b"tftp:x:102:103::/srv:/bin/false\n"
    ours = OLD.replace(b"/bin/sh", b"/bin/bash") + b"me:x:1000:1000::/home/me:/bin/sh\n"
    assert merge_text("etc/passwd", OLD, new, ours) == ours + b"tftp:x:102:103::/srv:/bin/false\n"


def test_a_number_is_allotted_once() -> None:
    new = OLD + b"tftp:x:102:103::/srv:/bin/false\n"
    ours = OLD + b"uuidd:x:102:104::/run:/bin/false\n"
    with pytest.raises(Clash, match="number 102 for both uuidd and tftp"):
        merge_text("etc/passwd", OLD, new, ours)


def test_names_that_share_a_number_already_may() -> None:
    both = OLD + b"toor:x:0:0::/root:/bin/sh\n"
    assert merge_text("etc/passwd", both, both + b"a:x:5:5::/:/\n", both + b"b:x:6:6::/:/\n")


def test_members_of_a_group_are_merged_as_a_set() -> None:
    old, new, ours = b"adm:x:4:syslog,gone\n", b"adm:x:4:syslog,tftp\n", b"adm:x:4:syslog,gone,me\n"
    assert merge_text("etc/group", old, new, ours) == b"adm:x:4:syslog,me,tftp\n"


def test_fields_of_one_user_are_merged_and_a_clash_names_the_user() -> None:
    ours = OLD.replace(b"/bin/sh", b"/bin/bash")
    new = OLD.replace(b":root:", b":Charlie:")
    assert b"root:x:0:0:Charlie:/root:/bin/bash\n" in merge_text("etc/passwd", OLD, new, ours)
    with pytest.raises(Clash, match="root changed on both sides"):
        merge_text("etc/passwd", OLD, OLD.replace(b"/bin/sh", b"/bin/zsh"), ours)


def test_a_user_that_left_the_base_leaves_and_one_that_was_taken_out_stays_out() -> None:
    root = OLD.splitlines(keepends=True)[0]
    assert merge_text("etc/passwd", OLD, root, OLD + b"me:x:9:9::/:/\n") == root + b"me:x:9:9::/:/\n"
    new = OLD.replace(b"/bin/false", b"/usr/sbin/nologin")
    assert merge_text("etc/passwd", OLD, new, root + b"me:x:9:9::/:/\n") == root + b"me:x:9:9::/:/\n"


# -- what t is given ------------------------------------------------------------------------------------


def test_t_is_given_what_is_new_and_missing_and_nothing_else() -> None:
    old: Text = {"var/lib": None, "var/log": None}
    new: Text = {
        "var/lib/slapd/db": "x",
        "var/lib/tftp": None,
        "var/log/apt/term.log": "x",
        "var/lib/mine": None,
        "var/none/a": None,
        "tmp/x": "x",
    }
    ours: Text = {"var/lib/mine": ("link", "/etc"), "var/log": None, "tmp": None}
    given = [change.path for change in seeds(tree(old), tree(new), tree(ours))]
    assert given == [
        "var/lib/slapd",
        "var/lib/slapd/db",
        "var/lib/tftp",
        "var/log/apt",
        "var/none",
        "var/none/a",
    ]


def test_nothing_is_given_below_what_the_jail_put_in_a_directorys_place() -> None:
    ours: Text = {"var/lib": ("link", "/etc")}
    assert seeds(tree({"var": None}), tree({"var/lib/x/y": None}), tree(ours)) == ()


# -- laws ---------------------------------------------------------------------------------------------------

lines = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\n", b"e\n"]), max_size=9)
files = st.dictionaries(
    st.sampled_from(["etc/passwd", "etc/f", "etc/g", "etc/d/f", "etc/d/g", "root/x"]),
    st.lists(
        st.sampled_from(["a:x:1\n", "b:x:2\n", "c:x:3\n", "d:x:2\n", "plain\n"]), max_size=4, unique=True
    )
    .map("".join)
    .map(str),
    max_size=6,
)


@given(lines, lines, lines)
def test_a_merge_of_lines_is_the_same_from_both_sides(old, new, ours) -> None:
    try:
        done = merge_lines(old, new, ours)
    except Clash:
        with pytest.raises(Clash):
            merge_lines(old, ours, new)
        return
    assert done == merge_lines(old, ours, new)


@given(lines, lines)
def test_a_merge_of_lines_with_one_side_as_it_was_is_the_other(old, new) -> None:
    assert merge_lines(old, new, old) == list(new)
    assert merge_lines(old, old, new) == list(new)
    assert merge_lines(old, new, new) == list(new)


@given(files, files, files)
def test_a_merge_loses_no_edit_and_done_again_has_nothing_to_do(old, new, ours) -> None:
    done = merged(old, new, ours)
    if done.conflicts:
        return
    after = applied(new, ours, done.changes)
    for path, text in ours.items():
        if text != old.get(path) and text != new.get(path):
            change = next((one for one in done.changes if one.path == path), None)
            assert change is None or change.kind in {"merged", "mode"}
            for line in set(str(text).splitlines()) - set(str(old.get(path, "")).splitlines()):
                assert line in str(after[path]).splitlines() or path == "etc/passwd"
    for path in new:
        if old.get(path) == ours.get(path):
            assert after[path] == new[path]
    again = merged(old, new, after)
    assert (kinds(again), again.conflicts) == ([], ())


@given(files, files, files, st.randoms())
def test_the_order_of_the_entries_does_not_matter(old, new, ours, random) -> None:
    def shuffled(texts: Text) -> Text:
        items = list(texts.items())
        random.shuffle(items)
        return dict(items)

    assert merged(old, new, ours) == merged(shuffled(old), shuffled(new), shuffled(ours))


@given(files, files)
def test_a_jail_that_was_not_touched_becomes_the_new_skeleton(old, new) -> None:
    done = merged(old, new, old)
    assert done.conflicts == ()
    after = applied(new, old, done.changes)
    assert {path: text for path, text in after.items() if text is not None} == new
