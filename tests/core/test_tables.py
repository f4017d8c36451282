"""Mount tables: the shipped templates, what a site may write, and the files made of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from layout.core import fstab, tables
from layout.core.errors import UsageError
from layout.core.model import Jail, Manage, Mount, Platform, Preset, Tables
from tests import message

TEMPLATES = Path(__file__).parent.parent.parent / "fstab.d"
SHIPPED = [(platform, preset) for platform in Platform for preset in Preset]
NAMES = ("ldap", "bind", "heimdal")


def shipped(platform: Platform, preset: Preset) -> tables.Template:
    name = f"{platform}-{preset}.fstab.in"
    return tables.load_template((TEMPLATES / name).read_text("utf-8"), name, platform)


def jail(platform: Platform, preset: Preset, name: str = "bind", **options: object) -> Jail:
    made = Jail(name, name, preset, Manage.SESSION, platform)
    return replace(made, **options)  # type: ignore[arg-type]


def lines(mounts: tuple[Mount, ...], platform: Platform) -> list[str]:
    return fstab.render(mounts, platform).splitlines()


def all_shipped() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("platform", "preset"), SHIPPED, ids=[f"{a}-{b}" for a, b in SHIPPED])


def test_classic_on_freebsd_is_the_message_byte_for_byte() -> None:
    template = shipped(Platform.FREEBSD, Preset.CLASSIC)
    jails = [jail(Platform.FREEBSD, Preset.CLASSIC, name, manage=Manage.BOOT) for name in NAMES]
    both = [tables.expand(template, "/jails", each) for each in jails]
    ours = [line for table in both for line in lines(table.jail, Platform.FREEBSD)]
    manage = [line for table in both for line in lines(table.manage, Platform.FREEBSD)]
    assert sorted(ours) == sorted(message.JAILS)
    assert sorted(manage) == sorted(message.MANAGE)


@all_shipped()
def test_the_order_is_root_s_t_then_the_manage_view(platform: Platform, preset: Preset) -> None:
    table = tables.expand(shipped(platform, preset), "/jails", jail(platform, preset))
    assert [mount.target for mount in tables.host_lines(table, Manage.SESSION)] == [
        "/jails/j/bind",
        "/jails/j/bind/s",
        "/jails/j/bind/t",
        "/jails/manage/bind",
        "/jails/manage/bind/s",
        "/jails/manage/bind/t",
        "/jails/manage/bind/dev",
    ]
    assert [m.source for m in table.jail] == ["/jails/j/mroot", "/jails/s/bind", "/jails/t/bind"]


@pytest.mark.parametrize(
    ("platform", "preset", "expected"),
    [
        (Platform.FREEBSD, Preset.CLASSIC, ["ro", "ro", "rw", "rw", "rw", "rw", "rw"]),
        (
            Platform.FREEBSD,
            Preset.HARDENED,
            [
                "ro,nosuid",
                "ro,nosuid",
                "rw,nosuid,noexec",
                "rw",
                "rw",
                "rw,nosuid,nosymfollow",
                "rw,ruleset=4",
            ],
        ),
        (
            Platform.LINUX,
            Preset.CLASSIC,
            ["bind,ro,private"] * 2
            + ["bind,rw,private"] * 4
            + ["rw,nosuid,noexec,mode=755,size=64k,nr_inodes=64"],
        ),
        (
            Platform.LINUX,
            Preset.HARDENED,
            ["bind,ro,nosuid,nodev,private"] * 2
            + ["bind,rw,nosuid,nodev,noexec,private"]
            + ["bind,rw,nodev,private"] * 2
            + ["bind,rw,nosuid,nodev,nosymfollow,private", "rw,nosuid,noexec,mode=755,size=64k,nr_inodes=64"],
        ),
    ],
    ids=[f"{a}-{b}" for a, b in SHIPPED],
)
def test_the_shipped_options_are(platform: Platform, preset: Preset, expected: list[str]) -> None:
    template = shipped(platform, preset)
    boot = tables.expand(template, "/jails", jail(platform, preset, manage=Manage.BOOT))
    assert [",".join(mount.options) for mount in boot.jail + boot.manage] == expected
    session = tables.expand(template, "/jails", jail(platform, preset))
    assert session.jail == boot.jail
    assert [",".join(m.options) for m in session.manage] == [f"{options},noauto" for options in expected[3:]]


@pytest.mark.parametrize("platform", list(Platform))
def test_hardened_leaves_nothing_writable_and_executable(platform: Platform) -> None:
    table = tables.expand(shipped(platform, Preset.HARDENED), "/jails", jail(platform, Preset.HARDENED))
    assert all("nosuid" in mount.options for mount in table.jail)
    assert all("ro" in mount.options or "noexec" in mount.options for mount in table.jail)


@pytest.mark.parametrize("platform", list(Platform))
def test_a_profile_opts_out(platform: Platform) -> None:
    template = shipped(platform, Preset.HARDENED)
    open_ = tables.expand(template, "/jails", jail(platform, Preset.HARDENED, suid=True, exec=True))
    mroot, s, t = open_.jail
    assert "nosuid" not in mroot.options + s.options
    assert "nosuid" in t.options
    assert "noexec" not in t.options
    suid = tables.expand(template, "/jails", jail(platform, Preset.HARDENED, suid=True))
    assert "noexec" in suid.jail[2].options


@all_shipped()
@pytest.mark.parametrize("root", ["/srv/my jails", "/a\tb#c\\d", "/${NAME}/${ROOT}", "/\udcff\n"])
def test_any_root_is_filled_in(platform: Platform, preset: Preset, root: str) -> None:
    table = tables.expand(shipped(platform, preset), root, jail(platform, preset))
    assert table.jail[0].source == f"{root}/j/mroot"
    assert table.manage[3].target == f"{root}/manage/bind/dev"
    mounts = table.jail + table.manage
    assert fstab.parse(fstab.render(mounts, platform), platform) == mounts


@all_shipped()
def test_a_jail_reads_its_table_as_mount_does(platform: Platform, preset: Preset) -> None:
    both = tables.expand(shipped(platform, preset), "/jails#1", jail(platform, preset))
    text = tables.render_table(jail(platform, preset), both.jail, platform)
    # jail(8) takes '#' for the start of a comment wherever it stands.
    assert all(line.startswith("#") or "#" not in line for line in text.splitlines())


@pytest.mark.skipif(shutil.which("findmnt") is None, reason="findmnt (util-linux) is not installed")
@pytest.mark.parametrize("preset", list(Preset))
@pytest.mark.parametrize("manage", list(Manage))
def test_findmnt_accepts_every_linux_table(tmp_path: Path, preset: Preset, manage: Manage) -> None:
    root = tmp_path.resolve() / "my jails"
    linux = Platform.LINUX
    text = ""
    for name in NAMES:
        one = jail(linux, preset, name, manage=manage)
        table = tables.expand(shipped(linux, preset), str(root), one)
        for mount in table.jail + table.manage:
            for path in (mount.source, mount.target):
                if path.startswith("/"):
                    Path(path).mkdir(parents=True, exist_ok=True)
        text += tables.render_table(one, tables.host_lines(table, manage), linux)
    file = tmp_path / "fstab"

    def verify() -> subprocess.CompletedProcess[str]:
        words = ["findmnt", "--verify", "--tab-file", str(file)]
        return subprocess.run(words, capture_output=True, encoding="utf-8")

    file.write_text(text, "utf-8")
    done = verify()
    assert done.returncode == 0, done.stdout
    assert "[E]" not in done.stdout
    # It does see what is wrong: a mount point that does not exist.
    file.write_text(text.replace("/t none", "/gone none"), "utf-8")
    assert "[E]" in verify().stdout


ROOT_OF_JAIL = "${ROOT}/j/${NAME}"


def section(jails: str, manage: str = "") -> str:
    return f"# a site's own\n\n# [jail]\n{jails}\n# [manage]\n{manage}\n"


def row(
    file: str = ROOT_OF_JAIL, options: str = "ro", spec: str = "${ROOT}/j/mroot", fstype: str = "nullfs"
) -> str:
    return f"{spec} {file} {fstype} {options} 0 0"


@pytest.mark.parametrize(
    ("text", "path", "found"),
    [
        (section(row(options="ro,${noatime}")), "x:4", "${noatime} in the field options"),
        (section(row(options="ro,a${nosuid}")), "x:4", "a${nosuid} in the field options"),
        (section(row(options="ro,${noauto}")), "x:4", "${noauto} in the field options"),
        (section(row(options="ro,${noauto")), "x:4", "${noauto in the field options"),
        (section(row(spec="${ROOT}/j/${name}")), "x:4", "${name} in the field spec"),
        (section(row("${ROOT}/j/${NAME}/${X}")), "x:4", "${X} in the field file"),
        (section(row(fstype="${NAME}")), "x:4", "${NAME} in the field type"),
        (section(row("${ROOT}/j/other")), "x:4", "mount point ${ROOT}/j/other"),
        (section(row("${ROOT}/j/${NAME}x")), "x:4", "mount point ${ROOT}/j/${NAME}x"),
        (section(row("/etc")), "x:4", "mount point /etc"),
        (section(row("${ROOT}/manage/${NAME}")), "x:4", "mount point ${ROOT}/manage/${NAME}"),
        (section(row(), row()), "x:6", "mount point ${ROOT}/j/${NAME}"),
        (section(row(f"{ROOT_OF_JAIL}/../x")), "x:4", "path ${ROOT}/j/${NAME}/../x"),
        (section(row(spec="${ROOT}/s/")), "x:4", "path ${ROOT}/s/"),
        (section(row(spec="$ROOT/s")), "x:4", "source $ROOT/s"),
        (section(f"{row(f'{ROOT_OF_JAIL}/s')}\n{row()}"), "x:5", "${ROOT}/j/${NAME} after ${ROOT}/j"),
        (section(f"{row()}\n{row()}"), "x:5", "a second line for ${ROOT}/j/${NAME}"),
        (section(row(options="${nosuid}")), "x:4", "options '${nosuid}'"),
        (section(row(options="ro,nodev")), "x:4", "option 'nodev'"),
        (section(row(options="late")), "x:4", "options 'late'"),
        (section("/a /b"), "x:4", "2 field(s)"),
        (f"{row()}\n{section(row())}", "x:1", "a line before the first section"),
        (f"{section(row())}# [extra]\n", "x:7", "section [extra]"),
        (f"{section(row())}# [jail]\n", "x:7", "a second section [jail]"),
        (f"# [manage]\n{row('${ROOT}/manage/${NAME}')}\n", "x", "no section [jail]"),
        (f"# [jail]\n{row()}\n", "x", "no section [manage]"),
        (section(""), "x", "no mount in the section [jail]"),
    ],
    ids=[
        "unknown word", "part of a word", "noauto in jail", "not closed", "lower case", "unknown in file",
        "in the type", "another jail", "a longer name", "the host", "the other section", "jail in manage",
        "climbs", "trailing slash", "shell style", "parent after child", "twice", "no access word",
        "word of linux", "late only", "too few fields", "no section", "unknown section", "section twice",
        "no jail", "no manage", "empty jail",
    ],
)  # fmt: skip
def test_a_template_error_names_file_line_and_key(text: str, path: str, found: str) -> None:
    with pytest.raises(UsageError) as caught:
        tables.load_template(text, "x", Platform.FREEBSD)
    assert caught.value.path == path
    assert caught.value.found.startswith(found)
    assert caught.value.expected


def test_a_bind_mount_that_propagates_is_refused() -> None:
    with pytest.raises(UsageError, match="expected private"):
        tables.load_template(section(row(options="bind,ro", fstype="none")), "x", Platform.LINUX)
    tables.load_template(section(row(options="bind,ro,private", fstype="none")), "x", Platform.LINUX)


def test_options_that_only_one_profile_would_get_wrong_are_refused() -> None:
    # With suid = true nothing would be left of them.
    with pytest.raises(UsageError, match="an empty field"):
        tables.load_template(section(row(options="${nosuid}", fstype="tmpfs")), "x", Platform.LINUX)


def test_a_site_may_add_mounts_of_its_own() -> None:
    text = section(
        f"{row()}\n{row(ROOT_OF_JAIL + '/srv' + chr(92) + '040x', 'ro,${nosuid}', '/data')}\n# why"
    )
    template = tables.load_template(text, "x", Platform.FREEBSD)
    table = tables.expand(template, "/jails", jail(Platform.FREEBSD, Preset.CLASSIC))
    assert table.jail[1] == Mount("/data", "/jails/j/bind/srv x", "nullfs", ("ro", "nosuid"))
    assert table.manage == ()


def test_the_host_never_mounts_a_session_table_at_boot() -> None:
    bare = Mount("/m", "/jails/manage/a", "nullfs", ("rw",))
    late = replace(bare, options=("rw", "noauto", "late"))
    table = Tables((Mount("/m", "/jails/j/a", "nullfs", ("ro",)),), (bare, late))
    options = [mount.options for mount in tables.host_lines(table, Manage.SESSION)]
    assert options == [("ro",), ("rw", "noauto"), ("rw", "noauto", "late")]
    assert tables.host_lines(table, Manage.BOOT) == table.jail + table.manage


RENDERED = tables.render_table(
    jail(Platform.FREEBSD, Preset.CLASSIC), (Mount("/é\udcff", "/b", "nullfs", ("ro",)),), Platform.FREEBSD
)


def test_a_rendered_table_is_comments_and_mounts() -> None:
    head, sum_, line = RENDERED.splitlines()
    assert head.startswith("# bind: mount table, generated by layout; edit the template or the profile")
    assert sum_.startswith("# sha256 ")
    assert line == "/é\udcff /b nullfs ro 0 0"
    assert not tables.hand_edited(RENDERED)


@pytest.mark.parametrize(
    "text",
    [
        RENDERED.replace("ro 0", "rw 0"),
        RENDERED + "# a remark\n",
        RENDERED[:-1],
        RENDERED.partition("\n")[2],
        RENDERED.replace("sha256 ", "sha256 0"),
        RENDERED.replace("sha256", "md5"),
        RENDERED.replace("\n", "\r\n"),
        "",
    ],
    ids=["option", "remark", "newline", "no head", "digest", "header", "crlf", "empty"],
)
def test_a_change_by_hand_is_seen(text: str) -> None:
    assert tables.hand_edited(text)
