"""layout advise looks at a program without running it, and what it proposes is a profile that can be used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from thin_yard import SERVER, compile_
from yard import layout

from layout.core.advise import Facts, advise
from layout.core.model import Kind, Platform
from layout.host.program_facts import facts_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

NOBODY_RUNS_IT = '__attribute__((constructor)) static void was_run(void) { creat("%s", 0600); }\n'
HEAD = "#include <fcntl.h>\n#include <stdlib.h>\n#include <sys/mount.h>\n#include <unistd.h>\n"
ANSWER = "int answer(void) { return 42; }\n"
ALONE = SERVER.replace("/bin/sh", "/none") + ANSWER


def advised(program: Path, tmp_path: Path) -> dict[str, Any]:
    """Return the advice, whose profile has been checked by layout itself."""
    done = layout("--json", "advise", program)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    plain = layout("advise", program)
    assert plain.out == found["profile"]
    (tmp_path / "p.toml").write_text(plain.out, encoding="utf-8")
    assert layout("profile", "check", tmp_path / "p.toml").code == 0
    assert f"* {found['kind']} " in plain.err
    assert [reason["kind"] for reason in found["reasons"]] == ["service", "full", "osless", "thin", "shared"]
    assert not (tmp_path / "was-run").exists()
    return found


CASES = {
    "static": (("-static",), ALONE, Kind.OSLESS, "no library, no loader"),
    "dynamic": ((), ALONE, Kind.THIN, "its closure is small"),
    "shell": ((), 'int main(void) { return system("/bin/sh /etc/app"); }', Kind.SHARED, "/bin/sh"),
    "memory": ((), 'int main(void) { return open("/dev/mem", 0); }', Kind.SERVICE, "/dev/mem"),
    "mounts": ((), 'int main(void) { return mount("a", "b", "c", 0, 0); }', Kind.SERVICE, "mount"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_program_gets_the_design_that_suits_it(name: str, tmp_path: Path) -> None:
    words, text, kind, why = CASES[name]
    program = tmp_path / "appd"
    compile_("-w", *words, "-o", program, text=HEAD + NOBODY_RUNS_IT % (tmp_path / "was-run") + text)
    found = advised(program, tmp_path)
    assert found["kind"] == kind
    (reason,) = [one["why"] for one in found["reasons"] if one["kind"] == kind]
    assert why in reason
    # The control: whoever runs it would have been noticed.
    if name == "memory":
        subprocess.run([program])
        assert (tmp_path / "was-run").exists()


def test_a_script_is_for_a_shared_root(tmp_path: Path) -> None:
    script = tmp_path / "appd"
    script.write_text("#!/bin/sh\nexec sleep 1\n", encoding="utf-8")
    script.chmod(0o755)
    assert advised(script, tmp_path)["kind"] == "shared"


def test_what_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text\n", encoding="utf-8")
    for path, code in ((tmp_path / "none", 1), (tmp_path, 1), (tmp_path / "text", 1), ("appd", 2)):
        assert layout("advise", path).code == code
    (tmp_path / "text").chmod(0o755)
    assert layout("advise", tmp_path / "text").code == 1


@pytest.fixture(name="origin")
def _origin(tmp_path: Path) -> Path:
    """A tree with a package of Debian: a daemon with its unit, directories and a plug-in."""
    top = tmp_path / "origin"
    for name in (
        "usr/sbin",
        "etc/app",
        "etc/default",
        "var/lib/app",
        "var/log/app",
        "usr/lib/app",
        "lib/systemd/system",
    ):
        (top / name).mkdir(parents=True)
    (top / "var/lib/dpkg/info").mkdir(parents=True)
    compile_("-shared", "-fPIC", "-nostdlib", "-o", top / "usr/lib/app/plug.so", text=ANSWER)
    text = """
int dlopen(void) { return 0; } int setuid(void) { return 0; } int listen(void) { return 0; }
const char *paths[] = { "/etc/app/app.conf", "/run/app/pid", "/etc/appd.conf", "/var/log/app/log",
  "/usr/share/app/table", "/usr/share/app/script", "/usr/share/app/nosuch", "/usr/share/app" };
