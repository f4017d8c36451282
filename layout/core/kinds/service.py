"""Kind service: words of NAME_svcj_options, the parameters of jail(8) that they are, and what forbids them.

A jail of this kind is a service of the host, whose tree it keeps: rc.subr(8) makes the jail svcj-NAME around
the service's own start command (rc.conf(5), FreeBSD 15).
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from layout.core.errors import UsageError
from layout.core.model import Jail, Platform
from layout.core.release import Release
from layout.core.service import Confine, Settings


class Word(NamedTuple):
    """One word of NAME_svcj_options."""

    parameters: tuple[str, ...]
    """Of jail(8), as rc.subr(8) spells them; ip4 and ip6 alone are what NAME_svcj_ipaddrs makes of them."""
    gives: str
    since: Release = Release(15, 0)
    """The first release whose rc.subr(8) has it."""


_IP4, _IP6 = ("ip4", "allow.reserved_ports"), ("ip6", "allow.reserved_ports")
_NEWER = Release(15, 1)

WORDS = {
    "mlock": Word(("allow.mlock",), "to lock memory"),
    "netv4": Word(_IP4, "the host's IPv4 addresses, with the ports below 1024"),
    "netv6": Word(_IP6, "the host's IPv6 addresses, with the ports below 1024"),
    "net_basic": Word((*_IP4, "ip6"), "the host's IPv4 and IPv6 addresses, with the ports below 1024"),
    "net_raw": Word(("allow.raw_sockets",), "raw sockets"),
    "net_all": Word(
        ("allow.socket_af", "allow.raw_sockets", *_IP4, "ip6"), "all families of addresses, and raw sockets"
    ),
    "nfsd": Word(("allow.nfsd", "enforce_statfs=1"), "to serve NFS"),
    "sysvipc": Word(("sysvmsg=inherit", "sysvsem=inherit", "sysvshm=inherit"), "the host's System V IPC"),
    "sysvipcnew": Word(("sysvmsg=new", "sysvsem=new", "sysvshm=new"), "a System V IPC of its own"),
    "vmm": Word(("allow.vmm",), "to run virtual machines"),
    "routing": Word(("allow.routing",), "to change the routing table", _NEWER),
    "settime": Word(("allow.settime", "allow.adjtime"), "to set the clock", _NEWER),
}

_ADDRESSES = {"netv4", "netv6", "net_basic", "net_all"}
"""Words that give the service addresses at all."""

NOT_GIVEN = "the file system is the host's: it reads and writes what its user may on the host"
"""What this design does not give, said wherever the jail is described."""

UNFIT = {
    name: why
    for why, names in (
        (
            "it mounts file systems",
            "mountcritlocal mountcritremote mountlate zfs zfsbe zpool swap root tmp var",
        ),
        ("it mounts file systems", "automount automountd autounmountd devfs linux cleanvar fsck mdconfig"),
        ("it starts jails itself", "jail"),
        ("it configures the host's network", "netif routing pf pflog ipfw ipfilter ipnat ipmon dhclient"),
        ("it configures the kernel", "kld kldxref sysctl sysctl_lastload hostid hostname securelevel devd"),
        ("it needs /dev/mem or /dev/kmem, which no jail has", "gdm lightdm sddm slim xdm savecore powerd"),
    )
    for name in names.split()
}
"""Services that no jail can hold, by the name in rc.d: why. Those of ports pin NAME_svcj=NO themselves."""

_RC_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME_LINE = re.compile(r"^[ \t]*name=[\"']?([A-Za-z_][A-Za-z0-9_]*)[\"']?[ \t]*(?:;|#|$)", re.MULTILINE)


# --- what a profile may say ---------------------------------------------------------------------------------


def check(settings: Settings, platform: Platform, where: str) -> None:
    """Make sure that a profile's words go together. Raises UsageError that names the key."""
    confine, service = settings.confine, settings.service
    _check_words(confine.options, f"{where}.confine.options")
    if service.rc_name and not _RC_NAME.fullmatch(service.rc_name):
        raise UsageError(f"{where}.service.rc_name", repr(service.rc_name), "a name that sh(1) takes")
    if service.unit and not re.fullmatch(r"[A-Za-z0-9:_.\\@-]+\.service", service.unit):
        raise UsageError(f"{where}.service.unit", repr(service.unit), "the name of a .service unit")
    _check_addresses(confine, platform, f"{where}.confine.ipaddrs")
    key = f"{where}.confine.writable"
    if confine.writable and platform is not Platform.LINUX:
        raise UsageError(key, "paths on FreeBSD", "none: there the file system is as the host's user sees it")
    for path in confine.writable:
        parts = path.split("/")
        if parts[0] or len(parts) < 2 or {"", ".", ".."} & set(parts[1:]) or not path.isprintable():
            raise UsageError(key, repr(path), "an absolute path, without '.' or '..'")
    for name, given in (("command", service.command), ("user", service.user), ("run", service.run)):
        if given:
            hint = "rc.d or the unit says how it is started"
            raise UsageError(f"{where}.service.{name}", "a value for kind service", "none", hint)


