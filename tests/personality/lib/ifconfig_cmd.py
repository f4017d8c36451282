"""ifconfig(8): list interfaces, make and destroy lo(4) ones, and their aliases (facts 2.5, 2.9)."""

from __future__ import annotations

import _socket
import os
import re
import sys

import options as getopt
import state as kept

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any

USAGE = (
    "usage: ifconfig [-a] [-l] [interface]\n"
    "       ifconfig interface create|destroy|up\n"
    "       ifconfig interface inet|inet6 address[/prefix] [netmask mask] [alias|-alias]"
)


def warn(text: str) -> int:
    print(f"ifconfig: {text}", file=sys.stderr)
    return 1


def _usage() -> int:
    print(USAGE, file=sys.stderr)
    return 1


def _shown(name: str, addresses: list[str], prefixes: dict[str, int]) -> str:
    flags = (
        "8049<UP,LOOPBACK,RUNNING,MULTICAST>"
        if name.startswith("lo")
        else "8843<UP,BROADCAST,RUNNING,SIMPLEX,MULTICAST>"
    )
    lines = [f"{name}: flags={flags} metric 0 mtu {16384 if name.startswith('lo') else 1500}"]
    for address in addresses:
        if ":" in address:
            lines.append(f"\tinet6 {address} prefixlen {prefixes.get(address, 128)}")
        else:
            bits = prefixes.get(address, 8 if address.startswith("127.") else 32)
            lines.append(f"\tinet {address} netmask 0x{(0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF:08x}")
    return "\n".join(lines)


def _list(state: dict[str, Any], flags: set[str], names: list[str]) -> int:
    if "-l" in flags:
        print(" ".join(state["interfaces"]))
        return 0
    for name in names or state["interfaces"]:
        if name not in state["interfaces"]:
            return warn(f"interface {name} does not exist")
        print(_shown(name, state["interfaces"][name], state["prefixes"]))
    return 0


def _prefix(family: str, text: str, mask: list[str]) -> tuple[str, int] | None:
    """The address and its prefix; None if it is none."""
    address, slash, bits = text.partition("/")
    most = 128 if family == "inet6" else 32
    try:
        _socket.inet_pton(_socket.AF_INET6 if family == "inet6" else _socket.AF_INET, address)
        if mask:
            if slash or family == "inet6":
                return None
            packed = int.from_bytes(_socket.inet_aton(mask[0]), "big") if "." in mask[0] else int(mask[0], 16)
            return address, bin(packed).count("1")
        if slash and not (bits.isdigit() and int(bits) <= most):
            return None
    except (OSError, ValueError):
        return None
    return address, int(bits) if slash else most


def _change(state: dict[str, Any], name: str, words: list[str]) -> int:
    interfaces = state["interfaces"]
    if words == ["create"]:
        if not re.fullmatch(r"lo[0-9]+", name):
            return warn("SIOCIFCREATE2 (only lo(4) can be made here): Invalid argument")
        if name in interfaces:
            return warn(f"interface {name} already exists")
        interfaces[name] = []
        return 0
    if name not in interfaces:
        return warn(f"interface {name} does not exist")
    if words == ["up"]:
        return 0
    if words == ["destroy"]:
        if not re.fullmatch(r"lo[1-9][0-9]*", name):
            return warn("SIOCIFDESTROY: Invalid argument")
        del interfaces[name]
        return 0
    shape = re.fullmatch(r"(inet6?) (\S+)(?: netmask (\S+))?(?: (alias|-alias))?", " ".join(words))
    if not shape:
        return _usage()
    family, text, mask, what = shape.groups()
    found = _prefix(family, text, [mask] if mask else [])
    if not found:
        return warn(f"{text}: bad value")
    address, bits = found
    if what == "-alias":
        if address not in interfaces[name]:
            return warn("ioctl (SIOCDIFADDR): Can't assign requested address")
        interfaces[name].remove(address)
        return 0
    if address not in interfaces[name]:
        interfaces[name].append(address)
    state["prefixes"][address] = bits
    return 0


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "al")
    except getopt.GetoptError as error:
        print(f"ifconfig: illegal option -- {error.opt}", file=sys.stderr)
        return _usage()
    flags = {flag for flag, _ in given}
    with kept.locked() as state:
        if len(rest) <= 1 and not ({"-a", "-l"} <= flags or (flags and rest)):
            return _list(state, flags, rest)
        if flags or not rest:
            return _usage()
        if os.geteuid() != 0:
            return warn("ioctl: Operation not permitted")
        return _change(state, rest[0], rest[1:])
