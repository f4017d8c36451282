"""Full jails: what a profile says of a world of its own."""

from __future__ import annotations

import ipaddress
import re

import msgspec

from layout.core.errors import UsageError

_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.?")


class Full(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a world of a jail's own is made from, and what its resolv.conf(5) says first."""

    source: str = ""
    """Where the world comes from, as for --base, which wins; the site's `base` when empty."""
    nameservers: tuple[str, ...] = ()
    """Addresses of the name servers in its first resolv.conf(5)."""
    search: tuple[str, ...] = ()
    """Domains that names are looked up in."""


def check_full(full: Full, where: str) -> None:
    """Make sure that the values make sense. Raises UsageError that names the key."""
    if any(c < " " for c in full.source):
        raise UsageError(f"{where}.source", repr(full.source), "a source of a base")
    for address in full.nameservers:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise UsageError(f"{where}.nameservers", repr(address), "addresses") from None
    for domain in full.search:
        if not _DOMAIN.fullmatch(domain):
            raise UsageError(f"{where}.search", repr(domain), "domains")
