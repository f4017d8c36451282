"""What a profile may say of an OS-less jail, and what is made of it: entries, mounts, jail.conf, rc.d."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from layout.core import jailconf
from layout.core.errors import UsageError
from layout.core.kinds import osless
from layout.core.model import Boot, Jail, JailPlan, Manage, Platform, Preset, Site
from layout.core.plan import plan_jail
from layout.core.profile import Profile, check, decide, decode
from layout.core.tables import hand_edited, load_template

TOP = Path(__file__).resolve().parents[2]

FINGER = """
kind = "osless"
description = "x"
[{platform}.osless]
program = "/usr/local/libexec/fingerd"
path = "srv/finger/bin/fingerd"
files = [{{ path = "etc/finger.conf", text = "" }}]
{osless}
[{platform}.service]
command = ["{command}", "-listen", "127.0.3.79:79"]
{service}
{more}
"""


def profile(
    platform: str = "linux",
    osless: str = "",
    service: str = "",
    more: str = "",
    command: str = "/srv/finger/bin/fingerd",
) -> Profile:
    text = FINGER.format(platform=platform, osless=osless, service=service, more=more, command=command)
    return check(decode(tomllib.loads(text), Profile, "finger"), "finger")


def planned(found: Profile, platform: Platform = Platform.LINUX, boot: Boot = Boot.JAIL) -> JailPlan:
    name = f"{platform}-osless.fstab.in"
    template = load_template((TOP / "fstab.d" / name).read_text("utf-8"), name, platform)
    return plan_jail(jail(found, platform, boot), site(platform), template)


def jail(found: Profile, platform: Platform = Platform.LINUX, boot: Boot = Boot.JAIL) -> Jail:
    return decide("finger", "finger", found, platform, Preset.HARDENED, Manage.SESSION, boot)


def site(platform: Platform, zfs: str = "") -> Site:
    return Site("/jails", "/etc/layout", platform, "/etc/fstab", zfs=zfs)


REFUSED = {
    "no absolute program": ({"osless": 'program = "fingerd"'}, "osless.program"),
    "a path that climbs": ({"osless": 'directories = ["../etc"]'}, "osless.directories"),
    "an absolute path": ({"osless": 'directories = ["/etc"]'}, "osless.directories"),
    "a path with a blank": ({"osless": 'directories = ["a b"]'}, "osless.directories"),
    "a directory in the log": ({"osless": 'directories = ["log/x"]'}, "below log"),
    "a directory in a mount": (
        {"osless": 'directories = ["home/x"]', "more": '[[linux.mounts]]\nsource = "/home"\ntarget = "home"'},
        "below home",
    ),
    "one path twice": ({"osless": 'directories = ["etc/finger.conf"]'}, "twice"),
    "root": ({"osless": "uid = 0"}, "osless.uid"),
    "a number of 16 bits that is negative": ({"osless": "gid = -2"}, "osless.gid"),
    "another program": ({"command": "/bin/sh"}, "service.command"),
    "a user by name": ({"service": 'user = "nobody"'}, "user"),
    "two capabilities": ({"service": 'capabilities = ["net_raw", "kill"]'}, "one at most"),
    "an engine": ({"service": 'engine = "bwrap"'}, "service.engine"),
    "a check by a command": ({"service": 'ready = { command = ["/bin/true"] }'}, "ready.command"),
    "an example": ({"more": '[linux.example]\ncommands = [["/bin/x"]]'}, "an example or packages"),
    "root first, on Linux": ({"osless": "drops_root = true"}, "drops_root"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_profile_is_refused_with(what: str) -> None:
    given, said = REFUSED[what]
    text = FINGER.format(**{"platform": "linux", "osless": "", "service": "", "more": "",
                            "command": "/srv/finger/bin/fingerd", **given})  # fmt: skip
    if 'program = "fingerd"' in text:
        text = text.replace('program = "/usr/local/libexec/fingerd"\n', "")
    with pytest.raises(UsageError) as caught:
        check(decode(tomllib.loads(text), Profile, "finger"), "finger")
    assert said in str(caught.value)


@pytest.mark.parametrize("mode", ["0755", "4644", "0646", "0664", "x"])
def test_a_file_of_configuration_is_roots_and_not_executable(mode: str) -> None:
    more = f'[[linux.osless.files]]\npath = "etc/b"\ntext = ""\nmode = "{mode}"'
    text = FINGER.format(
        platform="linux", osless="", service="", more=more, command="/srv/finger/bin/fingerd"
    )
    text = text.replace('files = [{ path = "etc/finger.conf", text = "" }]\n', "")
    with pytest.raises(UsageError, match="etc/b"):
        check(decode(tomllib.loads(text), Profile, "finger"), "finger")


def test_the_settings_belong_to_this_kind_alone() -> None:
    text = 'kind = "shared"\ndescription = "x"\n[linux.osless]\nprogram = "/x"\n'
    with pytest.raises(UsageError, match="another kind"):
        check(decode(tomllib.loads(text), Profile, "x"), "x")
    text = 'kind = "osless"\ndescription = "x"\nsuid = true\n'
    with pytest.raises(UsageError, match="suid or exec"):
        check(decode(tomllib.loads(text), Profile, "x"), "x")


def test_a_profile_for_one_platform_says_so_on_the_other() -> None:
    with pytest.raises(UsageError, match="the static program"):
        planned(profile("linux"), Platform.FREEBSD)


SHOWN = '[[linux.mounts]]\nsource = "{}"\ntarget = "home"'


@pytest.mark.parametrize("source", ["/dev", "/proc", "/proc/1/root", "/sys/kernel", "/", "/etc/../jails"])
def test_a_profile_shows_no_file_system_of_the_kernel_and_not_the_whole_host(source: str) -> None:
    with pytest.raises(UsageError, match="source"):
        check(profile(more=SHOWN.format(source)), "finger")


@pytest.mark.parametrize("source", ["/jails", "/jails/j/mroot", "/jails/t/other", "/jails/.layout"])
def test_a_profile_shows_nothing_of_root(source: str) -> None:
    with pytest.raises(UsageError, match="nothing of /jails"):
        planned(profile(more=SHOWN.format(source)), Platform.LINUX)
    assert planned(profile(more=SHOWN.format("/jailsnot")), Platform.LINUX).tables.jail


def test_the_tree_has_its_mount_points_and_nothing_that_is_not_needed() -> None:
    more = '[[linux.mounts]]\nsource = "/home"\ntarget = "home"'
    found = osless.content(jail(profile(more=more)))
    assert [one.path.removeprefix("s/finger/") for one in found] == [
        "srv", "srv/finger", "srv/finger/bin", "etc", "home", "log", "etc/finger.conf",
    ]  # fmt: skip
    bare = osless.content(jail(profile(osless="log = false\nself_jailing = true")))
    assert [one.path.removeprefix("s/finger/") for one in bare] == ["etc", "etc/finger.conf"]


@pytest.mark.parametrize("platform", Platform)
def test_nothing_is_both_writable_and_executable(platform: Platform) -> None:
    found = planned(
        profile(platform, more=f'[[{platform}.mounts]]\nsource = "/home"\ntarget = "home"'), platform
    )
    assert len(found.tables.jail) == 3
    for mount in found.tables.jail:
        assert {"ro", "noexec"} & set(mount.options)
        assert "nosuid" in mount.options
    assert found.tables.manage == ()


@pytest.mark.parametrize("platform", Platform)
def test_without_a_log_there_is_one_mount_and_self_jailing_takes_its_programs_away(
    platform: Platform,
) -> None:
    command = "/usr/local/libexec/fingerd" if platform is Platform.FREEBSD else "/srv/finger/bin/fingerd"
    found = planned(profile(platform, osless="log = false\nself_jailing = true", command=command), platform)
    (only,) = found.tables.jail
    assert {"ro", "noexec", "nosuid"} <= set(only.options)
    assert not any(entry.path.startswith("t/") for entry in found.entries)


def test_jail_conf_keeps_an_empty_jail() -> None:
    found = planned(profile("freebsd"), Platform.FREEBSD)
    wanted = dict(jailconf.parameters(found, site(Platform.FREEBSD)))
    assert (wanted["persist"], wanted["exec.start"], wanted["exec.stop"]) == (True, "", "")
    assert wanted["mount.devfs"] is wanted["mount.fdescfs"] is wanted["allow.set_hostname"] is False
    assert not {"exec.clean", "devfs_ruleset", "exec.jail_user"} & set(wanted)


def test_rc_conf_starts_it_and_keeps_nullfs_from_coming_before_zfs() -> None:
    by_jail = planned(profile("freebsd"), Platform.FREEBSD)
    by_fstab = planned(profile("freebsd"), Platform.FREEBSD, Boot.FSTAB)
    nobody = planned(profile("freebsd"), Platform.FREEBSD, Boot.NONE)
    assert jailconf.assignments([by_jail], {})["osless_finger_enable"] == "YES"
    assert "extra_netfs_types" not in jailconf.assignments([by_jail], {})
    for before, after in (("NO", "nullfs"), ("", "nullfs"), ("oracfs:x", "oracfs:x nullfs")):
        assert jailconf.assignments([by_fstab], {"extra_netfs_types": before})["extra_netfs_types"] == after
    assert "extra_netfs_types" not in jailconf.assignments([by_fstab], {"extra_netfs_types": "nullfs:Null"})
    assert "osless_finger_enable" not in jailconf.assignments([nobody], {})


def test_the_script_is_marked_as_ours_and_an_edit_shows() -> None:
    template = (TOP / "layout/share/rc.d/osless.in").read_text("utf-8")
    found = planned(profile("freebsd", service='environment = ["A=b c"]'), Platform.FREEBSD)
    text = osless.script(template, found, site(Platform.FREEBSD), "/var/log/x.log")
    assert text.startswith("#!/bin/sh\n# finger: rc.d script, generated by layout;")
    assert not hand_edited(text)
    assert hand_edited(text.replace("65534", "0"))
    assert "%%" not in text
    assert "# PROVIDE: osless_finger\n# REQUIRE: LOGIN jail\n# KEYWORD: nojail shutdown\n" in text
    assert "'A=b c'" in text
    assert 'osless_uid="65534"' in text


@pytest.mark.parametrize("enters", ["jexec", "self"])
def test_the_script_is_clean_sh(tmp_path: Path, enters: str) -> None:
    if shutil.which("shellcheck") is None or shutil.which("dash") is None:
        pytest.skip("needs shellcheck and dash")
    found = profile("freebsd", service="environment = ['A=b \"c']")
    if enters == "self":
        more = "log = false\nself_jailing = true"
        found = profile("freebsd", osless=more, command="/usr/local/libexec/fingerd")
    template = (TOP / "layout/share/rc.d/osless.in").read_text("utf-8")
    text = osless.script(template, planned(found, Platform.FREEBSD), site(Platform.FREEBSD), "/var/log/x")
    path = tmp_path / "script"
    path.write_text(text, encoding="utf-8")
    subprocess.run(["dash", "-n", path], check=True)
    done = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f'osless_enters="{enters}"' in text
    assert "JID=$(jls -j finger jid 2>/dev/null || echo -1)" in text


def test_names_with_a_hyphen_make_an_identifier() -> None:
    assert osless.rc_name("my-finger") == "osless_my_finger"


def test_the_datasets_are_those_of_the_site() -> None:
    assert osless.datasets(jail(profile()), site(Platform.LINUX)) == ()
    both = osless.datasets(jail(profile()), site(Platform.LINUX, "p/jails"))
    assert [one.name for one in both] == ["p/jails/s/finger", "p/jails/t/finger"]
    (only,) = osless.datasets(
        jail(profile(osless="log = false\nself_jailing = true")), site(Platform.LINUX, "p/jails")
    )
    assert (only.half, only.exec) == ("s", False)


def test_the_shipped_profile_is_for_both_platforms() -> None:
    found = check(
        decode(tomllib.loads((TOP / "profiles/finger.toml").read_text("utf-8")), Profile, "finger"), "finger"
    )
    for platform in Platform:
        assert len(planned(found, platform).tables.jail) == 3
