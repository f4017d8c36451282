"""What runs in a jail, as its profile says for one platform: daemon, readiness, network, packages."""

from __future__ import annotations

import difflib
import ipaddress
import re
import signal
from typing import Literal

import msgspec

from layout.core.errors import UsageError
from layout.core.full import Full, check_full
from layout.core.osless import Osless
from layout.core.redirect import Redirect, check_redirects
from layout.core.thin import Thin, check_thin

_CAPABILITIES = """
chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct
sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control
setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
"""
CAPABILITIES = tuple(_CAPABILITIES.split())
"""capabilities(7), in the order of linux/capability.h: the place of a name is its number."""
_CAPABILITY = "a name of capabilities(7), as 'net_bind_service'"


class StateDirectory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A directory that the service writes to; made once, then the jail's own."""

    path: str
    """Relative to the jail's root; below var or tmp, or below run where the service needs it there."""
    mode: str = "0755"
    """Octal permission bits."""
    owner: str = "root"
    """Name in the jail's own passwd(5); root when the base has no such user."""
    group: str = ""
    """Name in the jail's own group(5); the owner's name when empty."""


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How `start` knows that the service works. With none of the three, it is ready once it runs."""

    tcp: str = ""
    """ADDRESS:PORT or [ADDRESS]:PORT that accepts a connection."""
    socket: str = ""
    """Absolute path in the jail of a unix socket that accepts a connection."""
    command: tuple[str, ...] = ()
    """Arguments of a command that exits with 0, run in the jail."""
    timeout: int = 30
    """Seconds until `start` gives up."""

    @property
    def is_checked(self) -> bool:
        """One of the three is to be tried."""
        return bool(self.tcp or self.socket or self.command)


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The daemon of a jail."""

    command: tuple[str, ...] = ()
    """Arguments, the first an absolute path in the jail; it stays in the foreground. On FreeBSD, where a
    jail without one boots with /etc/rc, mostly empty."""
    user: str = ""
    """Name in the jail's own passwd(5) that it starts as; root when empty, for daemons that drop it."""
    environment: tuple[str, ...] = ()
    """Its environment besides PATH, as NAME=value."""
    capabilities: tuple[str, ...] = ()
    """Linux: what it keeps, as in capabilities(7), in lower case without 'cap_': net_bind_service."""
    rc_name: str = ""
    """FreeBSD, kind service: `name` of the service's script in rc.d; the jail's name when empty."""
    unit: str = ""
    """Linux, kind service: the unit of systemd; the jail's name with '.service' when empty."""
    engine: Literal["auto", "bwrap", "nspawn", "unit"] = "auto"
    """Linux: what keeps the jail; 'auto' is the first of bwrap and nspawn that is installed."""
    stop_signal: str = "TERM"
    """What ends it in good order."""
    stop_timeout: int = 10
    """Seconds between that and SIGKILL."""
    reload_signal: str = ""
    """What makes it read its configuration again; it cannot when empty."""
    ready: Ready = Ready()
    """How `start` knows that it works."""
    run: tuple[StateDirectory, ...] = ()
    """Linux: directories below run, a memory file system that is empty at each start."""
    ports: tuple[str, ...] = ()
    """PORT/tcp or PORT/udp: what it listens on."""
    rc_conf: tuple[str, ...] = ()
    """FreeBSD: settings of the jail's rc.conf(5) to start with, as for sysrc(8): named_enable=YES."""

    @property
    def variables(self) -> dict[str, str]:
        """Its environment besides PATH, by name."""
        return {name: value for name, _, value in (setting.partition("=") for setting in self.environment)}

    @property
    def all_capabilities(self) -> tuple[str, ...]:
        """Linux: what it keeps, and what it takes to become its user."""
        return tuple(dict.fromkeys((*self.capabilities, *(("setuid", "setgid") if self.user else ()))))


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network of a jail."""

    hostname: str = ""
    """Its host name; the jail's name when empty."""
    ip4: tuple[str, ...] = ("inherit",)
    """'inherit', 'disable', or addresses: ADDRESS or ADDRESS/PREFIX."""
    ip6: tuple[str, ...] = ("inherit",)
    """'inherit', 'disable', or addresses."""
    interface: str = ""
    """Where the addresses are added at start and removed at stop; they are there already when empty."""
    gateway: tuple[str, ...] = ()
    """Linux: the host's addresses on a link of the jail's own (veth(4)), one for each version of IP at most.
    The jail then has its own network, in which its addresses are. Nothing on FreeBSD."""
    external: str = ""
    """The host's interface to the outside, for `redirect` and `nat`."""
    nat: bool = False
    """The jail may begin connections to the outside, under the host's address there."""
    apply: bool = False
    """`start` applies the rules of `redirect` and `nat`, `stop` removes them; else they are only rendered."""

    @property
    def own_words(self) -> tuple[str, ...]:
        """The jail's own addresses as the profile says them; none where it has the host's or none at all."""
        return tuple(word for word in (*self.ip4, *self.ip6) if word not in {"inherit", "disable"})

    @property
    def own_addresses(self) -> tuple[str, ...]:
        """The same without their prefixes."""
        return tuple(word.partition("/")[0] for word in self.own_words)

    @property
    def is_of_host(self) -> bool:
        """The jail has the host's addresses, of one version of IP at least."""
        return "inherit" in (*self.ip4, *self.ip6)

    @property
    def is_none(self) -> bool:
        """The jail has no more than a loopback of its own."""
        return self.ip4 == self.ip6 == ("disable",)


