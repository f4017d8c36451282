"""Who listens on a port of this network namespace already."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from typing import NamedTuple

_LISTEN = "0A"
_OPEN = "07"
"""State of a UDP socket that is connected to nobody."""


class Listener(NamedTuple):
    """A socket that takes what comes to a port."""

    address: str
    port: int
    inode: str


def listeners(kind: str) -> list[Listener]:
    """Return who listens; `kind` is 'tcp' or 'udp'. See proc_net_tcp(5)."""
    wanted = _LISTEN if kind == "tcp" else _OPEN
    found = []
    for name in (kind, f"{kind}6"):
        try:
            with open(f"/proc/self/net/{name}", encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except FileNotFoundError:  # no IPv6 in this kernel
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == wanted:
                address, _, port = fields[1].partition(":")
                found.append(Listener(_address(address), int(port, 16), fields[9]))
    return found


def _address(text: str) -> str:
    """Decode an address: words of 32 bits in the machine's own order."""
    raw = b"".join(int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    return str(ipaddress.ip_address(raw))


def in_the_way(kind: str, port: int, address: str | None) -> Listener | None:
    """Return who keeps a service from listening on a port.

    With its address unknown only those count that listen on all addresses: another may have its own one.
    """
    for one in listeners(kind):
        everywhere = ipaddress.ip_address(one.address).is_unspecified
        if one.port == port and (everywhere or address in {one.address, "0.0.0.0", "::"}):  # noqa: S104
            return one
    return None


def owner(inode: str) -> tuple[int, str] | None:
    """Return process and program name that hold a socket, where /proc shows them."""
    wanted = f"socket:[{inode}]"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") == wanted:
                        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                            return int(pid), file.read().strip()
    return None


def holder(inode: str) -> str:
    """Return who holds a socket, in words."""
    found = owner(inode)
    return f"process {found[0]} ({found[1]})" if found else "a process that /proc does not show"


def first_unprivileged() -> int:
    """Return the first port that needs no capability (ip_unprivileged_port_start)."""
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 1024
