"""What tests share: the box that keeps them harmless, a fresh ROOT, and layout as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
IN_BOX = os.environ.get("LAYOUT_BOX") == "1"

CLAIMS = os.environ.get("LAYOUT_CLAIMS")
"""A directory that runs of the same tests share, each with a box of its own (.ci/test); None: all is ours."""


HOST_ROOT = (
    "actions/test_host_scripts.py",
    "actions/test_freebsd_base.py",
    "actions/test_freebsd_installers.py",
    "actions/test_freebsd_script.py",
    "actions/test_init.py",
    "actions/test_init_trouble.py",
    "actions/test_recover.py",
    "actions/test_script.py",
    "actions/test_split.py",
    "host/linux/test_pty_relay.py",
    "host/linux/test_session.py",
    "hostile/",
    "personality/",
    "test_freebsd_suite.py",
    "test_personality.py",
    # The stand-in's /dev has the names of devices there, and no device.
    "actions/test_manage_freebsd.py",
    "test_an_archive_unpacks_without_system_calls_of_linux",
    # Their bases have files of other users.
    "actions/test_bases.py",
    "actions/test_debian.py",
    "actions/test_manage_base.py",
    "test_a_service_that_is_another_user_than_its_profile_says_is_found",
    "test_a_jail_is_whole_and_nothing_is_left[root of the host-nspawn]",
    "test_a_jail_is_whole_and_nothing_is_left[user namespace-nspawn]",
    "test_a_running_osless_jail_is_probed_where_it_runs",
    "test_a_full_jail_may_write_and_execute_in_its_own_world_and_no_more",
    "test_a_mount_without_its_options_is_found[t with setuid]",
    "test_a_sabotage_is_found[capability_to_open_by_handle]",
    "test_a_sabotage_is_found[t_remounted_suid_and_exec]",
    "test_a_sabotage_is_found[full_memory_over_t]",
    "test_without_a_check_a_sabotage_is_overlooked[JAIL: setuid tried]",
    "test_anything_in_it_goes_and_nothing_else",
    "test_mount_manage_adds_the_writable_half_and_umount_manage_takes_it",
    "test_a_sabotage_is_found[device_",
    "test_a_sabotage_is_found[root_of_a_user]",
    "test_a_sabotage_is_found[setuid_of_the_base_given_to_a_user]",
    "test_what_daemons_leave_in_t_is_theirs",
    "test_what_the_administrator_edits_is_his",
    "test_what_keeps_a_mount_busy_is_named[a mapped file]",
    "test_a_copy_keeps_what_there_is",
    "test_only_a_regular_file_is_read_and_never_waited_for[device]",
    "test_a_classic_jail_with_its_writable_view_always_mounted",
    # Their programs become users that such a namespace does not have.
    "actions/test_osless.py",
    "test_the_osless_example_does_what_it_says",
    "test_an_osless_jail_has_no_interpreter_to_name",
    "test_a_daemon_answers_from_a_root_with_nothing_but_what_it_needs",
    "test_another_user_and_his_entry_alone",
    # They ask for the grade full, or for no finding at all: there it is weak, and verify warns (S3-weak).
    "test_verify_sees_what_was_changed_behind_its_back",
    "actions/test_full.py::test_the_outside_is_answered_by_accounts_of_its_own",
    "actions/test_full.py::test_what_is_not_as_planned_of_a_running_jail_is_found",
    "actions/test_full.py::test_a_second_view_of_the_world_and_a_weaker_mount_are_found",
    "actions/test_full.py::test_a_directory_of_the_host_is_seen_and_no_more",
    "actions/test_full.py::test_an_address_on_an_interface_of_the_host_has_the_prefix_of_the_profile",
    "actions/test_full.py::test_the_rules_of_a_killed_service_are_told_of_and_the_next_start_works",
    "actions/test_network.py::test_the_outside_gets_through_a_redirect_to_a_jail_and_nowhere_else",
    "actions/test_network.py::test_both_versions_of_ip_have_a_link",
    # Controls that have to work (device nodes, handles) cannot; how that is told has a test.
    "actions/test_selftest.py::test_all_that_must_be_blocked_is_blocked_under_every_engine",
    "actions/test_selftest.py::test_a_session_",
    "actions/test_selftest.py::test_a_thin_jail_and_one_without_a_system",
    "actions/test_selftest.py::test_a_sealed_session_has_no_residue",
    "actions/test_selftest.py::test_an_engine_that_keeps_all_capabilities_is_found_out",
    "test_what_root_of_the_jail_left_in_t_is_named",
    "test_a_sabotage_is_found[file_in_mroot_of_a_user]",
    "test_a_sabotage_is_found[link_in_mroot_of_a_user]",
    "test_a_sabotage_is_found[files_in_s_of_a_user]",
    "test_what_came_with_the_base_is_known",
    "test_files_of_a_user_that_the_profile_names_are_expected",
    "actions/test_verify_clean.py",
    # nspawn does not start there.
    "nspawn]",
    "test_a_low_port_costs_the_user_namespace_and_verify_says_so",
    "test_a_full_grade_is_a_user_of_the_host_without_any_rights",
    "test_two_jails_never_have_the_same_users_of_the_host",
    "test_under_a_user_namespace_the_options_are_locked_by_the_kernel",
    "test_who_lives_in_a_jail_without_a_record_is_found",
    "test_a_fifo_in_the_place_of_a_device_is_not_waited_for",
    "test_the_ready_check_can_be_a_command_in_the_jail_or_a_socket",
    "test_root_in_a_jail_gets_nowhere[full-bwrap]",
    "test_the_attacks_work_where_all_capabilities_are_kept",
    # The stand-in for FreeBSD becomes the users of its jails.
    "actions/test_freebsd_full.py",
    "actions/test_freebsd_osless.py",
    "actions/test_freebsd_thin.py::test_layout_runs_a_jail_from_init_to_destroy",
    "actions/test_selftest_freebsd.py::test_all_is_blocked_but_what_the_stand_in_cannot_do",
    "actions/test_selftest_freebsd.py::test_a_session_with_the_jails_own_t",
    # Mutations whose sabotage takes an owner or a device node.
    "test_without_a_check_a_sabotage_is_overlooked[HOST: owners of mroot]",
    "test_without_a_check_a_sabotage_is_overlooked[HOST: devices in mroot]",
    "test_without_a_check_a_sabotage_is_overlooked[JAIL: owners of s]",
    "test_without_a_check_a_sabotage_is_overlooked[JAIL: devices in",
)
"""Parts of the names of tests that need other users' files, device nodes or terminals of the host: a
user namespace of one user has none of them, so they are skipped there, with that reason. Root runs all."""


def pytest_configure(config: pytest.Config) -> None:
    """No example of hypothesis fails because the machine was busy: it gives each a fifth of a second."""
    if config.pluginmanager.hasplugin("hypothesispytest"):
        from hypothesis import HealthCheck, settings

        patient = settings(settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.register_profile("patient", patient)
        settings.load_profile("patient")


def in_user_namespace() -> bool:
    """Say whether root here is only the root of a user namespace."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what mounts, unmounts or removes, unless tests/box runs us; and what this root cannot do."""
    leave_out_daemons(items)
    reason = None
    if not IN_BOX:
        reason = "run by tests/box (make test)"
    elif in_user_namespace():
        reason = "needs root of the host, not of a user namespace"
    if reason is None:
        return
    skip = pytest.mark.skip(reason=reason)
    for item in items:
        if item.get_closest_marker("box") and (not IN_BOX or any(part in item.nodeid for part in HOST_ROOT)):
            item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Of several runs that share a directory of claims, only the first to come to a file has its tests."""
    if CLAIMS is None or session.testsfailed or session.config.option.collectonly:
        return None
    items = claimed(session.items)
    item = next(items, None)
    while item is not None:
        if os.path.exists(f"{CLAIMS}/stop"):
            raise session.Interrupted("told to stop")
        following = next(items, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def claimed(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """Yield the tests of the files that no other run has taken by the time that it is their turn."""
    files: dict[Path, bool] = {}
    for item in items:
        if item.path not in files:
            name = str(item.path.relative_to(HERE)).replace("/", "-")
            try:
                os.close(os.open(f"{CLAIMS}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                files[item.path] = False
            else:
                files[item.path] = True
        if files[item.path]:
            yield item


def leave_out_daemons(items: list[pytest.Item]) -> None:
    """Tests of real daemons need root of the host, in the box, and a Debian base."""
    if not IN_BOX or in_user_namespace() or "LAYOUT_DEBIAN_BASE" not in os.environ:
        skip = pytest.mark.skip(reason="run by make e2e, as root")
        for item in items:
            if item.get_closest_marker("e2e"):
                item.add_marker(skip)


def propagation(path: str) -> str:
    """Return the optional fields of the topmost mount at `path` in /proc/self/mountinfo: "shared:1" or ""."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split(" ")
            if fields[4] == path:
                found = " ".join(fields[6 : fields.index("-")])
    assert found is not None, f"{path} is not a mountpoint"
    return found