class HostMount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A directory of the host that the jail sees, always without setuid files, devices and programs."""

    source: str
    """Absolute path on the host, outside ROOT."""
    target: str
    """Relative to the jail's root: home, var/log/named."""
    writable: bool = False
    """The jail may write there: into the host's own directory."""
    optional: bool = False
    """FreeBSD: the host boots even when it cannot be mounted (failok); a jail that jail(8)
    mounts does not start without it."""


class JailParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """FreeBSD: parameters of jail(8) that a profile may choose."""

    securelevel: int = -1
    """-1 to 3; -1 leaves it as the host's."""
    enforce_statfs: int = 2
    """0 to 2: which mounts the jail sees; 2 is nothing but its own root."""
    devfs_ruleset: int = 4
    """Ruleset of its /dev; 4 is devfsrules_jail."""
    allow: tuple[str, ...] = ()
    """Privileges, as in jail(8) without 'allow.': raw_sockets."""
    depend: tuple[str, ...] = ()
    """Jails that start before it and stop after it."""


class Confine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Kind service: what a service of the host keeps of it."""

    options: tuple[str, ...] = ()
    """Words of NAME_svcj_options in rc.conf(5): net_basic, mlock; without one of the network, no network."""
    ipaddrs: tuple[str, ...] = ()
    """FreeBSD: the addresses of the host that it may use; all of them when empty."""
    writable: tuple[str, ...] = ()
    """Linux: absolute paths below /usr, /boot or /etc that it may write nevertheless."""


class ExampleFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the minimal working configuration; written where none is, or the base's own, unchanged."""

    path: str
    """Relative to the jail's root, as the jail sees it: etc/bind/named.conf. Nothing that is shared."""
    text: str
    """The whole of it."""
    mode: str = "0644"
    """Octal permission bits."""
    owner: str = "root"
    """Name in the jail's own passwd(5)."""
    group: str = ""
    """Name in the jail's own group(5); root when empty."""


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A minimal working configuration to start from: `layout init --example`."""

    files: tuple[ExampleFile, ...] = ()
    """Written first."""
    commands: tuple[tuple[str, ...], ...] = ()
    """Then run one after the other in the confined session of `layout manage`: keys, databases."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a profile says for one platform."""

    state: tuple[StateDirectory, ...] = ()
    """Directories of t."""
    packages: tuple[str, ...] = ()
    """Packages that the base (Linux) or the jail's /usr/local (FreeBSD) needs."""
    service: Service = Service()
    """The daemon."""
    network: Network = Network()
    """The network."""
    redirect: tuple[Redirect, ...] = ()
    """Ports of the host that lead to the jail."""
    jail: JailParameters = JailParameters()
    """FreeBSD: parameters of jail(8)."""
    example: Example = Example()
    """A configuration to start from."""
    mounts: tuple[HostMount, ...] = ()
    """Directories of the host that the jail sees: osless, full and thin."""
    thin: Thin = Thin()
    """What the root of a thin jail is made from."""
    confine: Confine = Confine()
    """Kind service: what it keeps of the host."""
    osless: Osless = Osless()
    """kind = "osless": its one program."""
    full: Full = Full()
    """What the world of a full jail is made from."""


