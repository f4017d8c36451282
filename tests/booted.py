"""A host that booted with systemd: this machine's systemd as process 1 of namespaces of its own, in the box.

It sees the files of the box, with an /etc, /run, /var, /jails and control group of its own; what it starts at
boot is what a test enables, and nothing of the machine's. A reboot keeps /etc, /var and /jails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEMD = Path("/lib/systemd/systemd")
UNITS = Path("/etc/systemd/system")
_NEEDED = ("unshare", "nsenter", "setpriv", "systemctl", "systemd-run", "dbus-daemon")
_DEADLINE = 60
"""Seconds for a boot or a shutdown."""

# Nothing of these is about jails. The first two would touch what the box shares with the machine: its audit
# log and its modules; tmpfiles would empty the /tmp that the tests themselves use.
_MASKED = (
    "systemd-journald-audit.socket",
    "modprobe@.service",
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-update-utmp.service",
    "systemd-logind.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-fs-fuse-connections.mount",
    "getty.target",
)

# As https://systemd.io/CONTAINER_INTERFACE asks: a control group and its namespace, /dev and /sys as they are
# in the box, /proc/sys read-only, `container` in the environment. No capabilities for the hardware.
_OUTSIDE = """\
set -eu
mount -n -t cgroup2 cgroup2 /sys/fs/cgroup
# What a run has left that was killed.
find /sys/fs/cgroup -depth -type d -path '*/layout-tests-*' -mmin +30 -exec rmdir {} + 2>/dev/null || :
mkdir "/sys/fs/cgroup/$1"
echo 0 >"/sys/fs/cgroup/$1/cgroup.procs"
exec unshare --mount --pid --ipc --uts --net --cgroup --fork --kill-child --propagation private \\
    sh -euc "$3" sh "$2"
"""
_INSIDE = """\
mount -n -o remount,bind,rw /
mkdir -p /jails
mount -n -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" etc /etc
mount -n --bind "$1/system" /etc/systemd/system
mount -n --bind "$1/var" /var
mount -n --bind "$1/jails" /jails
mount -n -t tmpfs -o mode=755,nosuid,nodev run /run
mount -n -t proc -o nosuid,nodev,noexec proc /proc
# One without anything over it, or no user namespace in here could mount a /proc of its own.
mount -n -t proc -o nosuid,nodev,noexec proc "$1/proc"
mount -n --bind /proc/sys /proc/sys
for part in net user; do mount -n --bind "/proc/sys/$part" "/proc/sys/$part"; done
mount -n -o remount,bind,ro,nosuid,nodev,noexec /proc/sys
umount -n /sys/fs/cgroup
mount -n -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
mount -n --make-rshared /
hostname booted
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
exec env -i container=layout-tests PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-audit_control,-audit_write \\
    /lib/systemd/systemd --unit=multi-user.target --show-status=no --log-target=journal
"""
_CLEAR = """\
mount -n -t cgroup2 cgroup2 /sys/fs/cgroup || exit 0
[ ! -d "/sys/fs/cgroup/$1" ] || find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +
"""


def missing(*programs: str) -> str:
    """Say what is not here that a boot needs; "" when all is."""
    if not SYSTEMD.exists():
        return f"{SYSTEMD}: not installed"
    return ", ".join(name for name in (*_NEEDED, *programs) if shutil.which(name) is None)


class CannotBoot(Exception):
    """There was no way to a process 1: what the kernel or a program said."""


class Booted:
    """One such host."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.group = f"layout-tests-{uuid.uuid4().hex[:12]}"
        for name in ("etc", "work", "system", "var/log", "var/tmp", "var/lib", "jails", "proc"):
            (state / name).mkdir(parents=True)
        (state / "jails").chmod(0o700)
        (state / "etc/fstab").write_text("")
        for name in _MASKED:
            (state / "system" / name).symlink_to("/dev/null")
        self._unshare: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def boot(self) -> None:
        """Boot, and wait until everything that starts at boot has been started. Raises CannotBoot."""
        with (self.state / "console").open("ab") as console:
            self._unshare = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _OUTSIDE, "sh", self.group, self.state, _INSIDE],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        end = time.monotonic() + _DEADLINE
        while True:
            if self._unshare.poll() is not None:
                raise CannotBoot(self.console())
            assert time.monotonic() < end, f"not up after {_DEADLINE} s\n{self.console()}"
            children = (
                Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
            )
            if children and Path(f"/proc/{children[0]}/root/run/systemd/private").exists():
                self.pid = int(children[0])
                break
            time.sleep(0.05)
        said = self.inside("systemctl", "is-system-running", "--wait").stdout.strip()
        assert said in {"running", "degraded"}, f"{said}\n{self.console()}"

    def file(self, path: str) -> Path:
        """Return where one of its files is seen from here: its /etc is an overlay, only to be changed so."""
        return Path(f"/proc/{self.pid}/root{path}")

    def inside(self, *words: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespaces of its process 1."""
        return subprocess.run(
            ["nsenter", "-t", str(self.pid), "-a", *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run(self, *words: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command as somebody who is logged in does: in a scope of its own, which outlives it."""
        return self.inside("systemd-run", "--quiet", "--scope", "--", *words, timeout=timeout)

    def layout(self, *words: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run layout there."""
        plain = ("LC_ALL=C.UTF-8", "NO_COLOR=1", "TERM=dumb", "COLUMNS=120")
        done = self.run("env", *plain, sys.executable, "-m", "layout", *words, timeout=timeout)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ok(self, *words: object) -> str:
        """Run layout there, which must succeed; return what it said on stdout."""
        done = self.layout(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr, self.console()[-2000:])
        return done.stdout

    def shown(self, unit: str, *properties: str) -> list[str]:
        """Return properties of a unit, as systemd has them."""
        done = self.inside(
            "systemctl", "show", "--value", *(f"--property={name}" for name in properties), unit
        )
        return done.stdout.splitlines()

    def reboot(self) -> None:
        """Shut down in good order, and boot again."""
        self.power_off()
        self.boot()

    def power_off(self) -> None:
        """Shut down in good order."""
        assert self._unshare is not None
        self.inside("systemctl", "poweroff", "--no-block")
        try:
            self._unshare.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end of the shutdown\n{self.console()[-4000:]}") from None
        finally:
            self.end()

    def end(self) -> None:
        """End whatever is left of it."""
        if self._unshare is not None:
            # With its process 1 everything in there ends before unshare(1) does.
            if self._unshare.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid or self._unshare.pid, signal.SIGKILL)
            self._unshare.wait(_DEADLINE)
            self._unshare, self.pid = None, 0
            subprocess.run(["unshare", "--mount", "sh", "-euc", _CLEAR, "sh", self.group], check=True)

    def console(self) -> str:
        """Return what its process 1 said."""
        return (self.state / "console").read_text(errors="replace")


@contextlib.contextmanager
def booted() -> Iterator[Booted]:
    """Boot such a host; nothing of it is left at the end. Raises CannotBoot."""
    state = Path(f"/mnt/booted-{uuid.uuid4().hex[:8]}")
    state.mkdir()
    host = Booted(state)
    try:
        host.boot()
        yield host
    finally:
        host.end()
        shutil.rmtree(state)
