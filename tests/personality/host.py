"""A pretended FreeBSD host, as a fixture, for the tests of the personality and for whoever else needs one."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
ENTER = str(HERE / "enter")

# base DIR: a busybox root, copied (never linked: a write through a link would reach the host)
PRELUDE = r"""
# come CONDITION: wait until it is true, half a minute at least.
come() {
    n=0
    until eval "$1" >/dev/null 2>&1; do
        n=$((n + 1))
        test $n -le 600 || { echo "never: $1" >&2; return 1; }
        sleep 0.05
    done
}
base() {
    mkdir -p "$1/bin" "$1/sbin" "$1/usr/bin" "$1/s" "$1/t" "$1/dev" "$1/etc" "$1/proc" "$1/tmp"
    cp /bin/busybox "$1/bin/busybox"
    for applet in sh ls cat touch id echo sleep hostname kill mkdir mount umount chroot mknod true false; do
        ln -s busybox "$1/bin/$applet"
    done
    echo 'root:*:0:0::0:0:R:/:/bin/sh' >"$1/etc/master.passwd"
}
"""


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


class Host:
    """A pretended FreeBSD host; call it with a shell script to run there, in the test's own directory."""

    def __init__(self, work: Path, *options: str) -> None:
        self.work = work
        self.shell = subprocess.Popen(
            [ENTER, *options, "sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=work
        )

    def __call__(self, script: str) -> Done:
        assert self.shell.stdin and self.shell.stdout
        (self.work / ".script").write_text(PRELUDE + script)
        self.shell.stdin.write("sh .script >.out 2>.err </dev/null; echo $?\n")
        self.shell.stdin.flush()
        return self._done(self.shell.stdout.readline())

    def _done(self, code: str) -> Done:
        """Return how a program ended that has written .out and .err."""
        out, err = ((self.work / name).read_text("utf-8", "surrogateescape") for name in (".out", ".err"))
        assert "Traceback" not in err, err
        return Done(int(code), out, err)

    def ok(self, script: str) -> str:
        done = self(script)
        assert done.code == 0, done
        return done.out

    def refused(self, script: str, *said: str) -> None:
        done = self(script)
        assert done.code != 0, done
        for text in said:
            assert text in done.err + done.out, done

    def write(self, name: str, text: str) -> None:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def mounted(self) -> list[tuple[str, str, str]]:
        table = json.loads(self.ok("mount --libxo=json"))["mount"]["mounted"]
        own = [line for line in table if not line["special"].startswith("zroot") and line["node"] != "/dev"]
        short = str(self.work)
        return [
            (line["special"].replace(short, ""), line["node"].replace(short, ""), line["fstype"])
            for line in own
        ]

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        assert self.shell.stdin and self.shell.stdout
        self.shell.stdin.close()
        self.shell.stdout.close()


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path.resolve())
    yield host
    host.close()


FULL = """\
a {
  path = "%(w)s/j/$name";
  host.hostname = a.example;
  mount.fstab = "%(w)s/a.fstab";
  mount.devfs;
  devfs_ruleset = 4;
  exec.clean;
  exec.start = "/bin/sleep 1000 &", '/bin/sh -c "echo up; hostname; echo $PATH $HOME"';
  exec.stop = "/bin/touch /t/stopped";
  exec.poststop = 'echo $JNAME gone >>%(w)s/log';
  exec.consolelog = "%(w)s/log";
  stop.timeout = 1;
}
"""
FSTAB = (
    "%(w)s/m %(w)s/j/a nullfs ro,noauto 0 0 # a comment\n%(w)s/t %(w)s/j/a/t nullfs rw,nosuid,noexec 0 0\n"
)


def full(host: Host) -> None:
    host.write("/etc/ignored".lstrip("/"), "")
    host.write("a.conf", FULL % {"w": host.work})
    host.write("a.fstab", FSTAB % {"w": host.work})
    host.ok("base m; mkdir -p j/a t")