_OWN = ("etc", "root", "usr/local", "usr/X11R6", "var")
"""Where in a jail an example may put files: its own s and t, not what all jails share."""

_MODE = re.compile(r"0?[0-7]{3,4}")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")
_PORT = re.compile(r"([0-9]{1,5})/(tcp|udp)")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\0\n]*")
_HOSTNAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_INTERFACE = re.compile(r"[a-z][a-z0-9_.]{0,14}")


def check_settings(settings: Settings, where: str) -> None:
    """Make sure that the values make sense. Raises UsageError that names the key.

    A profile may come from a stranger: nothing of it reaches outside the jail that it describes.
    """
    for directory in settings.state:
        _check_directory(directory, f"{where}.state", ("var", "tmp"))
    for package in settings.packages:
        if not _PACKAGE.fullmatch(package):
            raise UsageError(f"{where}.packages", repr(package), "the name of a package")
    _check_service(settings.service, f"{where}.service")
    _check_network(settings.network, f"{where}.network")
    check_redirects(settings, where)
    _check_parameters(settings.jail, f"{where}.jail")
    for file in settings.example.files:
        _check_example(file, f"{where}.example.files")
    for command in settings.example.commands:
        _check_command(command, f"{where}.example.commands")
    for mount in settings.mounts:
        _check_mount(mount, f"{where}.mounts")
    check_thin(settings.thin, f"{where}.thin")
    check_full(settings.full, f"{where}.full")


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of ADDRESS:PORT or [ADDRESS]:PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    ipaddress.ip_address(bare)
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(text)
    if ":" in bare and bare == host:
        raise ValueError(text)
    return bare, int(port)


_OF_KERNEL = frozenset({"dev", "proc", "sys"})


def _check_mount(mount: HostMount, where: str) -> None:
    parts = mount.source.split("/")
    if (
        parts[0]
        or len(parts) < 2
        or {"", ".", ".."} & set(parts[1:])
        or re.search(r"[\0-\x1f]", mount.source)
    ):
        hint = "a directory of its own, not the whole host"
        raise UsageError(where, f"source {mount.source!r}", "an absolute path, without '.' or '..'", hint)
    if parts[1] in _OF_KERNEL:
        hint = "a jail has its own, or none; a directory of a disk can be shown"
        raise UsageError(where, f"source {mount.source!r}", "no file system of the kernel", hint)
    parts = mount.target.split("/")
    if {"", ".", ".."} & set(parts) or re.search(r"[\0-\x1f]", mount.target):
        raise UsageError(where, f"target {mount.target!r}", "a path relative to the jail's root")


def _check_directory(directory: StateDirectory, where: str, tops: tuple[str, ...]) -> None:
    _check_path(directory.path, where, tops)
    _check_mode(directory.mode, f"{where}: {directory.path}")
    for name in filter(None, (directory.owner, directory.group)):
        if not _WORD.fullmatch(name):
            raise UsageError(f"{where}: {directory.path}", f"owner or group {name!r}", "a name")


def _check_example(file: ExampleFile, where: str) -> None:
    _check_path(file.path, where, _OWN)
    _check_mode(file.mode, f"{where}: {file.path}")
    for name in filter(None, (file.owner, file.group)):
        if not _WORD.fullmatch(name):
            raise UsageError(f"{where}: {file.path}", f"owner or group {name!r}", "a name")


def _check_path(path: str, where: str, tops: tuple[str, ...]) -> None:
    below = f"a path below {' or '.join(tops)}"
    if {"", ".", ".."} & set(path.split("/")) or "\0" in path or not path.startswith(_slashed(tops)):
        raise UsageError(where, f"path {path!r}", f"{below}, without '.' or '..'")


