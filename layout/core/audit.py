"""What root of a jail can write, execute and reach, as data: `layout audit`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from layout.core.model import Kind, Platform
from layout.core.plan import SPLIT


class Writable(msgspec.Struct, frozen=True):
    """A mount that root of the jail can write to."""

    path: str
    """As the jail has it."""
    shown_as: tuple[str, ...]
    """Other names by which the jail knows what is in it: /var, /tmp."""
    source: str
    fstype: str
    powers: tuple[str, ...]
    """'write', and of 'execute', 'setuid' and 'devices' what else works there."""


class Reachable(msgspec.Struct, frozen=True):
    """A file with a power, a device node, or a socket."""

    path: str
    what: str
    works: bool
    """False: it is there, and the mount or the engine takes its power."""


class Capability(msgspec.Struct, frozen=True):
    """A privilege that root of the jail has."""

    name: str
    means: str


class Knob(msgspec.Struct, frozen=True):
    """A setting of the kernel that makes an attack easier or harder."""

    name: str
    value: str
    """Empty when this kernel does not have it."""
    wanted: str
    ok: bool
    why: str


class Autorun(msgspec.Struct, frozen=True):
    """A place of t from which something is run without being asked, and holds something."""

    path: str
    reader: str
    holds: str


class Residue(msgspec.Struct, frozen=True):
    """What works by design: known, and named."""

    id: str
    what: str
    paths: tuple[str, ...] = ()


class Audit(msgspec.Struct, frozen=True):
    """One jail."""

    kind: Kind
    platform: Platform
    state: str
    """'running', 'mounted', 'unmounted': what the answers below were taken from."""
    seen_by: str
    """Where the mounts and privileges were read: a process, the host's table, the plan."""
    grade: str
    """As `layout status` has it; empty when nothing runs."""
    writable: tuple[Writable, ...]
    setuid: tuple[Reachable, ...]
    devices: tuple[Reachable, ...]
    sockets: tuple[Reachable, ...]
    network: tuple[str, ...]
    capabilities: tuple[Capability, ...]
    confinement: tuple[str, ...]
    """What else keeps its processes in: no_new_privs, a user namespace, parameters of jail(8)."""
    beyond: tuple[str, ...]
    """What a running jail has beyond its plan, not from its start: mounts, processes, privileges."""
    autorun: tuple[Autorun, ...]
    knobs: tuple[Knob, ...]
    residue: tuple[Residue, ...]
    unseen: tuple[str, ...]
    """What could not be looked at: never empty means that there may be more."""

    @property
    def writable_and_executable(self) -> list[str]:
        """Paths that are both."""
        return [one.path for one in self.writable if "execute" in one.powers]


class Privileges(NamedTuple):
    """What the kernel lets processes of a jail do, and what keeps them in."""

    capabilities: tuple[Capability, ...]
    confinement: tuple[str, ...]
    network: tuple[str, ...]
    devices: tuple[Reachable, ...]


class Setting(NamedTuple):
    """What a knob should be."""

    name: str
    least: int
    most: int
    why: str


_ANY = 1 << 31

