"""The plan: what must be so, decided without looking at any host."""

from __future__ import annotations

from pathlib import Path

import pytest

from layout.core.model import (
    BaseTree,
    Copy,
    Directory,
    File,
    Identity,
    Jail,
    Kind,
    Manage,
    Plan,
    Platform,
    Preset,
    Site,
    State,
    Symlink,
)
from layout.core.plan import LINKS, SPLIT, host_files, plan
from layout.core.tables import load_template

TEMPLATES = Path(__file__).resolve().parents[2] / "fstab.d"
NAMES = ("ldap", "bind")


def make(platform: Platform, *, sys_directory: bool = False, names: tuple[str, ...] = NAMES) -> Plan:
    state = (State("var/lib/x", 0o750, "x", "x"),)
    jails = [Jail(n, "p", Preset.HARDENED, Manage.SESSION, platform, state=state) for n in names]
    text = (TEMPLATES / f"{platform}-hardened.fstab.in").read_text()
    templates = {(Kind.SHARED, Preset.HARDENED): load_template(text, "template", platform)}
    site = Site("/jails", "/etc/layout", platform, "/etc/fstab")
    return plan(site, "host", jails, templates, sys_directory=sys_directory)


@pytest.fixture(name="made", params=list(Platform), ids=str)
def _made(request) -> Plan:
    return make(request.param)


def entries(made: Plan) -> list:
    return [*made.host, *made.mroot, *(entry for jail in made.jails for entry in jail.entries)]


def test_the_same_settings_give_the_same_plan(made: Plan) -> None:
    assert made == make(made.site.platform)
    assert hash(made) == hash(make(made.site.platform))


def test_parents_come_before_children_and_origins_before_copies(made: Plan) -> None:
    seen: set[str] = set()
    populated = {"skel/s", "skel/t", "j/mroot"}  # these come with the base
    for entry in entries(made):
        assert entry.path not in seen, entry.path
        if isinstance(entry, Copy):
            assert any(origin in entry.origin for origin in populated)
        seen.add(entry.path)
    order = [entry.path for entry in entries(made)]
    for name in NAMES:
        assert order.index(f"s/{name}") < order.index(f"s/{name}/etc") < order.index(f"s/{name}/etc/hostname")


def test_every_entry_lies_below_root_and_has_its_reason(made: Plan) -> None:
    for entry in entries(made):
        assert not entry.path.startswith("/")
        assert ".." not in entry.path.split("/")
        assert entry.reason


def test_root_and_the_state_are_closed(made: Plan) -> None:
    modes = {entry.path: entry.mode for entry in made.host if isinstance(entry, Directory)}
    assert modes["."] == modes[".layout"] == modes[".layout/jails"] == 0o700


def test_mroot_has_the_links_of_the_design(made: Plan) -> None:
    links = {entry.path: entry.target for entry in made.mroot if isinstance(entry, Symlink)}
    assert links == {f"j/mroot/{name}": target for name, target in LINKS}
    assert LINKS == (
        ("etc", "s/etc"),
        ("root", "s/root"),
        ("tmp", "t/tmp"),
        ("var", "t/var"),
        ("usr/local", "../s/usr-local"),
        ("usr/X11R6", "../s/usr-X11R6"),
        ("sys", "usr/src/sys"),
    )


def test_sys_stays_a_directory_where_the_base_mounts_on_it() -> None:
    made = make(Platform.LINUX, sys_directory=True)
    (sys,) = [entry for entry in made.mroot if entry.path == "j/mroot/sys"]
    assert isinstance(sys, Directory)


def test_every_mount_has_its_mount_point_and_its_source(made: Plan) -> None:
    """No mount point has to be made once mroot is read-only."""
    known = {f"/jails/{entry.path}" for entry in entries(made)}
    for jail in made.jails:
        for table in (jail.tables.jail, jail.tables.manage):
            below = {table[0].target: "/jails/j/mroot"}
            for mount in table:
                assert not mount.source.startswith("/") or mount.source in known
                head, _, name = mount.target.rpartition("/")
                assert mount.target in known or f"{below[head]}/{name}" in known


def test_each_split_directory_has_a_skeleton_and_a_copy_in_each_jail(made: Plan) -> None:
    skeletons = {entry.path for entry in made.mroot if entry.path.startswith("skel/")}
    assert skeletons == {f"skel/{place}" for _, place in SPLIT}
    for jail, name in zip(made.jails, NAMES, strict=True):
        copies = {entry.path: entry.origin for entry in jail.entries if isinstance(entry, Copy)}
        assert copies == {f"{h}/{name}": f"skel/{h}" for h in "st"} | {
            f"{p[0]}/{name}/{p[2:]}": f"skel/{p}" for _, p in SPLIT
        }


def test_a_jail_has_a_name_and_on_linux_an_identity_of_its_own(made: Plan) -> None:
    for jail, name in zip(made.jails, NAMES, strict=True):
        files = {entry.path: entry.text for entry in jail.entries if isinstance(entry, File)}
        assert files[f"s/{name}/etc/hostname"] == f"{name}\n"
        assert files[f"s/{name}/etc/resolv.conf"] == ""
        identities = [entry.path for entry in jail.entries if isinstance(entry, Identity)]
        linux = made.site.platform is Platform.LINUX
        assert identities == ([f"s/{name}/etc/machine-id"] if linux else [])


def test_state_belongs_to_the_jails_users_and_lies_in_t(made: Plan) -> None:
    for jail, name in zip(made.jails, NAMES, strict=True):
        state = [entry for entry in jail.entries if entry.path == f"t/{name}/var/lib/x"]
        assert [(s.mode, s.owner, s.group) for s in state] == [(0o750, "x", "x")]


def test_tables_are_written_to_etc(made: Plan) -> None:
    assert [[file.path for file in host_files(jail, made.site)] for jail in made.jails] == [
        [
            f"/etc/layout/fstab.d/{name}.fstab",
            f"/etc/layout/fstab.d/{name}.manage.fstab",
            *([f"/etc/jail.conf.d/{name}.conf"] if made.site.platform is Platform.FREEBSD else []),
        ]
        for name in NAMES
    ]


def test_the_base_comes_from_its_source(made: Plan) -> None:
    assert [e.source for e in made.mroot if isinstance(e, BaseTree)] == ["host"]


def test_one_jails_plan_does_not_depend_on_the_others(made: Plan) -> None:
    alone = make(made.site.platform, names=("bind",))
    assert alone.jails[0] == made.jails[1]
    assert alone.mroot == made.mroot