def _check_words(words: Sequence[str], where: str) -> None:
    for index, word in enumerate(words):
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise UsageError(where, f"unknown word {word!r}", f"one of: {' '.join(WORDS)}", hint)
        if word in words[:index]:
            raise UsageError(where, f"{word!r} twice", "each word once")
    given = set(words)
    if {"netv4", "netv6"} <= given:
        hint = "take 'net_basic', which is both"
        raise UsageError(where, "'netv4' and 'netv6'", "one of them, or 'net_basic'", hint)
    for wide in ("net_all", "net_basic"):
        narrow = sorted(given & {"netv4", "netv6", "net_basic"} - {wide})
        if wide in given and narrow:
            hint = f"take {narrow[0]!r} out"
            raise UsageError(where, f"{wide!r} and {narrow[0]!r}, which it has in it", "one of them", hint)
    if {"net_all", "net_raw"} <= given:
        hint = "take 'net_raw' out"
        raise UsageError(where, "'net_all' and 'net_raw', which it has in it", "one of them", hint)
    if {"sysvipc", "sysvipcnew"} <= given:
        raise UsageError(where, "'sysvipc' and 'sysvipcnew'", "the host's System V IPC or one of its own")


def _check_addresses(confine: Confine, platform: Platform, where: str) -> None:
    if not confine.ipaddrs:
        return
    if platform is not Platform.FREEBSD:
        hint = "let the service itself listen on one, or take kind full"
        raise UsageError(where, "addresses", "none: systemd binds no service to addresses", hint)
    families = []
    for text in confine.ipaddrs:
        try:
            families.append(ipaddress.ip_address(text).version)
        except ValueError:
            raise UsageError(where, repr(text), "an IPv4 or IPv6 address of the host") from None
    given = set(confine.options)
    if not given & _ADDRESSES:
        hint = "add 'net_basic' to options, or take the addresses out"
        raise UsageError(where, "addresses without a network", "a word that gives one", hint)
    for word, version in (("netv4", 6), ("netv6", 4)):
        if word in given and version in families:
            raise UsageError(where, f"an IPv{version} address beside {word!r}", f"IPv{10 - version} only")


# --- what it turns into -------------------------------------------------------------------------------------


def service_name(jail: Jail) -> str:
    """Return the name of the service in rc.d. Raises UsageError for one that rc.subr(8) cannot have."""
    name = jail.settings.service.rc_name or jail.name
    if not _RC_NAME.fullmatch(name):
        hint = "say `service.rc_name` in the profile"
        raise UsageError(jail.name, "a name that rc.subr(8) cannot have", "letters, digits and '_'", hint)
    return name


def prison_name(name: str) -> str:
    """Return the name of the jail that rc.subr(8) makes for a service."""
    return f"svcj-{name}"


def variables(jail: Jail) -> dict[str, str]:
    """Return what rc.conf(5) has to say of the service, and nothing else about its jail.

    No options are a blank, not nothing: `: ${NAME_svcj_options:=net_basic}` of a script takes the place of
    an empty value, and the service would have a network.
    """
    name = service_name(jail)
    confine = jail.settings.confine
    wanted = {f"{name}_svcj": "YES", f"{name}_svcj_options": " ".join(confine.options) or " "}
    if confine.ipaddrs:
        wanted[f"{name}_svcj_ipaddrs"] = " ".join(confine.ipaddrs)
    return wanted


def all_variables(name: str) -> tuple[str, ...]:
    """Return every variable of rc.conf(5) that says something of a service's jail."""
    return (f"{name}_svcj", f"{name}_svcj_options", f"{name}_svcj_ipaddrs")