KNOBS = {
    Platform.LINUX: (
        Setting(
            "kernel.yama.ptrace_scope",
            1,
            3,
            "a process may trace others of its user: the host's root and a weak jail's",
        ),
        Setting(
            "kernel.unprivileged_userns_clone",
            0,
            0,
            "every user can make user namespaces, and reach more of the kernel",
        ),
        Setting(
            "user.max_user_namespaces",
            0,
            0,
            "every user of the host can make user namespaces, and reach more of the kernel",
        ),
        Setting("kernel.unprivileged_bpf_disabled", 1, 2, "every user can load BPF programs"),
        Setting(
            "vm.memfd_noexec",
            1,
            2,
            "programs run from memory on the host; in a jail layout forbids that itself",
        ),
        Setting("vm.mmap_min_addr", 4096, _ANY, "a mistake of the kernel with a null pointer is an exploit"),
        Setting("vm.unprivileged_userfaultfd", 0, 0, "races in the kernel are easily won"),
        Setting(
            "dev.tty.legacy_tiocsti",
            0,
            0,
            "a process types into its terminal; sessions have one of their own",
        ),
        Setting("fs.protected_symlinks", 1, 1, "a link in a sticky directory leads others' writes astray"),
        Setting("fs.protected_hardlinks", 1, 1, "users link what is not theirs"),
        Setting("fs.protected_fifos", 1, 2, "a FIFO in a sticky directory takes what others write"),
        Setting("fs.protected_regular", 1, 2, "a file in a sticky directory takes what others write"),
        Setting("fs.suid_dumpable", 0, 0, "setuid programs leave their memory in files"),
        Setting("kernel.kptr_restrict", 1, 2, "addresses of the kernel can be read"),
        Setting("kernel.dmesg_restrict", 1, 1, "messages of the kernel can be read"),
        Setting("kernel.perf_event_paranoid", 2, 4, "the kernel can be measured by anybody"),
        Setting("kernel.randomize_va_space", 2, 2, "addresses of programs can be guessed"),
        Setting(
            "kernel.modules_disabled", 1, 1, "root of the host can load modules; a jail cannot in any case"
        ),
        Setting(
            "kernel.kexec_load_disabled",
            1,
            1,
            "root of the host can load a kernel; a jail cannot in any case",
        ),
        Setting("kernel.sysrq", 0, 0, "keys of the console act on the kernel"),
        Setting("kernel.io_uring_disabled", 1, 2, "io_uring is there: a large interface, often broken"),
    ),
    Platform.FREEBSD: (
        Setting("security.bsd.see_other_uids", 0, 0, "users see each other's processes"),
        Setting("security.bsd.see_other_gids", 0, 0, "groups see each other's processes"),
        Setting("security.bsd.see_jail_proc", 0, 0, "users see processes of jails below theirs"),
        Setting("security.bsd.unprivileged_read_msgbuf", 0, 0, "messages of the kernel can be read"),
        Setting("security.bsd.unprivileged_proc_debug", 0, 0, "a process may trace others of its user"),
        Setting("security.bsd.unprivileged_mlock", 0, 0, "every user can lock memory"),
        Setting("security.bsd.hardlink_check_uid", 1, 1, "users link what is not theirs"),
        Setting("security.bsd.hardlink_check_gid", 1, 1, "the same for groups"),
        Setting("security.bsd.stack_guard_page", 1, _ANY, "a stack grows into what lies below it"),
        Setting(
            "security.bsd.map_at_zero", 0, 0, "a mistake of the kernel with a null pointer is an exploit"
        ),
        Setting("security.jail.set_hostname_allowed", 0, 0, "old jails change their host name"),
        Setting("security.jail.sysvipc_allowed", 0, 0, "old jails share the host's System V IPC"),
        Setting("security.jail.allow_raw_sockets", 0, 0, "old jails have raw sockets"),
        Setting("security.jail.chflags_allowed", 0, 0, "old jails change file flags"),
        Setting("security.jail.mount_allowed", 0, 0, "old jails mount"),
        Setting("security.jail.enforce_statfs", 2, 2, "old jails see mounts of the host"),
        Setting("vfs.usermount", 0, 0, "every user can mount"),
        Setting("vfs.zfs.super_owner", 0, 0, "the owner of a file system changes what root alone should"),
        Setting("kern.securelevel", 1, 3, "file flags and kernel memory can be changed by root of the host"),
        Setting("kern.randompid", 1, _ANY, "process numbers can be guessed"),
        Setting("kern.elf64.aslr.enable", 1, 1, "addresses of programs can be guessed"),
        Setting("kern.elf64.allow_wx", 0, 0, "memory can be written and executed"),
        Setting("kern.coredump", 0, 0, "programs leave their memory in files"),
    ),
}
"""What is looked at on the host. It is the host's business: a value that is not as wanted is no failure."""


def knobs(platform: Platform, values: Mapping[str, str]) -> tuple[Knob, ...]:
    """Judge what was read; a name without a value is one that this kernel does not have."""
    found = []
    for one in KNOBS[platform]:
        text = values.get(one.name, "")
        wanted = str(one.least) if one.least == one.most else f"{one.least} or more"
        number = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
        ok = not text or (number is not None and one.least <= number <= one.most)
        found.append(Knob(one.name, text, wanted, ok, one.why))
    return tuple(found)


HOSTS = "the host's own tree, as its user may"
"""Where a service of the host writes: there is no other root."""


class Seen(NamedTuple):
    """A mount, from whichever table."""

    path: str
    source: str
    fstype: str
    options: frozenset[str]


def writable(mounts: Iterable[Seen], kind: Kind, platform: Platform) -> tuple[Writable, ...]:
    """Return those that can be written, with all that works there. Of two on a path the last is seen."""
    last = {mount.path: mount for mount in mounts}
    return tuple(
        Writable(one.path, _aliases(one.path, kind), one.source, one.fstype, _powers(one, platform))
        for one in sorted(last.values(), key=lambda one: one.path)
        if "ro" not in one.options
    )