@pytest.fixture(scope="session", autouse=True)
def _really_in_the_box() -> None:
    """LAYOUT_BOX=1 by hand must not let a box test loose on the host."""
    if not IN_BOX:
        return
    outside = os.environ.get("LAYOUT_BOX_OUTSIDE", "")
    assert outside, "LAYOUT_BOX=1 without tests/box"
    assert os.readlink("/proc/self/ns/pid") != outside, "in the host's pid namespace"
    assert os.readlink("/proc/1/ns/pid") == os.readlink("/proc/self/ns/pid"), (
        "/proc is another pid namespace's"
    )
    init = Path("/proc/1/cmdline").read_bytes().split(b"\0")
    assert init[1].endswith(b"/box"), "process 1 is not tests/box"
    assert os.statvfs("/").f_flag & os.ST_RDONLY, "/ is writable"


@pytest.fixture(autouse=True)
def _nothing_stays_mounted(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test has mounted in its directory goes with it: verify names only so many mounts of others."""
    if not IN_BOX or "tmp_path" not in request.fixturenames:
        yield
        return
    top = os.fspath(request.getfixturevalue("tmp_path").resolve())
    yield
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4]) for line in table]
    left = [point for point in reversed(points) if point == top or point.startswith(f"{top}/")]
    if left:
        subprocess.run(["umount", "-n", "-l", *left], check=False, capture_output=True)


@pytest.fixture(name="shared")
def _shared() -> Callable[[str], None]:
    """Assert that "/" is shared, as on a systemd host; call it to assert the same of another mountpoint."""

    def assert_shared(path: str = "/") -> None:
        found = propagation(path)
        assert "shared:" in found, f"{path} is {found or 'private'}, expected shared"

    assert_shared()
    return assert_shared


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """A fresh ROOT: empty, mode 0700, canonical."""
    path = tmp_path.resolve() / "root"
    path.mkdir()
    path.chmod(0o700)
    return path


@dataclass(frozen=True, slots=True)
class Result:
    """How one run of layout ended, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture(name="cli", scope="session")
def _cli() -> Callable[..., Result]:
    """Run `python -m layout ARG...` in a process of its own, in an environment without surprises."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LAYOUT_")}
    plain |= {"LC_ALL": "C.UTF-8", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"}

    def run(
        *args: str | os.PathLike[str],
        env: dict[str, str] | None = None,
        stdin: str = "",
        cwd: str | os.PathLike[str] | None = None,
        timeout: float = 300,
    ) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "layout", *map(os.fspath, args)],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            env=plain | (env or {}),
            cwd=cwd,
            timeout=timeout,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    return run
