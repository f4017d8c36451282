"""What the tests of `plan --script` share: a base full of corners, and what to compare afterwards."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.freebsd_host import FreeBSD

Cli = Callable[..., Any]


def check(text: str, lint: bool) -> None:
    """Every script is plain POSIX sh, and nothing in it is suspect."""
    for command in (["sh", "-n"], ["dash", "-n"], ["shellcheck", "-s", "sh", "-"])[: 3 if lint else 2]:
        if shutil.which(command[0]) is None:
            assert command[0] != "sh"
            continue
        done = subprocess.run(command, input=text, capture_output=True, text=True, errors="surrogateescape")
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def script(cli: Cli, root: Path, *args: str, lint: bool = False) -> str:
    """Return the script for a plan, checked."""
    done = cli("--root", root, "plan", *args, "--script")
    assert done.code == 0, done.err
    check(done.out, lint)
    return str(done.out)


def run(text: str, code: int = 0, shell: str = "dash") -> subprocess.CompletedProcess[str]:
    """Run a script from somewhere else, in an environment that would lead a careless one astray."""
    env = {"PATH": os.environ["PATH"], "CDPATH": "/", "TAR_OPTIONS": "-v"}
    done = subprocess.run(
        [shutil.which(shell) or "sh", "-s"],
        input=text,
        env=env,
        cwd="/usr",
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Return everything below ROOT but what differs from run to run."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for top, directories, files in os.walk(root):
        for name in sorted([*directories, *files, "."]):
            path = os.path.join(top, name)
            at = os.path.normpath(os.path.relpath(path, root))
            if at in {".layout/lock", ".layout/bases/mroot.mtree", ".layout/bases/skel.mtree"}:
                continue
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                data = Path(path).read_bytes()
                if at.endswith("etc/machine-id"):
                    assert re.fullmatch(rb"[0-9a-f]{32}\n", data)
                    data = b"an identity"
                content = hashlib.sha256(data).hexdigest() if len(data) > 500 else data
                if at.startswith(".layout/") and at.endswith(".toml"):
                    content = record(data)
            xattrs = tuple(sorted(os.listxattr(path, follow_symlinks=False)))
            linked = first.setdefault(status.st_ino, at) if stat.S_ISREG(status.st_mode) else ""
            found[at] = (
                stat.filemode(status.st_mode),
                status.st_uid,
                status.st_gid,
                content,
                xattrs,
                linked,
            )
    return found


def same_by_script(host: FreeBSD, *words: str) -> tuple[str, int]:
    """Run init, then the script that was printed before; nothing may differ but flags of files.

    Returns the script, and how many flags init left out: here fchflags(2) is Linux's, which has none.
    """
    text = host.does("plan", *words, "--script")
    check(text, True)
    host.does("init", *words)
    expected = snapshot(host.root)
    host.root.rename(host.work / "of init")
    host.write("script", text)
    host.ok(f"dash -s <{host.work}/script")
    made = snapshot(host.root)
    record = expected[".layout/bases/mroot.toml"][3]
    assert isinstance(record, dict)
    flags = record["left_out"].pop("file flag", 0)
    assert made == expected
    return text, flags


def record(data: bytes) -> dict[str, object]:
    """Return a record without its date; the order of what was found in a base says nothing."""
    found = tomllib.loads(data.decode("utf-8", "surrogateescape"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.pop("created"))
    return {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in found.items()}


def mounts(root: Path) -> list[tuple[str, ...]]:
    """Return what the kernel says of the mounts below ROOT: what is shown, where, options, propagation."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.rstrip("\n").split(" ")
            target = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
            if target == str(root) or target.startswith(f"{root}/"):
                dash = fields.index("-")
                found.append((fields[3], target, fields[5], " ".join(fields[6:dash]), fields[dash + 1]))
    return sorted(found)


DIRECTORIES = """
    bin etc/dpkg/dpkg.cfg.d etc/apt/apt.conf.d etc/ssh etc/ssl/private etc/default root/.ssh usr/bin
    usr/lib/ssl usr/local/bin usr/share var/lib/dpkg/info var/cache/apt/archives
    var/log/deep/er run sys/kernel dev proc
"""


def small_tree(top: Path) -> Path:
    """A base with everything that the split has to look after."""
    busybox = shutil.which("busybox")
    assert busybox, "the tests need busybox"
    for name in DIRECTORIES.split():
        (top / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, top / "bin/sh")
    os.link(top / "bin/sh", top / "bin/busybox")
    shutil.copy(busybox, top / "usr/bin/su")
    (top / "usr/bin/su").chmod(0o4755)
    texts = {
        "etc/passwd": "root:x:0:0::/root:/bin/sh\nopenldap:x:117:0::/:/bin/sh\nbind:x:118:119::/:/bin/sh\n",
        "etc/group": "root:x:0:\nopenldap:x:121:\nbind:x:119:\n",
        "etc/hostname": "the builder's\n",
        "etc/machine-id": "0123\n",
        "etc/ssh/ssh_host_key": "secret\n",
        "etc/ssl/private/.hidden": "secret\n",
        'etc/ssl/private/a "b\\': "secret\n",
        "root/.ssh/authorized_keys": "secret\n",
        "root/.profile": "umask 022\n",
        "usr/lib/os-release": "ID=small\n",
        "usr/local/bin/tool": "#!/bin/sh\n",
        "var/lib/dpkg/status": "Package: small\n",
        "var/lib/dpkg/info/small.list": "/.\n",
        "var/log/deep/er/a b\nc": "odd\n",
        "var/cache/apt/archives/x.deb": "big\n",
        "sys/kernel/left": "over\n",
        "proc/left": "over\n",
    }
    for name, text in texts.items():
        (top / name).write_text(text)
    links = {
        "etc/os-release": "../usr/lib/os-release",
        "etc/mtab": "../proc/self/mounts",
        "etc/localtime": "/usr/share/zoneinfo/UTC",
        "etc/default/up": "../../usr/share",
        "etc/up": "..",
        "etc/over": "../../../../usr/lib",
        "etc/ssl/odd target": "../../usr/lib/ssl/a 'b' ",
        "etc/same": "default/../passwd",
        "usr/local/bin/out": "../../lib/os-release",
        "usr/local/bin/far": "../../../usr/bin/su",
        "usr/local/lib": "../lib",
        "usr/lib/ssl/certs": "../../../etc/ssl",
        "var/run": "/run",
        "var/log/root": "../../root",
        "var/log/deep/-dash": "../../../etc/passwd",
        "tmp": "var/tmp",
    }
    for name, target in links.items():
        (top / name).symlink_to(target)
    os.mkfifo(top / "var/log/pipe")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(top / "run/door"))
    os.chown(top / "var/log", 0, 4)
    os.chown(top / "etc/ssh", 12, 34)
    os.lchown(top / "etc/over", 5, 6)
    (top / "var/log").chmod(0o2775)
    (top / "root").chmod(0o700)
    (top / "etc").chmod(0o751)
    return top


def moved_aside(cli: Cli, root: Path) -> None:
    """Leave nothing at ROOT's path."""
    assert cli("--root", root, "umount").code == 0
    root.rename(root.with_name("of init"))


def both(cli: Cli, root: Path, *args: str) -> str:
    """Run init, then the script that was printed before for the same ROOT; nothing may differ."""
    text = script(cli, root, *args, lint=True)
    done = cli("--root", root, "init", *args)
    assert done.code == 0, done.err
    expected, expected_mounts = snapshot(root), mounts(root)
    moved_aside(cli, root)
    run(text)
    assert snapshot(root) == expected
    assert mounts(root) == expected_mounts
    return text