void _start(void) { for (;;); }
"""
    compile_("-shared", "-fPIC", "-nostdlib", "-w", "-o", top / "usr/sbin/appd", text=text)
    (top / "usr/sbin/appd").chmod(0o755)
    (top / "etc/appd.conf").write_text("")
    (top / "usr/share/app").mkdir(parents=True)
    (top / "usr/share/app/table").write_text("")
    (top / "usr/share/app/script").write_text("")
    (top / "usr/share/app/script").chmod(0o755)
    (top / "etc/passwd").write_text("root:x:0:0:::\nappuser:x:77:77:::\n")
    (top / "etc/group").write_text("root:x:0:\nappuser:x:77:\n")
    (top / "etc/default/appd").write_text('# options\nOPTIONS="-f --level 3"\n')
    (top / "lib/systemd/system/appd.service").write_text(
        "[Service]\nEnvironmentFile=-/etc/default/appd\nExecStart=/usr/sbin/appd -n $OPTIONS\n"
        "User=appuser\nStateDirectory=app\nRuntimeDirectory=app\n"
    )
    files = ("/usr/sbin/appd", "/etc/app", "/usr/lib/app/plug.so", "/var/lib/app")
    (top / "var/lib/dpkg/info/app.list").write_text("".join(f"{one}\n" for one in files))
    (top / "var/lib/dpkg/status").write_text("Package: app\nStatus: install ok installed\n")
    return top


def test_the_package_and_the_unit_say_what_a_daemon_needs(origin: Path) -> None:
    facts = facts_of("/usr/sbin/appd", Platform.LINUX, str(origin))
    assert facts.package == "app"
    assert facts.command == ("/usr/sbin/appd", "-n", "-f", "--level", "3")
    assert (facts.user, facts.unit, facts.socket) == ("appuser", "appd.service", "")
    unit = origin / "lib/systemd/system/appd.service"
    unit.with_suffix(".socket").write_text("[Socket]\nListenStream=79\n")
    assert facts_of("/usr/sbin/appd", Platform.LINUX, str(origin)).socket == "", "another way to start it"
    unit.write_text(f"[Unit]\nRequires=x.target appd.socket\n{unit.read_text()}")
    said = advise(facts_of("/usr/sbin/appd", Platform.LINUX, str(origin)))
    assert any("appd.socket gives it its sockets" in one for one in said.notes)
    assert (facts.config, facts.config_files) == (("/etc/app",), ("/etc/appd.conf", "/usr/share/app/table"))
    assert facts.state == ("/var/lib/app", "/var/log/app")
    assert (facts.run, facts.modules) == (("app",), ("/usr/lib/app/*.so",))
    assert {"dlopen", "setuid", "listen"} <= facts.names
    assert facts.config_writable == ()
    (origin / "etc/app").chmod(0o777)
    assert facts_of("/usr/sbin/appd", Platform.LINUX, str(origin)).config_writable == ("/etc/app",)


def dynamic(**more: object) -> Facts:
    plain: dict[str, Any] = {
        "path": "/usr/sbin/appd",
        "platform": Platform.LINUX,
        "form": "dynamic",
        "files": 9,
    }
    return Facts(**{**plain, **more})


def test_the_profile_of_a_thin_jail_has_what_was_found() -> None:
    found = advise(
        dynamic(
            user="app",
            names=frozenset({"setuid", "dlopen"}),
            config=("/etc/app",),
            state=("/var/lib/app",),
            run=("app",),
            modules=("/usr/lib/app/*.so",),
            config_files=("/etc/appd.conf",),
            ports=("53/tcp", "53/udp"),
            command=("/usr/sbin/appd", "-n"),
        )
    )
    settings = found.profile["linux"]
    assert settings["service"]["capabilities"] == ["net_bind_service", "setuid", "setgid"]
    assert settings["service"]["run"] == [{"path": "run/app", "owner": "app"}]
    assert settings["service"]["ready"] == {"tcp": "127.0.0.1:53"}
    assert settings["thin"] == {
        "users": ["app"],
        "modules": ["/usr/lib/app/*.so"],
        "files": ["/etc/appd.conf"],
    }
    assert settings["mounts"] == [
        {"source": "/etc/app", "target": "etc/app"},
        {"source": "/var/lib/app", "target": "var/lib/app", "writable": True},
    ]


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({}, Kind.THIN),
        ({"files": 500}, Kind.SHARED),
        ({"lacking": "libx.so: nothing"}, Kind.SHARED),
        ({"config_writable": ("/etc/app",)}, Kind.SHARED),
        ({"names": frozenset({"pam_start"})}, Kind.FULL),
        ({"names": frozenset({"pam_start"}), "devices": ("/dev/net/tun",)}, Kind.FULL),
        ({"names": frozenset({"pam_start"}), "devices": ("/dev/mem",)}, Kind.SERVICE),
        ({"devices": ("/dev/net/tun",)}, Kind.SERVICE),
        ({"names": frozenset({"kvm_open"})}, Kind.SERVICE),
        ({"form": "static"}, Kind.OSLESS),
        ({"form": "static", "runs": ("/bin/sh",)}, Kind.SHARED),
    ],
)
def test_one_fact_decides(more: dict[str, object], kind: Kind) -> None:
    assert advise(dynamic(**more)).kind is kind


def test_a_script_of_the_c_library_does_not_call_what_that_has() -> None:
    """ldd(1) is a script of the package of libc: with what libc defines, it would seem to call reboot(2)."""
    ldd = "/usr/bin/ldd"
    if not os.path.exists(ldd) or not os.path.exists("/var/lib/dpkg/info/libc-bin.list"):
        pytest.skip("needs ldd of Debian")
    assert not facts_of(ldd, Platform.LINUX).names & {"reboot", "pivot_root", "getusershell"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"names": frozenset({"pam_start"}), "devices": ("/dev/mem",)},
            "it lets users log in: pam_start; but it asks for what is the host's",
        ),
        (
            {"lacking": "it needs libx.so"},
            "its closure cannot be had, for it needs libx.so",
        ),
    ],
)
def test_no_reason_speaks_against_its_own_verdict(more: dict[str, object], said: str) -> None:
    found = advise(dynamic(**more))
    assert any(one.why.startswith(said) and not one.suits for one in found.reasons)


def test_what_serves_a_known_port_is_not_asked_whether_it_is_a_daemon() -> None:
    asked = "it does not seem to listen anywhere: is it a daemon?"
    assert asked in advise(dynamic()).notes
    assert asked not in advise(dynamic(ports=("53/tcp",))).notes


def test_a_bare_name_is_answered_with_what_finds_it(cli) -> None:
    done = cli("advise", "busybox")
    assert (done.code, 'hint: layout advise "$(command -v busybox)"' in done.err) == (2, True)