def _slashed(tops: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{top}/" for top in tops)


def _check_mode(mode: str, where: str) -> None:
    if not _MODE.fullmatch(mode) or int(mode, 8) & 0o6000:
        raise UsageError(
            where, f"mode {mode!r}", "octal permission bits such as '0750', not setuid or setgid"
        )


def _check_command(command: tuple[str, ...], where: str) -> None:
    if not command or not command[0].startswith("/"):
        raise UsageError(where, repr(" ".join(command)), "arguments, the first an absolute path in the jail")
    if any("\0" in word or "\n" in word for word in command):
        raise UsageError(where, repr(command[0]), "arguments without newlines")


def _check_service(service: Service, where: str) -> None:
    if service.command:
        _check_command(service.command, f"{where}.command")
    if service.user and not _WORD.fullmatch(service.user):
        raise UsageError(f"{where}.user", repr(service.user), "a name of the jail's passwd(5)")
    signals = (service.stop_signal, *filter(None, (service.reload_signal,)))
    for key, words, is_good, expected in (
        ("environment", service.environment, _is_setting, "NAME=value"),
        ("rc_conf", service.rc_conf, _is_setting, "NAME=value"),
        ("capabilities", service.capabilities, _is_capability, _CAPABILITY),
        ("stop_signal", signals[:1], _is_signal, "the name of a signal, such as 'TERM'"),
        ("reload_signal", signals[1:], _is_signal, "the name of a signal, such as 'TERM'"),
        ("ports", service.ports, _is_port, "PORT/tcp or PORT/udp"),
    ):
        for word in words:
            if not is_good(word):
                near = difflib.get_close_matches(word.lower().removeprefix("cap_"), CAPABILITIES, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near and expected is _CAPABILITY else ""
                raise UsageError(f"{where}.{key}", repr(word), expected, hint)
    if service.stop_timeout < 0 or service.ready.timeout < 1:
        raise UsageError(where, "a time limit out of range", "seconds")
    _check_ready(service.ready, f"{where}.ready")
    for directory in service.run:
        _check_directory(directory, f"{where}.run", ("run",))


def _is_setting(word: str) -> bool:
    return _SETTING.fullmatch(word) is not None


def _is_capability(word: str) -> bool:
    return word in CAPABILITIES


def _is_signal(word: str) -> bool:
    return f"SIG{word}" in signal.Signals.__members__


def _is_port(word: str) -> bool:
    found = _PORT.fullmatch(word)
    return found is not None and 0 < int(found[1]) < 65536


def _check_ready(ready: Ready, where: str) -> None:
    if sum(map(bool, (ready.tcp, ready.socket, ready.command))) > 1:
        raise UsageError(where, "more than one of tcp, socket and command", "one of them")
    if ready.tcp:
        try:
            address_of(ready.tcp)
        except ValueError:
            raise UsageError(f"{where}.tcp", repr(ready.tcp), "ADDRESS:PORT or [ADDRESS]:PORT") from None
    if ready.socket and not ready.socket.startswith("/"):
        raise UsageError(f"{where}.socket", repr(ready.socket), "an absolute path in the jail")
    if ready.command:
        _check_command(ready.command, f"{where}.command")


def _check_network(network: Network, where: str) -> None:
    if network.hostname and not _HOSTNAME.fullmatch(network.hostname):
        raise UsageError(f"{where}.hostname", repr(network.hostname), "a host name")
    for key, name in (("interface", network.interface), ("external", network.external)):
        if name and not _INTERFACE.fullmatch(name):
            raise UsageError(f"{where}.{key}", repr(name), "the name of an interface")
    for key, version, words in (("ip4", 4, network.ip4), ("ip6", 6, network.ip6)):
        if words in {("inherit",), ("disable",)}:
            continue
        for word in words:
            try:
                if ipaddress.ip_interface(word).version != version:
                    raise ValueError
            except ValueError:
                raise UsageError(
                    f"{where}.{key}", repr(word), f"['inherit'], ['disable'] or IPv{version} addresses"
                ) from None


def _check_parameters(parameters: JailParameters, where: str) -> None:
    ranges = (
        ("securelevel", parameters.securelevel, -1, 3),
        ("enforce_statfs", parameters.enforce_statfs, 0, 2),
        ("devfs_ruleset", parameters.devfs_ruleset, 1, 65535),
    )
    for key, value, low, high in ranges:
        if not low <= value <= high:
            raise UsageError(f"{where}.{key}", str(value), f"a number from {low} to {high}")
    for key, words in (("allow", parameters.allow), ("depend", parameters.depend)):
        for word in words:
            if not _WORD.fullmatch(word):
                raise UsageError(f"{where}.{key}", repr(word), "names of jail(8)")
