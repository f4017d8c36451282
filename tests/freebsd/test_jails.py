"""What jail(8), jls(8) and jexec(8) do on a real FreeBSD: all that the code takes for granted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from layout.host.freebsd import holders, jails

from .conftest import system, table

pytestmark = pytest.mark.freebsd

Run = Callable[..., str]
NAME = "layouttest"


def write(place: Path, base: Path, *more: str, fstab: str = "") -> Path:
    """Write a jail.conf(5) for a jail that sleeps, with its root mounted from the base."""
    (place / "root").mkdir(exist_ok=True)
    (place / "fstab").write_text(fstab or f"{base} {place}/root nullfs ro 0 0\n")
    lines = [
        f'path = "{place}/root"',
        f'mount.fstab = "{place}/fstab"',
        "persist",
        "exec.clean",
        f'exec.consolelog = "{place}/console"',
        "allow.noset_hostname",
        *more,
    ]
    conf = place / "jail.conf"
    conf.write_text(f"{NAME} {{\n" + "".join(f"    {line};\n" for line in lines) + "}\n")
    return conf


def test_jls_has_the_keys_that_we_read(place: Path, base: Path, run: Run) -> None:
    run("jail", "-f", write(place, base), "-c", NAME)
    rows = json.loads(run("jls", "--libxo=json", "jid", "name", "path"))["jail-information"]["jail"]
    [row] = [row for row in rows if row["path"] == f"{place}/root"]
    assert row["name"] == NAME
    assert str(row["jid"]) == run("jls", "-j", NAME, "jid").strip()
    found = jails.find(NAME)
    assert found is not None
    assert found.path == f"{place}/root"
    run("jail", "-f", place / "jail.conf", "-r", NAME)
    assert jails.find(NAME) is None
    assert system("jls", "-j", NAME, "jid").returncode != 0


def test_jail_mounts_by_its_fstab_and_unmounts(place: Path, base: Path, run: Run) -> None:
    conf = write(place, base)
    run("jail", "-f", conf, "-c", NAME)
    assert f"{place}/root" in [row["node"] for row in table()]
    assert "Read-only" in system("jexec", NAME, "/bin/sh", "-c", ": >/etc/x").stderr
    assert holders.below([f"{place}/root"]) == [f"jail {NAME}"]
    assert system("umount", place / "root").returncode != 0, "busy: it is a jail's root"
    run("jail", "-f", conf, "-r", NAME)
    assert f"{place}/root" not in [row["node"] for row in table()]


def test_without_its_file_a_jail_is_removed_and_its_mounts_stay(place: Path, base: Path, run: Run) -> None:
    """Therefore layout never says `jail -r` without -f."""
    run("jail", "-f", write(place, base), "-c", NAME)
    run("jail", "-r", NAME)
    assert f"{place}/root" in [row["node"] for row in table()]


def test_a_blank_in_mount_fstab_is_decoded(place: Path, base: Path, run: Run) -> None:
    base.rename(place / "a base")
    escaped = f"{place}/a\\040base".replace(" ", "\\040")
    conf = write(place, base, fstab=f"{escaped} {place}/root nullfs ro 0 0\n")
    run("jail", "-f", conf, "-c", NAME)
    assert run("jexec", NAME, "/bin/echo", "inside") == "inside\n"
    run("jail", "-f", conf, "-r", NAME)


def test_a_mount_that_is_there_already_keeps_the_jail_from_starting(
    place: Path, base: Path, run: Run
) -> None:
    """Therefore no mount is both in the host's fstab and in mount.fstab."""
    conf = write(place, base)
    run("mount", "-t", "nullfs", "-o", "ro", base, place / "root")
    assert system("jail", "-f", conf, "-c", NAME).returncode != 0
    assert jails.find(NAME) is None


def test_a_link_below_the_root_is_refused(place: Path, base: Path, run: Run) -> None:
    (base / "real").mkdir()
    (base / "link").symlink_to("real")
    fstab = f"{base} {place}/root nullfs rw 0 0\n{base}/etc {place}/root/%s nullfs ro 0 0\n"
    refused = system("jail", "-f", write(place, base, fstab=fstab % "link"), "-c", NAME)
    assert (refused.returncode != 0, "symbolic link" in refused.stderr) == (True, True), refused.stderr
    run("jail", "-f", write(place, base, fstab=fstab % "real"), "-c", NAME)
    run("jail", "-f", place / "jail.conf", "-r", NAME)


def test_exec_prepare_runs_before_the_mounts_and_knows_no_jail(place: Path, base: Path, run: Run) -> None:
    log = place / "log"
    conf = write(
        place,
        base,
        f'exec.prepare = "/bin/ls {place}/root >{log}"',
        f'exec.poststop = "/bin/echo stopped >>{log}"',
    )
    run("jail", "-f", conf, "-c", NAME)
    assert log.read_text() == ""
    run("jail", "-f", conf, "-r", NAME)
    assert log.read_text() == "stopped\n"


def test_an_unknown_parameter_keeps_the_jail_from_starting(place: Path, base: Path) -> None:
    refused = system("jail", "-f", write(place, base, "allow.nonsense"), "-c", NAME)
    assert refused.returncode != 0
    assert jails.find(NAME) is None


def test_the_privileges_that_we_take_away_exist(run: Run) -> None:
    from layout.core.jailconf import DEFAULT_ON

    known = run("sysctl", "-N", "security.jail.param.allow")
    for word in DEFAULT_ON:
        assert f"security.jail.param.allow.{word.removeprefix('no')}" in known, word


def test_jexec_gives_a_clean_environment_and_the_status(
    place: Path, base: Path, run: Run, monkeypatch
) -> None:
    monkeypatch.setenv("LEAKED", "yes")
    run("jail", "-f", write(place, base), "-c", NAME)
    said = run("jexec", "-l", NAME, "/bin/sh", "-c", "echo ${LEAKED-none} $PATH")
    assert said.split()[0] == "none"
    assert "/bin" in said
    assert system("jexec", "-l", NAME, "/bin/sh", "-c", "exit 42").returncode == 42
    run("jail", "-f", place / "jail.conf", "-r", NAME)


def test_the_processes_of_a_jail_are_found_by_its_name(place: Path, base: Path, run: Run) -> None:
    conf = write(place, base, 'exec.start = "/bin/sleep 300 &"')
    run("jail", "-f", conf, "-c", NAME)
    [process] = jails.processes(NAME)
    assert process > 1
    run("jail", "-f", conf, "-r", NAME)
