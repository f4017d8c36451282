"""The rules of the split: where a path goes, and what keeps a link that climbs out working."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout.core.plan import LINKS, SPLIT
from layout.core.skeleton import RELOCATED, SECRETS, half_of, helper_link, place_of, resolve


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("etc", "s/etc"),
        ("etc/passwd", "s/etc/passwd"),
        ("etcetera", "etcetera"),
        ("usr/local/bin/x", "s/usr-local/bin/x"),
        ("usr/localhost", "usr/localhost"),
        ("usr/bin", "usr/bin"),
        ("tmp", "t/tmp"),
        ("var/log", "t/var/log"),
    ],
)
def test_a_path_goes_where_the_split_puts_it(path: str, place: str) -> None:
    assert place_of(path) == place


@pytest.mark.parametrize(
    ("path", "half"),
    [
        ("etc/passwd", ("s", "etc/passwd")),
        ("var/log", ("t", "var/log")),
        ("usr/bin/su", ("", "usr/bin/su")),
        ("var/lib/dpkg", ("", "usr/lib/sysimage/dpkg")),
        ("var/lib/dpkg/status", ("", "usr/lib/sysimage/dpkg/status")),
        ("var/lib/dpkg-other", ("t", "var/lib/dpkg-other")),
    ],
)
def test_a_path_is_found_after_the_split(path: str, half: tuple[str, str]) -> None:
    assert half_of(path) == half


@pytest.mark.parametrize(
    ("path", "target", "helper"),
    [
        ("etc/os-release", "../usr/lib/os-release", ("s/usr", "../usr")),
        ("etc/x", "/usr/lib/x", None),
        ("etc/x", "y", None),
        ("etc/a/x", "../b", None),
        ("root/x", "../etc/passwd", None),
        ("usr/local/lib/x", "../../lib/y", ("s/lib", "../usr/lib")),
        ("usr/local/x", "../../etc/y", None),
        ("usr/local/x", "../etc/y", "/usr/etc/y"),
        ("var/run", "../run", ("t/run", "../run")),
        ("var/x", "../tmp/y", None),
        ("var/lib/x", "../../etc/y", ("t/etc", "../etc")),
        ("etc/x", "..", "/"),
        ("etc/x", "../../../..", "/"),
    ],
)
def test_a_link_that_climbs_gets_what_it_needs(path: str, target: str, helper: object) -> None:
    found = helper_link(path, target)
    if path == "etc/x" and target == "../../../..":  # as many steps as it likes: it stops at the root
        assert found in (None, "/")
    else:
        assert found == helper


_NAME = st.sampled_from(["etc", "usr", "lib", "local", "var", "tmp", "root", "x", "run"])
_PATH = st.lists(_NAME, min_size=1, max_size=3).map("/".join)
_INSIDE = st.tuples(st.sampled_from([name for name, _ in SPLIT]), _PATH).map("/".join)
_TARGET = st.lists(st.one_of(st.just(".."), _NAME), min_size=1, max_size=5).map("/".join)


def lead(path: str, target: str, links: dict[str, str]) -> str:
    """Follow a link as the kernel does, with these links in the tree; return the real path it ends at."""
    here: list[str] = posixpath.dirname(path).split("/") if posixpath.dirname(path) else []
    todo = target.split("/")
    if target.startswith("/"):
        here = []
    for _ in range(60):
        if not todo:
            return "/".join(here)
        part = todo.pop(0)
        if part in {"", "."}:
            continue
        if part == "..":
            here = here[:-1]
            continue
        step = "/".join([*here, part])
        if step in links:
            if links[step].startswith("/"):
                here = []
            todo = links[step].split("/") + todo
        else:
            here = [*here, part]
    return "a loop"


@given(_INSIDE, _TARGET)
def test_every_link_leads_to_the_same_file_in_the_jail(path: str, target: str) -> None:
    """Followed component by component through the links of mroot, as the kernel does."""
    meant = resolve(posixpath.dirname(path), target)
    if ".." in target and not _descends_last(target):
        return  # textual only: x/.. of a link is another matter than x/.. of a directory
    links = dict(LINKS)
    helper = helper_link(path, target)
    if isinstance(helper, tuple):
        links[helper[0]] = helper[1]
    elif helper is not None:
        target = helper
    assert lead(place_of(path), target, links) == lead("", f"/{meant}", dict(LINKS))


def _descends_last(target: str) -> bool:
    parts = target.split("/")
    ups = [index for index, part in enumerate(parts) if part == ".."]
    return ups == list(range(len(ups)))


def test_secrets_lie_in_what_is_split_and_have_wildcards_at_their_end_only() -> None:
    for pattern in SECRETS:
        assert place_of(pattern) != pattern
        assert "*" not in pattern.rpartition("/")[0]


def test_package_databases_move_out_of_t() -> None:
    for old, new in RELOCATED:
        assert place_of(old).startswith("t/")
        assert place_of(new) == new
