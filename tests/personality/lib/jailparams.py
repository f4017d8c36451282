"""The parameters of facts 2.2 and 2.3: what they are called and what they may hold."""

from __future__ import annotations

ALLOW = [
    "set_hostname",
    "raw_sockets",
    "chflags",
    "mount",
    "mount.devfs",
    "mount.fdescfs",
    "mount.fusefs",
    "mount.nullfs",
    "mount.procfs",
    "mount.linprocfs",
    "mount.linsysfs",
    "mount.tmpfs",
    "mount.zfs",
    "quotas",
    "read_msgbuf",
    "socket_af",
    "mlock",
    "nfsd",
    "reserved_ports",
    "unprivileged_proc_debug",
    "suser",
    "sysvipc",
]
# Facts 2.2: may be newer than 14.x, hence "unknown parameter" there.
ALLOW_NEWER = [
    "unprivileged_parent_tampering",
    "extattr",
    "adjtime",
    "settime",
    "routing",
    "setaudit",
    "vmm",
    "vmm_ppt",
]

BOOLS = {f"allow.{name}" for name in ALLOW} | {"persist", "ip4.saddrsel", "ip6.saddrsel"}
PSEUDO_BOOLS = {
    "exec.clean",
    "exec.system_jail_user",
    "mount.devfs",
    "mount.fdescfs",
    "mount.procfs",
    "allow.dying",
    "ip_hostname",
}
STRINGS = {"name", "path", "host.hostname", "host.domainname", "host.hostuuid", "osrelease"}
PSEUDO_STRINGS = {"exec.jail_user", "exec.system_user", "exec.consolelog", "interface"}
INTS = {
    "jid": (0, 999999),
    "host.hostid": (0, 2**32 - 1),
    "enforce_statfs": (0, 2),
    "securelevel": (-1, 3),
    "devfs_ruleset": (0, 65535),
    "children.max": (0, 999999),
    "osreldate": (1, 9999999),
}
PSEUDO_INTS = {"exec.timeout": (0, 10**6), "stop.timeout": (0, 10**6), "exec.fib": (0, 255)}
CHOICES = {
    "host": ("new", "inherit"),
    "ip4": ("inherit", "new", "disable"),
    "ip6": ("inherit", "new", "disable"),
    "vnet": ("new", "inherit"),
    "sysvmsg": ("inherit", "new", "disable"),
    "sysvsem": ("inherit", "new", "disable"),
    "sysvshm": ("inherit", "new", "disable"),
}
HOOKS = [
    "exec.prepare",
    "exec.prestart",
    "exec.created",
    "exec.start",
    "exec.poststart",
    "exec.prestop",
    "exec.stop",
    "exec.poststop",
    "exec.release",
]
LISTS = {
    "ip4.addr",
    "ip6.addr",
    "vnet.interface",
    "depend",
    "mount",
    "mount.fstab",
    "zfs.dataset",
    "command",
    *HOOKS,
}
READ_ONLY = {"cpuset.id", "parent", "dying"}
CREATE_ONLY = {"path", "osrelease", "osreldate"}
PSEUDO = (
    PSEUDO_BOOLS | PSEUDO_STRINGS | set(PSEUDO_INTS) | (LISTS - {"ip4.addr", "ip6.addr"}) | {"vnet.interface"}
)
SIMPLE = STRINGS | PSEUDO_STRINGS | set(INTS) | set(PSEUDO_INTS) | set(CHOICES)


def kind(name: str) -> str:
    if name in BOOLS or name in PSEUDO_BOOLS or name in {f"allow.{new}" for new in ALLOW_NEWER}:
        return "bool"
    if name in LISTS:
        return "list"
    if name in INTS or name in PSEUDO_INTS:
        return "int"
    if name in CHOICES:
        return "choice"
    if (
        name in STRINGS
        or name in PSEUDO_STRINGS
        or name in ("meta", "env")
        or name.startswith(("meta.", "env."))
    ):
        return "string"
    return "unknown"


def known(name: str) -> bool:
    return kind(name) != "unknown"


def exists(name: str, major: int) -> bool:
    """Whether a kernel of this release has the parameter."""
    if name.startswith("allow.") and name[6:] in ALLOW_NEWER:
        return major >= 16
    if name in ("meta", "env", "zfs.dataset") or name.startswith(("meta.", "env.")):
        return major >= 15
    return known(name)


def check(name: str, values: list[str]) -> str | None:
    """What libjail or the kernel would say against the values; None if nothing."""
    what = kind(name)
    if name in READ_ONLY:
        return f"{name}: read-only parameter"
    if what == "bool":
        allowed = ("true", "false") if name in PSEUDO_BOOLS else ("true", "false", "0", "1")
        if len(values) != 1 or values[0] not in allowed:
            return f'{name}: unknown boolean value "{",".join(values)}"'
    elif what == "int":
        low, high = {**INTS, **PSEUDO_INTS}[name]
        if (
            len(values) != 1
            or not values[0].removeprefix("-").isdecimal()
            or not low <= int(values[0]) <= high
        ):
            return f'{name}: invalid value "{",".join(values)}"'
    elif what == "choice":
        if not values and name == "vnet":
            return None
        if len(values) != 1 or values[0] not in CHOICES[name]:
            return f'{name}: unknown value "{",".join(values)}"'
    elif what == "string" and (len(values) != 1 or len(values[0]) > 1023):
        return f"{name}: exactly one value of at most 1023 bytes"
    return None


def true(params: dict[str, list[str]], name: str, *, default: bool = False) -> bool:
    value = params.get(name)
    return default if value is None else value[:1] in (["true"], ["1"])


def one(params: dict[str, list[str]], name: str, default: str = "") -> str:
    return (params.get(name) or [default])[0]
