"""argv to exit status: global options anywhere, every error in one shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from layout.cli.main import hoist, run
from layout.core.errors import UsageError


@pytest.mark.parametrize(
    ("argv", "ours", "rest"),
    [
        (["verify", "--root", "/x"], ["--root", "/x"], ["verify"]),
        (["--root=/x", "verify", "-q"], ["--root=/x", "-q"], ["verify"]),
        (["init", "a", "--base", "b", "--json"], ["--json"], ["init", "a", "--base", "b"]),
        (["manage", "a", "--", "ls", "--json"], [], ["manage", "a", "--", "ls", "--json"]),
        (["init", "--", "--root"], [], ["init", "--", "--root"]),
    ],
    ids=["after", "before", "between", "of-the-command", "a-name"],
)
def test_global_options_may_stand_anywhere_before_two_dashes(
    argv: list[str], ours: list[str], rest: list[str]
) -> None:
    assert hoist(argv) == (ours, rest)


def test_an_option_without_its_value_is_refused() -> None:
    with pytest.raises(UsageError, match="--root"):
        hoist(["verify", "--root"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["frobnicate"], "layout: command line: found no such command 'frobnicate'"),
        (["verify", "--bogus"], "layout: verify: found no such option"),
        (["init"], "layout: init: found missing argument"),
        (["verifi"], "hint: did you mean 'verify'? layout --help\n"),
        (["render"], "found missing argument 'kind': one of fstab, jail.conf, "),
        (["init", "a", "--preset", "soft"], "'classic', 'hardened'"),
        (["fstab", "--install", "--remove"], "layout: layout fstab: found --install and --remove"),
        (["render", "poem"], "layout: render: found"),
        (["fstab", "a", "--file", "x"], "layout: layout fstab: found --file alone, expected --install or"),
        (["fstab", "a", "--force"], "layout: layout fstab: found --force alone, expected --install or"),
        (["list"], "hint: layout status lists the jails\n"),
        (["reload", "a"], "hint: after a change of a profile: layout stop NAME, "),
        (["exec", "a", "ls", "-x"], "hint: options of the command come after two dashes: layout"),
        (["init", "a", "--root", "/proc/x/y"], "layout: /proc/x: found no such directory"),
    ],
    ids=[
        *("command", "option", "argument", "guess", "choices", "value", "both", "kind"),
        *("file-alone", "force-alone", "other-tool", "no-verb", "dashes", "parent"),
    ],
)
def test_wrong_words_are_an_error_with_a_hint_and_status_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["destroy", "a"], ["recover"], ["status"], ["verify"], ["stop", "a"]])
def test_where_init_never_ran_that_is_said(cli, tmp_path: Path, words: list[str]) -> None:
    """A directory with a profile in it, and nothing that layout made."""
    root = tmp_path / "root"
    (root / "etc/profiles").mkdir(parents=True)
    done = cli("--root", root, *words)
    assert done.code == 1
    said = done.out if words == ["verify"] else done.err
    assert f"{root}: found no jails, expected some made by layout init\n" in said
    assert "hint: layout init NAME" in said


@pytest.mark.parametrize("group", [[], ["base"], ["base", "build"], ["profile"]], ids=" ".join)
def test_every_command_is_told_on_one_whole_line_of_the_help(cli, group: list[str]) -> None:
    done = cli(*group, "--help")
    assert done.code == 0
    listed = done.out.partition("Commands:")[2].splitlines()
    assert listed
    assert [line for line in listed if line.endswith("...")] == []


def test_no_words_at_all_print_the_help_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage: layout" in capsys.readouterr().err


def test_a_directory_in_the_place_of_a_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["profile", "check", str(tmp_path)], ["--config", str(tmp_path), "profile", "list"]):
        assert run(words) != 0
        assert capsys.readouterr().err == f"layout: {tmp_path}: found a directory, expected a regular file\n"


@pytest.mark.parametrize("argv", [["--version"], ["verify", "--version"]])
def test_version_is_printed_wherever_it_is_asked_for(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from layout import __version__

    assert run(argv) == 0
    assert capsys.readouterr().out == f"layout {__version__}\n"


def test_a_table_for_the_other_platform_needs_no_root_and_no_tree(capsys: pytest.CaptureFixture[str]) -> None:
    """The message's lines, for names that nobody has made."""
    words = "fstab ldap --root /nowhere --platform freebsd --preset classic --manage boot"
    assert run(words.split()) == 0
    assert capsys.readouterr().out.splitlines() == [
        "/nowhere/j/mroot /nowhere/j/ldap nullfs ro 0 0",
        "/nowhere/s/ldap /nowhere/j/ldap/s nullfs ro 0 0",
        "/nowhere/t/ldap /nowhere/j/ldap/t nullfs rw 0 0",
        "/nowhere/j/mroot /nowhere/manage/ldap nullfs rw 0 0",
        "/nowhere/s/ldap /nowhere/manage/ldap/s nullfs rw 0 0",
        "/nowhere/t/ldap /nowhere/manage/ldap/t nullfs rw 0 0",
        "devfs /nowhere/manage/ldap/dev devfs rw 0 0",
    ]


@pytest.mark.parametrize("profile", ["finger", "full", "named-thin", "svc"])
@pytest.mark.parametrize("platform", ["linux", "freebsd"])
def test_a_script_for_another_kind_than_shared_is_refused_before_anything_else(
    profile: str, platform: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the program or the service is not there yet: nothing else would help."""
    words = f"plan a --profile {profile} --script --platform {platform} --root {tmp_path}/jails"
    assert run(words.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith("layout: layout plan --script: a: found kind ")
    assert "expected kind shared: a script can only build a shared root\nhint: layout plan a lists" in err


def test_a_name_that_no_jail_has_is_said_where_a_table_is_printed_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--root", str(tmp_path), "render", "jail.conf", "wbe"]) == 0
    assert capsys.readouterr().err == "wbe: no such jail yet: as layout init would make it\n"


def test_one_broken_profile_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "etc/profiles").mkdir(parents=True)
    (tmp_path / "etc/profiles/broken.toml").write_text("kind = ")
    assert run(["--root", str(tmp_path), "profile", "list"]) == 2
    said = capsys.readouterr()
    assert "bind " in said.out and "broken" not in said.out
    assert said.err.startswith(f"layout: {tmp_path}/etc/profiles/broken.toml: found ")


def test_render_fstab_says_the_same_as_fstab(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ldap", "--root", "/nowhere", "--platform", "freebsd"]
    assert run(["fstab", *words]) == 0
    first = capsys.readouterr().out
    assert run(["render", "fstab", *words]) == 0
    assert capsys.readouterr().out == first


def test_our_own_mistakes_are_an_error_too_and_a_traceback_only_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("layout.cli.main._call", broken)
    assert run(["verify"]) == 1
    assert "layout: layout: found ZeroDivisionError: oops" in capsys.readouterr().err
    monkeypatch.setenv("LAYOUT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["verify"])


def test_a_lack_of_memory_is_no_mistake_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(argv: list[str], command: str) -> int:
        raise MemoryError

    monkeypatch.setattr("layout.cli.main._call", exhausted)
    assert run(["status"]) == 1
    assert "layout: layout: found no memory left, expected to be able to go on\n" in capsys.readouterr().err
