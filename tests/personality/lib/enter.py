"""tests/personality/enter: make a pretended FreeBSD host out of namespaces, and run a command on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)
# The checkout is read-only in the box; elsewhere nothing is left behind.
sys.pycache_prefix = "/tmp/personality-pyc"
sys.dont_write_bytecode = os.environ.get("LAYOUT_BOX") != "1"

import devfs_nodes  # noqa: E402
import kernel  # noqa: E402
import state as kept  # noqa: E402

HOME = os.path.dirname(HERE)
SBIN = [
    "chroot",
    "daemon",
    "devfs",
    "ifconfig",
    "jail",
    "jexec",
    "jls",
    "ldconfig",
    "mount",
    "mount_nullfs",
    "mtree",
    "personality",
    "ipnat",
    "pfctl",
    "pkg",
    "pw",
    "pwd_mkdb",
    "rcorder",
    "reboot",
    "service",
    "sysctl",
    "sysrc",
    "umount",
    "zfs",
]
BIN = [
    "cap_mkdb",
    "chflags",
    "freebsd-version",
    "install",
    "killall",
    "ldd",
    "pgrep",
    "pkill",
    "ps",
    "sockstat",
    "uname",
]
# What FreeBSD lacks, or has elsewhere: out of sight, so that nothing leans on it.
LINUX_ONLY = [
    "apt",
    "apt-get",
    "blkid",
    "chattr",
    "chrt",
    "dpkg",
    "findmnt",
    "fsfreeze",
    "getcap",
    "groupadd",
    "groupdel",
    "groupmod",
    "hostnamectl",
    "ionice",
    "ip",
    "journalctl",
    "losetup",
    "lsattr",
    "lsblk",
    "lsns",
    "machinectl",
    "mkswap",
    "mount",
    "mountpoint",
    "nsenter",
    "pivot_root",
    "prlimit",
    "setarch",
    "setcap",
    "setpriv",
    "ss",
    "swapoff",
    "swapon",
    "switch_root",
    "systemctl",
    "systemd-nspawn",
    "systemd-run",
    "taskset",
    "umount",
    "unshare",
    "update-rc.d",
    "useradd",
    "userdel",
    "usermod",
    "zfs",
    "zpool",
    "invoke-rc.d",
]
KEPT_ETC = ["ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime"]
PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


def die(status: int, text: str) -> None:
    print(f"enter: {text}", file=sys.stderr)
    sys.exit(status)


def check_box() -> None:
    """The same proofs as tests/conftest.py wants; a marker set by hand is not enough."""
    outside = os.environ.get("LAYOUT_BOX_OUTSIDE", "")
    with open("/proc/1/cmdline", "rb") as file:
        init = file.read().split(b"\0")
    boxed = (
        os.environ.get("LAYOUT_BOX") == "1"
        and outside
        and os.readlink("/proc/self/ns/pid") != outside
        and len(init) > 1
        and init[1].endswith(b"/box")
        and os.statvfs("/").f_flag & os.ST_RDONLY
        and not os.path.exists(kept.FILE)
    )
    if not boxed:
        die(77, "only inside tests/box, and not inside another enter: it mounts over /etc, /usr/bin and more")


# --- building the host ----


def launcher(name: str, target: str) -> None:
    """A copy of bin/NAME that needs no search for Python, and keeps its byte code on the tmpfs."""
    source = os.path.join(HOME, "bin", name)
    with open(source, encoding="utf-8") as file:
        text = file.read()
    if "python3" in text.partition("\n")[0]:
        python = os.path.realpath(sys.executable)
        text = (
            f"#!{python} -IS\n__file__ = {source!r}\nimport sys\n"
            f"sys.pycache_prefix = {sys.pycache_prefix!r}\n"
            + "".join(
                line for line in text.splitlines(keepends=True)[1:] if not line.startswith("import sys")
            )
        )
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(target, 0o555)


def overlays() -> None:
    """Our programs over /sbin and /bin, and nothing in the place of what FreeBSD has not."""
    places = {"bin": {os.path.realpath(path) for path in ("/bin", "/usr/bin")}}
    places["sbin"] = {os.path.realpath(path) for path in ("/sbin", "/usr/sbin")}
    for kind, names in (("sbin", SBIN), ("bin", BIN)):
        for number, place in enumerate(sorted(places[kind])):
            layer = f"{kept.DIR}/programs/{kind}{number}"
            os.makedirs(layer)
            for name in names:
                launcher(name, f"{layer}/{name}")
            for name in LINUX_ONLY:
                if name not in names and os.path.lexists(f"{place}/{name}"):
                    os.mknod(f"{layer}/{name}", stat.S_IFCHR, 0)  # a whiteout
            try:
                kernel.mount("personality", place, "overlay", kernel.MS_RDONLY, f"lowerdir={layer}:{place}")
            except OSError as error:
                die(77, f"no overlayfs here: {error}")


def write(path: str, text: str, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def build_etc() -> None:
    new = f"{kept.DIR}/etc"
    shutil.copytree(os.path.join(HOME, "etc"), new)
    for directory, _, files in os.walk(new):
        os.chmod(directory, 0o755)
        for name in files:
            path = os.path.join(directory, name)
            os.chmod(path, 0o755 if os.path.basename(directory) == "rc.d" else 0o644)
    os.chmod(f"{new}/master.passwd", 0o600)
    with open(f"{new}/master.passwd", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(":") for line in file if not line.startswith("#")]
    write(
        f"{new}/passwd",
        "".join(":".join([a, "*", *b, *c]) + "\n" for a, _, *d in rows for b, c in [(d[:2], d[5:])]),
    )
    for name in KEPT_ETC:
        path = f"/etc/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.copytree(path, f"{new}/{name}", symlinks=True)
        elif os.path.lexists(path):
            shutil.copy2(path, f"{new}/{name}", follow_symlinks=False)
    for name in ("jail.conf.d", "rc.conf.d", "cron.d", "ssh", "periodic/security", "pkg", "sysctl.kld.d"):
        os.makedirs(f"{new}/{name}", exist_ok=True)
    kernel.mount(new, "/etc", "none", kernel.MS_BIND)


def build(release: str, *, devfs_loaded: bool) -> None:
    kernel.propagation("/", kernel.MS_REC | kernel.MS_PRIVATE)
    os.makedirs(kept.DIR, exist_ok=True)
    kernel.mount("personality", kept.DIR, "tmpfs", 0, "mode=755")
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    for path in ("/var", "/usr/local/etc"):
        if os.path.isdir(path):
            kernel.mount("personality", path, "tmpfs", 0, "mode=755")
    for path in ["run", "log", "db/pkg", "cache", "cron/tabs", "tmp", "empty", "backups"]:
        os.makedirs(f"/var/{path}", exist_ok=True)
    for path in ("rc.d", "rc.conf.d", "pkg/repos"):
        os.makedirs(f"/usr/local/etc/{path}", exist_ok=True)
    state = kept.initial(release, devfs_loaded=devfs_loaded)
    with open(os.path.join(HOME, "etc/defaults/devfs.rules"), encoding="utf-8") as file:
        state["rulesets"] = devfs_nodes.parse(file.read(), {}) if devfs_loaded else {}
    build_etc()
    overlays()
    shown = {
        "/": ("zroot/ROOT/default", "zfs"),
        "/dev": ("devfs", "devfs"),
        "/tmp": ("zroot/tmp", "zfs"),
        "/var": ("zroot/var", "zfs"),
    }
    topmost = {line.on: line.id for line in kernel.mountinfo()}
    state["baseline"] = {
        str(line.id): shown.get(line.on) if topmost[line.on] == line.id else None
        for line in kernel.mountinfo()
    }
    kept.write(state)
    socket.sethostname("freebsd.test")


# --- running the command ----


def environment() -> dict[str, str]:
    env = dict(os.environ)
    env["PATH"] = PATH + (":" + env["PATH"] if env.get("PATH") else "")
    env["LAYOUT_PERSONALITY"] = "freebsd"
    return env


def execute(command: list[str]) -> None:
    try:
        os.execvpe(command[0], command, environment())
    except OSError as error:
        print(f"enter: {command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)


def status_of(code: int) -> int:
    code = os.waitstatus_to_exitcode(code)
    return code if code >= 0 else 128 - code


def attend(child: int) -> int:
    """Wait for the child, take in orphans, and pass signals on."""

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    while True:
        pid, code = os.wait()
        if pid == child:
            return status_of(code)


def fork(action: object, *args: object) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            action(*args)  # type: ignore[operator]
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        except BaseException as error:  # never back into the parent's code
            print(f"enter: {type(error).__name__}: {error}", file=sys.stderr)
        os._exit(77)
    return child


def join(outer: int) -> None:
    try:
        with open(f"/proc/{outer}/task/{outer}/children", encoding="ascii") as file:
            inner = int(file.read().split()[0])
        descriptors = [
            os.open(f"/proc/{inner}/ns/{name}", os.O_RDONLY) for name in ("pid", "uts", "ipc", "mnt")
        ]
    except (OSError, IndexError, ValueError):
        die(2, f"--join {outer}: no enter runs there")
    here = os.getcwd()
    for descriptor in descriptors:
        kernel.setns(descriptor, 0)
        os.close(descriptor)
    with contextlib.suppress(OSError):
        os.chdir(here)
    kept.guard()


def first(release: str, devfs_loaded: bool, command: list[str]) -> None:
    """Process 1 of the host."""
    here = os.getcwd()
    build(release, devfs_loaded=devfs_loaded)
    with contextlib.suppress(OSError):
        os.chdir(here)
    os._exit(attend(fork(execute, command)))


def main(argv: list[str]) -> int:
    release, devfs_loaded, joined = "15.0-RELEASE-p14", True, 0
    while argv and argv[0].startswith("-"):
        word = argv.pop(0)
        if word == "--":
            break
        if word == "--devfs-unloaded":
            devfs_loaded = False
        elif word in ("--release", "--join") and argv:
            value = argv.pop(0)
            if word == "--release":
                release = value
            elif value.isdigit():
                joined = int(value)
        else:
            die(2, f"{word}: no such option, or no argument to it")
    if not argv:
        die(2, "no command")
    if joined:
        join(joined)
        return attend(fork(execute, argv))
    check_box()
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
    return attend(fork(first, release, devfs_loaded, argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