def parameters(confine: Confine) -> dict[str, str]:
    """Return what rc.subr(8) gives to jail(8) for these options, besides path=/ and host=inherit."""
    how = "new" if confine.ipaddrs else "inherit"
    found: dict[str, str] = {}
    for word in confine.options:
        for parameter in WORDS[word].parameters:
            name, _, value = parameter.partition("=")
            found[name] = value or (how if name in {"ip4", "ip6"} else "true")
    for version in (4, 6):
        ours = [text for text in confine.ipaddrs if ipaddress.ip_address(text).version == version]
        if ours and f"ip{version}" in found:
            found[f"ip{version}.addr"] = ",".join(ours)
    return found


_WITHHELD = {
    parameter: "disable" if parameter in {"ip4", "ip6"} else "false"
    for word in WORDS.values()
    for parameter in word.parameters
    # Of these a jail has the one by default, and the other's default is stricter.
    if parameter != "allow.reserved_ports" and "=" not in parameter
} | dict.fromkeys(("sysvmsg", "sysvsem", "sysvshm"), "disable")


_LIMITS = {"enforce_statfs": "2", "children.max": "0", "allow.chflags": "false", "allow.mount": "false"}
"""What every jail lacks, whatever its options."""


def expected(confine: Confine) -> dict[str, str]:
    """Return the parameters of the running jail, those that it must not have included."""
    return _WITHHELD | _LIMITS | parameters(confine)


def spelled(confine: Confine) -> str:
    """Return the parameters in a line, for a person."""
    words = [name if value == "true" else f"{name}={value}" for name, value in parameters(confine).items()]
    return " ".join(words) or "nothing: no network, no privileges"


def explained(confine: Confine) -> list[str]:
    """Say what each word gives, and the parameters of jail(8) that it is."""
    return [f"{word}: {WORDS[word].gives} ({' '.join(WORDS[word].parameters)})" for word in confine.options]


def remarks(confine: Confine, platform: Platform) -> list[str]:
    """Say what these options mean that somebody may not expect; the last one is what the design lacks."""
    said = []
    given = set(confine.options)
    if not given & _ADDRESSES:
        also = ", so its raw sockets lead nowhere" if "net_raw" in given else ""
        said.append(f"no word of the network is among its options: it has no network at all{also}")
    if "nfsd" in given and "vmm" in given:
        said.append("'nfsd' and 'vmm' together are most of what a jail takes away")
    if platform is Platform.FREEBSD and "vmm" in given:
        said.append("'vmm' needs vmm(4) loaded: kldload vmm")
    return [*said, NOT_GIVEN]


# --- what the host has --------------------------------------------------------------------------------------


def check_release(confine: Confine, release: Release, where: str) -> None:
    """Make sure that a release's rc.subr(8) knows all words. Raises UsageError."""
    for word in confine.options:
        since = WORDS[word].since
        if release < since:
            found = f"{word!r} on FreeBSD {release.major}.{release.minor}"
            expected_ = f"words that it knows; this one came with {since.major}.{since.minor}"
            hint = "rc.subr(8) would only warn of it, and start the service without"
            raise UsageError(where, found, expected_, hint)


def unknown_words(confine: Confine, rc_subr: str) -> list[str]:
    """Return the words that a host's own rc.subr(8), by its text, does nothing for."""
    return [
        word for word in confine.options if not re.search(rf"^[ \t]*{word}[ \t]*\)", rc_subr, re.MULTILINE)
    ]


def has_service_jails(rc_subr: str) -> bool:
    """Say whether an rc.subr(8) knows service jails at all: 14.x does not."""
    return "_svcj" in rc_subr


def script_name(script: str) -> str:
    """Return what a script of rc.d calls its service; "" when it does not say."""
    found = _NAME_LINE.search(script)
    return found[1] if found else ""


def why_not(name: str, script: str) -> str:
    """Say why a service cannot be in a jail, by its name and the text of its script; "" when it can."""
    if name in UNFIT:
        return UNFIT[name]
    pin = re.compile(rf"^[ \t]*(?:: *\$\{{)?{name}_svcj(?::?=)[\"']?(NO|FALSE|OFF|0)\b", re.MULTILINE | re.I)
    return (
        "its own script pins it out of one: it mounts, or configures the host" if pin.search(script) else ""
    )


def differing(wanted: Iterable[tuple[str, str]], now: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return each parameter of a running jail that is not as it should be: name, as it is, as it should be.

    Words of addresses are compared as sets. A parameter that the kernel does not have is not given either.
    """
    found = []
    for name, value in wanted:
        is_ = now.get(name, "false" if value == "false" else "disable" if value == "disable" else "nothing")
        same = set(is_.split(",")) == set(value.split(",")) if name.endswith(".addr") else is_ == value
        if not same:
            found.append((name, is_, value))
    return found