def _powers(mount: Seen, platform: Platform) -> tuple[str, ...]:
    # In file systems of the kernel's own nobody makes files, so nothing of the kind can work.
    if mount.fstype in {"proc", "devpts", "mqueue", "devfs"}:
        return ("write",)
    # FreeBSD knows devices in devfs only, and has no nodev.
    return powers(mount.options | ({"nodev"} if platform is Platform.FREEBSD else set()))


def powers(options: frozenset[str]) -> tuple[str, ...]:
    """Return what a writable mount lets root do."""
    found = ["write"]
    for word, power in (("noexec", "execute"), ("nosuid", "setuid"), ("nodev", "devices")):
        if word not in options and not (word == "nosuid" and "noexec" in options):
            found.append(power)
    return tuple(found)


def _aliases(path: str, kind: Kind) -> tuple[str, ...]:
    if kind is not Kind.SHARED or path not in {"/s", "/t"}:
        return ()
    return tuple(f"/{name}" for name, place in SPLIT if place.startswith(f"{path[1:]}/"))


def as_jail_has_it(path: str, kind: Kind) -> str:
    """Return the ordinary name of a path: /t/var/log is /var/log."""
    for name, place in SPLIT if kind is Kind.SHARED else ():
        if path == f"/{place}" or path.startswith(f"/{place}/"):
            return f"/{name}{path[len(place) + 1 :]}"
    return path


_INTERPRETER = re.compile(
    r"(ba|da|a|c|tc|k|mk|pdk|z|fi|r|rba|ya)?sh|busybox|toybox|bsh|perl[0-9.]*|python[0-9.]*|ruby[0-9.]*|node(js)?|"
    r"lua[0-9.]*|luajit|tclsh[0-9.]*|wish[0-9.]*|[gmn]?awk|original-awk|busybox\.static|php[0-9.]*|guile[0-9.]*|"
    r"java|gdb|expect|ex|vim?|emacs|make|gmake|bmake|cmake|octave|Rscript|erl|escript|ghci|runghc|sbcl|clisp|"
    r"scheme|racket|m4"
)
PROGRAM_DIRECTORIES = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/libexec", "libexec", "rescue")
"""Where programs lie, in mroot, in a tree of /usr/local, and in a world of its own."""


def is_interpreter(name: str) -> bool:
    """Say whether a program runs what a file says, by its name: noexec does not stop it."""
    return _INTERPRETER.fullmatch(name) is not None


_MEANS = {
    "chown": "gives files away",
    "dac_override": "reads and writes whatever the mount lets it",
    "dac_read_search": "opens files by handle, beyond its mounts",
    "audit_write": "writes records into the kernel's audit log",
    "fowner": "changes modes of files that are not its own",
    "fsetid": "keeps setuid bits of files that it writes to",
    "kill": "signals processes of other users in the jail",
    "setgid": "changes its group",
    "setuid": "changes its user",
    "net_bind_service": "listens below port 1024",
    "net_admin": "changes the network that it has",
    "net_raw": "sends any packet",
    "sys_admin": "mounts, and remounts what is read-only: the jail is open",
    "sys_ptrace": "traces processes of other users in the jail",
    "sys_chroot": "changes its root",
    "sys_module": "loads code into the kernel: the jail is open",
    "sys_rawio": "reaches the machine's ports and memory: the jail is open",
    "mknod": "makes device nodes; nodev keeps them shut",
    "setfcap": "gives files capabilities; no_new_privs makes them void",
}


_ALLOWED = {
    "allow.mount": "mounts file systems",
    "allow.raw_sockets": "sends any packet",
    "allow.chflags": "changes file flags, also schg",
    "allow.sysvipc": "shares the host's System V IPC",
    "allow.quotas": "changes quotas of the host",
    "allow.socket_af": "opens sockets of any family",
    "allow.mlock": "locks memory",
    "allow.nfsd": "serves NFS",
    "allow.vmm": "runs virtual machines",
    "allow.suser": "its root is privileged at all",
    "allow.reserved_ports": "listens below port 1024",
    "allow.set_hostname": "changes its host name",
    "allow.read_msgbuf": "reads messages of the kernel",
    "allow.unprivileged_proc_debug": "its users may trace their processes",
}


def allowed(name: str) -> Capability:
    """Return a privilege of jail(8) with what it means."""
    return Capability(name, _ALLOWED.get(name, "see jail(8)"))


def capability(name: str) -> Capability:
    """Return a capability with what it means."""
    return Capability(name, _MEANS.get(name, "see capabilities(7)"))
